// The objective of a job at any parameters, with its gradient, in double: the mean loss over rows of the training data,
// plus l2/2 ||w||^2 over tensors that are decayed. As a function of one vector: the trainable tensors one behind the
// other; the others keep the values that are given.
//
// Rows are read in batches, in the order given, and sums made in that order: the same bits for the same input.
//
// Thread-safety: none; the pointers outlive it.
#ifndef DESCENT_WORKER_CURVATURE_MEAN_LOSS_H_
#define DESCENT_WORKER_CURVATURE_MEAN_LOSS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/data/batch.h"
#include "worker/data/dataset.h"
#include "worker/models/model.h"

namespace descent {

struct MeanLossOptions {
  double l2 = 0;
  uint32_t batch_rows = 1024;
};

class MeanLoss {
 public:
  // `data`: null where the model reads none. `parameters`: per tensor, where the vector starts, and what the tensors
  // that are not trained stay at. INVALID_ARGUMENT: a sparse table, whose rows no vector holds; a running statistic,
  // with which the loss is not one of single examples; nothing that is trained.
  static absl::StatusOr<std::unique_ptr<MeanLoss>> Create(Model<double>* model, const Dataset* data,
                                                          std::vector<uint64_t> rows,
                                                          const std::vector<absl::Span<const float>>& parameters,
                                                          const MeanLossOptions& options);

  ~MeanLoss();

  const std::vector<double>& start() const { return start_; }  // the vector as given
  size_t size() const { return start_.size(); }
  uint64_t rows() const { return data_ == nullptr ? 0 : rows_.size(); }

  // Of the objective at x; what is returned is the mean loss, without l2. Errors of the data; FAILED_PRECONDITION: it
  // is not finite.
  absl::StatusOr<double> Gradient(absl::Span<const double> x, absl::Span<double> gradient);
  // `product` = H v, H the Hessian at x: (g(x + e u) - g(x - e u)) ||v|| / 2e, u = v / ||v||, with e the cube root of
  // the rounding unit times 1 + ||x||: central differences, exact for quadratics up to rounding, else to an error of
  // e^2. What Pearlmutter (1994) has instead, the derivative of the gradient along v, every model would need to write
  // down.
  absl::Status HessianProduct(absl::Span<const double> x, absl::Span<const double> v, absl::Span<double> product);

 private:
  struct Buffers;
  MeanLoss(Model<double>* model, const Dataset* data, std::vector<uint64_t> rows, const MeanLossOptions& options);

  Model<double>* const model_;
  const Dataset* const data_;
  const std::vector<uint64_t> rows_;
  const MeanLossOptions options_;
  std::vector<double> start_;
  const std::unique_ptr<Buffers> buffers_;  // as the model wants them
  std::vector<double> at_, above_, below_;
  Batch batch_;
};

// `wanted` of `all` rows, evenly spaced from the first on; 0, or more than there are: all.
std::vector<uint64_t> SpacedRows(uint64_t all, uint64_t wanted);

}  // namespace descent

#endif  // DESCENT_WORKER_CURVATURE_MEAN_LOSS_H_
