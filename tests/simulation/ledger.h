// What a pull must hold, and what the servers must hold in the end: the checks of the ledger model (see scenario.h).
#ifndef DESCENT_TESTS_SIMULATION_LEDGER_H_
#define DESCENT_TESTS_SIMULATION_LEDGER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/base/ids.h"
#include "tests/simulation/scenario.h"

namespace descent::simulation {

class Ledger {
 public:
  explicit Ledger(const Job& job);

  const std::vector<uint64_t>& keys(Rank rank, uint64_t clock) const { return keys_[rank.value][clock]; }
  bool has_batch(Rank rank, uint64_t clock) const {
    return batches_[rank.value][clock + 1] > batches_[rank.value][clock];
  }

  // A line of history that goes on from a cut: pushes below `pushed` may be in it; under ROUND reads are of no version
  // before `floor`.
  void GoOnFrom(std::vector<uint64_t> pushed, uint64_t floor) {
    pushed_ = std::move(pushed);
    floor_ = floor;
  }
  const std::vector<uint64_t>& pushed() const { return pushed_; }
  // One that goes on with what servers held, and no cut.
  void GoOnWith(const Ledger& before);

  // A push of (rank, clock) is under way: from now on its effects may be seen.
  void Pushed(Rank rank, uint64_t clock);
  // "" or what is wrong with a pull made for `rank` about to compute `clock`.
  std::string CheckPull(Rank rank, uint64_t clock, absl::Span<const float> ledger, absl::Span<const uint64_t> keys,
                        absl::Span<const float> rows);
  // A block or some rows that hold the contributions of each rank's clocks below those; with backup ranks, of each rank
  // `least` of them. "" or what is wrong.
  std::string CheckDense(absl::Span<const float> block, const std::vector<uint64_t>& clocks,
                         const std::vector<uint64_t>& least) const;
  std::string CheckRows(absl::Span<const uint64_t> keys, absl::Span<const float> rows,
                        const std::vector<uint64_t>& clocks) const;
  std::string CheckEnd(absl::Span<const float> ledger, absl::Span<const float> counts) const;

  // Most clocks that a pull's rank was ahead of another rank's pushes in that pull.
  uint64_t largest_lead() const { return largest_lead_; }
  uint64_t pulls() const { return pulls_; }

 private:
  // With backup ranks: the rounds below `clock` have taken as many contributions as they must, of each rank `least`.
  std::string CheckTaken(absl::Span<const float> block, uint64_t clock, const std::vector<uint64_t>& least) const;
  float CountOf(uint64_t key, const std::vector<uint64_t>& clocks) const;

  const Job job_;
  std::vector<std::vector<std::vector<uint64_t>>> keys_;     // [rank][clock]
  std::vector<std::vector<uint32_t>> batches_;               // [rank][clock]: batches at clocks before
  std::vector<std::vector<std::vector<uint32_t>>> counted_;  // [rank][clock][key]: likewise
  std::vector<uint64_t> pushed_;                             // [rank]: clocks below may have been pushed
  uint64_t floor_ = 0;
  uint64_t largest_lead_ = 0;
  uint64_t pulls_ = 0;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_LEDGER_H_
