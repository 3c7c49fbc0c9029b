// The gradient of a batch of very many rows: that of runs of rows, one after the other, added up in double and rounded
// once. A float32 sum over hundreds of thousands of examples has a step of 1e-8 of itself and worse, which is more than
// what full-gradient methods (common/job/full_gradient_spec.h) have to tell apart; and a run fits into caches.
//
// A run has 1/16 of as many rows as the model has parameters, within [1024, 8192], so that adding costs less than what
// is added. The bits are a function of batch, parameters and model alone. For models that draw nothing at random, and
// whose weights are in dense tensors.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_LOOP_LONG_BATCH_H_
#define DESCENT_WORKER_LOOP_LONG_BATCH_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"
#include "worker/data/batch.h"
#include "worker/models/model.h"

namespace descent {

class LongBatch {
 public:
  // As model->Gradient: each gradient[t] is written.
  BatchResult Gradient(const Batch& batch, absl::Span<const float* const> parameters, Model<float>* model,
                       absl::Span<float* const> gradient);

 private:
  Batch part_;
  std::vector<AlignedFloats> of_part_;     // [tensor]
  std::vector<std::vector<double>> sums_;  // [tensor]
};

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_LONG_BATCH_H_
