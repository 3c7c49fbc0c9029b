// The marks of one server's blocks and slots: mark[block][rank] is the next clock that the block expects of the rank.
// Exactly-once rests on them: a contribution is admitted only where it moves a mark forward by one.
//
// After a restart from a cut some blocks may have contributions of clocks that their rank is to make again, because
// other blocks lack them: such a block `had` them, and they are counted once more, but not taken in.
//
// A rank's completed clock is a floor under its marks: what it did not contribute to a clock it has completed is
// absent, not outstanding. The floor is passed in, so that completing a clock costs nothing per block.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_CORE_BLOCK_MARKS_H_
#define DESCENT_SERVER_CORE_BLOCK_MARKS_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/base/ids.h"

namespace descent {

enum class Verdict : uint8_t {
  kAdmit,      // at least one rank of the span is new, none is missing an earlier clock
  kDuplicate,  // every rank's contribution of that clock is already in, or its clock is over
  kTooEarly,   // an earlier clock of a rank is missing
};

class BlockMarks {
 public:
  BlockMarks(uint32_t ranks, uint32_t blocks) : ranks_(ranks), mark_(size_t{ranks} * blocks, 0) {}

  // `floor[r]`: clocks that rank r has completed.
  uint64_t mark(uint32_t block, uint32_t rank, absl::Span<const uint64_t> floor) const {
    return std::max(mark_[size_t{block} * ranks_ + rank], floor[rank]);
  }

  // What becomes of a contribution of ranks [first, end) at `clock`. Nothing changes.
  Verdict Check(uint32_t block, uint32_t first, uint32_t end, uint64_t clock, absl::Span<const uint64_t> floor) const {
    bool fresh = false;
    for (uint32_t r = first; r < end; ++r) {
      const uint64_t expected = mark(block, r, floor);
      if (expected < clock) return Verdict::kTooEarly;
      fresh |= expected == clock;
    }
    return fresh ? Verdict::kAdmit : Verdict::kDuplicate;
  }

  // Moves the rank's mark from `clock` to clock + 1. False: it was there already.
  bool Advance(uint32_t block, uint32_t rank, uint64_t clock, absl::Span<const uint64_t> floor) {
    const uint64_t expected = mark(block, rank, floor);
    DESCENT_CHECK(expected >= clock);
    if (expected > clock) return false;
    mark_[size_t{block} * ranks_ + rank] = clock + 1;
    return true;
  }

  // The block has the rank's contributions of clocks < had from before.
  void Restore(uint32_t block, uint32_t rank, uint64_t had) {
    if (had_.empty()) had_.assign(mark_.size(), 0);
    had_[size_t{block} * ranks_ + rank] = had;
  }
  // All of it, [block][rank]; `had` may be empty: nothing.
  const std::vector<uint64_t>& all_marks() const { return mark_; }
  const std::vector<uint64_t>& all_had() const { return had_; }
  void Load(std::vector<uint64_t> marks, std::vector<uint64_t> had) {
    DESCENT_CHECK(marks.size() == mark_.size() && (had.empty() || had.size() == mark_.size()));
    mark_ = std::move(marks);
    had_ = std::move(had);
  }
  uint64_t had(uint32_t block, uint32_t rank) const { return had_.empty() ? 0 : had_[size_t{block} * ranks_ + rank]; }

 private:
  uint32_t ranks_;
  std::vector<uint64_t> mark_;
  std::vector<uint64_t> had_;  // as mark_; empty: nothing
};

}  // namespace descent

#endif  // DESCENT_SERVER_CORE_BLOCK_MARKS_H_
