// For tests: every update rule, in every variation that has arithmetic of its own.
#ifndef DESCENT_SERVER_STORE_RULE_CASES_H_
#define DESCENT_SERVER_STORE_RULE_CASES_H_

#include <string>
#include <vector>

#include "descent/v1/job.pb.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace descent {

// By name, which is what a job would say.
inline v1::Optimizer RuleCase(const std::string& text) {
  v1::Optimizer spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return spec;
}

inline const std::vector<std::string>& PlainRules() {
  static const auto* const rules = new std::vector<std::string>{
      "sgd {}",
      "momentum {}",
      "momentum { momentum: 0.8 dampening: 0.8 }",
      "nesterov {}",
      "adagrad { initial_accumulator: 0.1 }",
      "adadelta {}",
      "rmsprop {}",
      "rmsprop { centered: true }",
      "rmsprop { momentum: 0.9 }",
      "rmsprop { momentum: 0.9 centered: true }",
      "adam {}",
      "adamw {}",
      "amsgrad { beta2: 0.9 }",
      "ftrl { l1: 0.02 l2: 0.1 }",
  };
  return *rules;
}

inline const std::vector<std::string>& ProximalRules() {
  static const auto* const rules = new std::vector<std::string>{
      "sgd {} proximal { l1: 0.3 }",
      "sgd {} proximal { lower: -0.25 upper: 0.5 }",
      "momentum {} proximal { l1: 0.1 l2: 0.2 }",
      "momentum { momentum: 0.8 dampening: 0.8 } proximal { l1: 0.1 non_negative: true }",
      "adagrad { initial_accumulator: 0.1 } proximal { l1: 0.1 upper: 0.5 }",
      "rmsprop {} proximal { l1: 0.1 }",
      "rmsprop { centered: true } proximal { l2: 0.1 }",
      "adam {} proximal { l1: 0.05 l2: 0.1 non_negative: true }",
      "amsgrad {} proximal { l1: 0.05 }",
  };
  return *rules;
}

// With a threshold of groups after it, which is the store's to make.
inline const std::vector<std::string>& GroupRules() {
  static const auto* const rules = new std::vector<std::string>{
      "sgd {} proximal { group_lasso: 0.4 }",
      "momentum {} proximal { l1: 0.05 l2: 0.2 group_lasso: 0.1 }",
  };
  return *rules;
}

// Whose rate is multiplied by a ratio of norms, which is the caller's to find.
inline const std::vector<std::string>& LayerwiseRules() {
  static const auto* const rules = new std::vector<std::string>{"lars {}", "lamb {}"};
  return *rules;
}

inline std::vector<std::string> AllRules() {
  std::vector<std::string> all = PlainRules();
  all.insert(all.end(), ProximalRules().begin(), ProximalRules().end());
  return all;
}

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_RULE_CASES_H_
