// The arithmetic of each rule on one element: update_rule.h has the equations. A rule is a value with
//   kStates               vectors of state
//   kStill                whether a step with d == 0 changes nothing; where it is false, state alone may move w
//   kDecoupled            whether l2 shrinks w beside the gradient and not through it
//   kDirected             whether it has a Direction(f, d, w, s...), what Move multiplies with its rate
//   kProximal             whether it is a Proximal (proximal_step.h)
//   initial(slot)         what the state starts at
//   Prepare(step)         what a step multiplies with
//   Move(f, d, w, s...)   one step
//   StepSize(f, s...)     how far the step just made takes w for a gradient of 1 that goes on: the metric of a proximal
//                         step. Rules without one have none that is known to lead to a stated minimum.
//
// Internal to update_rule.cc, whose loops these are inlined into. Thread-safe: stateless.
#ifndef DESCENT_SERVER_STORE_RULE_ARITHMETIC_H_
#define DESCENT_SERVER_STORE_RULE_ARITHMETIC_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "descent/v1/job.pb.h"
#include "server/store/update_rule.h"

namespace descent {

template <int kStateSlots, bool kStillWithoutGradient, bool kDecoupledDecay = false>
struct RuleBase {
  static_assert(kStateSlots <= UpdateRule::kMaxStateSlots);
  static constexpr int kStates = kStateSlots;
  static constexpr bool kStill = kStillWithoutGradient;
  static constexpr bool kDecoupled = kDecoupledDecay;
  static constexpr bool kProximal = false;
  static constexpr bool kDirected = false;
  float initial(int) const { return 0; }
  Trust trust() const { return {}; }
  StepFactors Prepare(const Step& step) const { return {step.rate, step.scale, step.l2, 1, 1}; }
};

// Of a rule that has a momentum, which a schedule may replace.
inline StepFactors WithMomentum(const Step& step, float own) {
  return {step.rate, step.scale, step.l2, 1, 1, step.momentum.value_or(own)};
}

// 1 - x, rounded once.
inline float Rest(double x) { return static_cast<float>(1 - x); }

struct Sgd : RuleBase<0, true> {
  void Move(const StepFactors& f, float d, float& w) const { w -= f.rate * d; }
  float StepSize(const StepFactors& f) const { return f.rate; }
};

struct RunningMean : RuleBase<0, false> {
  float decay, rest;
  explicit RunningMean(double keep) : decay(static_cast<float>(keep)), rest(Rest(keep)) {}
  void Move(const StepFactors&, float d, float& w) const { w = decay * w + rest * d; }
};

struct Momentum : RuleBase<1, false> {
  float mu, rest, gain;  // a gradient's weights in all steps that it takes part in add up to gain
  explicit Momentum(const v1::Momentum& spec)
      : mu(static_cast<float>(spec.momentum())),
        rest(Rest(spec.dampening())),
        gain(static_cast<float>((1 - spec.dampening()) / (1 - spec.momentum()))) {}
  StepFactors Prepare(const Step& step) const { return WithMomentum(step, mu); }
  void Move(const StepFactors& f, float d, float& w, float& m) const {
    m = f.momentum * m + rest * d;
    w -= f.rate * m;
  }
  float StepSize(const StepFactors& f, float) const { return f.rate * gain; }
};

struct Nesterov : RuleBase<1, false> {
  float mu;
  explicit Nesterov(const v1::Nesterov& spec) : mu(static_cast<float>(spec.momentum())) {}
  StepFactors Prepare(const Step& step) const { return WithMomentum(step, mu); }
  void Move(const StepFactors& f, float d, float& w, float& m) const {
    m = f.momentum * m + d;
    w -= f.rate * (d + f.momentum * m);
  }
};

// The rate is within the momentum, as in the paper: a step keeps the rate that it was made with.
struct Lars : RuleBase<1, false> {
  float mu;
  double coefficient;
  explicit Lars(const v1::Lars& spec) : mu(static_cast<float>(spec.momentum())), coefficient(spec.trust()) {}
  Trust trust() const { return {Trust::Of::kGradient, coefficient}; }
  StepFactors Prepare(const Step& step) const { return WithMomentum(step, mu); }
  void Move(const StepFactors& f, float d, float& w, float& m) const {
    m = f.momentum * m + f.rate * d;
    w -= m;
  }
};

struct Adagrad : RuleBase<1, true> {
  float epsilon, accumulator;
  explicit Adagrad(const v1::Adagrad& spec)
      : epsilon(static_cast<float>(spec.epsilon())), accumulator(static_cast<float>(spec.initial_accumulator())) {}
  float initial(int) const { return accumulator; }
  void Move(const StepFactors& f, float d, float& w, float& a) const {
    a += d * d;
    w -= f.rate * d / (std::sqrt(a) + epsilon);
  }
  float StepSize(const StepFactors& f, float a) const { return f.rate / (std::sqrt(a) + epsilon); }
};

struct Adadelta : RuleBase<2, false> {
  float rho, rest, epsilon;
  explicit Adadelta(const v1::Adadelta& spec)
      : rho(static_cast<float>(spec.rho())), rest(Rest(spec.rho())), epsilon(static_cast<float>(spec.epsilon())) {}
  void Move(const StepFactors& f, float d, float& w, float& a, float& u) const {
    a = rho * a + rest * (d * d);
    const float x = std::sqrt(u + epsilon) / std::sqrt(a + epsilon) * d;
    u = rho * u + rest * (x * x);
    w -= f.rate * x;
  }
};

template <bool kCentered>
struct RmsProp : RuleBase<1 + kCentered, false> {
  float decay, rest, epsilon;
  explicit RmsProp(const v1::RmsProp& spec)
      : decay(static_cast<float>(spec.decay())),
        rest(Rest(spec.decay())),
        epsilon(static_cast<float>(spec.epsilon())) {}
  template <typename... Mean>
  float Root(float v, Mean... mean) const {
    return std::sqrt(std::max(v - (0.0f + ... + (mean * mean)), 0.0f)) + epsilon;
  }
  // Of the moving averages: what d is divided by.
  template <typename... Mean>
  float Average(float d, float& v, Mean&... mean) const {
    v = decay * v + rest * (d * d);
    ((mean = decay * mean + rest * d), ...);
    return Root(v, mean...);
  }
  template <typename... Mean>
  void Move(const StepFactors& f, float d, float& w, float& v, Mean&... mean) const {
    w -= f.rate * d / Average(d, v, mean...);
  }
  template <typename... Mean>
  float StepSize(const StepFactors& f, float v, Mean... mean) const {
    return f.rate / Root(v, mean...);
  }
};

template <bool kCentered>
struct RmsPropMomentum : RuleBase<2 + kCentered, false> {
  RmsProp<kCentered> plain;
  float mu;
  explicit RmsPropMomentum(const v1::RmsProp& spec) : plain(spec), mu(static_cast<float>(spec.momentum())) {}
  StepFactors Prepare(const Step& step) const { return WithMomentum(step, mu); }
  template <typename... State>
  void Move(const StepFactors& f, float d, float& w, float& b, State&... state) const {
    b = f.momentum * b + d / plain.Average(d, state...);
    w -= f.rate * b;
  }
};

// By squaring: the same bits whatever the mathematical library.
inline double Power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

// Two moving averages, of d and of its square, whose bias towards their start at 0 is corrected.
struct Moments {
  double b1, b2;
  float beta1, beta2, rest1, rest2, epsilon;
  template <typename Spec>
  explicit Moments(const Spec& spec)
      : b1(spec.beta1()),
        b2(spec.beta2()),
        beta1(static_cast<float>(b1)),
        beta2(static_cast<float>(b2)),
        rest1(Rest(b1)),
        rest2(Rest(b2)),
        epsilon(static_cast<float>(spec.epsilon())) {}
  StepFactors Prepare(const Step& step) const {
    return {step.rate, step.scale, step.l2, static_cast<float>(1 / (1 - Power(b1, step.t))),
            static_cast<float>(1 / (1 - Power(b2, step.t)))};
  }
  void Average(float d, float& m, float& v) const {
    m = beta1 * m + rest1 * d;
    v = beta2 * v + rest2 * (d * d);
  }
  float Root(const StepFactors& f, float v) const { return std::sqrt(v * f.second) + epsilon; }
};

template <bool kDecoupledDecay>
struct AdamRule : RuleBase<2, false, kDecoupledDecay> {
  Moments moments;
  template <typename Spec>
  explicit AdamRule(const Spec& spec) : moments(spec) {}
  StepFactors Prepare(const Step& step) const { return moments.Prepare(step); }
  void Move(const StepFactors& f, float d, float& w, float& m, float& v) const {
    moments.Average(d, m, v);
    w -= f.rate * (m * f.first) / moments.Root(f, v);
  }
  float StepSize(const StepFactors& f, float, float v) const { return f.rate / moments.Root(f, v); }
};
using Adam = AdamRule<false>;
using AdamW = AdamRule<true>;

struct Lamb : AdamRule<true> {
  static constexpr bool kDirected = true;
  using AdamRule::AdamRule;
  Trust trust() const { return {Trust::Of::kDirection, 1}; }
  float Direction(const StepFactors& f, float d, float w, float m, float v) const {
    moments.Average(d, m, v);
    return (m * f.first) / moments.Root(f, v) + f.l2 * w;
  }
};

struct AmsGrad : RuleBase<3, false> {
  Moments moments;
  explicit AmsGrad(const v1::AmsGrad& spec) : moments(spec) {}
  StepFactors Prepare(const Step& step) const { return moments.Prepare(step); }
  void Move(const StepFactors& f, float d, float& w, float& m, float& v, float& h) const {
    moments.Average(d, m, v);
    h = std::max(h, v);
    w -= f.rate * (m * f.first) / moments.Root(f, h);
  }
  float StepSize(const StepFactors& f, float, float, float h) const { return f.rate / moments.Root(f, h); }
};

struct Ftrl : RuleBase<2, true> {
  float beta, l1, l2;
  explicit Ftrl(const v1::Ftrl& spec)
      : beta(static_cast<float>(spec.beta())), l1(static_cast<float>(spec.l1())), l2(static_cast<float>(spec.l2())) {}
  Ftrl Unpenalized() const {
    Ftrl rule = *this;
    rule.l1 = rule.l2 = 0;
    return rule;
  }
  StepFactors Prepare(const Step& step) const {
    return {step.rate, step.scale, step.l2, static_cast<float>(1 / static_cast<double>(step.rate)), 1};
  }
  void Move(const StepFactors& f, float d, float& w, float& z, float& n) const {
    const float before = std::sqrt(n), sum = n + d * d, after = std::sqrt(sum);
    // The first gradient: w is what it starts at.
    const float start = -(w * (beta * f.first + l2) + std::copysign(w == 0 ? 0.0f : l1, w));
    const float moved = (n == 0 ? start : z) + (d - (after - before) * f.first * w);
    const float solved = (std::clamp(moved, -l1, l1) - moved) / ((beta + after) * f.first + l2);
    w = d == 0 ? w : solved;
    z = d == 0 ? z : moved;
    n = sum;
  }
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_RULE_ARITHMETIC_H_
