// One block of a dense tensor: its versions, its optimizer state, and the contributions held for the round in progress.
// The semantics are those of BlockStore (block_store.h).
//
// A version is written once, out of place, into a pooled buffer. The buffer into which the round was summed becomes the
// next version, so a round of several contributions needs no buffer beside those of its contributions; the only
// contribution of a round of one is applied straight from where it was received.
//
// Thread-safety: none. Payloads handed out may be released on any thread.
#ifndef DESCENT_SERVER_STORE_DENSE_BLOCK_H_
#define DESCENT_SERVER_STORE_DENSE_BLOCK_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensor/global_scalars.h"
#include "common/wire/payload.h"
#include "server/store/buffer_pool.h"
#include "server/store/reduction_tree.h"
#include "server/store/tensor_context.h"

namespace descent {

class DenseBlock {
 public:
  DenseBlock(const TensorContext* context, uint32_t index);
  // Allocates and fills the first version: with the tensor's `start`, all of its elements, or its initializer's values
  // where that is null. RESOURCE_EXHAUSTED.
  absl::Status Init(const float* start);

  absl::Status Hold(Rank first, uint32_t span, const Payload& values);
  absl::StatusOr<BlockScalars> Measure(double total_weight);
  absl::Status Commit(double total_weight, double* square);
  absl::Status Apply(double weight, const Payload& values, std::optional<uint64_t> read);

  uint64_t version() const { return version_; }
  // `averaged`: the averages of the parameters, or the base of a full-gradient method, where they are kept.
  absl::StatusOr<Payload> Read(std::optional<uint64_t> version, bool averaged) const;
  // Parameters, then state vectors where asked for, the last of them the averages; all shared: the next step moves the
  // state to buffers of its own.
  Payload Image(bool with_state);
  // Right after Init: what Image(true) gave becomes version `version`. INVALID_ARGUMENT, and nothing has changed.
  absl::Status Install(uint64_t version, uint32_t state_slots, const Payload& image);

  size_t elements() const { return elements_; }
  uint64_t held_bytes() const;

 private:
  struct Value {  // of a cell of the tree: one of the two
    FloatBuffer sum;
    bool finite = true;  // the sum; what came was
    Payload received;
  };

  absl::Status CheckSize(const Payload& values) const;
  // out = values, plus `held` where that is not null; whether all of it is finite.
  static bool Gather(const Payload& values, const float* held, float* out);
  // All that is held, folded; null: the round makes no step. FAILED_PRECONDITION: it is not finite.
  absl::StatusOr<Value*> Total(double total_weight);
  void Publish(FloatBuffer next);
  void PublishVersion(FloatBuffer next);  // without averages
  // What follows the rule: the threshold of groups. Then Publish.
  void Finish(const descent::Step& step, FloatBuffer next);
  // One step on `gradient` into a version of its own.
  absl::Status Step(const Payload& gradient, float scale, double* square, std::optional<uint64_t> read);
  // One step on the sum in `gradient`, which becomes the next version.
  absl::Status StepIn(FloatBuffer gradient, float scale, double* square, std::optional<uint64_t> read);
  // Likewise a full-gradient method's; the first measures, where the sum is not to be touched.
  absl::Status MeasureMethod(const Value& value, float scale, BlockScalars* out) const;
  absl::Status StepOfMethod(FloatBuffer gradient, float scale, double* square);
  FullGradientMethod::Block MethodBlock(const float* gradient) const;
  // The gradient of the objective at the newest version, out of a sum of gradients; out may be the sum.
  void ObjectiveGradient(float scale, const float* sum, float* out) const;
  // Steps since `read`.
  uint64_t StalenessOf(std::optional<uint64_t> read) const {
    return version_ - std::min(version_, read.value_or(version_));
  }
  // A buffer of its own for what came.
  absl::StatusOr<FloatBuffer> Copied(const Payload& values) const;
  // Before a step: memory for the next averages, and state that an image may still show is copied. RESOURCE_EXHAUSTED,
  // and nothing has changed.
  absl::Status Reserve();
  absl::Status OwnState();
  size_t state_vectors() const { return state_.size() + (averages_.empty() ? 0 : 1); }
  float* const* state_pointers() { return state_pointers_.data(); }

  const TensorContext* const context_;
  const uint32_t index_;
  const uint64_t begin_;  // of the tensor's elements
  const size_t elements_;
  uint64_t version_ = 0;
  std::deque<FloatBuffer> versions_;  // back: the newest
  std::deque<FloatBuffer> averages_;  // of each version; empty: none are kept
  FloatBuffer next_average_;
  std::vector<FloatBuffer> state_;
  std::vector<float*> state_pointers_;
  bool state_shared_ =
      false;  // by an image since the last step; its owner may be on another thread, so not asked after
  ReductionTree tree_, tree_before_;  // the latter a scratch copy, of a Hold that may have to be undone
  std::vector<Value> cells_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_DENSE_BLOCK_H_
