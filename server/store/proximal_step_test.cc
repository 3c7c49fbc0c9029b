// A proximal step solves its problem, and rules with one come to rest at a minimum of loss + penalty.
#include "server/store/proximal_step.h"

#include <cmath>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "server/store/rule_cases.h"

namespace descent {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

ProximalStep StepOf(double l1, double l2, double lower, double upper) {
  v1::Proximal spec;
  spec.set_l1(l1);
  spec.set_l2(l2);
  if (std::isfinite(lower)) spec.set_lower(lower);
  if (std::isfinite(upper)) spec.set_upper(upper);
  return ProximalStep(spec);
}

// How far 0 is from pull + l1 d|x| + (what a bound at x pushes back), the subdifferential at x: 0 at an optimum.
double Violation(double x, double pull, double l1, double lower, double upper) {
  double low = pull - l1, high = pull + l1;  // at x == 0
  if (x > 0) low = high = pull + l1;
  if (x < 0) low = high = pull - l1;
  if (x == lower) low = -kInfinity;
  if (x == upper) high = kInfinity;
  return low > 0 ? low : high < 0 ? -high : 0;
}

TEST(ProximalStep, SolvesItsProblem) {
  const RandomStream random(3, Purpose::kTest, 1, 0);
  uint64_t draw = 0;
  const auto uniform = [&](double low, double high) { return low + (high - low) * random.Uniform(draw++); };
  int at_zero = 0, at_bound = 0;
  for (int i = 0; i < 20000; ++i) {
    const float w = static_cast<float>(uniform(-3, 3)), c = static_cast<float>(uniform(0.01, 2));
    const float l1 = random.Below(draw++, 3) == 0 ? 0 : static_cast<float>(uniform(0, 1));
    const float l2 = random.Below(draw++, 3) == 0 ? 0 : static_cast<float>(uniform(0, 1));
    const float lower = random.Below(draw++, 2) == 0 ? -kInfinity : static_cast<float>(uniform(-1, 0));
    const float upper = random.Below(draw++, 2) == 0 ? kInfinity : static_cast<float>(uniform(0, 1));
    const float x = StepOf(l1, l2, lower, upper).Of(w, c);
    ASSERT_GE(x, lower);
    ASSERT_LE(x, upper);
    const double pull = (double{x} - w) / c + l2 * double{x};
    ASSERT_LE(Violation(x, pull, l1, lower, upper), 2e-6 * (1 + std::fabs(w) / c))
        << "w " << w << " c " << c << " l1 " << l1 << " l2 " << l2 << " box " << lower << ".." << upper << ": " << x;
    at_zero += x == 0;
    at_bound += x == lower || x == upper;
  }
  EXPECT_GT(at_zero, 1000);
  EXPECT_GT(at_bound, 1000);
}

TEST(ProximalStep, Limits) {
  EXPECT_EQ(StepOf(0.5, 0, -kInfinity, kInfinity).Of(2, 1), 1.5f);
  EXPECT_EQ(StepOf(0.5, 0, -kInfinity, kInfinity).Of(-2, 1), -1.5f);
  EXPECT_EQ(StepOf(0, 1, -kInfinity, kInfinity).Of(3, 0.5f), 2.0f);
  EXPECT_EQ(StepOf(0, 0, -1, 1).Of(3, 1), 1.0f);
  EXPECT_EQ(StepOf(0.5, 0.5, -1, 1).Of(2, 0), 1.0f) << "a rate of 0 leaves the box alone";
  EXPECT_EQ(StepOf(0.5, 0, -kInfinity, kInfinity).Of(2, kInfinity), 0.0f);
  EXPECT_EQ(StepOf(0, 0, -1, kInfinity).Of(2, kInfinity), 2.0f) << "no NaN from 0 times infinity";
  for (const char* kind : {"sgd {}", "adam {}"}) {  // zero rests, as + 0
    const auto rule = UpdateRule::Make(RuleCase(std::string(kind) + "proximal { l1: 1 l2: 1 lower: -1 }")).value();
    float w = 0, g = 0, s0 = 0, s1 = 0;
    float* state[] = {&s0, &s1};
    rule->Apply({1, 0.1f, 1, 0}, 1, &w, &w, state, &g);
    EXPECT_EQ(w, 0);
    EXPECT_FALSE(std::signbit(w));
  }
}

// On  a/2 (w - c)^2  per element, with a rate that falls.
TEST(ProximalStep, RulesRestAtTheOptimum) {
  constexpr size_t kElements = 40;
  for (const std::string& kind : ProximalRules()) {
    const v1::Optimizer spec = RuleCase(kind);
    const auto rule = UpdateRule::Make(spec).value();
    std::vector<float> w(kElements, 0.3f), g(kElements), a(kElements), c(kElements);
    std::vector<std::vector<float>> state;
    std::vector<float*> pointers;
    for (int s = 0; s < rule->state_slots(); ++s) {
      state.emplace_back(kElements, rule->initial_state(s));
      pointers.push_back(state.back().data());
    }
    for (size_t i = 0; i < kElements; ++i) {
      a[i] = 0.5f + static_cast<float>(i % 4) / 4;
      c[i] = static_cast<float>(i) / 20 - 1;
    }
    for (uint64_t t = 1; t <= 20000; ++t) {
      for (size_t i = 0; i < kElements; ++i) g[i] = a[i] * (w[i] - c[i]);
      const float rate = 0.1f / (1 + static_cast<float>(t) / 500);
      rule->Apply({t, rate, 1, 0}, kElements, w.data(), w.data(), pointers.data(), g.data());
    }
    const v1::Proximal& p = spec.proximal();
    const double lower = p.non_negative() ? 0 : p.has_lower() ? p.lower() : -kInfinity;
    const double upper = p.has_upper() ? p.upper() : kInfinity;
    for (size_t i = 0; i < kElements; ++i) {
      const double pull = double{a[i]} * (w[i] - c[i]) + p.l2() * w[i];
      EXPECT_LE(Violation(w[i], pull, p.l1(), lower, upper), 2e-3) << kind << " center " << c[i] << ": " << w[i];
    }
  }
}

}  // namespace
}  // namespace descent
