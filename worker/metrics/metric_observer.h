// Counts, over examples and what a model predicts of them, what the metrics of an evaluation are made of. The result is
// a function of the examples in their order, not of how they are cut into batches.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_METRICS_METRIC_OBSERVER_H_
#define DESCENT_WORKER_METRICS_METRIC_OBSERVER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/metrics/metric_names.h"
#include "descent/v1/coordinator.pb.h"
#include "descent/v1/job.pb.h"
#include "worker/models/model.h"

namespace descent {

template <typename T>
Prediction PredictionOf(const Model<T>& model) {
  const auto outputs = static_cast<uint32_t>(model.outputs());
  return {model.classifier(), model.classifier() ? (outputs == 1 ? 2 : outputs) : 0};
}

class MetricObserver {
 public:
  // `evaluation` is resolved and fits the prediction (CheckMetrics). `rows`: of the whole data set, of which this may
  // be a share; it decides whether scores are kept or binned.
  MetricObserver(const v1::Evaluation& evaluation, const Prediction& prediction, uint64_t rows);

  // A batch's labels, and the model's outputs (Model::Predict) for each: a number, the probability of class 1, or
  // probabilities.
  void Add(absl::Span<const float> labels, absl::Span<const float> outputs);

  // Of all that was added. Leaves it empty.
  v1::MetricState Take();

 private:
  void Clear();
  void AddNumber(float label, float predicted);
  void AddClass(uint32_t label, const float* outputs, size_t n);
  void AddConfidence(float confidence, bool came_true);

  const v1::Evaluation evaluation_;
  const Prediction prediction_;
  const bool confusion_, scores_, binned_, top_, log_loss_, calibration_;
  v1::MetricState state_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_METRICS_METRIC_OBSERVER_H_
