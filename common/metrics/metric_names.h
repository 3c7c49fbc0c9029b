// What metrics are called in metrics.jsonl and summary.json, and which of them a job's evaluation gives.
#ifndef DESCENT_COMMON_METRICS_METRIC_NAMES_H_
#define DESCENT_COMMON_METRICS_METRIC_NAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "descent/v1/job.pb.h"

namespace descent {

// What a model predicts. `classes`: of a classifier, at least 2; else 0.
struct Prediction {
  bool classifier = false;
  uint32_t classes = 0;
};

constexpr uint32_t kMostCountedClasses = 512;  // a confusion matrix holds their square

bool Wants(const v1::Evaluation& evaluation, v1::EvaluationMetric metric);
// A count by label and prediction is kept.
bool WantsConfusion(const v1::Evaluation& evaluation);
// The scores of two classes are kept.
bool WantsScores(const v1::Evaluation& evaluation);
// Anything beside loss and accuracy.
bool WantsMetrics(const v1::Evaluation& evaluation);

// INVALID_ARGUMENT: what this evaluation asks for and a model that predicts so can't give, all of it.
absl::Status CheckMetrics(const v1::Evaluation& evaluation, const Prediction& prediction);

// A metric of one number that training may be steered by.
struct NamedMetric {
  std::string name;
  bool more_is_better = false;
};
// Those that this evaluation gives for such a model, in the order in which they are told.
std::vector<NamedMetric> NamedMetrics(const v1::Evaluation& evaluation, const Prediction& prediction);

}  // namespace descent

#endif  // DESCENT_COMMON_METRICS_METRIC_NAMES_H_
