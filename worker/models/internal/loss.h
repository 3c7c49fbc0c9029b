// The output end of the models: from scores to losses, their derivatives and predictions. Losses are added in double in
// the order of the rows. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_LOSS_H_
#define DESCENT_WORKER_MODELS_INTERNAL_LOSS_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "worker/data/batch.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/model.h"

namespace descent::internal {

// Of an example with label y and score z; d = z - y, and s = 1 for class 1, -1 for class 0. A derivative at a kink is
// the subgradient stated.
enum class LossKind {
  kSquared,             // d^2 / 2
  kAbsolute,            // |d|; 0 at d = 0
  kQuantile,            // max((1 - tau) d, -tau d) (Koenker and Bassett 1978); 0 at d = 0
  kHuber,               // d^2 / 2 to |d| = delta, then delta (|d| - delta / 2) (Huber 1964)
  kEpsilonInsensitive,  // max(0, |d| - epsilon) (Vapnik 1995, section 6.1); 0 at |d| = epsilon
  kPoisson,             // exp(z) - y z: the negative log likelihood less log y!; beyond z = 50 its tangent
  kLogistic,            // log(1 + exp(-s z)); focal: sigmoid(-s z)^gamma times that (Lin et al. 2017, equation 4)
  kHinge,               // max(0, 1 - s z) (Cortes and Vapnik 1995); 0 at s z = 1
  kSquaredHinge,        // max(0, 1 - s z)^2
  kSoftmax,             // -log p_y, p = softmax(z); focal: (1 - p_y)^gamma times that
};

constexpr bool OfNumber(LossKind kind) { return kind <= LossKind::kPoisson; }

struct LossSpec {
  LossKind kind = LossKind::kSquared;
  double parameter = 0;               // tau, delta, epsilon; of kLogistic and kSoftmax gamma, 0: not focal
  size_t outputs = 1;                 // kSoftmax: classes; kinds of a number: numbers that an example has
  std::vector<double> class_weights;  // an example's loss is multiplied by that of its class; empty: all 1
};

// One thread calls it at a time: it has scratch memory. T: float, double.
template <typename T>
class Loss {
 public:
  explicit Loss(LossSpec spec) : spec_(std::move(spec)) {}

  bool classifier() const { return !OfNumber(spec_.kind); }
  size_t outputs() const { return spec_.outputs; }

  // Of scores z [rows x outputs]. With `delta`, z becomes the derivatives of the examples' losses; without, it is
  // undefined. Of equally likely classes the first counts as predicted.
  BatchResult Of(const Batch& batch, T* z, bool delta);
  // The same with numbers [rows x outputs] in the place of labels: kinds of a number alone.
  BatchResult Of(const Batch& batch, const T* target, T* z, bool delta);
  // z becomes predictions: exp(z) with kPoisson; probabilities of the classes; of two classes that of class 1, which
  // the kinds of hinge do not estimate: theirs is sigmoid(z), above 1/2 where class 1 is chosen.
  void Predict(T* z, size_t rows) const;

 private:
  template <typename Y>
  void Each(const Y* y, size_t n, T* z, bool delta);
  BatchResult Softmax(const Batch& batch, T* z, bool delta);
  void Weigh(const Batch& batch, T* z, bool delta);
  double WeightOf(const Batch& batch, size_t row) const;
  bool weighted(const Batch& batch) const { return !spec_.class_weights.empty() || !batch.weight.empty(); }

  const LossSpec spec_;
  AlignedBuffer<double> loss_;
};

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_LOSS_H_
