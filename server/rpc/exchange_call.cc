// One stream of ParameterService.Exchange: any number of requests and replies under way.
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "common/net/grpc_bytes.h"
#include "common/net/grpc_channel.h"
#include "common/net/shared_slots.h"
#include "server/rpc/service_loop.h"

namespace descent {
namespace {

class ExchangeCall final : public Call, public Connection {
 public:
  explicit ExchangeCall(ServiceLoop* loop) : loop_(loop), stream_(&context_) {
    loop_->Enter(this);
    context_.AsyncNotifyWhenDone(&done_tag_);
    loop_->service()->RequestExchange(&context_, &stream_, loop_->queue(), loop_->queue(), &accept_tag_);
    pending_ = 1;
  }

  void OnEvent(int kind, bool ok) override {
    --pending_;
    switch (kind) {
      case kAccept:
        if (!ok) break;  // the server is shutting down; kDone does not come
        ++pending_;      // kDone will
        AcceptExchange(loop_);
        accepted_ = true;
        ShareSlots();
        if (loop_->node() != nullptr) {
          Attach();
        } else {
          loop_->SetTimer(this, absl::Now() + loop_->options().placing_patience);
        }
        break;
      case kDone:
        gone_ = true;
        Detach();
        break;
      case kRead:
        reading_ = false;
        OnRead(ok);
        break;
      case kWrite:
        writing_ = false;
        if (!ok) gone_ = true;
        WriteNext();
        loop_->Sent(id_);
        ReadMore();
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
    if (!attached_ && !ending_) {
      End(NotPlaced());
    } else if (paused_) {
      paused_ = false;
      ReadMore();
    } else if (half_closed_ && !writing_) {
      End(absl::OkStatus());
    }
  }

  void OnNode() override {
    if (!accepted_ || ending_ || gone_) return;
    if (attached_) {
      End(NewGeneration());
    } else if (loop_->node() != nullptr) {
      loop_->SetTimer(this, absl::InfiniteFuture());
      Attach();
    }
  }

  void Send(Reply reply) override {
    if (gone_ || ending_) return;
    queue_.push_back(std::move(reply));
    if (!writing_) WriteNext();
  }

 private:
  enum Kind { kAccept, kDone, kRead, kWrite, kFinish };

  // What the client offers is taken of this user's processes alone, which come over local sockets: gRPC names such a
  // stream after the descriptor that it was given, others after their address.
  void ShareSlots() {
    const auto offer = context_.client_metadata().find(kSlotsKey);
    if (offer == context_.client_metadata().end() || !absl::StartsWith(context_.peer(), "fd:")) return;
    auto slots = SharedSlots::Open(absl::string_view(offer->second.data(), offer->second.size()));
    if (!slots.ok()) return;
    slots_ = *std::move(slots);
    shared_ = [this](uint32_t slot, uint64_t size, Payload* out) { return slots_->Take(slot, size, out); };
    context_.AddInitialMetadata(kSlotsKey, "shared");
  }

  void Attach() {
    attached_ = true;
    id_ = loop_->Open(this, /*unary=*/false);
    ReadMore();
  }
  void Detach() {
    queue_.clear();
    loop_->SetTimer(this, absl::InfiniteFuture());
    if (attached_) loop_->Close(id_);
  }

  void ReadMore() {
    if (!attached_ || reading_ || paused_ || half_closed_ || ending_ || gone_) return;
    if (queue_.size() + (writing_ ? 1 : 0) >= loop_->options().max_unsent) return;
    reading_ = true;
    ++pending_;
    stream_.Read(&incoming_, &read_tag_);
  }

  void OnRead(bool ok) {
    if (!ok) {
      // The client has closed its half, or is gone, which kDone tells. It may still wait for replies.
      half_closed_ = true;
      if (!gone_ && !ending_) loop_->SetTimer(this, absl::Now() + loop_->options().unary_patience);
      return;
    }
    Request request;
    const absl::Status status = Decode(FromByteBuffer(&incoming_), &request, slots_ != nullptr ? &shared_ : nullptr);
    if (gone_ || ending_) return;
    if (!status.ok()) {
      End(status);
      return;
    }
    loop_->Handle(id_, std::move(request));
    if (gone_ || ending_) return;
    if (const uint64_t most = loop_->options().max_held_bytes;
        most != kUnbounded && loop_->node() != nullptr && loop_->node()->store().held_bytes() > most) {
      paused_ = true;
      loop_->SetTimer(this, absl::Now() + loop_->options().held_pause);
    }
    ReadMore();
  }

  void WriteNext() {
    if (gone_) return;
    if (ending_) {
      Finish();
      return;
    }
    if (queue_.empty()) return;
    const Reply reply = std::move(queue_.front());
    queue_.pop_front();
    grpc::WriteOptions options;
    if (!queue_.empty()) options.set_buffer_hint();  // small replies go out together
    writing_ = true;
    ++pending_;
    const std::optional<uint32_t> slot = slots_ != nullptr ? slots_->Put(reply.payload) : std::nullopt;
    stream_.Write(ToByteBuffer(Encode(reply, slot)), options, &write_tag_);
    if (half_closed_) loop_->SetTimer(this, absl::Now() + loop_->options().unary_patience);
  }

  void End(absl::Status status) {
    if (ending_ || gone_) return;
    ending_ = true;
    ending_status_ = std::move(status);
    Detach();
    if (!writing_) Finish();
  }
  void Finish() {
    if (finishing_) return;
    finishing_ = true;
    ++pending_;
    stream_.Finish(ToGrpc(ending_status_), &finish_tag_);
  }

  ServiceLoop* const loop_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_;
  grpc::ByteBuffer incoming_;
  Tag accept_tag_{this, kAccept}, done_tag_{this, kDone}, read_tag_{this, kRead}, write_tag_{this, kWrite},
      finish_tag_{this, kFinish};
  std::shared_ptr<SharedSlots> slots_;  // null: payloads go over the stream alone
  SharedPayloads shared_;
  int pending_ = 0;  // tags that the queue will give back
  ConnectionId id_;
  std::deque<Reply> queue_;
  absl::Status ending_status_;
  bool accepted_ = false, attached_ = false, reading_ = false, writing_ = false, paused_ = false;
  bool half_closed_ = false;  // no more requests
  bool ending_ = false;       // by us; no more of anything
  bool finishing_ = false;
  bool gone_ = false;  // the call is over
};

}  // namespace

void AcceptExchange(ServiceLoop* loop) { new ExchangeCall(loop); }

}  // namespace descent
