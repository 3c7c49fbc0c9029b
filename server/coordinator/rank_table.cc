#include "server/coordinator/rank_table.h"

#include <algorithm>

namespace descent {

bool RankTable::Report(Rank rank, uint64_t clock, uint64_t examples, bool done, absl::Time now) {
  State& state = states_[rank.value];
  const bool further = clock > state.clock || (done && !state.done);
  state.clock = std::max(state.clock, clock);
  state.examples = std::max(state.examples, examples);
  state.done |= done;
  if (further) state.advanced = now;
  return further;
}

void RankTable::TouchAll(absl::Time now) {
  for (State& state : states_) state.advanced = now;
}

void RankTable::Excuse(absl::Duration absence, absl::Time now) {
  for (State& state : states_) state.advanced = std::min(now, state.advanced + absence);
}

void RankTable::EndLease(Rank rank) {
  State& state = states_[rank.value];
  state.examples_before += state.examples;
  state.examples = 0;
}

void RankTable::Restore(const std::vector<uint64_t>& clocks, absl::Time now) {
  for (uint32_t r = 0; r < size(); ++r) {
    EndLease(Rank(r));
    const uint64_t before = states_[r].examples_before;
    states_[r] = State{.clock = r < clocks.size() ? clocks[r] : 0, .examples_before = before, .advanced = now};
  }
}

void RankTable::SetFloor(const std::vector<uint64_t>& clocks) {
  for (uint32_t r = 0; r < size() && r < clocks.size(); ++r) states_[r].clock = clocks[r];
}

void RankTable::UnsettleAll() {
  for (State& state : states_) state.settles = kUnbounded;
}

void RankTable::BeginSettling(Rank rank) {
  State& state = states_[rank.value];
  if (state.settles == kUnbounded) state.settles = state.clock + 1;
}

bool RankTable::settled(Rank rank) const {
  const State& state = states_[rank.value];
  return state.done || state.clock >= state.settles;
}

uint64_t RankTable::Round(uint64_t full_every) const {
  std::vector<uint64_t> clocks;
  for (const State& state : states_) clocks.push_back(state.clock);
  const uint64_t least = clocks.empty() ? kUnbounded : *std::min_element(clocks.begin(), clocks.end());
  if (backup_ranks_ == 0 || backup_ranks_ >= clocks.size()) return least;
  std::nth_element(clocks.begin(), clocks.begin() + backup_ranks_, clocks.end());
  if (full_every == 0) return clocks[backup_ranks_];
  return std::min(clocks[backup_ranks_], std::max(full_every, (least + full_every - 1) / full_every * full_every));
}

uint64_t RankTable::Furthest() const {
  uint64_t most = 0;
  for (const State& state : states_) most = std::max(most, state.clock);
  return most;
}

uint64_t RankTable::Examples() const {
  uint64_t examples = 0;
  for (const State& state : states_) examples += state.examples_before + state.examples;
  return examples;
}

bool RankTable::AnyDone() const {
  return std::any_of(states_.begin(), states_.end(), [](const State& state) { return state.done; });
}

}  // namespace descent
