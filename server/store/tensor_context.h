// What all blocks or slots of one tensor share. A value; owned by the store, which outlives them.
#ifndef DESCENT_SERVER_STORE_TENSOR_CONTEXT_H_
#define DESCENT_SERVER_STORE_TENSOR_CONTEXT_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/payload.h"
#include "server/store/buffer_pool.h"
#include "server/store/full_gradient_method.h"
#include "server/store/tensor_step.h"
#include "server/store/update_rule.h"

namespace descent {

struct TensorContext {
  TensorId id;
  TensorSpec spec;
  Geometry geometry;
  uint64_t seed = 0;
  uint32_t ranks = 1;
  std::shared_ptr<const UpdateRule> rule;  // of this tensor: unpenalized where spec.decay is false
  std::function<float(Clock)> rate;
  bool trainable = true;
  bool statistic = false;  // a running mean of what comes, which nothing but its rule touches
  float l2 = 0;            // of this tensor: 0 where spec.decay is false
  bool catch_up = false;   // sparse: rows make the steps they missed
  bool reduce_sum = false;
  bool apply_push = false;
  uint32_t history = 1;
  bool staleness_aware_rate = false;
  float compensation = 0;       // lambda
  float mean_square_decay = 0;  // of what lambda is divided by the root of; 0: by nothing
  float clip_value = 0;
  std::function<float(Clock)> momentum;        // null: the rule's own
  std::function<float(Clock)> noise;           // standard deviation; null: none
  std::function<float(Clock)> average_weight;  // null: no averages
  FullGradientMethod* method = nullptr;        // whose steps these are, in place of the rule's; null: none
  size_t group = 0;   // parameters of a group, where the rule has a threshold of groups and the tensor is decayed
  Trust trust;        // of nothing where spec.decay is false
  TensorStep agreed;  // of the step in progress
  StepCounts* counts = nullptr;
  BufferPool* pool = nullptr;
  uint64_t* copied_bytes = nullptr;  // BlockStore::copied_bytes

  // Whether rounds and pushes change it.
  bool moves() const { return trainable || statistic; }
  // Whether each version has other parameters beside it: averages, or the base of a method.
  bool keeps_averages() const { return average_weight != nullptr || (method != nullptr && trainable); }
  // Whether the last of the vectors of state, behind the rule's, is the moving mean of squared gradients.
  bool keeps_mean_square() const { return trainable && compensation > 0 && mean_square_decay > 0; }
  int state_slots() const { return trainable ? rule->state_slots() + (keeps_mean_square() ? 1 : 0) : 0; }
  // The factor that turns a sum of gradients into the effective gradient. INVALID_ARGUMENT: not a weight.
  absl::Status Scale(double total_weight, float* scale) const;
  // The step of `clock`, with a gradient that is multiplied by `scale`.
  Step StepOf(Clock clock, float scale, uint64_t staleness = 0) const;
  // Whether a gradient is more than multiplied before the rule gets it.
  bool shapes() const { return clip_value > 0 || noise != nullptr || compensation > 0; }
  void Count(bool clipped) const {
    if (statistic) return;
    ++counts->steps;
    counts->clipped += clipped;
  }
};

// INVALID_ARGUMENT if the values of `payload` are not all finite, naming tensor, element (begin + index) and value.
absl::Status CheckFinite(const TensorContext& context, uint64_t begin, const Payload& payload);

absl::Status NoMemory(const TensorContext& context, uint64_t floats);

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_TENSOR_CONTEXT_H_
