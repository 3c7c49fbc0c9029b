// SHA-256 of a model in one stated order, the same for every number of servers and workers. This is what is hashed:
//   for each tensor in the order of the specs
//     its name, a zero byte, a kind byte ('D' dense tensor, 'T' sparse table), the number of dimensions and each
//     dimension as little-endian 64-bit integers,
//     dense: its elements in row-major order, each as a little-endian IEEE float32,
//     table: per slot ascending, per key ascending, of the rows that are stored: the key as a little-endian 64-bit
//     integer, then the row's floats; after the last row, the number of rows as a 64-bit integer.
// That is parameters_sha256. state_sha256 covers optimizer state too: the kind byte is 'd' or 't', the number of
// optimizer slots follows the dimensions as a 64-bit integer, and the floats of each unit (a block of a dense tensor, a
// row of a table) are followed by that unit's floats of each optimizer slot in order.
// Not thread-safe.
#ifndef DESCENT_COMMON_SAVED_MODEL_CANONICAL_HASH_H_
#define DESCENT_COMMON_SAVED_MODEL_CANONICAL_HASH_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"

namespace descent {

class CanonicalHash {
 public:
  CanonicalHash();
  CanonicalHash(const CanonicalHash&) = delete;
  CanonicalHash& operator=(const CanonicalHash&) = delete;
  ~CanonicalHash();

  // Begins a tensor; `optimizer_slots` > 0 for state_sha256. Ends the one before.
  void Begin(const TensorSpec& spec, uint32_t optimizer_slots = 0);
  // Elements of a dense tensor, or floats of the row whose key was given last.
  void Floats(absl::Span<const float> values);
  // Begins a row of a table.
  void Key(uint64_t key);
  // Ends the last tensor. 64 lower-case hexadecimal digits; call once.
  std::string Finish();

 private:
  void Update(const void* data, size_t bytes);
  void U64(uint64_t value);
  void EndTensor();

  struct Context;
  std::unique_ptr<Context> context_;
  bool in_table_ = false;
  uint64_t rows_ = 0;
};

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_CANONICAL_HASH_H_
