// Reads back a folder that ModelWriter wrote, and checks it: the sizes, the archive's checksums, parameters_sha256.
// Thread-safe once loaded.
#ifndef DESCENT_COMMON_SAVED_MODEL_SAVED_MODEL_H_
#define DESCENT_COMMON_SAVED_MODEL_SAVED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/saved_model/model_description.h"

namespace descent {

class SavedModel {
 public:
  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT: no such format; DATA_LOSS: damaged. Errors name the file.
  static absl::StatusOr<std::unique_ptr<SavedModel>> Load(const std::string& dir);

  const ModelDescription& description() const { return manifest_.description; }
  const std::string& parameters_sha256() const { return manifest_.parameters_sha256; }

  // A dense tensor's elements, aligned to 64 bytes.
  absl::Span<const float> dense(TensorId tensor) const;
  // A table's keys in the order (slot, key), and its rows in that order.
  absl::Span<const uint64_t> keys(TensorId table) const { return tensors_[table.value].keys; }
  absl::Span<const float> rows(TensorId table) const;
  // A row, or null where there is none: it has its initial value (initial_value.h) with description().seed.
  const float* FindRow(TensorId table, uint64_t key) const;

 private:
  struct Free {
    void operator()(float* p) const;
  };
  struct Tensor {
    std::unique_ptr<float[], Free> values;
    size_t size = 0;
    std::vector<uint64_t> keys;
    absl::flat_hash_map<uint64_t, uint64_t> row_of;
  };
  SavedModel() = default;

  ModelManifest manifest_;
  std::vector<Tensor> tensors_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_SAVED_MODEL_H_
