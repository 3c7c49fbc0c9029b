// CRC-32C (Castagnoli; RFC 3720, appendix B.4), by the SSE4.2 instruction the build's baseline has. Pure; thread-safe.
#ifndef DESCENT_COMMON_FILES_CRC32C_H_
#define DESCENT_COMMON_FILES_CRC32C_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace descent {

// Of `crc`'s data followed by these bytes; 0 is the checksum of nothing.
uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes);

inline uint32_t Crc32c(absl::string_view data) { return ExtendCrc32c(0, data.data(), data.size()); }

}  // namespace descent

#endif  // DESCENT_COMMON_FILES_CRC32C_H_
