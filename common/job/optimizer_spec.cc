#include "common/job/optimizer_spec.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/job/full_gradient_spec.h"
#include "google/protobuf/descriptor.h"

namespace descent {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

enum class Kind { kShare, kPositive, kFromZero };

struct Number {
  absl::string_view rule;
  const char* field;
  double otherwise;
  Kind kind;
};

constexpr Number kNumbers[] = {
    {"momentum", "momentum", 0.9, Kind::kShare},
    {"momentum", "dampening", 0, Kind::kShare},
    {"nesterov", "momentum", 0.9, Kind::kShare},
    {"adagrad", "epsilon", 1e-10, Kind::kPositive},
    {"adagrad", "initial_accumulator", 0, Kind::kFromZero},
    {"adadelta", "rho", 0.95, Kind::kShare},
    {"adadelta", "epsilon", 1e-6, Kind::kPositive},
    {"rmsprop", "decay", 0.9, Kind::kShare},
    {"rmsprop", "epsilon", 1e-8, Kind::kPositive},
    {"rmsprop", "momentum", 0, Kind::kShare},
    {"adam", "beta1", 0.9, Kind::kShare},
    {"adam", "beta2", 0.999, Kind::kShare},
    {"adam", "epsilon", 1e-8, Kind::kPositive},
    {"adamw", "beta1", 0.9, Kind::kShare},
    {"adamw", "beta2", 0.999, Kind::kShare},
    {"adamw", "epsilon", 1e-8, Kind::kPositive},
    {"adamw", "weight_decay", 0.01, Kind::kFromZero},
    {"amsgrad", "beta1", 0.9, Kind::kShare},
    {"amsgrad", "beta2", 0.999, Kind::kShare},
    {"amsgrad", "epsilon", 1e-8, Kind::kPositive},
    {"lars", "momentum", 0.9, Kind::kShare},
    {"lars", "trust", 0.001, Kind::kPositive},
    {"lamb", "beta1", 0.9, Kind::kShare},
    {"lamb", "beta2", 0.999, Kind::kShare},
    {"lamb", "epsilon", 1e-6, Kind::kPositive},
    {"lamb", "weight_decay", 0.01, Kind::kFromZero},
    {"ftrl", "beta", 1, Kind::kPositive},
    {"ftrl", "l1", 0, Kind::kFromZero},
    {"ftrl", "l2", 0, Kind::kFromZero},
};

const FieldDescriptor* RuleField(const v1::Optimizer& optimizer) {
  return v1::Optimizer::descriptor()->FindFieldByNumber(optimizer.rule_case());
}

void CheckProximal(const v1::Optimizer& optimizer, JobErrors* errors) {
  const v1::Proximal& step = optimizer.proximal();
  switch (optimizer.rule_case()) {
    case v1::Optimizer::kNesterov:
    case v1::Optimizer::kAdadelta:
    case v1::Optimizer::kAdamw:
    case v1::Optimizer::kLars:
    case v1::Optimizer::kLamb:
    case v1::Optimizer::kFtrl:
      errors->Error("optimizer.proximal", "has no meaning after ", RuleField(optimizer)->name(),
                    optimizer.has_ftrl() ? ", which has l1 and l2 of its own" : "",
                    "; it goes with sgd, momentum, adagrad, adam, amsgrad, and rmsprop without momentum");
      break;
    case v1::Optimizer::kRmsprop:
      if (optimizer.rmsprop().momentum() != 0) {
        errors->Error("optimizer.proximal", "has no meaning after rmsprop with momentum ",
                      optimizer.rmsprop().momentum(), ", whose steps are of many scales");
      }
      break;
    default:
      break;
  }
  errors->FloatFromZero("optimizer.proximal.l1", step.l1());
  errors->FloatFromZero("optimizer.proximal.l2", step.l2());
  if (step.non_negative() && step.has_lower()) {
    errors->Error("optimizer.proximal.lower", step.lower(), " beside non_negative, which is lower: 0");
  }
  // Rows of a table that nobody has touched rest at 0, and so does all that l1 has taken out of a model.
  if (step.lower() > 0) errors->Error("optimizer.proximal.lower", step.lower(), " is above 0, which must be allowed");
  if (step.upper() < 0) errors->Error("optimizer.proximal.upper", step.upper(), " is below 0, which must be allowed");
  if (step.l1() == 0 && step.l2() == 0 && step.group_lasso() == 0 && !step.has_lower() && !step.has_upper() &&
      !step.non_negative()) {
    errors->Error("optimizer.proximal", "does nothing: set l1, l2, group_lasso, lower, upper or non_negative");
  }
}

}  // namespace

void ResolveOptimizer(v1::Optimizer* optimizer) {
  if (optimizer->rule_case() == v1::Optimizer::RULE_NOT_SET) optimizer->mutable_sgd();
  const FieldDescriptor* chosen = RuleField(*optimizer);
  ResolveFullGradientRule(optimizer);
  Message* rule = optimizer->GetReflection()->MutableMessage(optimizer, chosen);
  for (const Number& number : kNumbers) {
    if (number.rule != chosen->name()) continue;
    const FieldDescriptor* field = rule->GetDescriptor()->FindFieldByName(number.field);
    if (!rule->GetReflection()->HasField(*rule, field)) {
      rule->GetReflection()->SetDouble(rule, field, number.otherwise);
    }
  }
}

void CheckOptimizer(const v1::Optimizer& optimizer, JobErrors* errors) {
  const FieldDescriptor* chosen = RuleField(optimizer);
  if (chosen != nullptr) {
    const Message& rule = optimizer.GetReflection()->GetMessage(optimizer, chosen);
    for (const Number& number : kNumbers) {
      if (number.rule != chosen->name()) continue;
      const FieldDescriptor* field = rule.GetDescriptor()->FindFieldByName(number.field);
      const double value = rule.GetReflection()->GetDouble(rule, field);
      const std::string path = absl::StrCat("optimizer.", number.rule, ".", number.field);
      if (number.kind == Kind::kShare) errors->Share(path, value);
      if (number.kind == Kind::kPositive) errors->PositiveFloat(path, value);
      if (number.kind == Kind::kFromZero) errors->FloatFromZero(path, value);
    }
  }
  CheckFullGradientRule(optimizer, errors);
  if (optimizer.has_proximal()) CheckProximal(optimizer, errors);
}

uint32_t StateSlots(const v1::Optimizer& optimizer) {
  switch (optimizer.rule_case()) {
    case v1::Optimizer::kMomentum:
    case v1::Optimizer::kNesterov:
    case v1::Optimizer::kAdagrad:
    case v1::Optimizer::kLars:
      return 1;
    case v1::Optimizer::kRmsprop:
      return 1u + (optimizer.rmsprop().centered() ? 1 : 0) + (optimizer.rmsprop().momentum() > 0 ? 1 : 0);
    case v1::Optimizer::kAdadelta:
    case v1::Optimizer::kAdam:
    case v1::Optimizer::kAdamw:
    case v1::Optimizer::kLamb:
    case v1::Optimizer::kFtrl:
      return 2;
    case v1::Optimizer::kAmsgrad:
      return 3;
    case v1::Optimizer::kLbfgs:
    case v1::Optimizer::kNewtonCg:
      return FullGradientSlots(optimizer);
    default:
      return 0;
  }
}

Penalty PenaltyOf(const v1::JobSpec& job) {
  const v1::Proximal& step = job.optimizer().proximal();
  return {step.l1() + job.optimizer().lbfgs().l1(), job.l2() + step.l2(), step.group_lasso()};
}

}  // namespace descent
