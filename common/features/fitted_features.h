// What was fitted to the training data, as the JSON that lies beside a model, and what is to be said of it. Pure.
#ifndef DESCENT_COMMON_FEATURES_FITTED_FEATURES_H_
#define DESCENT_COMMON_FEATURES_FITTED_FEATURES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "descent/v1/features.pb.h"

namespace descent {

// Numbers read back the same.
std::string FeaturesToJson(const v1::FittedFeatures& features);
// INVALID_ARGUMENT names `file`.
absl::StatusOr<v1::FittedFeatures> FeaturesFromJson(const std::string& text, absl::string_view file);

// A sentence that names columns of no or next to no variance; "" where there are none.
std::string ConstantColumnsText(const v1::FittedFeatures& features);

}  // namespace descent

#endif  // DESCENT_COMMON_FEATURES_FITTED_FEATURES_H_
