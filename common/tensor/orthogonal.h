// Random matrices with orthonormal rows or columns, whichever are fewer, uniformly distributed: the product of
// Householder reflections along normal vectors of falling length (Stewart 1980, "The efficient generation of random
// orthogonal matrices with an application to condition estimators", section 3). No factorisation is needed, and a row
// of the matrix costs as much as its share, so that every block of a tensor is computed by itself. Pure; thread-safe.
#ifndef DESCENT_COMMON_TENSOR_ORTHOGONAL_H_
#define DESCENT_COMMON_TENSOR_ORTHOGONAL_H_

#include <cstdint>

#include "absl/types/span.h"
#include "common/random/philox.h"

namespace descent {

// The reflections are drawn for each call: more elements than these would take a server minutes.
inline constexpr uint64_t kMostOrthogonalElements = uint64_t{1} << 22;

// Elements [begin, begin + out.size()) of `scale` times the [rows x columns] matrix of this stream, row-major. Computed
// in double, rounded once.
void OrthogonalElements(const RandomStream& stream, uint64_t rows, uint64_t columns, double scale, uint64_t begin,
                        absl::Span<float> out);

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_ORTHOGONAL_H_
