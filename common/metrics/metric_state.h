// Metrics of an evaluation as states that merge: each rank counts over its share of the data (worker/metrics), the
// coordinator puts the counts together and finishes them. A v1::MetricState is such a state.
//
// Counts and scores merge in any order; sums of doubles only in rank order, so these are merged apart. A state's size
// depends on the job alone: 8 bytes for each pair of classes, 4 for each score (at most exact_scores over all ranks) or
// 8 for each of 2 x kScoreBins, 24 for each calibration bin.
//
// Pure; nothing is kept between calls. Thread-safe.
#ifndef DESCENT_COMMON_METRICS_METRIC_STATE_H_
#define DESCENT_COMMON_METRICS_METRIC_STATE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "descent/v1/coordinator.pb.h"
#include "descent/v1/job.pb.h"

namespace descent {

// What a peer sends: INVALID_ARGUMENT unless it has the parts that `evaluation` (resolved) asks for, of sizes that can
// be, and finite scores.
absl::Status CheckMetricState(const v1::Evaluation& evaluation, const v1::MetricState& state);
// The same, for one that is to be merged into `total`: as many classes, bins or scores as it, and no more scores than
// the job allows.
absl::Status CheckMerge(const v1::Evaluation& evaluation, const v1::MetricState& part, const v1::MetricState& total);

// *total, which is empty or of the same shape, takes in the counts and scores of `part`.
void MergeCounts(const v1::MetricState& part, v1::MetricState* total);
// Likewise the sums of doubles.
void MergeSums(const v1::MetricState& part, v1::MetricState* total);
// What MergeCounts has taken is dropped.
void DropCounts(v1::MetricState* part);

struct ReliabilityBin {
  double begin = 0, end = 0;  // of confidence
  uint64_t examples = 0;
  double confidence = 0;  // mean
  double accuracy = 0;    // share that came true
};

struct MetricResults {
  // Single numbers, named as in NamedMetrics; "roc_auc_error" and the like after what they bound. What is not defined
  // on these data (an area without one of the classes) is not there.
  std::vector<std::pair<std::string, double>> values;
  std::vector<std::pair<std::string, std::vector<double>>> per_class;
  std::vector<std::vector<uint64_t>> confusion;  // [label][prediction]
  std::vector<ReliabilityBin> reliability;

  bool empty() const { return values.empty() && per_class.empty() && confusion.empty() && reliability.empty(); }
  const double* Find(const std::string& name) const;
};

// Of the whole: all counts and sums are merged. Also "accuracy", where there is a count by class and the threshold is
// the job's.
MetricResults Finish(const v1::Evaluation& evaluation, v1::MetricState total);

}  // namespace descent

#endif  // DESCENT_COMMON_METRICS_METRIC_STATE_H_
