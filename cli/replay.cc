#include "cli/replay.h"

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/replay_gradient.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/numerics/fingerprint.h"
#include "common/saved_model/canonical_hash.h"
#include "common/saved_model/start_from.h"
#include "common/storage/storage.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "server/checkpoint/cut_reader.h"
#include "server/process/node_options.h"
#include "worker/loop/worker_data.h"

namespace descent {
namespace {

absl::Span<const float> FloatsAt(const std::vector<std::byte>& bytes, size_t offset, size_t count) {
  return absl::MakeConstSpan(reinterpret_cast<const float*>(bytes.data() + offset), count);
}

absl::Status ReadSummary(const std::string& path, ReplayOutcome* out) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not there: the run has not ended"));
  }
  if (!text.ok()) return text.status();
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto hash = [&json](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
  };
  out->recorded_sha256 = hash("parameters_sha256");
  out->recorded_state_sha256 = hash("state_sha256");
  if (out->recorded_sha256.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " names no parameters_sha256: no model was saved"));
  }
  return absl::OkStatus();
}

absl::StatusOr<RecordedBlock> Recorded(const std::vector<TensorSpec>& tensors, BlockId id, const v1::CutRecord& record,
                                       uint32_t ranks, bool apply_push) {
  absl::StatusOr<BlockOrder> order = DecodeOrder(record.order(), ranks);
  const auto wrong = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(BlockName(tensors, id), ": ", what));
  };
  if (!order.ok()) return wrong(order.status().message());
  const OrderKind kind = !apply_push                       ? OrderKind::kRound
                         : tensors[id.tensor.value].sparse ? OrderKind::kSlot
                                                           : OrderKind::kDense;
  if (order->kind != kind) return wrong("its order is of another kind than the block");
  if (apply_push && order->steps_made() != record.version()) {
    return wrong(absl::StrCat("its order has ", order->steps_made(), " pushes, but its version is ", record.version()));
  }
  return RecordedBlock{*std::move(order), record.version(), record.steps()};
}

// The first block whose bytes are not the cut's; "": all are.
absl::StatusOr<std::string> FirstDifference(const ReplayInput& input, const CutReader& cut, bool apply_push) {
  std::string different;
  std::optional<BlockId> open;  // a slot whose rows come in several records is told by its hash alone
  const auto compare = [&](const v1::CutRecord& record, const Payload& payload) -> absl::Status {
    const BlockId id{TensorId(record.tensor()), record.index()};
    const bool several = record.more() || open == id;
    open.reset();
    if (record.more()) open = id;
    if (!different.empty() || several) return absl::OkStatus();
    if (apply_push && cut.layout().tensors[id.tensor.value].sparse) {
      input.store->SetSlotSteps(input.blocks.at(id).steps);
    }
    DESCENT_ASSIGN_OR_RETURN(const BlockExport image, input.store->Export(id, true));
    std::vector<std::byte> got(image.payload.size()), want(payload.size());
    image.payload.CopyTo(got.data());
    payload.CopyTo(want.data());
    if (got != want) different = BlockName(cut.layout().tensors, id);
    return absl::OkStatus();
  };
  DESCENT_RETURN_IF_ERROR(cut.ForEach([](BlockId) { return true; }, compare));
  return different;
}

}  // namespace

absl::StatusOr<ReplayedHashes> HashStore(const ReplayInput& input, bool apply_push) {
  CanonicalHash parameters, state;
  const std::vector<TensorSpec>& tensors = input.model->tensors();
  std::optional<uint32_t> tensor;
  std::vector<std::byte> bytes;
  for (const auto& [id, recorded] : input.blocks) {
    const TensorSpec& spec = tensors[id.tensor.value];
    if (spec.sparse && apply_push) input.store->SetSlotSteps(recorded.steps);
    DESCENT_ASSIGN_OR_RETURN(const BlockExport image, input.store->Export(id, true));
    if (tensor != id.tensor.value) {
      tensor = id.tensor.value;
      parameters.Begin(spec);
      state.Begin(spec, image.state_slots);
    }
    bytes.resize(image.payload.size());
    image.payload.CopyTo(bytes.data());
    const size_t vectors = 1 + size_t{image.state_slots};
    if (!spec.sparse) {
      const size_t elements = bytes.size() / sizeof(float) / vectors;
      const bool average = input.averaged && spec.role == TensorRole::kTrainable;  // the last vector of state
      parameters.Floats(FloatsAt(bytes, average ? image.state_slots * elements * sizeof(float) : 0, elements));
      for (size_t v = 0; v < vectors; ++v) state.Floats(FloatsAt(bytes, v * elements * sizeof(float), elements));
      continue;
    }
    const size_t dim = spec.dim(), rows_at = image.keys * sizeof(uint64_t);
    for (size_t k = 0; k < image.keys; ++k) {
      const uint64_t key = reinterpret_cast<const uint64_t*>(bytes.data())[k];
      parameters.Key(key);
      parameters.Floats(FloatsAt(bytes, rows_at + k * dim * sizeof(float), dim));
      state.Key(key);
      for (size_t v = 0; v < vectors; ++v) {
        state.Floats(FloatsAt(bytes, rows_at + (v * image.keys + k) * dim * sizeof(float), dim));
      }
    }
  }
  return ReplayedHashes{parameters.Finish(), state.Finish()};
}

absl::StatusOr<ReplayOutcome> ReplayRun(const ReplayOptions& options) {
  ReplayOutcome out;
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec job, ReadJobFile(JoinPath(options.run_dir, "job.textproto")));
  if (!job.record_order()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.run_dir, ": the run recorded no order; `record_order: true` in its job would have"));
  }
  DESCENT_RETURN_IF_ERROR(ReadSummary(JoinPath(options.run_dir, "summary.json"), &out));
  const std::string checkpoints =
      job.checkpoint().path().empty() ? JoinPath(options.run_dir, "checkpoints") : job.checkpoint().path();
  const std::unique_ptr<Storage> storage = MakePosixStorage(std::filesystem::absolute(checkpoints).string());
  CheckpointFolder folder(storage.get());
  DESCENT_ASSIGN_OR_RETURN(const NewestCut newest, folder.FindNewestGood(std::nullopt, JobFingerprint(job)));
  for (const Cut& bad : newest.bad) {
    if (bad.committed) absl::StrAppend(&out.note, bad.name, " can't be used: ", bad.status.message(), "\n");
  }
  if (!newest.good.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat(out.note, checkpoints, ": no cut of this job that can be used, so no order to replay"));
  }
  out.cut = newest.good->name;
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> cut, CutReader::Open(storage.get(), out.cut));

  DESCENT_ASSIGN_OR_RETURN(const WorkerData data,
                           OpenWorkerData(job, options.data_root, CacheDirOf(job, "", options.user_cache), {}));
  if (cut->layout().tensors != data.model->tensors()) {
    return absl::FailedPreconditionError(
        absl::StrCat(out.cut, ": its tensors are not those of the model: are these the data of the run?"));
  }
  const NumericsFingerprint here = ComputeNumericsFingerprint("");
  if (cut->manifest().numerics().build() != here.build || cut->manifest().numerics().probe() != here.probe) {
    absl::StrAppend(&out.note, "the run was computed by ", cut->manifest().numerics().build(), ", this is ", here.build,
                    ": the bits may differ\n");
  }
  DESCENT_ASSIGN_OR_RETURN(StoreOptions store_options, StoreOptionsOf(job, ClocksPerEpoch(job, data.epoch_rows)));
  store_options.cuts = false;
  if (!job.start_from().empty()) {
    DESCENT_ASSIGN_OR_RETURN(store_options.start, OpenStart(job, [&out](const std::string& note) {
                               absl::StrAppend(&out.note, note, "\n");
                             }));
  }
  store_options.tensors = data.model->tensors();
  store_options.map = MakePartitionMap(store_options.tensors, store_options.geometry, 1);
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<BlockStore> store, BlockStore::Create(store_options));
  ReplayInput input;
  input.store = store.get();
  input.model = data.model.get();
  input.batches = data.batches.get();
  std::optional<LocalSteps> local_steps;
  if (const auto local = LocalStepsOf(job)) input.local_steps = &local_steps.emplace(*local);
  input.geometry = store_options.geometry;
  input.ranks = job.ranks();
  input.staleness = ConsistencyOf(job).staleness;
  input.changes = ConsistencyOf(job).changes;
  input.tells_reads = ConsistencyOf(job).tells_reads();
  input.averaged = EvaluatesAverages(job);
  input.encoding = EncodingOf(job);
  const bool push = store_options.apply_push;
  const auto take = [&](const v1::CutRecord& record, const Payload&) -> absl::Status {
    const BlockId id{TensorId(record.tensor()), record.index()};
    if (input.blocks.contains(id)) return absl::OkStatus();  // further rows of a slot
    DESCENT_ASSIGN_OR_RETURN(input.blocks[id], Recorded(store_options.tensors, id, record, job.ranks(), push));
    return absl::OkStatus();
  };
  DESCENT_RETURN_IF_ERROR(cut->ForEach([](BlockId) { return true; }, take));
  DESCENT_RETURN_IF_ERROR(push ? ReplayPushes(input, &out.counts) : ReplayRounds(input, &out.counts));
  DESCENT_ASSIGN_OR_RETURN(out.replayed, HashStore(input, push));
  if (!out.equal()) {
    DESCENT_ASSIGN_OR_RETURN(const std::string different, FirstDifference(input, *cut, push));
    absl::StrAppend(&out.note,
                    different.empty()
                        ? absl::StrCat(out.cut, " is as replayed, but the model was saved at another moment\n")
                        : absl::StrCat("the first block that differs from ", out.cut, ": ", different, "\n"));
  }
  return out;
}

}  // namespace descent
