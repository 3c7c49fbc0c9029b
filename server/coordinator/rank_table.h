// How far each rank is, as its holder tells, and the round that follows from it. Who holds it: lease_table.h. Pure: the
// same calls, the same table. Thread-safety: none.
//
// With replicas, what a rank was pushing when servers changed hands may be on some of them and not on others: it is
// unsettled until it has completed a clock with those that serve now.
#ifndef DESCENT_SERVER_COORDINATOR_RANK_TABLE_H_
#define DESCENT_SERVER_COORDINATOR_RANK_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "common/base/ids.h"

namespace descent {

class RankTable {
 public:
  struct State {
    uint64_t clock = 0;            // completed
    uint64_t examples = 0;         // of the present lease
    uint64_t examples_before = 0;  // of earlier leases
    bool done = false;
    absl::Time advanced;
    uint64_t settles = 0;  // settled from this clock on; kUnbounded: its worker has not been heard of since
  };

  // Rounds close without `backup_ranks` of the ranks.
  RankTable(uint32_t ranks, uint32_t backup_ranks) : backup_ranks_(backup_ranks), states_(ranks) {}

  uint32_t size() const { return static_cast<uint32_t>(states_.size()); }
  const State& operator[](uint32_t rank) const { return states_[rank]; }

  // True: the rank has got further. What goes back counts nothing.
  bool Report(Rank rank, uint64_t clock, uint64_t examples, bool done, absl::Time now);
  // It has done something that is no clock, or has a new holder.
  void Touch(Rank rank, absl::Time now) { states_[rank.value].advanced = now; }
  void TouchAll(absl::Time now);
  // `absence`: for so long nobody could have been heard.
  void Excuse(absl::Duration absence, absl::Time now);
  // Its holder is gone: the next one counts its examples anew.
  void EndLease(Rank rank);
  // A generation goes on from these clocks; ranks beyond them from 0.
  void Restore(const std::vector<uint64_t>& clocks, absl::Time now);
  // A generation goes on with what servers hold: its workers will say how far they are, at least as far as this.
  void SetFloor(const std::vector<uint64_t>& clocks);

  void UnsettleAll();
  // Its worker has been heard of, and knows who serves now.
  void BeginSettling(Rank rank);
  bool settled(Rank rank) const;

  // The clocks below are completed, by every rank, or with backup ranks by enough. full_every: rounds whose number it
  // divides wait for all; 0: none does.
  uint64_t Round(uint64_t full_every) const;
  uint64_t Furthest() const;
  uint64_t Examples() const;
  bool AnyDone() const;

 private:
  const uint32_t backup_ranks_;
  std::vector<State> states_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_RANK_TABLE_H_
