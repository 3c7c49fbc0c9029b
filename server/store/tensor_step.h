// What the sums over whole tensors make of a step of each tensor. Values; pure.
#ifndef DESCENT_SERVER_STORE_TENSOR_STEP_H_
#define DESCENT_SERVER_STORE_TENSOR_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor/global_scalars.h"
#include "server/store/update_rule.h"

namespace descent {

// What a step's gradient is kept within; 0: anything.
struct ClipBounds {
  float value = 0;         // of an element
  double norm = 0;         // of a tensor
  double global_norm = 0;  // of all of them together
};

// Factors of a step's gradient and of its rate.
struct TensorStep {
  float gradient = 1;
  float rate = 1;
};

// Of steps with a gradient: all, and those whose gradient was clipped.
struct StepCounts {
  uint64_t steps = 0, clipped = 0;
};

// With s_t the sum of squares of tensor t, by tensor:
//
//   f_t = min(1, norm / sqrt(s_t)),   f = min(1, global_norm / sqrt(sum_t f_t^2 s_t)),   gradient = f_t f
//                                                                                      (Pascanu, Mikolov & Bengio 2013)
//   rate = coefficient ||w_t|| / (||d_t|| + l2 ||w_t||)   LARS, d_t the gradient that is left
//          ||w_t|| / ||u_t||                              LAMB, u_t its direction; 1 where a norm is 0
//
// in double, rounded to float once. `trust` and `l2` are of each tensor.
std::vector<TensorStep> TensorSteps(const ClipBounds& clip, const ScalarTotals& totals, absl::Span<const Trust> trust,
                                    absl::Span<const float> l2);

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_TENSOR_STEP_H_
