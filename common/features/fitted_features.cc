#include "common/features/fitted_features.h"

#include <google/protobuf/util/json_util.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"

namespace descent {

std::string FeaturesToJson(const v1::FittedFeatures& features) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  DESCENT_CHECK(google::protobuf::util::MessageToJsonString(features, &json, options).ok());
  return json + "\n";
}

absl::StatusOr<v1::FittedFeatures> FeaturesFromJson(const std::string& text, absl::string_view file) {
  v1::FittedFeatures features;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, &features);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", std::string(parsed.message().data(), parsed.message().size())));
  }
  return features;
}

std::string ConstantColumnsText(const v1::FittedFeatures& features) {
  constexpr int kMost = 10;
  if (features.constant_size() == 0) return "";
  std::vector<std::string> names;
  for (const uint64_t column : features.constant()) {
    if (names.size() == kMost) break;
    names.push_back(column < static_cast<uint64_t>(features.name_size())
                        ? absl::StrCat("'", features.name(static_cast<int>(column)), "'")
                        : absl::StrCat(column + features.first_column()));
  }
  const int more = features.constant_size() - static_cast<int>(names.size());
  return absl::StrCat(
      features.constant_size() == 1 ? "a column has" : absl::StrCat(features.constant_size(), " columns have"),
      " no or next to no variance in the training data, not scaled: ", absl::StrJoin(names, ", "),
      more > 0 ? absl::StrCat(" and ", more, " more") : "");
}

}  // namespace descent
