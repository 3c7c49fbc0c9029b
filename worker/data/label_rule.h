// What a label may be, and how it is stored. Use from one thread at a time: it remembers which labels it has seen.
#ifndef DESCENT_WORKER_DATA_LABEL_RULE_H_
#define DESCENT_WORKER_DATA_LABEL_RULE_H_

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "worker/data/dataset.h"

namespace descent {

class LabelRule {
 public:
  LabelRule(LabelKind kind, uint32_t classes) : kind_(kind), classes_(classes) {}

  LabelKind kind() const { return kind_; }
  // False: refused. Labels are of either -1/+1 or 0/1, not of both.
  bool Accept(double number, float* stored) {
    *stored = static_cast<float>(number);
    switch (kind_) {
      case LabelKind::kNumber:
        return std::isfinite(*stored);
      case LabelKind::kCount:
        return std::isfinite(*stored) && number >= 0;
      case LabelKind::kBinary:
        if (number == 1) return true;
        if (number == 0 && !minus_) return zero_ = true;
        if (number == -1 && !zero_) {
          *stored = 0;
          return minus_ = true;
        }
        return false;
      case LabelKind::kClass:
        return number >= 0 && number < classes_ && number == std::floor(number);
    }
    return false;
  }
  // Why Accept has just refused it: "label 3: expected ...".
  std::string Refusal(absl::string_view text) const;

 private:
  const LabelKind kind_;
  const uint32_t classes_;
  bool zero_ = false;
  bool minus_ = false;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_LABEL_RULE_H_
