// Update rules: one fused pass over a run of elements, vectorised and elementwise, so that the bits of an element do
// not depend on where a run begins or ends. Stateless and thread-safe.
//
// With g the sum of gradients, the effective gradient is  d = g * scale + l2 * w  (scale = float(1 / total weight)),
// and
//   SGD       w -= rate d                                                           (Robbins & Monro 1951)
//   momentum  m = mu m + (1 - dampening) d;           w -= rate m                   (Polyak 1964; m from 0)
//   Nesterov  m = mu m + d;                           w -= rate (d + mu m)          (Nesterov 1983; PyTorch's form)
//   Adagrad   a += d d;                               w -= rate d / (sqrt(a) + epsilon)     (Duchi et al. 2011)
//   Adadelta  a = rho a + (1 - rho) d d;              x = sqrt(u + epsilon) / sqrt(a + epsilon) d;
//             u = rho u + (1 - rho) x x;              w -= rate x                   (Zeiler 2012, where rate is 1)
//   RMSProp   v = decay v + (1 - decay) d d;          w -= rate d / (sqrt(v) + epsilon)     (Tieleman & Hinton 2012)
//             centered: m = decay m + (1 - decay) d;  sqrt(max(v - m m, 0)) in place of sqrt(v)      (Graves 2013)
//             with momentum: b = mu b + d / (...);    w -= rate b
//   Adam      m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d d;
//             w -= rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)         (Kingma & Ba 2015, algorithm 1)
//   AdamW     d = g * scale; w -= rate l2 w; then as Adam: l2 is the weight decay   (Loshchilov & Hutter 2019; the form
//             of PyTorch, whose decay is multiplied by the whole rate)
//   AMSGrad   as Adam, with the largest v so far, h = max(h, v), in place of v      (Reddi et al. 2018; as in PyTorch,
//             with Adam's corrections of the bias, which the paper leaves out)
//   LARS      m = mu m + rate r (d + l2 w);           w -= m                        (You et al. 2017, algorithm 1)
//             r = trust ||w|| / (||d|| + l2 ||w||) of the tensor
//   LAMB      as AdamW, rate r in place of rate; r = ||w|| / ||u|| of the tensor, u what AdamW multiplies with its rate
//             (You et al. 2020, algorithm 2, phi the identity)
//             The caller finds r, which is a factor of the step's rate (Trust); where w or d is 0, and on tensors that
//             are not decayed, it is 1.
//   FTRL      s = (sqrt(n + d d) - sqrt(n)) / alpha; z += d - s w; n += d d;        (McMahan et al. 2013, algorithm 1)
//             w = 0 where |z| <= l1, else -(z - sign(z) l1) / ((beta + sqrt(n)) / alpha + l2)
//             alpha is the rate, which must stay the same. A parameter that does not start at 0 starts with the z
//             whose solution it is, and d == 0 makes no step.
//
// Of tensors that are statistics of what is trained on, with d = g * scale the mean of what came, whatever the rate:
//   running   w = decay w + (1 - decay) d                                           (Ioffe & Szegedy 2015, section 3.1)
//
// A proximal step may follow (proximal_step.h).
#ifndef DESCENT_SERVER_STORE_UPDATE_RULE_H_
#define DESCENT_SERVER_STORE_UPDATE_RULE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

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
  std::optional<float> momentum = std::nullopt;  // in place of the rule's own
};

// What the arithmetic of a step multiplies with: made once per step, the bias corrections in double.
struct StepFactors {
  float rate = 0;
  float scale = 1;
  float l2 = 0;
  float first = 1;   // 1 / (1 - b1^t); FTRL: 1 / alpha
  float second = 1;  // 1 / (1 - b2^t)
  float momentum = 0;
};

// Whether a step's rate is to be multiplied by a ratio of norms of the whole tensor.
struct Trust {
  enum class Of : uint8_t { kNothing, kGradient, kDirection };
  Of of = Of::kNothing;
  double coefficient = 1;
};

class FullGradientMethod;

class UpdateRule {
 public:
  static constexpr int kMaxStateSlots = 3;

  // INVALID_ARGUMENT names every field that is out of range. No rule set: SGD.
  static absl::StatusOr<std::unique_ptr<const UpdateRule>> Make(const v1::Optimizer& spec);
  // Of running statistics; decay from 0 to below 1.
  static std::unique_ptr<const UpdateRule> RunningMean(double decay);
  virtual ~UpdateRule() = default;

  virtual int state_slots() const = 0;  // vectors of optimizer state
  virtual float initial_state(int slot) const = 0;
  // True where a step with g == 0 and l2 == 0 leaves w and the state as they are.
  virtual bool idle_without_gradient() const = 0;
  // Whether a proximal step follows each step: then w moves where gradient, l2 and state are 0.
  virtual bool proximal() const = 0;
  // The same rule without proximal step, l1 and l2 of its own: for tensors that are not decayed.
  virtual const UpdateRule& unpenalized() const = 0;
  virtual Trust trust() const { return {}; }
  // Where steps are a method's (full_gradient_method.h), whose state_slots these are: a new one. Else null. Then
  // neither Apply nor what is for rows may be called.
  virtual std::unique_ptr<FullGradientMethod> NewMethod() const;
  virtual size_t products() const { return 0; }  // the method's
  // trust().of == kDirection: out[i] is what the step would multiply with its rate; nothing is changed.
  virtual void Direction(const Step& step, size_t n, const float* w, float* out, const float* const* state,
                         const float* g) const;
  // Above 0: after each step each group of parameters of a tensor that is decayed makes another, of which this is the
  // threshold (proximal_step.h).
  virtual float GroupThreshold(const StepFactors& factors) const = 0;
  float GroupThreshold(const Step& step) const { return GroupThreshold(Prepare(step)); }
  // out[i] = w[i] after one step on g[i], i < n; state[s][i] in place. out may be w, or g. g may be unaligned.
  virtual void Apply(const Step& step, size_t n, const float* w, float* out, float* const* state,
                     const float* g) const = 0;

  // --- Rows: `dim` parameters, then `dim` floats of each state vector ------------------------------------------------
  // One step on each of rows[0, count), in place; g holds count x dim floats at any address. The bits of Apply.
  virtual void ApplyRows(const Step& step, size_t dim, size_t count, float* const* rows, const float* g) const = 0;
  // Row i takes steps[first[i]], steps[first[i] + 1], ... to the last, each with g == 0. The bits of Apply. Zeros, of
  // parameters and state, rest whatever the rule.
  virtual StepFactors Prepare(const Step& step) const = 0;
  virtual void Replay(absl::Span<const StepFactors> steps, size_t dim, size_t count, float* const* rows,
                      const uint32_t* first) const = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_UPDATE_RULE_H_
