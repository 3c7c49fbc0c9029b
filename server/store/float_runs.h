// Payloads straight out of their pieces: walked as little-endian floats, or a stretch of them in one piece.
#ifndef DESCENT_SERVER_STORE_FLOAT_RUNS_H_
#define DESCENT_SERVER_STORE_FLOAT_RUNS_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <vector>

#include "common/wire/payload.h"

namespace descent {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian and are used as they are");

// Calls f(const float* run, size_t begin, size_t n) for floats [begin, begin + n) of the payload, in order. A run may
// lie at any address; a float that straddles pieces is a run of its own. payload.size() is a multiple of four.
template <typename F>
void ForEachRun(const Payload& payload, F&& f) {
  float straddling = 0;
  size_t filled = 0;  // bytes of it
  size_t index = 0;
  for (const Payload::Piece& piece : payload.pieces()) {
    const std::byte* data = piece.data;
    size_t size = piece.size;
    if (filled > 0) {
      const size_t n = std::min(sizeof(float) - filled, size);
      std::memcpy(reinterpret_cast<std::byte*>(&straddling) + filled, data, n);
      filled += n;
      data += n;
      size -= n;
      if (filled < sizeof(float)) continue;
      f(static_cast<const float*>(&straddling), index, size_t{1});
      ++index;
      filled = 0;
    }
    const size_t n = size / sizeof(float);
    if (n > 0) {
      f(reinterpret_cast<const float*>(data), index, n);
      index += n;
    }
    filled = size - n * sizeof(float);
    if (filled > 0) std::memcpy(&straddling, data + n * sizeof(float), filled);
  }
}

// Bytes [offset, offset + size) of a payload in one piece: where they lie, or copied to `copy`.
inline const std::byte* Flat(const Payload& payload, size_t offset, size_t size, std::vector<std::byte>* copy) {
  size_t begin = 0;
  for (const Payload::Piece& piece : payload.pieces()) {
    if (offset >= begin && offset + size <= begin + piece.size) return piece.data + (offset - begin);
    begin += piece.size;
  }
  copy->resize(size);
  PayloadReader reader(payload);
  reader.Skip(offset);
  reader.CopyTo(copy->data(), size);
  return copy->data();
}

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_FLOAT_RUNS_H_
