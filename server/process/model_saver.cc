#include "server/process/model_saver.h"

#include <grpcpp/grpcpp.h>

#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/features/fitted_features.h"
#include "common/job/job.h"
#include "common/job/loss_spec.h"
#include "common/job/model_spec.h"
#include "common/net/grpc_channel.h"
#include "common/saved_model/canonical_hash.h"
#include "common/saved_model/model_writer.h"
#include "descent/v1/parameter.grpc.pb.h"
#include "server/process/node_options.h"

namespace descent {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(10);  // for one tensor of one server

// One server's blocks or slots of one tensor, ascending, as they come.
class ExportStream {
 public:
  ExportStream(v1::ParameterService::Stub* stub, std::string address, const v1::ExportRequest& request)
      : address_(std::move(address)) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    reader_ = stub->Export(&context_, request);
  }
  ~ExportStream() { context_.TryCancel(); }

  // The next image, which must be of `index`.
  absl::Status Next(uint32_t index, v1::BlockImage* image) {
    if (!reader_->Read(image)) {
      const absl::Status status = FromGrpc(reader_->Finish());
      return absl::UnavailableError(
          absl::StrCat("server at ", address_, " could not be read: ",
                       status.ok() ? absl::StrCat("it sent no block ", index) : std::string(status.message())));
    }
    if (image->index() != index) {
      return absl::InternalError(
          absl::StrCat("server at ", address_, " sent block ", image->index(), ", expected ", index));
    }
    return absl::OkStatus();
  }

 private:
  const std::string address_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::BlockImage>> reader_;
};

absl::Span<const float> Floats(const std::string& payload, size_t offset, size_t count) {
  return absl::MakeConstSpan(reinterpret_cast<const float*>(payload.data() + offset), count);
}

class Saver {
 public:
  Saver(const SaveModelRequest& request, ModelWriter* writer) : request_(request), writer_(writer) {
    for (const std::string& address : request.addresses) {
      stubs_.push_back(v1::ParameterService::NewStub(MakeChannel(address, Lane::kBulk)));
    }
  }

  absl::StatusOr<SavedModelInfo> Run() {
    const Geometry geometry = GeometryOf(request_.job);
    for (uint32_t t = 0; t < request_.tensors.size(); ++t) {
      const TensorSpec& spec = request_.tensors[t];
      std::vector<std::unique_ptr<ExportStream>> streams;
      for (uint32_t s = 0; s < stubs_.size(); ++s) {
        v1::ExportRequest request;
        request.mutable_envelope()->set_protocol(request_.envelope.protocol);
        request.mutable_envelope()->set_job(request_.envelope.job);
        request.mutable_envelope()->set_run(request_.envelope.run.value);
        request.mutable_envelope()->set_generation(request_.envelope.generation.value);
        request.mutable_envelope()->set_map_epoch(request_.envelope.map_epoch);
        request.set_tensor(t);
        request.set_first(0);
        request.set_last(geometry.blocks(spec));
        request.set_with_state(true);
        streams.push_back(std::make_unique<ExportStream>(stubs_[s].get(), request_.addresses[s], request));
      }
      for (uint32_t b = 0; b < geometry.blocks(spec); ++b) {
        const ServerId server = request_.map.server({TensorId(t), b});
        v1::BlockImage image;
        bool first = b == 0;
        do {
          DESCENT_RETURN_IF_ERROR(streams[server.value]->Next(b, &image));
          DESCENT_RETURN_IF_ERROR(CheckClock(spec, image));
          if (std::exchange(first, false)) state_hash_.Begin(spec, image.state_slots());
          DESCENT_RETURN_IF_ERROR(spec.sparse ? TakeRows(TensorId(t), spec, image)
                                              : TakeBlock(TensorId(t), spec, geometry.block_size(spec, b), image));
        } while (image.more());
      }
    }
    DESCENT_ASSIGN_OR_RETURN(info_.parameters_sha256, writer_->Finish());
    info_.state_sha256 = state_hash_.Finish();
    return info_;
  }

 private:
  // Under ROUND a block's version is its clock, and a model is of one clock. All pushes of the clocks before are there;
  // where steps wait for sums over all servers the last one may not be made yet: UNAVAILABLE.
  absl::Status CheckClock(const TensorSpec& spec, const v1::BlockImage& image) {
    if (ConsistencyOf(request_.job).apply_push) return absl::OkStatus();
    if (image.version() < request_.clock) {
      return absl::UnavailableError(absl::StrCat("tensor '", spec.name, "' block ", image.index(), " is at clock ",
                                                 image.version(), " and makes its last step, to clock ",
                                                 request_.clock));
    }
    if (!clock_.has_value()) clock_ = image.version();
    if (image.version() == *clock_) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("the model is not of one clock: tensor '", spec.name, "' block ",
                                                      image.index(), " is at clock ", image.version(),
                                                      ", what came before it at ", *clock_));
  }

  absl::Status CheckSize(const v1::BlockImage& image, size_t expected) const {
    if (image.payload().size() == expected) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("image of tensor ", image.tensor(), ", block ", image.index(), " has ",
                                            image.payload().size(), " bytes, expected ", expected));
  }

  absl::Status TakeBlock(TensorId tensor, const TensorSpec& spec, size_t elements, const v1::BlockImage& image) {
    const size_t bytes = elements * sizeof(float);
    DESCENT_RETURN_IF_ERROR(CheckSize(image, bytes * (1 + image.state_slots())));
    const uint32_t of_model = VectorOfModel(request_.job, spec, image.state_slots());
    const absl::Span<const float> values = Floats(image.payload(), of_model * bytes, elements);
    DESCENT_RETURN_IF_ERROR(writer_->AppendDense(tensor, values));
    AddNorms(spec, values);
    for (uint32_t vector = 0; vector <= image.state_slots(); ++vector) {
      state_hash_.Floats(Floats(image.payload(), vector * bytes, elements));
    }
    return absl::OkStatus();
  }

  absl::Status TakeRows(TensorId table, const TensorSpec& spec, const v1::BlockImage& image) {
    const size_t keys = image.keys(), dim = spec.dim();
    DESCENT_RETURN_IF_ERROR(
        CheckSize(image, keys * (sizeof(uint64_t) + (1 + image.state_slots()) * dim * sizeof(float))));
    const auto* key = reinterpret_cast<const uint64_t*>(image.payload().data());
    const size_t rows_at = keys * sizeof(uint64_t);
    const absl::Span<const float> rows = Floats(image.payload(), rows_at, keys * dim);
    DESCENT_RETURN_IF_ERROR(writer_->AppendRows(table, absl::MakeConstSpan(key, keys), rows));
    AddNorms(spec, rows);
    for (size_t k = 0; k < keys; ++k) {
      state_hash_.Key(key[k]);
      for (uint32_t vector = 0; vector <= image.state_slots(); ++vector) {
        state_hash_.Floats(Floats(image.payload(), rows_at + (vector * keys + k) * dim * sizeof(float), dim));
      }
    }
    return absl::OkStatus();
  }

  void AddNorms(const TensorSpec& spec, absl::Span<const float> values) {
    if (!spec.decay) return;
    // Where the norms of rows are of interest, none is in two blocks.
    const uint64_t row = spec.row_elements();
    for (size_t begin = 0; begin < values.size(); begin += row) {
      double of_row = 0;
      for (float v : values.subspan(begin, row)) {
        of_row += static_cast<double>(v) * v;
        info_.decayed_absolute += std::fabs(v);
      }
      info_.decayed_square += of_row;
      info_.decayed_rows += std::sqrt(of_row);
    }
  }

  const SaveModelRequest& request_;
  ModelWriter* const writer_;
  std::vector<std::unique_ptr<v1::ParameterService::Stub>> stubs_;
  CanonicalHash state_hash_;
  std::optional<uint64_t> clock_;
  SavedModelInfo info_;
};

}  // namespace

absl::StatusOr<SavedModelInfo> SaveModel(const SaveModelRequest& request) {
  ModelDescription description;
  description.job_text = JobText(request.job);
  description.specs = request.tensors;
  description.seed = request.job.seed();
  description.slots = GeometryOf(request.job).slots;
  description.sparse = request.job.data().train().has_libsvm();
  const v1::ModelSpec& model = request.job.model();
  if (LabelOf(LossOf(model)) == LossLabel::kClass) description.classes = ClassesOf(model);
  description.clock = request.clock;
  if (request.job.data().has_features()) description.fitted = FeaturesToJson(request.features);
  description.threshold = request.threshold;
  if (!request.tensors.empty() && !request.tensors[0].sparse) {
    description.features = FeaturesOf(model, request.tensors[0].shape[0]);
  }
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<ModelWriter> writer,
                           ModelWriter::Begin(request.directory, std::move(description)));
  return Saver(request, writer.get()).Run();
}

}  // namespace descent
