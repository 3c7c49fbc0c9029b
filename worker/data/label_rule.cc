#include "worker/data/label_rule.h"

#include "absl/strings/str_cat.h"

namespace descent {

std::string LabelRule::Refusal(absl::string_view text) const {
  std::string refusal = absl::StrCat("label ", text, ": expected ");
  switch (kind_) {
    case LabelKind::kNumber:
      absl::StrAppend(&refusal, "a finite number");
      break;
    case LabelKind::kBinary:
      absl::StrAppend(&refusal, zero_    ? "0 or 1, as earlier labels are"
                                : minus_ ? "-1 or +1, as earlier labels are"
                                         : "-1 or +1, or 0 or 1");
      break;
    case LabelKind::kClass:
      absl::StrAppend(&refusal, "a class from 0 to ", classes_ - 1);
      break;
    case LabelKind::kCount:
      absl::StrAppend(&refusal, "a number from 0, for a count");
      break;
  }
  return refusal;
}

}  // namespace descent
