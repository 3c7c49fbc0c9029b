// A rule with a proximal step after each of its steps: with w' what the rule makes of w, and c its step size,
//
//   w = argmin over lower <= x <= upper of  (x - w')^2 / (2 c) + l1 |x| + l2/2 x^2
//     = min(max(S(w', c l1) / (1 + c l2), lower), upper),   S(w', k) = w' - min(max(w', -k), k)
//
// where S is the soft threshold. (Duchi & Singer 2009, FOBOS; Parikh & Boyd 2014, sections 6.1.1, 6.5.2 and 1.2; an
// interval cuts off the minimum of a convex function of one variable, so the order is no matter.) The iteration rests
// where 0 is in d + l1 sign(w) + l2 w, up to the box: at a minimum of loss + l1 |w| + l2/2 w^2 over it.
//
// c is the rate for SGD; for momentum the rate by the sum of a gradient's weights in all later steps (with dampening
// equal to momentum the rate: Yang et al. 2020, ProxSGD); for rules that divide by a root per element, the rate over
// that root (Duchi et al. 2011, composite mirror descent; Yun et al. 2021, ProxGen). While an element has had no
// gradient such a root is epsilon and c beyond measure, so the penalty alone decides: the element is 0 under l1.
//
// With a group lasso, lambda sum_g ||w_g||, a second step follows on each group g of a tensor (Yuan & Lin 2006; with l1
// the sparse group lasso of Simon et al. 2013, whose step is the threshold of groups after that of elements):
//
//   w_g = max(0, 1 - k / ||w'_g||) w'_g,   k = c lambda / (1 + c l2)      (Parikh & Boyd 2014, section 6.5.1)
//
// where c must be the same for all of a group, so that it goes with SGD and momentum alone. gradient_shape.h has the
// pass.
//
// Internal to update_rule.cc. Thread-safe: stateless.
#ifndef DESCENT_SERVER_STORE_PROXIMAL_STEP_H_
#define DESCENT_SERVER_STORE_PROXIMAL_STEP_H_

#include <algorithm>
#include <limits>
#include <utility>

#include "descent/v1/job.pb.h"
#include "server/store/update_rule.h"

namespace descent {

struct ProximalStep {
  float l1, l2, lower, upper, group;
  explicit ProximalStep(const v1::Proximal& spec)
      : l1(static_cast<float>(spec.l1())),
        l2(static_cast<float>(spec.l2())),
        lower(spec.non_negative() ? 0.0f
              : spec.has_lower()  ? static_cast<float>(spec.lower())
                                  : -std::numeric_limits<float>::infinity()),
        upper(spec.has_upper() ? static_cast<float>(spec.upper()) : std::numeric_limits<float>::infinity()),
        group(static_cast<float>(spec.group_lasso())) {}

  float Of(float w, float step_size) const {
    const float c = std::min(step_size, std::numeric_limits<float>::max());  // infinite, it would make 0 * c a NaN
    const float k = c * l1;
    const float shrunk = (w - std::min(std::max(w, -k), k)) / (1 + c * l2);
    return std::min(std::max(shrunk, lower), upper);
  }
};

template <typename R>
struct Proximal {
  static constexpr int kStates = R::kStates;
  static constexpr bool kStill = R::kStill;  // where w == 0: there the proximal step rests, too
  static constexpr bool kDecoupled = R::kDecoupled;
  static constexpr bool kProximal = true;
  R rule;
  ProximalStep step;
  static constexpr bool kDirected = false;
  float initial(int slot) const { return rule.initial(slot); }
  Trust trust() const { return {}; }
  // Of rules whose step size does not depend on their state.
  float GroupThreshold(const StepFactors& f) const {
    if (step.group == 0) return 0;
    const float c = SizeOf(f, std::make_index_sequence<kStates>());
    return c * step.group / (1 + c * step.l2);
  }
  StepFactors Prepare(const Step& of) const { return rule.Prepare(of); }
  template <typename... State>
  void Move(const StepFactors& f, float d, float& w, State&... state) const {
    rule.Move(f, d, w, state...);
    w = step.Of(w, rule.StepSize(f, state...));
  }

 private:
  template <size_t... kSlot>
  float SizeOf(const StepFactors& f, std::index_sequence<kSlot...>) const {
    return rule.StepSize(f, (static_cast<void>(kSlot), 0.0f)...);
  }
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_PROXIMAL_STEP_H_
