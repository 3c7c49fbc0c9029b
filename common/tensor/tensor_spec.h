// What a model's tensors look like, and how dense tensors are cut into blocks and tables into slots. Pure; values.
#ifndef DESCENT_COMMON_TENSOR_TENSOR_SPEC_H_
#define DESCENT_COMMON_TENSOR_TENSOR_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/ids.h"

namespace descent {

// As a pure function of (seed, tensor, element) or (seed, table, key, column); see initial_value.h.
struct Initializer {
  enum class Kind { kZero, kConstant, kUniform, kNormal, kOrthogonal };
  Kind kind = Kind::kZero;
  double scale = 0;  // the constant; the half-width of [-scale, scale); the standard deviation; the factor
  bool operator==(const Initializer&) const = default;
};

// kStatistic: a running mean of what batches show, which prediction needs (worker/models/model.h). kFrozen, kAuxiliary:
// as it begins.
enum class TensorRole { kTrainable, kStatistic, kFrozen, kAuxiliary };

// A dense tensor of float32 in row-major order, or a sparse table: 64-bit key -> row of `dim` floats.
struct TensorSpec {
  std::string name;
  bool sparse = false;
  std::vector<uint64_t> shape;  // sparse: {dim}
  TensorRole role = TensorRole::kTrainable;
  bool decay = true;  // L2 applies; false for biases
  Initializer initializer;
  bool operator==(const TensorSpec&) const = default;

  uint64_t elements() const;                                        // dense: product of shape
  uint64_t row_elements() const;                                    // of one index of the first dimension; sparse: dim
  uint32_t dim() const { return static_cast<uint32_t>(shape[0]); }  // sparse
};

// Tensor specs checked as a whole (names unique and not empty, shapes positive, dims <= 65536, total dense bytes <=
// max_bytes with no overflow, orthogonal ones matrices of at most kMostOrthogonalElements, statistics dense):
// INVALID_ARGUMENT names the tensor.
absl::Status ValidateSpecs(absl::Span<const TensorSpec> specs, uint64_t max_bytes);

// Hash of a key, stable for ever: slots on disk and on the wire depend on it. The finaliser of splitmix64 (Steele, Lea,
// Flood, OOPSLA'14). Inline: stores hash millions of keys a second.
inline uint64_t HashKey(uint64_t key) {
  uint64_t x = key + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// How the model is cut. Belongs to the job: changing either number changes placement, not bits.
struct Geometry {
  uint32_t block_elements = 65536;
  uint32_t slots = 1024;  // power of two

  // Blocks of a dense tensor, or slots of a table.
  uint32_t blocks(const TensorSpec& spec) const;
  // Elements of one block of a dense tensor: block_elements, but for the last.
  uint32_t block_size(const TensorSpec& spec, uint32_t index) const;
  uint64_t block_begin(uint32_t index) const { return uint64_t{index} * block_elements; }
  // The slot of a key. Neighbouring keys fall into unrelated slots.
  uint32_t slot(uint64_t key) const { return static_cast<uint32_t>(HashKey(key) & (slots - 1)); }
};

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_TENSOR_SPEC_H_
