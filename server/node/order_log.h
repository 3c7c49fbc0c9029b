// In which order a server's blocks were made what they are: of each block and slot what it has taken in since the run
// began, over all generations that count. It is part of every cut (BlockExport::order), and descent replay does the run
// again from it.
//
// PUSH. A gradient is a function of (rank, clock, read vector), common/wire/read_vector.h; an attempt is one such.
// Blocks may hold different attempts of the same (rank, clock), where a lease moved in between. A block's log is the
// attempts that it applied, in order: entry i made version i + 1. Of a slot also the steps that its table had then,
// which rows are caught up to before a step, and a mark wherever the block was restored from a cut, since its rows then
// count as many steps as the cut's table. The read vector itself stands where the attempt came to this server first;
// other entries name it by its digest, so that all logs of a cut together say everything.
//
// ROUND. All ranks take part in each round, but for those that the log names; and the clocks at which the block was
// restored, before which no version can be read.
//
// Weight-0 batches make no step and have no entry.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_NODE_ORDER_LOG_H_
#define DESCENT_SERVER_NODE_ORDER_LOG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/ids.h"

namespace descent {

enum class OrderKind : char { kDense = 'D', kSlot = 'S', kRound = 'R' };

// One block's log, read. docs/checkpoint-format.md has the bytes.
struct BlockOrder {
  struct Entry {
    bool restored = false;  // PUSH, slots: not a push, but the block taken out of a cut; `steps` alone counts
    Rank rank;
    Clock clock;
    uint32_t digest = 0;
    uint64_t steps = 0;
    std::optional<std::string> read;  // the attempt's vector, where it stands here
    static Entry Restored(uint64_t steps) {
      Entry entry;
      entry.restored = true;
      entry.steps = steps;
      return entry;
    }
    bool operator==(const Entry&) const = default;
  };
  struct Round {
    Clock clock;
    std::vector<Rank> missing;  // ascending; not empty
    bool operator==(const Round&) const = default;
  };
  OrderKind kind = OrderKind::kDense;
  std::vector<Entry> entries;   // PUSH
  std::vector<Round> rounds;    // ROUND: those that lacked somebody, ascending
  std::vector<Clock> restored;  // ROUND, ascending
  uint64_t steps_made() const;  // PUSH: entries that are pushes
  bool operator==(const BlockOrder&) const = default;
};
// INVALID_ARGUMENT: the bytes are no log of a job of so many ranks; says at which byte.
absl::StatusOr<BlockOrder> DecodeOrder(absl::string_view bytes, uint32_t ranks);
std::string EncodeOrder(const BlockOrder& order);

class OrderLog {
 public:
  // Blocks are numbered as in BlockIndex: dense ones, then slots.
  OrderLog(uint32_t ranks, uint32_t dense, uint32_t slots, bool apply_push);

  // PUSH: the block has made a step of this push, its table being at `steps` (dense: 0).
  void OnPush(uint32_t block, Rank rank, Clock clock, absl::string_view read, uint64_t steps);
  // ROUND: a dense block, or all slots, have made the step of this clock. `missing`, ascending: who had no part in it.
  void OnRound(uint32_t block, Clock clock, absl::Span<const Rank> missing);
  void OnSlotsRound(Clock clock, absl::Span<const Rank> missing);

  // The log of the block at this version; PUSH: as it stands, ROUND: it may be ahead.
  std::string Image(uint32_t block, uint64_t version) const;
  // Goes on with the log of a block of a cut, once, before anything else comes. INVALID_ARGUMENT: no log of such a
  // block at that version; the message is for the caller to put the block's name in front of.
  // `running`: the bytes are those of a primary that goes on, not of a cut that the block was taken out of.
  absl::Status Install(uint32_t block, absl::string_view bytes, uint64_t version, uint64_t steps, bool running = false);

 private:
  struct Log {
    std::string bytes;  // PUSH: all of it; ROUND: up to the restore
    uint64_t clock = 0, steps = 0;
    std::vector<BlockOrder::Round> rounds;  // ROUND, dense: since then
  };
  struct Seen {  // attempts of the rank's clock in progress whose vectors stand here
    Clock clock;
    std::vector<uint32_t> digests;
  };

  const uint32_t ranks_;
  const uint32_t dense_;
  const bool apply_push_;
  std::vector<Log> logs_;
  std::vector<Seen> seen_;                      // [rank]
  std::vector<BlockOrder::Round> slot_rounds_;  // ROUND: of all slots, since the restore
};

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_ORDER_LOG_H_
