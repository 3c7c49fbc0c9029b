// What a seed stands for: a job (model, ranks, clocks, consistency) and a schedule (servers, workers, the network's
// behaviour, kills, lease moves and the death of all servers). Several seeds share a job, and in a reproducible mode
// must end in the same bits.
//
// The ledger. Tensor "ledger" has a block per 8 elements, several on every server; a push of rank r adds exactly 1 to
// element r of each of its blocks, so that what a pull brings proves which pushes it holds. Table "counts" is a ledger
// by key: each push adds 1 to the row of each of its keys. Tensor "values" is what a real model would be: its gradient
// depends on what was read, so that its bits depend on every read.
#ifndef DESCENT_TESTS_SIMULATION_SCENARIO_H_
#define DESCENT_TESTS_SIMULATION_SCENARIO_H_

#include <bit>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/random/philox.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"

namespace descent::simulation {

// Random numbers in sequence; one thread.
class Dice {
 public:
  explicit Dice(uint64_t seed) : stream_(seed, Purpose::kTest, 1, 0) {}
  uint64_t Below(uint64_t n) { return stream_.Below(next_++, n); }
  double Fraction() { return static_cast<double>(stream_.Bits64(next_++) >> 11) * 0x1p-53; }
  bool Chance(double p) { return Fraction() < p; }
  absl::Duration Between(absl::Duration low, absl::Duration high) { return low + (high - low) * Fraction(); }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

inline constexpr uint32_t kBlockElements = 8;  // at least as many as ranks
inline constexpr uint32_t kLedgerBlocks = 6;
inline constexpr uint32_t kValueBlocks = 3;
inline constexpr uint32_t kSlots = 8;
inline constexpr uint32_t kKeys = 12;
inline constexpr uint32_t kDim = 2;
inline constexpr uint32_t kLedger = 0, kValues = 1, kCounts = 2;  // tensors

struct Job {
  uint64_t number = 0;
  uint32_t ranks = 4;
  uint64_t clocks = 50;
  uint64_t staleness = 0;
  bool apply_push = false;
  bool reduce_sum = false;
  bool sparse = false;
  bool empty_batches = false;
  uint32_t backup_ranks = 0;  // rounds close without so many ranks
  uint64_t full_every = 0;    // but not those beyond the first that are divisible by this
  // Steps wait for the norm of the gradient over all servers, by which they would be clipped were it not within the
  // bound.
  bool measures = false;

  // Parameters are a function of the job alone.
  bool reproducible() const { return !apply_push && staleness != kUnbounded && backup_ranks == 0; }
  // With backup ranks: rounds below `clock` that take every rank, and contributions that all of them take.
  uint64_t full_rounds(uint64_t clock) const { return clock == 0 ? 0 : (clock - 1) / full_every; }
  uint64_t taken(uint64_t clock) const { return clock * (ranks - backup_ranks) + full_rounds(clock) * backup_ranks; }
  std::vector<TensorSpec> tensors() const;
  Geometry geometry() const { return Geometry{kBlockElements, kSlots}; }
  bool has_batch(Rank rank, uint64_t clock) const;
  std::vector<uint64_t> keys(Rank rank, uint64_t clock) const;  // in the order (slot, key)
  // What a gradient element must be so that the parameters change by `change`.
  float gradient(float change) const;
  float noise(Rank rank, uint64_t clock, uint32_t element) const;
};

struct Schedule {
  uint32_t servers = 3;
  uint32_t workers = 2;
  double drop = 0;
  double duplicate = 0;
  absl::Duration delay = absl::Milliseconds(1);  // most
  double late = 0;                               // chance of a delay twenty times as long
  bool keep_order = false;                       // within a connection, as a stream does
  uint32_t breaks = 0, kills = 0, moves = 0;     // how many of each
  double move_announced = 0.5;                   // chance that servers are told of a move
  size_t max_payload_bytes = size_t{1} << 20;    // small: many messages per push
  uint32_t slow_rank = ~uint32_t{0};
  uint32_t send_window = 4;
  bool pipelined = false;  // workers go on while pushes are under way
  // The servers are cut, later everything dies, and others go on from the images.
  bool servers_die = false;
};

inline uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 29);
}
inline uint64_t HashFloats(uint64_t hash, absl::Span<const float> values) {
  for (float value : values) hash = Mix(hash, std::bit_cast<uint32_t>(value));
  return hash;
}

inline constexpr uint64_t kJobs = 24;
Job MakeJob(uint64_t number);
Schedule MakeSchedule(const Job& job, Dice& dice);

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_SCENARIO_H_
