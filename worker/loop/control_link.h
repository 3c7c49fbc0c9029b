// A worker's link to the coordinator: registers, beats on a thread of its own, keeps leases and state for the training
// loop, carries progress and evaluations the other way. A worker that the coordinator no longer knows (it was stopped
// for longer than a lease, or the coordinator is another process now) registers again by itself.
//
// Generations. The death of a server or of the coordinator begins a new one. From the word of it on, the old one's
// leases are void, what it has not told yet is dropped, and what its trainer still says is ignored; State() is ABORTED.
// AwaitRunning then gives the placement of the new one, to build a client and a trainer for.
//
// Thread-safe.
#ifndef DESCENT_WORKER_LOOP_CONTROL_LINK_H_
#define DESCENT_WORKER_LOOP_CONTROL_LINK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/base/time_source.h"
#include "descent/v1/coordinator.pb.h"
#include "worker/loop/trainer.h"

namespace descent {

// The coordinator's calls, as functions: the real ones block for a few seconds at most.
struct ControlCalls {
  // again: as a new member, after the coordinator has forgotten this one.
  std::function<absl::StatusOr<v1::RegisterReply>(const v1::RegisterWorkerRequest&, bool again)> register_worker;
  std::function<absl::StatusOr<v1::HeartbeatReply>(const v1::HeartbeatRequest&)> heartbeat;
  std::function<void(const std::string&)> log;
};

class ControlLink final : public TrainerControl {
 public:
  struct Options {
    uint64_t window = 50;                               // clocks of a record of training loss
    uint64_t clocks = 0;                                // the job's length, 0: as the coordinator says
    absl::Duration give_up_after = absl::Seconds(600);  // without a word from the coordinator
    // While it waits for the coordinator or a new generation: the first word of it, and the others.
    absl::Duration tell_after = absl::Seconds(3);
    absl::Duration tell_every = absl::Seconds(10);
  };

  ControlLink(Options options, ControlCalls calls, v1::RegisterWorkerRequest registration, const TimeSource* time);
  ~ControlLink() override;  // joins the thread

  // Registers, for give_up_after if need be. FAILED_PRECONDITION: refused, one line per mismatch.
  absl::Status Start();

  // Waits until a generation runs that was not given yet, and gives the news that came with it: generation, tensors,
  // map, length. It is this worker's generation from now on. CANCELLED, FAILED_PRECONDITION or UNAVAILABLE as State().
  absl::StatusOr<v1::HeartbeatReply> AwaitRunning();

  // Ends the training loop at the next opportunity; State() is CANCELLED from now on.
  void RequestStop();
  // The loop has returned because the run is stopped or over: nothing of its ranks is under way any more.
  void StopObeyed();
  // True once RequestStop was called and the run itself goes on: this worker is to leave it.
  bool leaving() const;
  // No beat comes after it returns: a worker that has left must not be taken for a new one.
  void Close();
  // The last known phase.
  v1::Phase phase() const;
  uint64_t member() const;
  uint64_t run() const;
  // After the job's own end: waits for the coordinator to say how it ended. ABORTED: it has not, a new generation goes
  // on from an earlier clock.
  absl::Status AwaitEnd(absl::Time deadline);

  std::vector<LeasedRank> Leases() override;
  // FAILED_PRECONDITION: the run has failed, or this worker was refused. UNAVAILABLE: no word for give_up_after.
  absl::Status State() override;
  void WaitForChange(absl::Time deadline) override;
  bool AwaitBegin(Clock clock, absl::Time deadline) override;
  void Pause(absl::Time until) override;
  std::vector<std::string> MovedServers() override;
  void Completed(Rank rank, Clock clock, const BatchResult& batch) override;
  void Skipped(Rank rank, Clock clock, Clock next) override;
  void Evaluated(const RankEvaluation& evaluation) override;
  void Done(Rank rank) override;
  void Log(const std::string& line) override { calls_.log(line); }

 private:
  struct Progress {
    uint64_t clock = 0;
    uint64_t examples = 0;
    bool done = false;
    v1::TrainingPart window;  // under way
  };

  struct Era {
    uint64_t run = 0;
    uint64_t generation = 0;
    uint64_t moves = 0;  // of servers' addresses, within the generation
    bool operator==(const Era&) const = default;
  };

  void Loop();
  absl::Status Register(bool again) ABSL_LOCKS_EXCLUDED(mu_);
  v1::HeartbeatRequest MakeBeat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeNews(const v1::HeartbeatReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enter(Era era) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The training loop works for the generation that is.
  bool UpToDate() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return built_ == era_; }
  // It may be for servers that have moved meanwhile: what it has done counts.
  bool SameGeneration() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return built_.has_value() && built_->run == era_.run && built_->generation == era_.generation;
  }
  // An older generation's trainer must not see the leases of this one.
  std::vector<LeasedRank> VisibleLeases() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return UpToDate() ? leases_ : std::vector<LeasedRank>();
  }
  absl::Status EndLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status StateLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const ControlCalls calls_;
  const v1::RegisterWorkerRequest registration_;
  const TimeSource* const time_;

  mutable Mutex mu_;
  CondVar changed_;
  uint64_t member_ ABSL_GUARDED_BY(mu_) = 0;
  Era era_ ABSL_GUARDED_BY(mu_);                   // as the coordinator says
  std::optional<Era> built_ ABSL_GUARDED_BY(mu_);  // the one that AwaitRunning gave last
  v1::Phase phase_ ABSL_GUARDED_BY(mu_) = v1::STARTING;
  std::string message_ ABSL_GUARDED_BY(mu_);
  std::vector<LeasedRank> leases_ ABSL_GUARDED_BY(mu_);
  bool run_stops_ ABSL_GUARDED_BY(mu_) = false;                       // as the coordinator said
  bool leaving_ ABSL_GUARDED_BY(mu_) = false;                         // as this process was told
  bool resting_ ABSL_GUARDED_BY(mu_) = false;                         // no rank is at work here
  std::optional<v1::HeartbeatReply> placement_ ABSL_GUARDED_BY(mu_);  // the news with this era's tensors and map
  uint64_t clocks_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<uint64_t> begin_below_ ABSL_GUARDED_BY(mu_);  // no clock from here on begins yet
  bool awaits_begin_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status lost_ ABSL_GUARDED_BY(mu_);
  std::map<Rank, Progress> progress_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::TrainingPart> training_ ABSL_GUARDED_BY(mu_);      // not yet told
  std::vector<v1::EvaluationPart> evaluation_ ABSL_GUARDED_BY(mu_);  // likewise
  bool urgent_ ABSL_GUARDED_BY(mu_) = false;                         // beat now
  bool end_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_CONTROL_LINK_H_
