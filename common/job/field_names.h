// Names of a message's fields and of an enum's values, for errors that help. Pure; thread-safe.
#ifndef DESCENT_COMMON_JOB_FIELD_NAMES_H_
#define DESCENT_COMMON_JOB_FIELD_NAMES_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace descent {

std::vector<std::string> FieldNames(const google::protobuf::Descriptor& message);
std::vector<std::string> ValueNames(const google::protobuf::EnumDescriptor& type);

// "did you mean `x`?" where a name is near enough (Levenshtein's distance, a swap of neighbours counting 1; case does
// not count), else "known here: a, b, c".
std::string Suggestion(absl::string_view unknown, const std::vector<std::string>& known);

size_t EditDistance(absl::string_view a, absl::string_view b);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_FIELD_NAMES_H_
