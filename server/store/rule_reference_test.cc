// A thousand steps of every rule against programs in float64, written from the papers and sharing nothing with the
// rules.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "common/job/learning_rate_schedule.h"
#include "common/job/optimizer_spec.h"
#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "server/store/rule_cases.h"
#include "server/store/update_rule.h"

namespace descent {
namespace {

constexpr size_t kElements = 37;
constexpr int kSteps = 1000;

float Draw(uint64_t stream, uint64_t i) { return 2 * RandomStream(7, Purpose::kTest, stream, 0).Uniform(i) - 1; }

// One parameter, in the papers' letters.
class Reference {
 public:
  Reference(const v1::Optimizer& spec, double start) : spec_(spec), x_(start) {
    if (spec.has_adagrad()) sum_ = spec.adagrad().initial_accumulator();
    if (spec.has_ftrl() && start != 0) {  // z whose solution is the start
      z_ = -start * (spec.ftrl().beta() / kAlpha + spec.ftrl().l2()) - (start > 0 ? 1 : -1) * spec.ftrl().l1();
    }
  }
  static constexpr double kAlpha = 0.05f;

  void Step(int t, double eta, double g, double lambda) {
    if (!spec_.has_adamw()) g += lambda * x_;
    double reach = eta;  // the step size that a proximal step takes
    switch (spec_.rule_case()) {
      case v1::Optimizer::kMomentum: {
        const double mu = spec_.momentum().momentum(), tau = spec_.momentum().dampening();
        velocity_ = mu * velocity_ + (1 - tau) * g;
        x_ -= eta * velocity_;
        reach = eta * (1 - tau) / (1 - mu);
        break;
      }
      case v1::Optimizer::kNesterov: {
        // Sutskever et al. (2013) look ahead before the gradient: theta = x - (what momentum alone would add), in whose
        // terms v = mu v - eta g(x); theta += v; x = theta + mu v. So the gradient is taken at x. The rate is constant.
        const double mu = spec_.nesterov().momentum();
        const double before = look_;
        look_ = mu * look_ - eta * g;
        x_ += look_ + mu * look_ - mu * before;
        break;
      }
      case v1::Optimizer::kAdagrad:
        sum_ += g * g;
        reach = eta / (std::sqrt(sum_) + spec_.adagrad().epsilon());
        x_ -= reach * g;
        break;
      case v1::Optimizer::kAdadelta: {
        const double rho = spec_.adadelta().rho(), epsilon = spec_.adadelta().epsilon();
        sum_ = rho * sum_ + (1 - rho) * g * g;
        const double change = -std::sqrt(moved_ + epsilon) / std::sqrt(sum_ + epsilon) * g;
        moved_ = rho * moved_ + (1 - rho) * change * change;
        x_ += eta * change;
        break;
      }
      case v1::Optimizer::kRmsprop: {
        const double rho = spec_.rmsprop().decay();
        sum_ = rho * sum_ + (1 - rho) * g * g;
        mean_ = rho * mean_ + (1 - rho) * g;
        const double variance = spec_.rmsprop().centered() ? sum_ - mean_ * mean_ : sum_;
        reach = eta / (std::sqrt(variance) + spec_.rmsprop().epsilon());
        velocity_ = spec_.rmsprop().momentum() * velocity_ + reach / eta * g;
        x_ -= eta * velocity_;
        break;
      }
      case v1::Optimizer::kAdam:
        reach = Moments(spec_.adam(), t, eta, g, false);
        break;
      case v1::Optimizer::kAdamw:
        x_ *= 1 - eta * lambda;
        Moments(spec_.adamw(), t, eta, g, false);
        break;
      case v1::Optimizer::kAmsgrad:
        reach = Moments(spec_.amsgrad(), t, eta, g, true);
        break;
      case v1::Optimizer::kFtrl: {
        const v1::Ftrl& ftrl = spec_.ftrl();
        const double sigma = (std::sqrt(sum_ + g * g) - std::sqrt(sum_)) / kAlpha;
        z_ += g - sigma * x_;
        sum_ += g * g;
        x_ = std::fabs(z_) <= ftrl.l1()
                 ? 0
                 : -(z_ - (z_ > 0 ? 1 : -1) * ftrl.l1()) / ((ftrl.beta() + std::sqrt(sum_)) / kAlpha + ftrl.l2());
        break;
      }
      default:
        x_ -= eta * g;
    }
    if (!spec_.has_proximal()) return;
    const v1::Proximal& proximal = spec_.proximal();
    const double size = std::max(0.0, std::fabs(x_) - reach * proximal.l1()) / (1 + reach * proximal.l2());
    x_ = x_ < 0 ? -size : size;
    if (proximal.has_lower()) x_ = std::max(x_, proximal.lower());
    if (proximal.non_negative()) x_ = std::max(x_, 0.0);
    if (proximal.has_upper()) x_ = std::min(x_, proximal.upper());
  }
  double x() const { return x_; }

 private:
  template <typename Spec>
  double Moments(const Spec& spec, int t, double alpha, double g, bool largest) {
    mean_ = spec.beta1() * mean_ + (1 - spec.beta1()) * g;
    sum_ = spec.beta2() * sum_ + (1 - spec.beta2()) * g * g;
    largest_ = std::max(largest_, sum_);
    const double root = std::sqrt((largest ? largest_ : sum_) / (1 - std::pow(spec.beta2(), t)));
    x_ -= alpha * (mean_ / (1 - std::pow(spec.beta1(), t))) / (root + spec.epsilon());
    return alpha / (root + spec.epsilon());
  }

  const v1::Optimizer spec_;
  double x_, velocity_ = 0, look_ = 0, sum_ = 0, moved_ = 0, mean_ = 0, largest_ = 0, z_ = 0;
};

struct Outcome {
  std::vector<float> w;
  std::vector<double> want;
};

// `schedule`: half a cosine over the run, after ten rounds of warm-up; else the rate is kAlpha.
Outcome Train(const std::string& kind, float l2, bool schedule, bool from_zero) {
  v1::JobSpec job;
  *job.mutable_optimizer() = RuleCase(kind);
  ResolveOptimizer(job.mutable_optimizer());
  job.mutable_learning_rate()->mutable_cosine()->set_initial(0.05);
  job.mutable_learning_rate()->mutable_cosine()->set_rounds(kSteps - 10);
  job.mutable_learning_rate()->set_warmup_rounds(10);
  const LearningRateSchedule rates(job, 1);
  const auto rule = UpdateRule::Make(RuleCase(kind)).value();
  Outcome out;
  std::vector<Reference> reference;
  for (size_t i = 0; i < kElements; ++i) {
    out.w.push_back(from_zero ? 0 : 1 + Draw(1, i) / 2);
    reference.emplace_back(job.optimizer(), out.w[i]);
  }
  std::vector<std::vector<float>> state;
  std::vector<float*> pointers;
  for (int s = 0; s < rule->state_slots(); ++s) {
    state.emplace_back(kElements, rule->initial_state(s));
    pointers.push_back(state.back().data());
  }
  std::vector<float> g(kElements);
  for (int t = 1; t <= kSteps; ++t) {
    // A direction of each element's own, under noise of about its size.
    for (size_t i = 0; i < kElements; ++i) g[i] = (i % 3 == 0 ? 1 : -1) * (0.6f + 0.4f * Draw(2, i)) + Draw(100 + t, i);
    const float rate = schedule ? rates.At(t - 1) : static_cast<float>(Reference::kAlpha);
    rule->Apply({static_cast<uint64_t>(t), rate, 0.25f, l2}, kElements, out.w.data(), out.w.data(), pointers.data(),
                g.data());
    const double eta = !schedule ? Reference::kAlpha
                       : t <= 10 ? 0.05 * t / 11
                                 : 0.025 * (1 + std::cos(std::numbers::pi * (t - 11) / (kSteps - 10)));
    for (size_t i = 0; i < kElements; ++i) reference[i].Step(t, eta, 0.25 * g[i], l2);
  }
  for (const Reference& r : reference) out.want.push_back(r.x());
  return out;
}

TEST(RuleReference, ThousandStepsAgreeWithFloat64) {
  for (const std::string& kind : AllRules()) {
    const v1::Optimizer spec = RuleCase(kind);
    for (float l2 : {0.0f, 0.01f}) {
      for (bool schedule : {false, true}) {
        for (bool from_zero : {false, true}) {
          // The references of these two are for a rate that stays.
          if (schedule && (spec.has_ftrl() || spec.has_nesterov())) continue;
          // A threshold that stays is rounded the same way each time, which float32 shows after a thousand times.
          if (!schedule && spec.has_proximal()) continue;
          const Outcome out = Train(kind, l2, schedule, from_zero);
          for (size_t i = 0; i < kElements; ++i) {
            // One near 0 has come from further away, and has the rounding of that way.
            EXPECT_NEAR(out.w[i], out.want[i], 1e-5 * std::max(std::fabs(out.want[i]), 0.25))
                << kind << " l2 " << l2 << " schedule " << schedule << " from zero " << from_zero << " element " << i;
          }
        }
      }
    }
  }
}

// A parameter that has had no gradient is where it started, and goes on from there.
TEST(RuleReference, FtrlBeginsWhereTheParameterIs) {
  const auto rule = UpdateRule::Make(RuleCase("ftrl { l1: 0.5 l2: 0.1 }")).value();
  std::vector<float> w = {0.25f, -3.0f, 0.0f}, z(3), n(3), g(3);
  const std::vector<float> start = w;
  float* state[] = {z.data(), n.data()};
  rule->Apply({1, 0.1f, 1, 0}, 3, w.data(), w.data(), state, g.data());
  EXPECT_EQ(w, start);
  g.assign(3, 1e-3f);
  rule->Apply({2, 0.1f, 1, 0}, 3, w.data(), w.data(), state, g.data());
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(w[i], start[i], 5e-4);
  EXPECT_LT(w[0], start[0]);
  EXPECT_LT(w[1], start[1] + 4e-4);
  EXPECT_EQ(w[2], 0) << "within l1";
}

}  // namespace
}  // namespace descent
