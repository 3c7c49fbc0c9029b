// Which worker holds which rank, under which incarnation number. Pure: the same calls, the same leases.
// Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_LEASE_TABLE_H_
#define DESCENT_SERVER_COORDINATOR_LEASE_TABLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "common/base/ids.h"

namespace descent {

class LeaseTable {
 public:
  struct Grant {
    Rank rank;
    MemberId to;
    uint64_t number = 0;
  };

  explicit LeaseTable(uint32_t ranks) : seats_(ranks) {}

  // `capacity` 0: any number of ranks. A worker without ranks is a standby.
  void AddWorker(MemberId worker, uint32_t capacity);
  // Its ranks are without a holder until the next Fill.
  std::vector<Rank> RemoveWorker(MemberId worker);

  // True if the workers together may hold every rank.
  bool CanHoldAll() const;
  // The first grant of all: every worker gets as even a share as capacities allow, in order of member id, as one run of
  // neighbouring ranks, the longer runs first; so that wherever the numbers divide, a worker holds aligned subtrees of
  // the reduction tree. What exceeds all capacities together stays without a holder.
  std::vector<Grant> Spread();
  // Gives each rank without a holder to the worker with the fewest ranks; of equals to the holder of the rank before
  // it, then to the lowest member id. So standbys come first. Ranks that no capacity is left for stay without a holder.
  std::vector<Grant> Fill();
  // A new generation: nobody holds anything, numbers begin anew.
  void Reset();

  uint32_t ranks() const { return static_cast<uint32_t>(seats_.size()); }
  std::optional<MemberId> holder(Rank rank) const { return seats_[rank.value].holder; }
  uint64_t number(Rank rank) const { return seats_[rank.value].number; }  // 0: never granted
  std::vector<Rank> RanksOf(MemberId worker) const;
  std::vector<Rank> Orphans() const;
  size_t workers() const { return workers_.size(); }

 private:
  struct Seat {
    std::optional<MemberId> holder;
    uint64_t number = 0;
  };
  struct Worker {
    uint32_t capacity = 0;
    uint32_t held = 0;
    bool full() const { return capacity != 0 && held >= capacity; }
  };
  Grant GrantTo(Rank rank, MemberId worker);

  std::vector<Seat> seats_;
  std::map<MemberId, Worker> workers_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_LEASE_TABLE_H_
