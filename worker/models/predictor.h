// Applies a saved model to data: a line for each example, and how well it did.
#ifndef DESCENT_WORKER_MODELS_PREDICTOR_H_
#define DESCENT_WORKER_MODELS_PREDICTOR_H_

#include <cstdint>
#include <iosfwd>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/metrics/metric_state.h"
#include "common/saved_model/saved_model.h"
#include "worker/data/dataset.h"
#include "worker/models/model_factory.h"

namespace descent {

struct PredictOptions {
  bool probabilities = false;  // classifiers: after the class, the probability of every class
  uint32_t batch_size = 1024;  // examples in memory at a time
  bool metrics = true;         // compute the loss, which needs the data's labels; false: they may be anything
  const CustomModels* custom = nullptr;
};

struct PredictSummary {
  uint64_t rows = 0;
  bool classifier = false;
  double loss = 0;        // mean
  double accuracy = 0;    // of a classifier
  MetricResults metrics;  // as the model's job asks for
};

// How data for this model must be opened: fills labels, classes, keys and geometry; the rest stays the caller's.
// INVALID_ARGUMENT: the model takes no data, or its job can't be read.
absl::Status SetDatasetOptions(const SavedModel& model, DatasetOptions* options);

// Writes a line per example, in the order of the rows: a classifier's most likely class (of equals the first); of two
// classes 1 where its probability is at least the threshold that was saved with the model or else its job gives. Then
// with `probabilities` that of each class 0, 1, ..., separated by blanks; a regression's number. Numbers are the
// shortest decimals that read back as the same float. Rows of a table that the model doesn't hold have their initial
// values. INVALID_ARGUMENT: data of another kind or number of features than the model's; a dataset's errors;
// UNAVAILABLE: the stream takes no more. Thread-safe.
absl::Status Predict(const SavedModel& model, const Dataset& data, std::ostream& out, const PredictOptions& options,
                     PredictSummary* summary);

}  // namespace descent

#endif  // DESCENT_WORKER_MODELS_PREDICTOR_H_
