// The metrics of a run: what ranks and servers report, put together (metric_merge.h) and completed to records with
// epoch, learning rate, speed and gradient norm. Pure: the same calls, the same records. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_RUN_METRICS_H_
#define DESCENT_SERVER_COORDINATOR_RUN_METRICS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/job/rate_changes.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "descent/v1/job.pb.h"
#include "server/coordinator/gradient_histograms.h"
#include "server/coordinator/member_table.h"
#include "server/coordinator/metric_merge.h"

namespace descent {

// The share of steps between the two whose gradient was clipped; nullopt: there were none.
std::optional<double> ClippedShare(const ClippedSteps& before, const ClippedSteps& now);

class RunMetrics {
 public:
  // `job` is resolved, and outlives this.
  explicit RunMetrics(const v1::JobSpec* job);

  // Once known; until then, and without data (0 rows), every epoch is 0.
  void SetEpochs(uint64_t clocks_per_epoch, uint64_t train_rows);
  double EpochOf(uint64_t clock) const;

  // Training begins, or goes on: speed counts from here.
  void Start(absl::Time now) { told_ = now; }
  // The generation goes on from `clock`: all that is not a record yet is void, and so are evaluations and training of
  // later clocks. Makes a record of that.
  void RollBack(uint64_t clock, Generation generation, absl::Time now);

  void AddTraining(const v1::TrainingPart& part) { training_.Add(part); }
  // The rank has reported all it will.
  void Done(Rank rank) { training_.Done(rank); }
  // Makes records of the windows that every rank has gone past; those of one call share the time since the last, and
  // the steps since then.
  void CloseWindows(absl::Time now, const ClippedSteps& steps = {});
  // Makes a record of an evaluation that this part completes. Returns what was dropped for it, a sentence each.
  std::vector<std::string> AddEvaluation(const v1::EvaluationPart& part, absl::Time now);
  uint64_t evaluations() const { return evaluations_; }  // completed so far
  // What evaluations have led to: one more record.
  void AddDecision(MetricRecord record, absl::Time now);
  // By what the schedule's rate is multiplied.
  RateChanges& rate_changes() { return rate_changes_; }
  ScalarMerge& scalars() { return scalars_; }
  const ScalarMerge& scalars() const { return scalars_; }
  // Whether the job asks for histograms of gradient norms.
  bool wants_norms() const { return job_->metrics().gradient_histograms(); }
  // Where it does: what a server says of a round's gradients; errors as ScalarMerge::Add. Makes a record of a window
  // that this closes, of those `specs` that are trained, whose number and order is that of the map.
  absl::Status AddNorms(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map,
                        const std::vector<TensorSpec>& specs, absl::Time now);
  // Why that server's last norms were refused; "": they were not.
  std::string norms_refusal(ServerId from) const { return norms_.refusal(from); }
  // No round will come any more: a record of the window that is open.
  void CloseNorms(const std::vector<TensorSpec>& specs, absl::Time now);
  ScalarMerge& step_scalars() { return step_scalars_; }  // that steps wait for
  const ScalarMerge& step_scalars() const { return step_scalars_; }

  // The loss of the evaluation at that clock; nullopt: there was none, or long ago.
  std::optional<double> LossAt(uint64_t clock) const;
  // One at that clock may still be completed: none of it or of a later one is.
  bool MayEvaluate(uint64_t clock) const { return losses_.empty() || losses_.rbegin()->first < clock; }

  // Of those that were not rolled back.
  const std::optional<MetricRecord>& last_training() const { return last_training_; }
  const std::optional<MetricRecord>& last_evaluation() const { return last_evaluation_; }
  // The last evaluation, for people; "" before the first.
  std::string EvaluationText() const;
  std::vector<MetricRecord> Drain() { return std::exchange(records_, {}); }

 private:
  static constexpr size_t kMaxLosses = 256;
  static constexpr size_t kMaxNorms = 4096;  // clocks: one server may tell much later than another

  void AddWindow(const GradientWindow& window, const std::vector<TensorSpec>& specs, absl::Time now);

  const v1::JobSpec* const job_;
  const uint64_t every_;  // clocks of a window
  uint64_t clocks_per_epoch_ = 0, train_rows_ = 0;
  TrainingMerge training_;
  EvaluationMerge evaluation_;
  ScalarMerge scalars_, step_scalars_, norms_;
  GradientHistograms histograms_;
  ClippedSteps steps_told_;  // as of the last record
  RateChanges rate_changes_;
  uint64_t evaluations_ = 0;
  absl::Time told_;
  std::optional<MetricRecord> last_training_, last_evaluation_;
  std::map<uint64_t, double> losses_;  // of the last evaluations, by clock; at most kMaxLosses
  std::vector<MetricRecord> records_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_RUN_METRICS_H_
