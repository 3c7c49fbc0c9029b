#include "tests/simulation/scenario.h"

#include <algorithm>
#include <utility>

namespace descent::simulation {

std::vector<TensorSpec> Job::tensors() const {
  Initializer uniform{Initializer::Kind::kUniform, 0.5};
  std::vector<TensorSpec> specs = {
      {"ledger", false, {kLedgerBlocks * kBlockElements}, TensorRole::kTrainable, false, {}},
      {"values", false, {kValueBlocks * kBlockElements - 3}, TensorRole::kTrainable, false, uniform}};
  if (sparse) specs.push_back({"counts", true, {kDim}, TensorRole::kTrainable, false, {}});
  return specs;
}

bool Job::has_batch(Rank rank, uint64_t clock) const {
  return !empty_batches || HashKey(number * 1'000'003 + rank.value * 1009 + clock) % 7 != 0;
}

std::vector<uint64_t> Job::keys(Rank rank, uint64_t clock) const {
  std::vector<uint64_t> keys;
  if (!sparse || !has_batch(rank, clock)) return keys;
  for (uint64_t i = 0; i < 3; ++i) keys.push_back(HashKey(number + rank.value * 31 + clock * 977 + i * 7919) % kKeys);
  const Geometry cut = geometry();
  std::sort(keys.begin(), keys.end(),
            [&](uint64_t a, uint64_t b) { return std::pair(cut.slot(a), a) < std::pair(cut.slot(b), b); });
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

float Job::gradient(float change) const {
  // Rate 1. A push alone weighs 1; a round is divided by its total weight, which is the number of ranks.
  return apply_push || reduce_sum ? -change : -change * static_cast<float>(ranks);
}

float Job::noise(Rank rank, uint64_t clock, uint32_t element) const {
  const uint64_t bits = HashKey(number << 40 ^ uint64_t{rank.value} << 32 ^ clock << 8 ^ element);
  return (static_cast<float>(bits & 0xffff) - 32768.0f) * 0x1p-20f;
}

Job MakeJob(uint64_t number) {
  Job job;
  job.number = number;
  switch (number % 8) {
    case 0:
    case 6:
      break;  // SYNC
    case 1:
      job.staleness = 1;
      break;
    case 2:
      job.staleness = 4;
      break;
    case 3:
    case 4:
    case 5:
      job.staleness = number % 8 == 3 ? 0 : number % 8 == 4 ? 1 : 4;
      job.apply_push = true;
      break;
    case 7:
      job.staleness = kUnbounded;
      job.apply_push = true;
      break;
  }
  // A round's mean is exact where the number of ranks is a power of two, and every rank has a batch.
  switch (number / 8 % 3) {
    case 0:
      break;
    case 1:
      job.ranks = 5;
      job.reduce_sum = true;
      job.empty_batches = true;
      job.sparse = true;
      break;
    case 2:
      job.ranks = 4;
      job.sparse = true;
      job.clocks = 53;
      break;
  }
  return job;
}

Schedule MakeSchedule(const Job& job, Dice& dice) {
  Schedule s;
  s.servers = 3 + static_cast<uint32_t>(dice.Below(2));
  s.workers = 2 + static_cast<uint32_t>(dice.Below(3));
  s.drop = dice.Chance(0.7) ? 0.05 * dice.Fraction() : 0;
  s.duplicate = dice.Chance(0.7) ? 0.08 * dice.Fraction() : 0;
  s.delay = dice.Between(absl::Microseconds(50), absl::Milliseconds(3));
  s.late = dice.Chance(0.5) ? 0.02 : 0;
  s.keep_order = dice.Chance(0.3);
  s.breaks = static_cast<uint32_t>(dice.Below(4));
  s.kills = static_cast<uint32_t>(dice.Below(3));
  s.moves = static_cast<uint32_t>(dice.Below(5));
  s.move_announced = dice.Chance(0.5) ? 1 : 0.3;
  s.max_payload_bytes = dice.Chance(0.3) ? 40 : size_t{1} << 20;
  if (dice.Chance(0.3)) s.slow_rank = static_cast<uint32_t>(dice.Below(job.ranks));
  s.pipelined = dice.Chance(0.4);
  s.send_window = 1 + static_cast<uint32_t>(dice.Below(4));
  // Not drawn, so that without it a seed stands for what it always stood for. Under ROUND with staleness the versions
  // before the cut are gone, and reads are of newer ones than the ledger says.
  const bool die = HashKey(static_cast<uint64_t>(absl::ToInt64Nanoseconds(s.delay))) % 10 < 3;
  s.servers_die = die && (job.apply_push || job.staleness == 0);
  return s;
}

}  // namespace descent::simulation
