#include "cli/replay_gradient.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace descent {

const SlotKeys* ReplayGradient::Find(uint32_t slot) const {
  const auto it = std::lower_bound(slots.begin(), slots.end(), slot,
                                   [](const SlotKeys& keys, uint32_t wanted) { return keys.slot < wanted; });
  return it == slots.end() || it->slot != slot ? nullptr : &*it;
}

std::string BlockName(const std::vector<TensorSpec>& tensors, BlockId id) {
  const TensorSpec& spec = tensors[id.tensor.value];
  return absl::StrCat(spec.sparse ? "table '" : "tensor '", spec.name, spec.sparse ? "', slot " : "', block ",
                      id.index);
}

std::vector<SlotKeys> SlotsOf(const Geometry& geometry, const std::vector<uint64_t>& keys) {
  std::vector<SlotKeys> slots;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    const uint32_t slot = geometry.slot(keys[i]);
    if (slots.empty() || slots.back().slot != slot) slots.push_back({slot, i, 0});
    ++slots.back().count;
  }
  return slots;
}

Payload KeysPayload(const Batch& batch, const SlotKeys& slot) {
  Payload payload;
  payload.Append(batch.keys.data() + slot.first, slot.count * sizeof(uint64_t), nullptr);
  return payload;
}

Payload DensePayload(const Geometry& geometry, const TensorSpec& spec, BlockId id, const ReplayGradient& gradient) {
  Payload payload;
  payload.Append(gradient.values[id.tensor.value].data() + geometry.block_begin(id.index),
                 geometry.block_size(spec, id.index) * sizeof(float), nullptr);
  return payload;
}

Payload SlotPayload(const TensorSpec& spec, BlockId id, const SlotKeys& slot, const ReplayGradient& gradient) {
  Payload payload = KeysPayload(*gradient.batch, slot);
  payload.Append(gradient.values[id.tensor.value].data() + size_t{slot.first} * spec.dim(),
                 size_t{slot.count} * spec.dim() * sizeof(float), nullptr);
  return payload;
}

std::unique_ptr<ReplayGradient> ComputeGradient(Model<float>* model, LocalSteps* local_steps, const Geometry& geometry,
                                                WireEncoding encoding, std::shared_ptr<const Batch> batch,
                                                const std::vector<float*>& parameters) {
  auto gradient = std::make_unique<ReplayGradient>();
  gradient->slots = SlotsOf(geometry, batch->keys);
  const std::vector<TensorSpec>& tensors = model->tensors();
  gradient->values.resize(tensors.size());
  std::vector<float*> to;
  for (size_t t = 0; t < tensors.size(); ++t) {
    gradient->values[t].Resize(tensors[t].sparse ? batch->keys.size() * tensors[t].dim() : tensors[t].elements());
    to.push_back(gradient->values[t].data());
    RoundToWire(encoding, gradient->values[t].size(), parameters[t]);
  }
  const std::vector<const float*> from(parameters.begin(), parameters.end());
  const BatchResult result = local_steps == nullptr
                                 ? model->Gradient(*batch, from, absl::MakeSpan(to))
                                 : local_steps->Contribution(*batch, from, model, absl::MakeSpan(to));
  gradient->weight = result.weight;
  for (AlignedFloats& values : gradient->values) RoundToWire(encoding, values.size(), values.data());
  gradient->batch = std::move(batch);
  return gradient;
}

}  // namespace descent
