// A TrainerControl without a coordinator: fixed leases, an end when all is done, and what was reported kept for the
// test.
#ifndef DESCENT_TESTS_TRAINING_LOCAL_CONTROL_H_
#define DESCENT_TESTS_TRAINING_LOCAL_CONTROL_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "worker/loop/trainer.h"

namespace descent::testing {

class LocalControl final : public TrainerControl {
 public:
  explicit LocalControl(std::vector<LeasedRank> leases) : leases_(std::move(leases)) {}

  std::vector<LeasedRank> Leases() override {
    MutexLock lock(&mu_);
    return leases_;
  }
  absl::Status State() override {
    MutexLock lock(&mu_);
    return done_.size() == leases_.size() ? absl::CancelledError("all done") : absl::OkStatus();
  }
  void WaitForChange(absl::Time deadline) override {
    MutexLock lock(&mu_);
    while (done_.size() < leases_.size() && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
  }
  void Pause(absl::Time until) override { absl::SleepFor(until - absl::Now()); }
  void Completed(Rank rank, Clock, const BatchResult& batch) override {
    MutexLock lock(&mu_);
    examples_[rank] += batch.weight;
    ++completed_[rank];
  }
  void Skipped(Rank rank, Clock clock, Clock next) override {
    MutexLock lock(&mu_);
    skipped_[rank] += next.value - clock.value;
  }
  void Evaluated(const RankEvaluation& evaluation) override {
    MutexLock lock(&mu_);
    evaluations_.push_back(evaluation);
  }
  void Done(Rank rank) override {
    MutexLock lock(&mu_);
    done_.insert(rank);
    changed_.SignalAll();
  }
  void Log(const std::string&) override {}

  std::vector<RankEvaluation> evaluations() {
    MutexLock lock(&mu_);
    return evaluations_;
  }
  // Clocks that a rank contributed to, and that it was left out of.
  uint64_t completed(Rank rank) {
    MutexLock lock(&mu_);
    return completed_[rank];
  }
  uint64_t skipped(Rank rank) {
    MutexLock lock(&mu_);
    return skipped_[rank];
  }

 private:
  Mutex mu_;
  CondVar changed_;
  const std::vector<LeasedRank> leases_;
  std::set<Rank> done_ ABSL_GUARDED_BY(mu_);
  std::map<Rank, double> examples_ ABSL_GUARDED_BY(mu_);
  std::map<Rank, uint64_t> completed_ ABSL_GUARDED_BY(mu_), skipped_ ABSL_GUARDED_BY(mu_);
  std::vector<RankEvaluation> evaluations_ ABSL_GUARDED_BY(mu_);
};

}  // namespace descent::testing

#endif  // DESCENT_TESTS_TRAINING_LOCAL_CONTROL_H_
