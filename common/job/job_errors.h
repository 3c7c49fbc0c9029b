// What is wrong with a job, collected: a line each, by field path.
#ifndef DESCENT_COMMON_JOB_JOB_ERRORS_H_
#define DESCENT_COMMON_JOB_JOB_ERRORS_H_

#include <cmath>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace descent {

class JobErrors {
 public:
  template <typename... Text>
  void Error(absl::string_view path, const Text&... text) {
    lines_.push_back(absl::StrCat(path, ": ", text...));
  }
  // A number that is not finite is Plain's business: the others keep silent about it.
  template <typename Number>
  void Range(absl::string_view path, Number value, Number least, Number most) {
    if (!(value >= least && value <= most)) Error(path, value, " is not from ", least, " to ", most);
  }
  void Positive(absl::string_view path, double value, bool or_zero = false) {
    if (or_zero && value == 0) return;
    if (std::isfinite(value) && !(value > 0)) Error(path, value, " is not above 0");
  }
  // Numbers that the arithmetic takes as float32.
  void PositiveFloat(absl::string_view path, double value);  // normal there
  void FloatFromZero(absl::string_view path, double value);
  void Share(absl::string_view path, double value);  // from 0 to below 1, there as well

  // What holds for every field of a kind: numbers are finite, enum values have a name.
  void Plain(const google::protobuf::Message& message, const std::string& prefix);

  void Add(const JobErrors& other) { lines_.insert(lines_.end(), other.lines_.begin(), other.lines_.end()); }

  absl::Status status() const;  // OK, or INVALID_ARGUMENT with all lines

 private:
  std::vector<std::string> lines_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_JOB_ERRORS_H_
