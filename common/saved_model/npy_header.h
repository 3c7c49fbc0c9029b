// The header of a .npy file: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Version 1.0 is
// written; 1.0 to 3.0 are read.
#ifndef DESCENT_COMMON_SAVED_MODEL_NPY_HEADER_H_
#define DESCENT_COMMON_SAVED_MODEL_NPY_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace descent {

inline constexpr char kNpyFloat32[] = "<f4";
inline constexpr char kNpyUint64[] = "<u8";

// A multiple of 64 bytes, at least `least`: a header whose length must be known before its shape is made with room.
std::string NpyHeader(absl::string_view type, absl::Span<const uint64_t> shape, size_t least = 0);

struct NpyArray {
  std::string type;  // as numpy names it, kNpyFloat32 or another
  bool column_major = false;
  std::vector<uint64_t> shape;
};

inline constexpr size_t kNpyMagicBytes = 12;  // enough to tell the header's length
// Of a file that begins with `magic`. INVALID_ARGUMENT: no such file.
absl::StatusOr<size_t> NpyHeaderBytes(absl::string_view magic);
// A whole header. INVALID_ARGUMENT: it is none, or of a structured type.
absl::StatusOr<NpyArray> ParseNpyHeader(absl::string_view header);

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_NPY_HEADER_H_
