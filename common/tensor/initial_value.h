// Initial parameters as a pure function of (seed, tensor, element), or (seed, table, key, column), so that any server
// computes any block, on any number of servers, to the same bits. Pure; thread-safe.
#ifndef DESCENT_COMMON_TENSOR_INITIAL_VALUE_H_
#define DESCENT_COMMON_TENSOR_INITIAL_VALUE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"

namespace descent {

// Elements [begin, begin + out.size()) of a dense tensor, which ValidateSpecs has seen.
void InitialDense(uint64_t seed, TensorId tensor, const TensorSpec& spec, uint64_t begin, absl::Span<float> out);

// The row of a key of a sparse table; out.size() is the table's dim.
void InitialRow(uint64_t seed, TensorId table, const Initializer& initializer, uint64_t key, absl::Span<float> out);

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_INITIAL_VALUE_H_
