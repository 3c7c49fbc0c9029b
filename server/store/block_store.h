// The parameters of one server: dense blocks and sparse slots, their optimizer state, their versions, and the
// arithmetic of a round (fold contributions along the reduction tree, apply the update rule).
//
// The store does arithmetic and keeps versions; who may contribute when is the engine's business (server/core). It
// trusts block ids and ranks, which its caller has checked, but never payload sizes, keys or values.
//
// Reduction. Contributions of one clock are combined along a fixed binary tree over rank numbers: leaf r is rank r,
// node (level l, i) covers ranks [i * 2^l, (i + 1) * 2^l), its value is left + right, and a child without a
// contribution is skipped. A contribution of an aligned span of ranks enters at its own node. Siblings are folded as
// they arrive, so at most ceil(ranks / 2) buffers per block are held, and the bits do not depend on the order of
// arrival. Sparse contributions are combined the same way, key by key.
//
// Versions. Version v of a block holds exactly the updates of clocks < v under ROUND; under PUSH it counts the pushes
// applied. A published version is immutable: reads share it and an update writes into another buffer. The last
// `history` versions before the newest stay readable (sparse slots keep undo records for them).
//
// Thread-safety: none; one thread owns a store. Payloads handed out by Read* may be released on any thread.
#ifndef DESCENT_SERVER_STORE_BLOCK_STORE_H_
#define DESCENT_SERVER_STORE_BLOCK_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/tensor/global_scalars.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/start_values.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/payload.h"
#include "server/store/tensor_step.h"
#include "server/store/update_rule.h"

namespace descent {

struct StoreOptions {
  std::vector<TensorSpec> tensors;
  Geometry geometry;
  PartitionMap map;
  ServerId self;
  uint64_t seed = 0;
  uint32_t ranks = 1;
  std::shared_ptr<const UpdateRule> rule;
  std::function<float(Clock)> rate;  // the learning rate of a clock (ROUND), or of a block's step (PUSH)
  float l2 = 0;                      // of tensors that are decayed; the others' rule is unpenalized
  // Tensors of role kStatistic are running means of what is pushed for them, with this decay a round, or a push: no
  // gradients, so that nothing else here touches them, and they count in no norm.
  double statistic_decay = 0.99;
  bool l2_touched_rows_only = false;  // rows do not catch up on l2, nor on proximal steps
  bool reduce_sum = false;            // the weighted sum instead of the weighted mean
  bool apply_push = false;            // PUSH instead of ROUND
  // PUSH. A push's staleness is the number of steps that its block has made since the version it was computed from. The
  // rate is divided by it where it is above 1.
  bool staleness_aware_rate = false;
  // lambda of delay compensation; 0: none. Dense tensors alone. `history` versions are kept for it; what was read is
  // taken to be the oldest where it is older.
  float compensation = 0;
  // Above 0: lambda is divided, element by element, by the root of a moving mean of squared gradients with this decay,
  // which is one more vector of optimizer state.
  float mean_square_decay = 0;
  ClipBounds clip;
  std::function<float(Clock)> momentum;  // of a step, by number as `rate`; null: the rule's own
  std::function<float(Clock)> noise;     // likewise: the standard deviation of gradient noise; null: none
  // Likewise: the weight of the new parameters in their average after a step, 1 until it begins. Null: none is kept. Of
  // dense tensors alone.
  std::function<float(Clock)> average_weight;
  uint32_t history = 1;
  bool cuts = false;  // cuts will be taken: PlanStore counts what one may hold
  // What tensors begin with in the place of their initializers' values; null: nothing. Asked for each tensor of which
  // this server holds a part, whose values are all in memory meanwhile. Rows of a table that are not in it begin as
  // ever.
  StartValues start;
  uint64_t recorded_pushes =
      0;  // PUSH: as many are recorded in order (server/node/order_log.h), which PlanStore counts
};

// One block or slot in serial form; see BlockImage in parameter.proto.
struct BlockExport {
  BlockId id;
  uint64_t version = 0;
  uint64_t steps = 0;
  uint32_t keys = 0;         // sparse: rows
  uint32_t state_slots = 0;  // optimizer vectors, 0 where they were not asked for
  // Sparse, where rows that no step has made yet are to be caught up exactly: clocks below `version` that made no step.
  std::vector<uint64_t> skipped;
  // Sparse, PUSH: per row, how many steps it has made beyond `steps`, of pushes that are not complete; empty: none has.
  std::vector<uint32_t> ahead;
  std::string method;  // with state: what a full-gradient method has learned, the same in all blocks
  std::string order;   // the node's, where the order is recorded: what has made the block what it is (order_log.h)
  Payload payload;     // dense: parameters, state...; sparse: keys ascending, rows, state rows...
};

class BlockStore {
 public:
  // Makes every block that `map` gives to `self`, with its initial values. RESOURCE_EXHAUSTED if memory does not
  // suffice; errors of `start`.
  static absl::StatusOr<std::unique_ptr<BlockStore>> Create(StoreOptions options);
  virtual ~BlockStore() = default;

  // --- ROUND ---------------------------------------------------------------------------------------------------------
  // Takes the contribution of ranks [first, first + span) to a dense block for the round in progress. A contribution
  // that covers nodes already held replaces them (the same ranks, summed elsewhere: the same bits).
  // INVALID_ARGUMENT, and nothing has changed: payload of the wrong length, NaN or Inf (message: tensor, element,
  // value).
  virtual absl::Status Hold(BlockId id, Rank first, uint32_t span, const Payload& values) = 0;
  // The same for a slot: `payload` is `keys` keys (uint64, unique, ascending, all of this slot), then keys x dim
  // floats.
  virtual absl::Status HoldSparse(BlockId id, Rank first, uint32_t span, uint32_t keys, const Payload& payload) = 0;
  // Folds what is held, makes one step on it and publishes version + 1. Nothing held or total_weight == 0: the version
  // advances and the parameters stay. `total_weight` is the sum over all ranks of the round. FAILED_PRECONDITION: the
  // sum of finite contributions is not finite; nothing has changed.
  // The square of the mean gradient, summed in double over the block, is added to *square where that is not null.
  virtual absl::Status Commit(BlockId id, double total_weight, double* square) = 0;
  // Where measures(): a step needs sums over whole tensors, of all servers. Measure every dense block and every held
  // slot of the round, Agree on what they are together, then Commit. Measure changes nothing; errors as Commit.
  virtual bool measures() const = 0;
  virtual absl::StatusOr<BlockScalars> Measure(BlockId id, double total_weight) = 0;
  virtual void Agree(const ScalarTotals& totals) = 0;
  // Slots touched by the round in progress, ascending; all others only advance, which AdvanceSlots does.
  virtual std::vector<BlockId> HeldSlots() const = 0;
  // Every slot of every table is at version `round` from now on; call after Commit of all HeldSlots.
  virtual void AdvanceSlots(uint64_t round) = 0;
  // The round of `clock` has no weight at all and makes no step: rows that are caught up leave it out. Before
  // AdvanceSlots. A Commit with total_weight == 0 says the same, so only a server that commits nothing needs it.
  virtual void SkipStep(Clock clock) = 0;

  // --- PUSH ----------------------------------------------------------------------------------------------------------
  // One step on one contribution; errors as Hold.
  // `read`: the version that the contribution was computed from, where StoreOptions want to know.
  virtual absl::Status Apply(BlockId id, double weight, const Payload& values,
                             std::optional<uint64_t> read = std::nullopt) = 0;
  virtual absl::Status ApplySparse(BlockId id, double weight, uint32_t keys, const Payload& payload,
                                   std::optional<uint64_t> read = std::nullopt) = 0;
  // A push with a weight is complete on this server: rows that it did not touch have missed one step.
  virtual void AdvanceSlotsByPush() = 0;
  // For replays, where the slots of one store were of several servers: every table is at `steps` now, and a slot's rows
  // become what Export followed by Install makes of them there.
  virtual void SetSlotSteps(uint64_t steps) = 0;
  virtual void Reinstall(BlockId slot) = 0;

  // --- Reads ---------------------------------------------------------------------------------------------------------
  virtual uint64_t version(BlockId id) const = 0;
  // PUSH: steps of the slot's table, which reads and steps catch its rows up to.
  virtual uint64_t steps(BlockId slot) const = 0;
  // The block's bytes, shared. version nullopt: the newest. OUT_OF_RANGE: that version is no longer, or not yet, there.
  virtual absl::StatusOr<Payload> Read(BlockId id, std::optional<uint64_t> version) const = 0;
  // The same of the averages, or of the base of a full-gradient method; where none are kept, the parameters.
  virtual absl::StatusOr<Payload> ReadAverage(BlockId id, std::optional<uint64_t> version) const = 0;
  // Rows of `keys` (payload of `count` uint64, unique and ascending), caught up, copied into one fresh buffer. Absent
  // rows read as their initial value and are not created. INVALID_ARGUMENT: keys out of order or of another slot.
  virtual absl::StatusOr<Payload> ReadSparse(BlockId id, uint32_t count, const Payload& keys,
                                             std::optional<uint64_t> version) = 0;
  // A block or slot as it stands; rows caught up. A dense block is shared, its state too: the next step copies state
  // that was exported. A slot is copied. RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<BlockExport> Export(BlockId id, bool with_state) = 0;

  // --- Cuts ----------------------------------------------------------------------------------------------------------
  // All slots are to be exported as they stand now, but each when its turn comes: until its ExportPinned the caller
  // makes no step on a slot, and reads don't catch its rows up beyond this moment.
  virtual void PinSlots() = 0;
  // A pinned slot, with state, as of PinSlots; it is free again, also after an error.
  virtual absl::StatusOr<BlockExport> ExportPinned(BlockId id) = 0;
  virtual void UnpinSlots() = 0;  // those that are left are given up

  // Sets a block of a store that has made no step to what Export with state gave: parameters, state, version, steps. A
  // slot may come in several images, each with further rows. A store after an error is to be thrown away.
  // INVALID_ARGUMENT: names tensor, block, what was expected and what came. RESOURCE_EXHAUSTED.
  virtual absl::Status Install(const BlockExport& image) = 0;

  // Steps with a gradient that blocks and slots have made, and those whose gradient was clipped.
  virtual StepCounts counts() const = 0;

  // --- Accounting ----------------------------------------------------------------------------------------------------
  virtual absl::Span<const BlockId> dense_blocks() const = 0;  // of this server, ascending
  virtual uint64_t parameter_bytes() const = 0;                // dense and rows, without state
  virtual uint64_t held_bytes() const = 0;                     // contributions of the round in progress
  virtual uint64_t total_bytes() const = 0;                    // everything the store has allocated
  // So far, of payloads: contributions kept for those they wait for (what is added to one at once counts not), and rows
  // read.
  virtual uint64_t copied_bytes() const = 0;
};

// What a store will take at most, before it is made: one line for people, and the number. Rows of tables that do not
// exist yet are not counted, and neither are their images in a cut.
struct StoreBudget {
  uint64_t parameters = 0;
  uint64_t state = 0;
  uint64_t versions = 0;
  uint64_t contributions = 0;
  uint64_t cut = 0;    // dense parameters and state of one cut, kept until written: steps meanwhile go on in others
  uint64_t order = 0;  // the recorded order of all pushes, and its copy in a cut
  uint64_t total() const { return parameters + state + versions + contributions + cut + order; }
};
StoreBudget PlanStore(const StoreOptions& options);

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_BLOCK_STORE_H_
