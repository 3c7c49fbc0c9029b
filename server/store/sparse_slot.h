// One slot of a sparse table: its rows with their optimizer state, undo records for its last versions, and the
// contributions held for the round in progress. The semantics are those of BlockStore (block_store.h).
//
// A row is made by the first step on it. Where rows move without a gradient (TensorContext::catch_up: by decay or a
// proximal step) each remembers which steps it has made, and makes the missed ones when it is next touched, read or
// exported; elsewhere a step touches the rows of its keys only, which for rules that are not idle without a gradient is
// their lazy form.
//
// Thread-safety: none. Payloads handed out may be released on any thread.
#ifndef DESCENT_SERVER_STORE_SPARSE_SLOT_H_
#define DESCENT_SERVER_STORE_SPARSE_SLOT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensor/global_scalars.h"
#include "common/wire/payload.h"
#include "server/store/block_store.h"
#include "server/store/missed_steps.h"
#include "server/store/reduction_tree.h"
#include "server/store/row_table.h"
#include "server/store/sparse_sum.h"
#include "server/store/tensor_context.h"

namespace descent {

// What the slots of a table share.
struct SparseTable {
  SparseTable(const TensorContext* context, SlabArena* arena);

  const TensorContext* const context;
  SlabArena* const arena;
  const size_t dim;
  const size_t states;
  const size_t stride;  // of a row: parameters, state vectors, and where catch_up the clock below which it has stepped
  const bool starts_at_zero;
  MissedSteps missed;
  uint64_t steps = 0;  // of the table: ROUND: clocks that are complete; PUSH: complete pushes

  // Buffers of a batch, kept for the next.
  std::vector<std::byte> bytes;
  std::vector<std::byte> value_bytes;
  std::vector<uint32_t> buckets;
  std::vector<RowTable::Row> rows;
  std::vector<float> copies;
  std::vector<float*> pointers;
  std::vector<uint64_t> last;
  std::vector<float> shaped;
  uint64_t scratch_bytes() const;
};

class SparseSlot {
 public:
  SparseSlot(SparseTable* table, uint32_t index);

  absl::Status Hold(Rank first, uint32_t span, uint32_t keys, const Payload& payload);
  absl::StatusOr<BlockScalars> Measure(double total_weight);
  absl::Status Commit(double total_weight, double* square);
  absl::Status Apply(double weight, uint32_t keys, const Payload& payload, std::optional<uint64_t> read);

  uint64_t version() const;
  // Steps of the table that rows are caught up to.
  uint64_t now() const { return table_->context->apply_push ? table_->steps : version(); }
  absl::StatusOr<Payload> Read(uint32_t count, const Payload& keys, std::optional<uint64_t> version);
  // Keys, parameters, and state vectors where asked for; rows caught up to `steps`, now() or the pin.
  absl::StatusOr<Payload> Image(bool with_state, uint64_t steps);
  // Of the rows of the Image just made, as BlockExport has it.
  std::vector<uint32_t> Ahead(uint64_t steps) const;
  // Rows as of now are wanted later: reads catch them up no further for good, and no step is made until Unpin.
  void Pin() { pin_ = now(); }
  void Unpin() { pin_ = kUnpinned; }
  bool pinned() const { return pin_ != kUnpinned; }
  uint64_t pin() const { return pin_; }
  // Before any step: rows of an image, keys ascending, are added; the rest of them may come with further images of the
  // same version and steps. INVALID_ARGUMENT; RESOURCE_EXHAUSTED.
  absl::Status Install(const BlockExport& image);
  // Before any step: the rows that the table starts with, `dim` floats for each key. INVALID_ARGUMENT;
  // RESOURCE_EXHAUSTED.
  absl::Status Start(const std::vector<std::pair<uint64_t, const float*>>& rows);
  // What Image with state and Install make of the rows at now(): those that are behind their table are caught up, and
  // those that are ahead of it count as many steps as it.
  void Reinstall();
  // Versions below this will not be read any more.
  void Forget(uint64_t oldest);

  size_t rows() const { return rows_.size(); }
  uint64_t held_bytes() const { return held_bytes_; }
  uint64_t other_bytes() const;  // beside arena and pool

 private:
  struct Batch {
    uint32_t count = 0;
    const std::byte* keys = nullptr;
    const float* values = nullptr;  // at any address
    uint64_t key(size_t i) const {
      uint64_t key;
      std::memcpy(&key, keys + i * sizeof(key), sizeof(key));
      return key;
    }
  };
  struct Undo {  // of the step that made version + 1 of `version`
    uint64_t version = 0;
    std::vector<uint64_t> keys;  // ascending
    FloatBuffer rows;            // as they were, `stride` floats each
  };

  // Points into the payload, or into the table's buffers where its pieces are split; fills table->buckets.
  absl::Status Parse(uint32_t count, const Payload& payload, bool with_values, Batch* batch);
  absl::Status CheckKeys(const Batch& batch);
  absl::Status CheckValues(const Batch& batch) const;
  // All that is held, folded; null: the round makes no step. FAILED_PRECONDITION: it is not finite.
  absl::StatusOr<SparseSum*> Total(double total_weight);
  // One step on the rows of a batch that has been checked, as step `now` (from 0) of the table.
  absl::Status Step(const Batch& batch, float scale, uint64_t now, Undo* undo, uint64_t staleness = 0);
  absl::Status FindOrMakeRows(const Batch& batch, bool fetch_rows);
  static Batch BatchOf(const SparseSum& sum) {
    return {static_cast<uint32_t>(sum.keys.size()), reinterpret_cast<const std::byte*>(sum.keys.data()),
            sum.values.get()};
  }
  void ShrinkRows(const descent::Step& step, size_t count, float* const* rows) const;
  void StepGroup(size_t count, const float* values, float scale, uint64_t now, uint64_t staleness);
  // Rows in table->rows make the steps of clocks < `to`, the oldest version that can be read, for good: the next reader
  // and the next step need not.
  void CatchUpRead(size_t count, uint64_t to);
  // Rows as of `version`, caught up, `stride` floats each, in table->copies.
  void CopyRows(const Batch& batch, uint64_t version);
  void InitialRowTo(uint64_t key, float* row) const;
  uint64_t LastOf(const float* row) const;
  void SetLast(float* row, uint64_t last) const;
  uint64_t CountHeld() const;

  SparseTable* const table_;
  const uint32_t index_;
  RowTable rows_;
  static constexpr uint64_t kUnpinned = ~uint64_t{0};
  uint64_t pin_ = kUnpinned;
  std::optional<std::pair<uint64_t, uint64_t>> installed_;  // version and steps
  uint64_t version_ = 0;  // ROUND: at least this, and what the table says; PUSH: pushes applied
  std::deque<Undo> undo_;
  ReductionTree tree_;
  std::vector<SparseSum> cells_;
  uint64_t held_bytes_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_SPARSE_SLOT_H_
