#include "server/store/update_rule.h"

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "common/base/check.h"
#include "common/job/optimizer_spec.h"
#include "descent/v1/job.pb.h"
#include "server/store/newton_cg.h"
#include "server/store/proximal_step.h"
#include "server/store/quasi_newton.h"
#include "server/store/rule_arithmetic.h"
#include "server/store/rule_runs.h"

namespace descent {
namespace {

using Result = std::unique_ptr<const UpdateRule>;

template <typename R>
Result Plain(R rule) {
  return std::make_unique<RuleOf<R>>(rule);
}

// With the proximal step, if there is one.
template <typename R>
Result WithProximal(const v1::Optimizer& spec, R rule) {
  if (!spec.has_proximal()) return Plain(rule);
  const Proximal<R> with{rule, ProximalStep(spec.proximal())};
  return std::make_unique<PenalizedRuleOf<Proximal<R>, R>>(with, rule);
}

// What UpdateRule says of a method; it makes no steps itself.
class FullGradientRule final : public UpdateRule {
 public:
  using Factory = std::function<std::unique_ptr<FullGradientMethod>()>;
  explicit FullGradientRule(Factory make)
      : make_(std::move(make)), products_(make_()->products()), state_slots_(make_()->state_slots()) {}

  std::unique_ptr<FullGradientMethod> NewMethod() const override { return make_(); }
  size_t products() const override { return products_; }
  int state_slots() const override { return state_slots_; }
  float initial_state(int) const override { return 0; }
  bool idle_without_gradient() const override { return false; }
  bool proximal() const override { return false; }
  const UpdateRule& unpenalized() const override { return *this; }  // the method is told which blocks are not decayed
  float GroupThreshold(const StepFactors&) const override { return 0; }
  StepFactors Prepare(const Step&) const override { return {}; }
  void Apply(const Step&, size_t, const float*, float*, float* const*, const float*) const override { Never(); }
  void ApplyRows(const Step&, size_t, size_t, float* const*, const float*) const override { Never(); }
  void Replay(absl::Span<const StepFactors>, size_t, size_t, float* const*, const uint32_t*) const override { Never(); }

 private:
  static void Never() { DESCENT_CHECK(false); }

  const Factory make_;
  const size_t products_;
  const int state_slots_;
};

Result MakeRmsProp(const v1::Optimizer& spec) {
  const v1::RmsProp& rule = spec.rmsprop();
  if (rule.momentum() == 0) {
    return rule.centered() ? WithProximal(spec, RmsProp<true>(rule)) : WithProximal(spec, RmsProp<false>(rule));
  }
  return rule.centered() ? Plain(RmsPropMomentum<true>(rule)) : Plain(RmsPropMomentum<false>(rule));
}

}  // namespace

std::unique_ptr<FullGradientMethod> UpdateRule::NewMethod() const { return nullptr; }

void UpdateRule::Direction(const Step&, size_t, const float*, float*, const float* const*, const float*) const {
  DESCENT_CHECK(false);  // it measures none
}

Result UpdateRule::RunningMean(double decay) { return Plain(descent::RunningMean(decay)); }

absl::StatusOr<Result> UpdateRule::Make(const v1::Optimizer& given) {
  v1::Optimizer spec = given;
  ResolveOptimizer(&spec);
  JobErrors errors;
  errors.Plain(spec, "optimizer");
  CheckOptimizer(spec, &errors);
  if (absl::Status status = errors.status(); !status.ok()) return status;
  switch (spec.rule_case()) {
    case v1::Optimizer::kMomentum:
      return WithProximal(spec, Momentum(spec.momentum()));
    case v1::Optimizer::kNesterov:
      return Plain(Nesterov(spec.nesterov()));
    case v1::Optimizer::kAdagrad:
      return WithProximal(spec, Adagrad(spec.adagrad()));
    case v1::Optimizer::kAdadelta:
      return Plain(Adadelta(spec.adadelta()));
    case v1::Optimizer::kRmsprop:
      return MakeRmsProp(spec);
    case v1::Optimizer::kAdam:
      return WithProximal(spec, Adam(spec.adam()));
    case v1::Optimizer::kAdamw:
      return Plain(AdamW(spec.adamw()));
    case v1::Optimizer::kAmsgrad:
      return WithProximal(spec, AmsGrad(spec.amsgrad()));
    case v1::Optimizer::kLars:
      return Plain(Lars(spec.lars()));
    case v1::Optimizer::kLamb:
      return Plain(Lamb(spec.lamb()));
    case v1::Optimizer::kFtrl:
      return std::make_unique<PenalizedRuleOf<Ftrl, Ftrl>>(Ftrl(spec.ftrl()), Ftrl(spec.ftrl()).Unpenalized());
    case v1::Optimizer::kLbfgs:
      return std::make_unique<FullGradientRule>(
          [spec = spec.lbfgs()] { return std::make_unique<QuasiNewton>(spec.history(), spec.l1()); });
    case v1::Optimizer::kNewtonCg:
      return std::make_unique<FullGradientRule>(
          [spec = spec.newton_cg()] { return std::make_unique<NewtonCg>(spec.max_products(), spec.forcing()); });
    case v1::Optimizer::kSgd:
    case v1::Optimizer::RULE_NOT_SET:
      break;
  }
  return WithProximal(spec, Sgd());
}

}  // namespace descent
