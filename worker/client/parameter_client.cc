#include "worker/client/parameter_client.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "worker/client/client_session.h"

namespace descent {
namespace {

// A lock and a transport around a ClientSession. Requests are built under the lock, sent and written outside of it.
class ThreadedClient final : public ParameterClient, private ClientTransport::Handler {
 public:
  ThreadedClient(ClientOptions options, ClientTransport* transport, const TimeSource* time)
      : transport_(transport), time_(time), encoding_(options.encoding), session_(std::move(options)) {
    transport_->Start(this);
  }
  ~ThreadedClient() override { Cancel(); }

  Ticket Exchange(const std::optional<PushSpec>& push, const std::optional<PullSpec>& pull) override {
    auto record = std::make_shared<Record>();
    // Every piece that points into the caller's buffers holds this: when the last of them is gone, nobody reads them.
    std::shared_ptr<const void> owner(static_cast<const void*>(this), [this, record](const void*) {
      MutexLock lock(&mu_);
      record->released = true;
      changed_.SignalAll();
    });
    ClientSession::Output out;
    Ticket ticket;
    {
      MutexLock lock(&mu_);
      ticket = session_.Exchange(push, pull, std::move(owner), time_->Now(), &out);
      records_[ticket] = std::move(record);
    }
    Deliver(std::move(out));
    return ticket;
  }

  absl::Status Wait(Ticket ticket, absl::Time deadline) override {
    std::shared_ptr<const void> owner;  // let go of after the lock
    MutexLock lock(&mu_);
    absl::Status status = AwaitLocked(ticket, deadline);
    if (!absl::IsDeadlineExceeded(status)) owner = ForgetLocked(ticket);
    return status;
  }

  void Cancel() override {
    ClientSession::Output out;
    {
      MutexLock lock(&mu_);
      session_.Cancel(&out);
      if (stop_ != Stop::kRunning) {
        while (stop_ != Stop::kStopped) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
      } else {
        stop_ = Stop::kStopping;
      }
    }
    Deliver(std::move(out), /*stop=*/true);
  }

  absl::StatusOr<Clock> ExpectedClock(Rank rank, absl::Time deadline) override {
    ClientSession::Output out;
    Ticket ticket;
    {
      MutexLock lock(&mu_);
      ticket = session_.AskExpected(rank, time_->Now(), &out);
      records_[ticket] = std::make_shared<Record>(Record{false, true});
    }
    Deliver(std::move(out));
    MutexLock lock(&mu_);
    const absl::Status status = AwaitLocked(ticket, deadline);
    const Clock expected = status.ok() ? session_.core().expected(ticket)[0] : Clock();
    ForgetLocked(ticket);  // it has no buffers
    if (!status.ok()) return status;
    return expected;
  }

  std::optional<WaitingNotice> LastWaiting() const override {
    MutexLock lock(&mu_);
    return session_.core().last_waiting();
  }
  ClientStats stats() const override {
    MutexLock lock(&mu_);
    return session_.stats();
  }

 private:
  struct Record {
    bool finished = false;
    bool released = false;  // nobody reads the caller's buffers any more
  };
  enum class Stop { kRunning, kStopping, kStopped };

  void OnOpen(ServerId server) override {
    ClientSession::Output out;
    {
      MutexLock lock(&mu_);
      session_.OnOpen(server, time_->Now(), &out);
    }
    Deliver(std::move(out));
  }
  void OnReply(ServerId server, Reply reply) override {
    ClientSession::Output out;
    {
      MutexLock lock(&mu_);
      session_.OnReply(server, reply, time_->Now(), &out);
    }
    // Replies come one at a time and a ticket is not reported before this: the buffers are still ours to write.
    WriteParts(reply.payload, out.writes, encoding_);
    Deliver(std::move(out));
  }
  void OnClosed(ServerId server, absl::Status why) override {
    MutexLock lock(&mu_);
    session_.OnClosed(server);
  }
  void OnWake(absl::Time now) override {
    ClientSession::Output out;
    {
      MutexLock lock(&mu_);
      armed_ = absl::InfiniteFuture();
      session_.OnTimer(time_->Now(), &out);
    }
    Deliver(std::move(out));
  }

  // Sends, sets the timer, and reports what has finished. With `stop`, ends the transport first, so that no upcall is
  // writing when the tickets are reported.
  void Deliver(ClientSession::Output out, bool stop = false) {
    for (auto& [server, request] : out.send) transport_->Send(server, std::move(request));
    out.send.clear();
    if (stop) StopTransport();
    if (!out.finished.empty()) {
      std::vector<std::shared_ptr<const void>> owners;
      {
        MutexLock lock(&mu_);
        for (Ticket ticket : out.finished) {
          if (const auto it = records_.find(ticket); it != records_.end()) it->second->finished = true;
          owners.push_back(session_.ReleaseOwner(ticket));
        }
        changed_.SignalAll();
      }
    }
    if (!stop) Arm();
  }

  void Arm() {
    {
      MutexLock lock(&mu_);
      if (session_.core().next_timer() >= armed_) return;
    }
    // A later WakeAt replaces an earlier one, so the order of calls must be that of decisions.
    MutexLock wake(&wake_mu_);
    absl::Time when;
    {
      MutexLock lock(&mu_);
      when = session_.core().next_timer();
      if (when >= armed_) return;
      armed_ = when;
    }
    transport_->WakeAt(when);
  }

  void StopTransport() {
    {
      MutexLock lock(&mu_);
      if (stop_ == Stop::kStopped) return;
    }
    transport_->Stop();
    MutexLock lock(&mu_);
    stop_ = Stop::kStopped;
    changed_.SignalAll();
  }

  absl::Status AwaitLocked(Ticket ticket, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto it = records_.find(ticket);
    if (it == records_.end()) {
      return absl::FailedPreconditionError(absl::StrCat("ticket ", ticket, " was waited for before, or never given"));
    }
    const std::shared_ptr<Record> record = it->second;
    while (!record->finished || !record->released) {
      const absl::Time now = time_->Now();
      if (now >= deadline) {
        return absl::DeadlineExceededError(
            record->finished ? "the request is over, but its last messages are still being sent"
                             : absl::StrCat("not done in time: ", session_.core().Describe(ticket, now)));
      }
      changed_.WaitUntil(&mu_, deadline == absl::InfiniteFuture() ? deadline : absl::Now() + (deadline - now));
    }
    return session_.core().status(ticket);
  }

  std::shared_ptr<const void> ForgetLocked(Ticket ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (records_.erase(ticket) == 0) return nullptr;
    return session_.Forget(ticket);
  }

  ClientTransport* const transport_;
  const TimeSource* const time_;
  const WireEncoding encoding_;
  Mutex wake_mu_;
  mutable Mutex mu_;
  CondVar changed_;
  ClientSession session_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Ticket, std::shared_ptr<Record>> records_ ABSL_GUARDED_BY(mu_);
  absl::Time armed_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  Stop stop_ ABSL_GUARDED_BY(mu_) = Stop::kRunning;
};

}  // namespace

std::unique_ptr<ParameterClient> ParameterClient::Create(ClientOptions options, ClientTransport* transport,
                                                         const TimeSource* time) {
  return std::make_unique<ThreadedClient>(std::move(options), transport, time);
}

}  // namespace descent
