#include "common/tensor/tensor_spec.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/tensor/orthogonal.h"

namespace descent {

uint64_t TensorSpec::elements() const {
  uint64_t n = 1;
  for (uint64_t d : shape) n *= d;
  return n;
}

uint64_t TensorSpec::row_elements() const {
  return sparse ? dim() : elements() / std::max<uint64_t>(1, shape.empty() ? 1 : shape[0]);
}

absl::Status ValidateSpecs(absl::Span<const TensorSpec> specs, uint64_t max_bytes) {
  if (specs.empty()) return absl::InvalidArgumentError("the model has no tensors");
  absl::flat_hash_set<std::string> names;
  uint64_t total = 0;
  for (const TensorSpec& spec : specs) {
    if (spec.name.empty()) return absl::InvalidArgumentError("a tensor has no name");
    const std::string who = absl::StrCat("tensor '", spec.name, "' of shape [", absl::StrJoin(spec.shape, ", "), "]");
    if (!names.insert(spec.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("two tensors are called '", spec.name, "'"));
    }
    const bool orthogonal = spec.initializer.kind == Initializer::Kind::kOrthogonal;
    if (spec.sparse) {
      if (spec.shape.size() != 1 || spec.shape[0] == 0 || spec.shape[0] > 65536) {
        return absl::InvalidArgumentError(absl::StrCat("sparse ", who, ": expected one dimension from 1 to 65536"));
      }
      if (spec.role == TensorRole::kStatistic) {
        return absl::InvalidArgumentError(absl::StrCat("sparse ", who, ": a running statistic is dense"));
      }
      if (orthogonal) return absl::InvalidArgumentError(absl::StrCat("sparse ", who, ": a table can't be orthogonal"));
      continue;
    }
    uint64_t bytes = sizeof(float);
    for (uint64_t d : spec.shape) {
      if (d == 0) return absl::InvalidArgumentError(absl::StrCat(who, " has no elements"));
      if (__builtin_mul_overflow(bytes, d, &bytes)) bytes = kUnbounded;
      if (bytes > max_bytes) break;
    }
    if (bytes > max_bytes || __builtin_add_overflow(total, bytes, &total) || total > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(who, " takes the model over model.max_bytes = ", max_bytes, " bytes"));
    }
    if (orthogonal && (spec.shape.size() != 2 || spec.elements() > kMostOrthogonalElements)) {
      return absl::InvalidArgumentError(absl::StrCat(who, " can't start orthogonal: expected a matrix of at most ",
                                                     kMostOrthogonalElements, " elements"));
    }
  }
  return absl::OkStatus();
}

uint32_t Geometry::blocks(const TensorSpec& spec) const {
  if (spec.sparse) return slots;
  return static_cast<uint32_t>((spec.elements() + block_elements - 1) / block_elements);
}

uint32_t Geometry::block_size(const TensorSpec& spec, uint32_t index) const {
  DESCENT_CHECK(!spec.sparse);
  return static_cast<uint32_t>(std::min<uint64_t>(block_elements, spec.elements() - block_begin(index)));
}

}  // namespace descent
