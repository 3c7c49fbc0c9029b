#include "common/net/grpc_client_transport.h"

#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <deque>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/net/grpc_bytes.h"
#include "common/net/grpc_channel.h"
#include "common/net/grpc_time.h"
#include "common/net/shared_slots.h"

namespace descent {
namespace {

constexpr char kMethod[] = "/descent.v1.ParameterService/Exchange";
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(50);
constexpr absl::Duration kLastBackoff = absl::Seconds(1);
// How long Stop waits for gRPC to drop the last slices. They go as their connections do, which takes no peer's help.
constexpr absl::Duration kReleasePatience = absl::Seconds(10);

using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;

// Fulfils its promise when the last slice that holds it is gone.
struct Released {
  std::promise<void> promise;
  ~Released() { promise.set_value(); }
};

class GrpcClientTransport final : public ClientTransport {
 public:
  explicit GrpcClientTransport(GrpcClientOptions options)
      : max_queued_(options.max_queued), released_(std::make_shared<Released>()) {
    for (const std::string& address : options.servers) {
      auto peer = std::make_unique<Peer>();
      peer->id = ServerId(static_cast<uint32_t>(peers_.size()));
      peer->address = address;
      peers_.push_back(std::move(peer));
    }
    outgoing_.resize(peers_.size());
  }
  ~GrpcClientTransport() override { Stop(); }

  void Start(Handler* handler) override {
    DESCENT_CHECK(handler_ == nullptr);
    handler_ = handler;
    for (auto& peer : peers_) {
      peer->tcp = MakeChannel(peer->address, Lane::kBulk);
    }
    thread_ = std::thread([this] { Poll(); });
  }

  void Send(ServerId server, Request request) override {
    DESCENT_CHECK(server.value < peers_.size());
    Stream* stream = nullptr;
    bool share = false;
    {
      MutexLock lock(&mu_);
      Outgoing& out = outgoing_[server.value];
      if (out.stream == nullptr || out.queue.size() >= max_queued_) return;  // `request` dies after the lock
      if (out.stream->writing) {
        out.queue.push_back(std::move(request));
        return;
      }
      // From here to the completion of the write the stream is not deleted.
      out.stream->writing = true;
      stream = out.stream;
      share = stream->may_share;
    }
    Write(stream, std::move(request), /*more=*/false, share);
  }

  void WakeAt(absl::Time when) override {
    MutexLock lock(&mu_);
    wake_ = when;
    if (when < sleeping_until_) Kick();
  }

  void Stop() override {
    if (!thread_.joinable()) return;
    DESCENT_CHECK(std::this_thread::get_id() != thread_.get_id());
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      Kick();
    }
    thread_.join();
    std::future<void> gone = released_->promise.get_future();
    released_.reset();
    gone.wait_for(absl::ToChronoMilliseconds(kReleasePatience));
  }

 private:
  struct Stream;
  struct Tag {
    enum Kind { kStart, kRead, kWrite, kFinish } kind;
    Stream* stream;
  };
  struct Peer;
  // One attempt at a connection. Owned by the polling thread but for `writing` and `may_share`, which mu_ guards.
  struct Stream {
    explicit Stream(Peer* p) : peer(p) {}
    Peer* const peer;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> call;
    grpc::ByteBuffer incoming;
    grpc::Status status;
    absl::Status broken;     // why we ended it ourselves
    bool finished = false;   // `status` is there
    bool writing = false;    // a write is under way
    bool may_share = false;  // requests' payloads may go into slots
    bool local = false;      // over a local socket
    bool answered = false;
    // Null: payloads go over the stream alone.
    std::shared_ptr<SharedSlots> slots;
    SharedPayloads shared;
    bool offered = false;  // the server has not said yet whether it takes them
    Tag start{Tag::kStart, this}, read{Tag::kRead, this}, write{Tag::kWrite, this}, finish{Tag::kFinish, this};
  };
  // Owned by the polling thread.
  struct Peer {
    ServerId id;
    std::string address;
    std::shared_ptr<grpc::Channel> tcp;
    std::unique_ptr<Stream> stream;
    bool unanswered = false;  // the last stream was local and had no answer
    absl::Duration backoff = kFirstBackoff;
    absl::Time retry_at = absl::InfinitePast();
  };
  struct Outgoing {
    Stream* stream = nullptr;  // only while it is open
    std::deque<Request> queue;
  };

  void Kick() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (kicked_) return;
    kicked_ = true;
    kick_.Set(&queue_, ToGprTime(absl::Now()), nullptr);
  }

  void Write(Stream* stream, Request request, bool more, bool share) {
    grpc::WriteOptions options;
    if (more) options.set_buffer_hint();  // small messages go out together
    const std::optional<uint32_t> slot = share ? stream->slots->Put(request.payload) : std::nullopt;
    stream->call->Write(ToByteBuffer(Encode(request, slot), released_), options, &stream->write);
  }

  void Poll() {
    bool cancelled = false;
    while (true) {
      const absl::Time now = absl::Now();
      bool stopping, wake = false;
      {
        MutexLock lock(&mu_);
        stopping = stopping_;
        if (now >= wake_ && !stopping) {
          wake_ = absl::InfiniteFuture();
          wake = true;
        }
      }
      if (wake) handler_->OnWake(now);
      absl::Time retry = absl::InfiniteFuture();
      bool idle = true;
      for (auto& peer : peers_) {
        if (peer->stream == nullptr && !stopping && now >= peer->retry_at) Connect(peer.get());
        if (peer->stream == nullptr) {
          retry = std::min(retry, peer->retry_at);
        } else {
          idle = false;
          if (stopping && !cancelled) peer->stream->context.TryCancel();
        }
      }
      cancelled = stopping;
      absl::Time deadline;
      {
        MutexLock lock(&mu_);
        if (stopping && idle && !kicked_) break;
        deadline = stopping ? absl::InfiniteFuture() : std::min(retry, wake_);
        if (stopping_ && !stopping) deadline = absl::InfinitePast();
        sleeping_until_ = deadline;
      }
      void* tag = nullptr;
      bool ok = false;
      const auto got = queue_.AsyncNext(&tag, &ok, ToGprTime(deadline));
      {
        MutexLock lock(&mu_);
        sleeping_until_ = absl::InfinitePast();
        if (got == grpc::CompletionQueue::GOT_EVENT && tag == nullptr) kicked_ = false;
      }
      if (got == grpc::CompletionQueue::GOT_EVENT && tag != nullptr) Handle(*static_cast<Tag*>(tag), ok, stopping);
    }
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
    for (auto& peer : peers_) peer->tcp.reset();
  }

  void Connect(Peer* peer) {
    peer->stream = std::make_unique<Stream>(peer);
    Stream* stream = peer->stream.get();
    // A local channel lives as long as its stream's context, which holds it.
    // Where a local stream ended without an answer, whoever listens there may be another than TCP would reach.
    std::shared_ptr<grpc::Channel> channel;
    if (!std::exchange(peer->unanswered, false)) channel = MakeLocalChannel(peer->address, Lane::kBulk);
    stream->local = channel != nullptr;
    if (channel == nullptr) channel = peer->tcp;
    if (stream->local) OfferSlots(stream);
    stream->call = Stub(std::move(channel)).PrepareCall(&stream->context, kMethod, &queue_);
    stream->call->StartCall(&stream->start);
  }

  static const SharedPayloads* SharedOf(const Stream& stream) {
    return stream.slots != nullptr ? &stream.shared : nullptr;
  }

  static void OfferSlots(Stream* stream) {
    absl::StatusOr<std::shared_ptr<SharedSlots>> slots = SharedSlots::Make();
    if (!slots.ok()) return;
    stream->slots = *std::move(slots);
    stream->shared = [taken = stream->slots.get()](uint32_t slot, uint64_t size, Payload* out) {
      return taken->Take(slot, size, out);
    };
    stream->context.AddMetadata(kSlotsKey, stream->slots->offer());
    stream->offered = true;
  }

  // The server's first words say whether it shares them.
  void LearnOfSlots(Stream* stream) {
    if (!std::exchange(stream->offered, false)) return;
    if (stream->context.GetServerInitialMetadata().count(kSlotsKey) == 0) return;
    MutexLock lock(&mu_);
    stream->may_share = true;
  }

  void Handle(const Tag& tag, bool ok, bool stopping) {
    Stream* stream = tag.stream;
    Peer* peer = stream->peer;
    switch (tag.kind) {
      case Tag::kStart:
        if (!ok) {
          stream->call->Finish(&stream->status, &stream->finish);
          return;
        }
        stream->call->Read(&stream->incoming, &stream->read);
        if (stopping) return;
        {
          MutexLock lock(&mu_);
          outgoing_[peer->id.value].stream = stream;
        }
        handler_->OnOpen(peer->id);
        return;
      case Tag::kRead: {
        if (!ok) {
          Disconnect(peer);
          stream->call->Finish(&stream->status, &stream->finish);
          return;
        }
        const Payload bytes = FromByteBuffer(&stream->incoming);
        LearnOfSlots(stream);
        stream->call->Read(&stream->incoming, &stream->read);
        if (stopping || !stream->broken.ok()) return;
        Reply reply;
        if (absl::Status status = Decode(bytes, &reply, SharedOf(*stream)); !status.ok()) {
          stream->broken = absl::Status(status.code(), absl::StrCat("reply of server ", peer->id.value, " at ",
                                                                    peer->address, ": ", status.message()));
          stream->context.TryCancel();
          return;
        }
        peer->backoff = kFirstBackoff;
        stream->answered = true;
        handler_->OnReply(peer->id, std::move(reply));
        return;
      }
      case Tag::kWrite: {
        std::optional<Request> next;
        bool more = false, share = false;
        {
          MutexLock lock(&mu_);
          Outgoing& out = outgoing_[peer->id.value];
          if (!ok || out.stream != stream || out.queue.empty()) {
            // After a failed write the read fails too, and ends the stream.
            stream->writing = false;
          } else {
            next.emplace(std::move(out.queue.front()));
            out.queue.pop_front();
            more = !out.queue.empty();
            share = stream->may_share;
          }
        }
        if (next.has_value()) {
          Write(stream, *std::move(next), more, share);
          return;
        }
        if (!ok && !stream->finished) {
          Disconnect(peer);
          stream->context.TryCancel();
        }
        Close(peer, stopping);
        return;
      }
      case Tag::kFinish:
        stream->finished = true;
        Close(peer, stopping);
        return;
    }
  }

  // No more writes to the peer's stream, and none to the next before it is open.
  void Disconnect(Peer* peer) {
    std::deque<Request> dropped;  // payload owners are released outside of the lock
    MutexLock lock(&mu_);
    Outgoing& out = outgoing_[peer->id.value];
    out.stream = nullptr;
    dropped.swap(out.queue);
  }

  // Once nothing of the stream is under way any more: reports it and plans the next.
  void Close(Peer* peer, bool stopping) {
    Stream* stream = peer->stream.get();
    if (!stream->finished) return;
    {
      MutexLock lock(&mu_);
      if (stream->writing) return;
    }
    absl::Status why = stream->broken;
    if (why.ok()) why = FromGrpc(stream->status);
    if (why.ok()) why = absl::UnavailableError("the server ended the stream");
    why = absl::Status(why.code(), absl::StrCat("server ", peer->id.value, " at ", peer->address, ": ", why.message()));
    peer->unanswered = stream->local && !stream->answered;
    peer->stream.reset();
    peer->retry_at = absl::Now() + peer->backoff;
    peer->backoff = std::min(peer->backoff * 2, kLastBackoff);
    if (!stopping) handler_->OnClosed(peer->id, std::move(why));
  }

  const size_t max_queued_;
  Handler* handler_ = nullptr;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::shared_ptr<Released> released_;
  grpc::CompletionQueue queue_;
  std::thread thread_;

  Mutex mu_;
  std::vector<Outgoing> outgoing_ ABSL_GUARDED_BY(mu_);
  grpc::Alarm kick_ ABSL_GUARDED_BY(mu_);  // wakes the polling thread
  bool kicked_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time wake_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  absl::Time sleeping_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // the past while it is awake
};

}  // namespace

std::unique_ptr<ClientTransport> MakeGrpcClientTransport(GrpcClientOptions options) {
  return std::make_unique<GrpcClientTransport>(std::move(options));
}

}  // namespace descent
