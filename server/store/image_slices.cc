#include "server/store/image_slices.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace descent {

std::vector<ImageSlice> SliceImage(const BlockExport& block, uint32_t dim, size_t most_bytes) {
  std::vector<ImageSlice> out;
  if (dim == 0) {
    out.push_back({0, 0, false, block.payload});
    return out;
  }
  const uint64_t row = uint64_t{dim} * sizeof(float);
  const uint64_t vectors = 1 + uint64_t{block.state_slots};  // rows, then each state
  const uint64_t per_key = sizeof(uint64_t) + vectors * row;
  DESCENT_CHECK(block.payload.size() == block.keys * per_key);
  const auto most = static_cast<uint32_t>(std::max<uint64_t>(1, most_bytes / per_key));
  uint32_t first = 0;
  do {
    const uint32_t keys = std::min(most, block.keys - first);
    Payload payload = block.payload.Sub(first * sizeof(uint64_t), keys * sizeof(uint64_t));
    for (uint64_t v = 0; v < vectors; ++v) {
      const uint64_t begin = block.keys * (sizeof(uint64_t) + v * row);
      payload.Append(block.payload.Sub(begin + first * row, keys * row));
    }
    out.push_back({first, keys, first + keys < block.keys, std::move(payload)});
    first += keys;
  } while (first < block.keys);
  return out;
}

}  // namespace descent
