// What a saved model says of itself beside its numbers. A value.
#ifndef DESCENT_COMMON_SAVED_MODEL_MODEL_DESCRIPTION_H_
#define DESCENT_COMMON_SAVED_MODEL_MODEL_DESCRIPTION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/tensor_spec.h"

namespace descent {

struct ModelDescription {
  std::string job_text;  // the resolved job
  std::vector<TensorSpec> specs;
  uint64_t seed = 0;      // of the initial values: what a table's absent rows read as
  uint32_t slots = 1024;  // of the tables: their rows' order
  uint64_t features = 0;  // of the training data; 0 with a table
  bool sparse = false;    // the training data were
  uint32_t classes = 0;   // of a softmax kind
  std::string fitted;     // what features.json holds; "": the model takes features as they are
  uint64_t clock = 0;     // updates of clocks below are in it
  // The probability of class 1 from which it is predicted, as the last evaluation has tuned it.
  std::optional<double> threshold = std::nullopt;
};

// What model.json holds: the description, the rows of each tensor that is a table (else 0), and parameters_sha256.
struct ModelManifest {
  ModelDescription description;
  std::vector<uint64_t> rows;
  std::string parameters_sha256;
  std::optional<uint32_t> fitted_crc32c;  // of features.json, where there is one
};

// The file beside model.json with what was fitted to the training data.
inline constexpr char kFeaturesFile[] = "features.json";

std::string ManifestToJson(const ModelManifest& manifest);
// INVALID_ARGUMENT names `file`.
absl::StatusOr<ModelManifest> ManifestFromJson(const std::string& text, absl::string_view file);

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_MODEL_DESCRIPTION_H_
