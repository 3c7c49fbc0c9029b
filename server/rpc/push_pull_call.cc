// One call of ParameterService.PushPull: to the node a connection of its own, whose replies are gathered into one.
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_unary_call.h>

#include <optional>
#include <utility>

#include "common/net/grpc_bytes.h"
#include "common/net/grpc_channel.h"
#include "server/rpc/reply_merger.h"
#include "server/rpc/service_loop.h"

namespace descent {
namespace {

class PushPullCall final : public Call, public Connection {
 public:
  explicit PushPullCall(ServiceLoop* loop) : loop_(loop), responder_(&context_) {
    loop_->Enter(this);
    context_.AsyncNotifyWhenDone(&done_tag_);
    loop_->service()->RequestPushPull(&context_, &incoming_, &responder_, loop_->queue(), loop_->queue(), &accept_tag_);
    pending_ = 1;
  }

  void OnEvent(int kind, bool ok) override {
    --pending_;
    switch (kind) {
      case kAccept:
        if (!ok) break;
        ++pending_;
        AcceptPushPull(loop_);
        Begin();
        break;
      case kDone:
        answered_ = true;
        Detach();
        break;
      case kFinish:
        break;
    }
    if (pending_ == 0) {
      loop_->Leave(this);
      delete this;
    }
  }

  void OnTimer(absl::Time now) override {
    if (answered_) return;
    Reply reply = merger_->Take(loop_->node_options().envelope);
    if (!reply.waiting.has_value() && reply.refusal.ok()) {
      std::vector<WaitingNotice> waiting = loop_->node()->Waiting(now);
      if (waiting.empty()) {
        reply.waiting = WaitingNotice{{}, loop_->options().unary_patience, "contributions announced are not all here"};
      } else {
        reply.waiting = std::move(waiting.front());
      }
    }
    Answer(std::move(reply));
  }

  void OnNode() override {
    if (attached_) Refuse(NewGeneration());
  }

  void Send(Reply reply) override {
    if (answered_) return;
    merger_->Add(std::move(reply));
    // The call in progress must return before the node hears more of this connection.
    if (!deferred_) {
      deferred_ = true;
      ++pending_;
      loop_->Defer([this] { AfterSend(); });
    }
    ++unreported_;
  }

 private:
  enum Kind { kAccept, kDone, kFinish };

  void Begin() {
    Request request;
    if (absl::Status status = Decode(FromByteBuffer(&incoming_), &request); !status.ok()) return Refuse(status);
    if (loop_->node() == nullptr) return Refuse(NotPlaced());
    const StoreOptions& store = loop_->node_options().store;
    merger_.emplace(request, [&store](BlockId id) -> uint64_t {
      if (id.tensor.value >= store.tensors.size()) return 0;
      return uint64_t{store.geometry.block_size(store.tensors[id.tensor.value], id.index)} * sizeof(float);
    });
    attached_ = true;
    loop_->SetTimer(this, absl::Now() + loop_->options().unary_patience);
    id_ = loop_->Open(this, /*unary=*/true);
    loop_->Handle(id_, std::move(request));
  }

  void AfterSend() {
    deferred_ = false;
    --pending_;
    for (; unreported_ > 0 && !answered_; --unreported_) loop_->Sent(id_);
    if (!answered_ && merger_->complete()) Answer(merger_->Take(loop_->node_options().envelope));
    if (pending_ == 0) {
      loop_->Leave(this);
      delete this;
    }
  }

  void Detach() {
    loop_->SetTimer(this, absl::InfiniteFuture());
    if (attached_) loop_->Close(id_);
    attached_ = false;
  }
  void Answer(Reply reply) {
    if (answered_) return;
    answered_ = true;
    Detach();
    ++pending_;
    responder_.Finish(ToByteBuffer(Encode(reply)), grpc::Status::OK, &finish_tag_);
  }
  void Refuse(const absl::Status& status) {
    if (answered_) return;
    answered_ = true;
    Detach();
    ++pending_;
    responder_.FinishWithError(ToGrpc(status), &finish_tag_);
  }

  ServiceLoop* const loop_;
  grpc::ServerContext context_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> responder_;
  grpc::ByteBuffer incoming_;
  Tag accept_tag_{this, kAccept}, done_tag_{this, kDone}, finish_tag_{this, kFinish};
  int pending_ = 0;  // tags that the queue will give back, and the deferred task
  ConnectionId id_;
  std::optional<ReplyMerger> merger_;
  int unreported_ = 0;  // replies the node has not heard of as sent
  bool deferred_ = false, attached_ = false, answered_ = false;
};

}  // namespace

void AcceptPushPull(ServiceLoop* loop) { new PushPullCall(loop); }

}  // namespace descent
