// Values that a tensor begins with in the place of those of its initializer.
#ifndef DESCENT_COMMON_TENSOR_START_VALUES_H_
#define DESCENT_COMMON_TENSOR_START_VALUES_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tensor/tensor_spec.h"

namespace descent {

struct TensorValues {
  std::vector<float> values;   // dense: all elements in row-major order; a table: the rows of `keys`
  std::vector<uint64_t> keys;  // of a table: unique, in any order
};

// Of one tensor; nullopt: it begins as its initializer says.
using StartValues = std::function<absl::StatusOr<std::optional<TensorValues>>(const TensorSpec&)>;

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_START_VALUES_H_
