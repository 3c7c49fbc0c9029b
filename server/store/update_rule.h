// Update rules: one fused pass over a run of elements, vectorised and elementwise, so that the bits of an element do
// not depend on where a run begins or ends. Stateless and thread-safe.
//
// With g the sum of gradients, the effective gradient is  d = g * scale + l2 * w  (scale = float(1 / total weight)),
// and
//   SGD       w -= rate * d
//   momentum  m = mu * m + d;                         w -= rate * m                 (Polyak 1964; the form of PyTorch)
//   Adagrad   a += d * d;                             w -= rate * d / (sqrt(a) + epsilon)   (Duchi et al. 2011)
//   Adam      m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d d;
//             w -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)        (Kingma & Ba 2015, algorithm 1)
#ifndef DESCENT_SERVER_STORE_UPDATE_RULE_H_
#define DESCENT_SERVER_STORE_UPDATE_RULE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace descent::v1 {
class Optimizer;
}

namespace descent {

struct Step {
  uint64_t t = 1;  // number of this step of the block, from 1
  float rate = 0;
  float scale = 1;
  float l2 = 0;
};

// What the arithmetic of a step multiplies with: made once per step, the bias corrections in double.
struct StepFactors {
  float rate = 0;
  float scale = 1;
  float l2 = 0;
  float first = 1;   // 1 / (1 - b1^t)
  float second = 1;  // 1 / (1 - b2^t)
};

class UpdateRule {
 public:
  // INVALID_ARGUMENT names the field that is out of range. No rule set: SGD.
  static absl::StatusOr<std::unique_ptr<const UpdateRule>> Make(const v1::Optimizer& spec);
  virtual ~UpdateRule() = default;

  virtual int state_slots() const = 0;  // vectors of optimizer state
  virtual float initial_state(int slot) const = 0;
  // True where a step with g == 0 and l2 == 0 leaves w and the state as they are.
  virtual bool idle_without_gradient() const = 0;
  // out[i] = w[i] after one step on g[i], i < n; state[s][i] in place. out may be w, or g. g may be unaligned.
  virtual void Apply(const Step& step, size_t n, const float* w, float* out, float* const* state,
                     const float* g) const = 0;

  // --- Rows: `dim` parameters, then `dim` floats of each state vector ------------------------------------------------
  // One step on each of rows[0, count), in place; g holds count x dim floats at any address. The bits of Apply.
  virtual void ApplyRows(const Step& step, size_t dim, size_t count, float* const* rows, const float* g) const = 0;
  // Row i takes steps[first[i]], steps[first[i] + 1], ... to the last, each with g == 0. The bits of Apply.
  virtual StepFactors Prepare(const Step& step) const = 0;
  virtual void Replay(absl::Span<const StepFactors> steps, size_t dim, size_t count, float* const* rows,
                      const uint32_t* first) const = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_UPDATE_RULE_H_
