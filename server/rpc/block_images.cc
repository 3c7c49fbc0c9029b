#include "server/rpc/block_images.h"

#include <utility>

#include "descent/v1/parameter.pb.h"
#include "server/store/image_slices.h"

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
  for (ImageSlice& slice : SliceImage(block, dim, kMaxPayloadBytes)) {
    image.set_keys(slice.keys);
    image.set_more(slice.more);
    out.push_back(EncodeWithPayload(image, std::move(slice.payload)));
  }
  return out;
}

}  // namespace descent
