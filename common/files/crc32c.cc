#include "common/files/crc32c.h"

#include <nmmintrin.h>

#include <cstring>

namespace descent {

uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint64_t state = static_cast<uint32_t>(~crc);
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    state = _mm_crc32_u64(state, word);
  }
  auto low = static_cast<uint32_t>(state);
  for (; bytes > 0; --bytes, ++p) low = _mm_crc32_u8(low, *p);
  return ~low;
}

}  // namespace descent
