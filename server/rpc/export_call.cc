// One call of ParameterService.Export: a block or slot at a time, one message per event, so that the data path is never
// held up for long.
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/grpc_bytes.h"
#include "common/net/grpc_channel.h"
#include "server/rpc/block_images.h"
#include "server/rpc/service_loop.h"

namespace descent {
namespace {

class ExportCall final : public Call {
 public:
  explicit ExportCall(ServiceLoop* loop) : loop_(loop), writer_(&context_) {
    loop_->Enter(this);
    context_.AsyncNotifyWhenDone(&done_tag_);
    loop_->service()->RequestExport(&context_, &incoming_, &writer_, loop_->queue(), loop_->queue(), &accept_tag_);
    pending_ = 1;
  }

  void OnEvent(int kind, bool ok) override {
    --pending_;
    switch (kind) {
      case kAccept:
        if (!ok) break;
        ++pending_;
        AcceptExport(loop_);
        accepted_ = true;
        if (absl::Status status = Begin(); !status.ok()) {
          Finish(status);
        } else {
          Step();
        }
        break;
      case kDone:
        over_ = true;
        break;
      case kWrite:
        writing_ = false;
        if (!ok) over_ = true;
        if (stale_) {
          Finish(NewGeneration());
        } else {
          Step();
        }
        break;
      case kFinish:
        break;
    }
    if (pending_ == 0) {
      loop_->Leave(this);
      delete this;
    }
  }

  void OnNode() override {
    if (!accepted_) return;
    stale_ = true;
    if (!writing_) Finish(NewGeneration());
  }

 private:
  enum Kind { kAccept, kDone, kWrite, kFinish };

  absl::Status Begin() {
    const Payload bytes = FromByteBuffer(&incoming_);
    std::string text(bytes.size(), '\0');
    bytes.CopyTo(text.data());
    if (!request_.ParseFromString(text)) return absl::InvalidArgumentError("malformed descent.v1.ExportRequest");
    if (loop_->node() == nullptr) return NotPlaced();
    const ServerNodeOptions& options = loop_->node_options();
    const v1::Envelope& envelope = request_.envelope();
    const auto differs = [](absl::string_view what, uint64_t ours, uint64_t theirs) {
      return absl::FailedPreconditionError(
          absl::StrCat("export: ", what, " is ", ours, " here and ", theirs, " in the request"));
    };
    if (envelope.protocol() != options.envelope.protocol) {
      return differs("protocol", options.envelope.protocol, envelope.protocol());
    }
    if (envelope.job() != options.envelope.job) return differs("job", options.envelope.job, envelope.job());
    if (envelope.run() != options.envelope.run.value) {
      return differs("run", options.envelope.run.value, envelope.run());
    }
    if (envelope.generation() != options.envelope.generation.value) {
      return differs("generation", options.envelope.generation.value, envelope.generation());
    }
    const auto& tensors = options.store.tensors;
    if (request_.tensor() >= tensors.size()) {
      return absl::InvalidArgumentError(absl::StrCat("export: tensor ", request_.tensor(), " of ", tensors.size()));
    }
    const uint32_t blocks = options.store.geometry.blocks(tensors[request_.tensor()]);
    if (request_.first() > request_.last() || request_.last() > blocks) {
      return absl::InvalidArgumentError(absl::StrCat("export: blocks [", request_.first(), ", ", request_.last(),
                                                     ") of ", blocks, " of tensor ", tensors[request_.tensor()].name));
    }
    next_ = request_.first();
    return absl::OkStatus();
  }

  void Step() {
    if (over_ || finishing_) return;
    const StoreOptions& store = loop_->node_options().store;
    while (images_.empty()) {
      if (next_ == request_.last()) return Finish(absl::OkStatus());
      const BlockId id{TensorId(request_.tensor()), next_++};
      if (store.map.server(id) != store.self) continue;
      auto block = loop_->node()->store().Export(id, request_.with_state());
      if (!block.ok()) return Finish(block.status());
      const TensorSpec& spec = store.tensors[id.tensor.value];
      for (EncodedMessage& image : MakeBlockImages(loop_->node_options().envelope, *block, spec.sparse ? spec.dim() : 0,
                                                   loop_->node()->Marks(id))) {
        images_.push_back(std::move(image));
      }
    }
    writing_ = true;
    ++pending_;
    writer_.Write(ToByteBuffer(std::move(images_.front())), &write_tag_);
    images_.pop_front();
  }

  void Finish(const absl::Status& status) {
    if (over_ || finishing_) return;
    finishing_ = true;
    ++pending_;
    writer_.Finish(ToGrpc(status), &finish_tag_);
  }

  ServiceLoop* const loop_;
  grpc::ServerContext context_;
  grpc::ServerAsyncWriter<grpc::ByteBuffer> writer_;
  grpc::ByteBuffer incoming_;
  Tag accept_tag_{this, kAccept}, done_tag_{this, kDone}, write_tag_{this, kWrite}, finish_tag_{this, kFinish};
  int pending_ = 0;  // tags that the queue will give back
  v1::ExportRequest request_;
  uint32_t next_ = 0;  // block or slot
  std::deque<EncodedMessage> images_;
  bool accepted_ = false, writing_ = false, finishing_ = false, over_ = false, stale_ = false;
};

}  // namespace

void AcceptExport(ServiceLoop* loop) { new ExportCall(loop); }

}  // namespace descent
