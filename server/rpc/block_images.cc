#include "server/rpc/block_images.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "descent/v1/parameter.pb.h"

namespace descent {

std::vector<EncodedMessage> MakeBlockImages(const Envelope& envelope, const BlockExport& block, uint32_t dim,
                                            const std::vector<uint64_t>& marks) {
  v1::BlockImage image;
  image.set_run(envelope.run.value);
  image.set_generation(envelope.generation.value);
  image.set_tensor(block.id.tensor.value);
  image.set_index(block.id.index);
  image.set_version(block.version);
  image.set_steps(block.steps);
  image.set_state_slots(block.state_slots);
  image.mutable_mark()->Add(marks.begin(), marks.end());

  std::vector<EncodedMessage> out;
  if (dim == 0) {
    out.push_back(EncodeWithPayload(image, block.payload));
    return out;
  }
  const uint64_t row = uint64_t{dim} * sizeof(float);
  const uint64_t vectors = 1 + uint64_t{block.state_slots};  // rows, then each state
  const uint64_t per_key = sizeof(uint64_t) + vectors * row;
  DESCENT_CHECK(block.payload.size() == block.keys * per_key);
  const auto most = static_cast<uint32_t>(std::max<uint64_t>(1, kMaxPayloadBytes / per_key));
  uint32_t first = 0;
  do {
    const uint32_t keys = std::min(most, block.keys - first);
    Payload payload = block.payload.Sub(first * sizeof(uint64_t), keys * sizeof(uint64_t));
    for (uint64_t v = 0; v < vectors; ++v) {
      const uint64_t begin = block.keys * (sizeof(uint64_t) + v * row);
      payload.Append(block.payload.Sub(begin + first * row, keys * row));
    }
    first += keys;
    image.set_keys(keys);
    image.set_more(first < block.keys);
    out.push_back(EncodeWithPayload(image, std::move(payload)));
  } while (first < block.keys);
  return out;
}

}  // namespace descent
