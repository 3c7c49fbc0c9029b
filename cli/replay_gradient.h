// A rank's gradient of a clock as a replay makes and applies it. See replay.h.
#ifndef DESCENT_CLI_REPLAY_GRADIENT_H_
#define DESCENT_CLI_REPLAY_GRADIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/payload.h"
#include "worker/data/batch.h"
#include "worker/loop/local_steps.h"
#include "worker/loop/trainer.h"
#include "worker/models/model.h"

namespace descent {

// The keys of one slot in a batch, whose order is (slot, key).
struct SlotKeys {
  uint32_t slot = 0;
  uint32_t first = 0;
  uint32_t count = 0;
};

struct ReplayGradient {
  std::shared_ptr<const Batch> batch;
  std::vector<SlotKeys> slots;
  double weight = 0;
  std::vector<AlignedFloats> values;  // per tensor; of a table a row for each of the batch's keys

  const SlotKeys* Find(uint32_t slot) const;  // null: no key of this slot
};

// "tensor 'w', block 3" or "table 'w', slot 3".
std::string BlockName(const std::vector<TensorSpec>& tensors, BlockId id);

std::vector<SlotKeys> SlotsOf(const Geometry& geometry, const std::vector<uint64_t>& keys);
Payload KeysPayload(const Batch& batch, const SlotKeys& slot);
// What a push of the gradient has for a block, or for a slot; it points into the gradient.
Payload DensePayload(const Geometry& geometry, const TensorSpec& spec, BlockId id, const ReplayGradient& gradient);
Payload SlotPayload(const TensorSpec& spec, BlockId id, const SlotKeys& slot, const ReplayGradient& gradient);

// `parameters`: per tensor, of tables the rows of the batch's keys; rounded here as the wire would. `local_steps`: null
// where what a rank pushes is its gradient.
std::unique_ptr<ReplayGradient> ComputeGradient(Model<float>* model, LocalSteps* local_steps, const Geometry& geometry,
                                                WireEncoding encoding, std::shared_ptr<const Batch> batch,
                                                const std::vector<float*>& parameters);

}  // namespace descent

#endif  // DESCENT_CLI_REPLAY_GRADIENT_H_
