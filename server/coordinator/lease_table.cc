#include "server/coordinator/lease_table.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace descent {

void LeaseTable::AddWorker(MemberId worker, uint32_t capacity) { workers_[worker] = Worker{capacity, 0}; }

std::vector<Rank> LeaseTable::RemoveWorker(MemberId worker) {
  std::vector<Rank> freed = RanksOf(worker);
  for (Rank rank : freed) seats_[rank.value].holder.reset();
  workers_.erase(worker);
  return freed;
}

bool LeaseTable::CanHoldAll() const {
  uint64_t room = 0;
  for (const auto& [id, worker] : workers_) room += worker.capacity == 0 ? ranks() : worker.capacity;
  return room >= ranks();
}

LeaseTable::Grant LeaseTable::GrantTo(Rank rank, MemberId worker) {
  Seat& seat = seats_[rank.value];
  DESCENT_CHECK(!seat.holder.has_value());
  seat.holder = worker;
  ++workers_.at(worker).held;
  return Grant{rank, worker, ++seat.number};
}

std::vector<LeaseTable::Grant> LeaseTable::Spread() {
  // Shares by dealing ranks in turn, passing over whoever is full.
  std::map<MemberId, uint32_t> share;
  uint32_t left = ranks();
  for (bool dealt = true; left > 0 && dealt;) {
    dealt = false;
    for (const auto& [id, worker] : workers_) {
      if (left == 0) break;
      if (worker.capacity != 0 && share[id] >= worker.capacity) continue;
      ++share[id];
      --left;
      dealt = true;
    }
  }
  std::vector<std::pair<uint32_t, MemberId>> runs;
  for (const auto& [id, count] : share) runs.emplace_back(count, id);
  std::stable_sort(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<Grant> grants;
  uint32_t next = 0;
  for (const auto& [count, id] : runs) {
    for (uint32_t i = 0; i < count; ++i) grants.push_back(GrantTo(Rank(next++), id));
  }
  return grants;
}

std::vector<LeaseTable::Grant> LeaseTable::Fill() {
  std::vector<Grant> grants;
  for (Rank rank : Orphans()) {
    std::optional<MemberId> neighbour;
    if (rank.value > 0) neighbour = seats_[rank.value - 1].holder;
    std::optional<MemberId> best;
    for (const auto& [id, worker] : workers_) {
      if (worker.full()) continue;
      if (!best.has_value() || worker.held < workers_.at(*best).held ||
          (worker.held == workers_.at(*best).held && neighbour == id)) {
        best = id;
      }
    }
    if (!best.has_value()) break;
    grants.push_back(GrantTo(rank, *best));
  }
  return grants;
}

void LeaseTable::Reset() {
  for (Seat& seat : seats_) seat = Seat{};
  for (auto& [id, worker] : workers_) worker.held = 0;
}

std::vector<Rank> LeaseTable::RanksOf(MemberId worker) const {
  std::vector<Rank> held;
  for (uint32_t r = 0; r < ranks(); ++r) {
    if (seats_[r].holder == worker) held.push_back(Rank(r));
  }
  return held;
}

std::vector<Rank> LeaseTable::Orphans() const {
  std::vector<Rank> orphans;
  for (uint32_t r = 0; r < ranks(); ++r) {
    if (!seats_[r].holder.has_value()) orphans.push_back(Rank(r));
  }
  return orphans;
}

}  // namespace descent
