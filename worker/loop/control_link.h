// A worker's link to the coordinator: registers, beats on a thread of its own, keeps leases and state for the training
// loop, carries progress and evaluations the other way. A worker that the coordinator no longer knows (it was stopped
// for longer than a lease) registers again by itself.
//
// Thread-safe.
#ifndef DESCENT_WORKER_LOOP_CONTROL_LINK_H_
#define DESCENT_WORKER_LOOP_CONTROL_LINK_H_

#include <cstdint>
#include <functional>
#include <map>
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
    uint64_t window = 50;                              // clocks of a record of training loss
    uint64_t clocks = 0;                               // the job's length, 0: as the coordinator says
    absl::Duration give_up_after = absl::Seconds(10);  // without a word from the coordinator
  };

  ControlLink(Options options, ControlCalls calls, v1::RegisterWorkerRequest registration, const TimeSource* time);
  ~ControlLink() override;  // joins the thread

  // Registers. FAILED_PRECONDITION: refused, one line per mismatch.
  absl::Status Start();

  // Waits until training runs and gives the news that came with it: tensors, map, length. CANCELLED or
  // FAILED_PRECONDITION as State().
  absl::StatusOr<v1::HeartbeatReply> AwaitRunning();

  // Ends the training loop at the next opportunity; State() is CANCELLED from now on.
  void RequestStop();
  // The loop has returned because the run is stopped: nothing of its ranks is under way any more.
  void StopObeyed();
  // True once RequestStop was called and the run itself goes on: this worker is to leave it.
  bool leaving() const;
  // No beat comes after it returns: a worker that has left must not be taken for a new one.
  void Close();
  // The last known phase.
  v1::Phase phase() const;
  uint64_t member() const;
  // After the job's own end: waits for the coordinator to say how it ended.
  absl::Status AwaitEnd(absl::Time deadline);

  std::vector<LeasedRank> Leases() override;
  absl::Status State() override;
  void WaitForChange(absl::Time deadline) override;
  void Completed(Rank rank, Clock clock, const BatchResult& batch) override;
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

  void Loop();
  absl::Status Register(bool again) ABSL_LOCKS_EXCLUDED(mu_);
  v1::HeartbeatRequest MakeBeat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeNews(const v1::HeartbeatReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status StateLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const ControlCalls calls_;
  const v1::RegisterWorkerRequest registration_;
  const TimeSource* const time_;

  mutable Mutex mu_;
  CondVar changed_;
  uint64_t member_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t run_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 0;
  v1::Phase phase_ ABSL_GUARDED_BY(mu_) = v1::STARTING;
  std::string message_ ABSL_GUARDED_BY(mu_);
  std::vector<LeasedRank> leases_ ABSL_GUARDED_BY(mu_);
  bool run_stops_ ABSL_GUARDED_BY(mu_) = false;  // as the coordinator said
  bool leaving_ ABSL_GUARDED_BY(mu_) = false;    // as this process was told
  bool placed_ ABSL_GUARDED_BY(mu_) = false;
  v1::HeartbeatReply placement_ ABSL_GUARDED_BY(mu_);  // the news with tensors and map
  uint64_t clocks_ ABSL_GUARDED_BY(mu_) = 0;
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
