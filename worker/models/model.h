// A model: its tensors, and the loss and gradient of a batch. Implement this to train a model of your own
// (examples/custom_model); worker/models/gradient_check.h tests a gradient against differences.
//
// A model is a pure function of (batch, parameters), what it draws at random one of (seed, batch.rank, batch.clock): it
// keeps no state but scratch memory, and the same bits in give the same bits out. One thread calls it at a time.
#ifndef DESCENT_WORKER_MODELS_MODEL_H_
#define DESCENT_WORKER_MODELS_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"
#include "worker/data/batch.h"

namespace descent {

// Sums over the examples of a batch.
struct BatchResult {
  double loss = 0;     // each example's times its weight, where there are weights
  double weight = 0;   // examples
  double correct = 0;  // of a classifier: examples whose most likely class is their label
};

// T is float in training and double under the gradient checker.
template <typename T>
class Model {
 public:
  virtual ~Model() = default;

  // In a fixed order: tensor i of the calls below. Shapes row-major.
  virtual const std::vector<TensorSpec>& tensors() const = 0;
  virtual bool classifier() const = 0;
  virtual size_t outputs() const = 0;  // numbers per example that Predict writes

  // parameters[i] points to tensor i, aligned to 64 bytes. Of a sparse table it points to the rows of batch.keys, in
  // their order. gradient[i], of the same shape and alignment, is overwritten with the SUM of the examples' gradients.
  // NaN and Inf in the parameters show in the gradient or the loss. If Unwanted(), what is returned does not matter.
  //
  // Of a tensor of role kStatistic gradient[i] is no gradient, but the batch's statistic times the weight that is
  // returned. The servers keep a running mean of it over rounds, each the weighted mean of its batches'; that is what
  // comes in as the tensor, for Evaluate and Predict.
  virtual BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                               absl::Span<T* const> gradient) = 0;
  // The loss alone.
  virtual BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) = 0;
  // batch.rows x outputs() numbers: the prediction (regression), the probability of class 1 (binary), probabilities.
  virtual void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) = 0;

  // Set by the training loop with backup ranks: whether the round of the batch in hand has closed without it.
  void set_unwanted(std::function<bool()> unwanted) { unwanted_ = std::move(unwanted); }

 protected:
  // A Gradient that takes long may ask now and then, and stop. It costs about a microsecond.
  bool Unwanted() const { return unwanted_ != nullptr && unwanted_(); }

 private:
  std::function<bool()> unwanted_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_MODELS_MODEL_H_
