// The header of a .npy file, version 1.0: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#ifndef DESCENT_COMMON_SAVED_MODEL_NPY_HEADER_H_
#define DESCENT_COMMON_SAVED_MODEL_NPY_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace descent {

inline constexpr char kNpyFloat32[] = "<f4";
inline constexpr char kNpyUint64[] = "<u8";

// A multiple of 64 bytes, at least `least`: a header whose length must be known before its shape is made with room.
std::string NpyHeader(absl::string_view type, absl::Span<const uint64_t> shape, size_t least = 0);

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_NPY_HEADER_H_
