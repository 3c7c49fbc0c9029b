// What ranks and servers report in parts, put together: evaluations and training losses in rank order, squared gradient
// norms in (tensor, block) order, all in double, so that the sums do not depend on who reported first. A part that
// comes twice (a heartbeat sent again, a rank that moved) counts once. Pure; thread-safety: none; memory bounded.
#ifndef DESCENT_SERVER_COORDINATOR_METRIC_MERGE_H_
#define DESCENT_SERVER_COORDINATOR_METRIC_MERGE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/metrics/metric_state.h"
#include "common/tensor/global_scalars.h"
#include "common/tensor/partition_map.h"
#include "descent/v1/coordinator.pb.h"
#include "server/coordinator/gradient_histograms.h"

namespace descent {

// One line of metrics.jsonl.
struct MetricRecord {
  enum class Kind { kTraining, kEvaluation, kRolledBack, kDecision, kGradients };
  Kind kind = Kind::kTraining;
  absl::Time time;
  uint64_t clock = 0;   // the updates of the clocks below are in it
  double epoch = 0;     // of training data seen, from 0; 0 without data
  double loss = 0;      // mean
  uint64_t weight = 0;  // examples
  // Training.
  double rate = 0;
  double examples_per_second = 0;
  std::optional<double> gradient_norm;     // of one of the window's rounds, as the next
  std::optional<double> parameter_change;  // the norm of what it changed in dense tensors
  std::optional<double> clipped;           // share of the steps since the record before that clipping changed
  // Evaluation.
  std::optional<double> accuracy;    // of a classifier
  std::optional<double> train_loss;  // mean over all training data, where the job asks for the objective
  std::optional<double> objective;   // train_loss + regularizer, where that is known
  bool fuzzy = false;
  MetricResults metrics;
  std::optional<uint32_t> worst_rank;  // over whose share of the data the mean loss is the greatest, and that
  double worst_loss = 0;
  // RolledBack: this generation goes on from `clock`; what was recorded of later clocks is computed again.
  uint64_t generation = 0;
  // Decision: what evaluations have led to at `clock`.
  std::string decision, why;
  // Gradients: how often the norm of a tensor's gradient was in which bucket, in the window that ends at `clock`.
  uint64_t rounds = 0;  // of the window, that are known
  std::vector<std::pair<std::string, NormHistogram>> norms;
};

class EvaluationMerge {
 public:
  explicit EvaluationMerge(uint32_t ranks, v1::Evaluation evaluation = {})
      : ranks_(ranks), evaluation_(std::move(evaluation)) {}

  // Fills in clock, loss, weight, accuracy, objective, fuzzy, metrics once the last rank of that clock has reported.
  // Evaluations come out in ascending clocks; an incomplete one that a later one overtakes is dropped. Told in
  // *trouble: such, and parts that are no parts of this job's evaluation.
  std::optional<MetricRecord> Add(const v1::EvaluationPart& part, std::vector<std::string>* trouble);
  size_t pending() const { return pending_.size(); }

 private:
  struct Pending {
    std::map<uint32_t, v1::EvaluationPart> ranks;  // what they counted is in `metrics`
    v1::MetricState metrics;
  };
  MetricRecord Merge(Pending pending) const;

  static constexpr size_t kMaxPending = 256;
  static constexpr size_t kMaxPendingBytes = size_t{64} << 20;  // of counts, beside those of the newest
  uint32_t ranks_;
  v1::Evaluation evaluation_;
  std::map<uint64_t, Pending> pending_;  // by clock
  std::optional<uint64_t> last_;
};

// Windows of `every` clocks, the last one shorter.
class TrainingMerge {
 public:
  TrainingMerge(uint32_t ranks, uint64_t every) : every_(every), below_(ranks, 0), done_(ranks, false) {}

  void Add(const v1::TrainingPart& part);
  // This rank has reported all it will.
  void Done(Rank rank) { done_[rank.value] = true; }
  // The next window that every rank has gone past: clock (its end), loss and weight are filled in.
  std::optional<MetricRecord> Next();
  size_t pending() const { return windows_.size(); }

 private:
  struct Sum {
    double loss = 0, weight = 0;
    uint64_t end = 0;  // of the last part
  };
  static constexpr size_t kMaxPending = 1024;  // ranks may run far apart without a bound on staleness
  uint64_t every_;
  std::vector<uint64_t> below_;  // per rank: the parts of the clocks below are in, or lost with a worker
  std::vector<bool> done_;
  std::map<uint64_t, std::map<uint32_t, Sum>> windows_;  // [window][rank]
};

class ScalarMerge {
 public:
  // `most`: clocks that are kept of either kind, pending and agreed.
  explicit ScalarMerge(size_t most = 64) : most_(most) {}

  // INVALID_ARGUMENT names what does not fit: a block of another server, or twice, lists of different lengths, a number
  // that is negative or NaN or, where a step waits for it, infinite.
  absl::Status Add(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map);
  // Of a clock that every server with blocks has reported; null: not yet, or long ago.
  const ScalarTotals* Totals(uint64_t clock) const;
  // Of the newest such clock within [first, end).
  const ScalarTotals* Within(uint64_t first, uint64_t end) const;
  // The sum of squares of the newest.
  std::optional<double> Last() const;
  // Of the newest clock that some server has told, unless all have: who has not.
  struct Awaited {
    uint64_t clock = 0;
    std::vector<ServerId> servers;
  };
  std::optional<Awaited> awaited(const PartitionMap& map) const;
  // Why what that server told last was refused; "": it was not.
  std::string refusal(ServerId from) const;

 private:
  absl::Status Take(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map);

  size_t most_;
  struct Pending {
    std::set<ServerId> from;
    std::vector<BlockScalars> parts;
  };
  std::map<uint64_t, Pending> pending_;
  std::map<uint64_t, ScalarTotals> agreed_;
  std::map<ServerId, std::string> refused_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_METRIC_MERGE_H_
