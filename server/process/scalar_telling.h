// What a server has measured of its last few clocks, and which of it the coordinator is still to be told. Pure, so that
// scalar_agent.h and the simulator run the same; thread-safety: none.
#ifndef DESCENT_SERVER_PROCESS_SCALAR_TELLING_H_
#define DESCENT_SERVER_PROCESS_SCALAR_TELLING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "common/tensor/global_scalars.h"

namespace descent {

class ScalarTelling {
 public:
  // Seeded bugs, for tests alone.
  enum class Fault : uint8_t {
    kNone,
    kNotToldAgain,  // what one coordinator was told is not told the next
  };
  struct Told {
    Clock clock;
    std::vector<BlockScalars> parts;
    bool answered = false;
  };

  explicit ScalarTelling(Fault fault = Fault::kNone) : fault_(fault) {}

  // A generation begins that goes on with what the node holds: the coordinator that was told is gone, and another
  // server may not have had its answer, so all that is kept is told again. `keep`: clocks, at least 1.
  void TellAgain(size_t keep) {
    keep_ = keep;
    ++epoch_;
    for (Told& told : told_) told.answered = fault_ == Fault::kNotToldAgain;
  }
  void Measured(Clock clock, std::vector<BlockScalars> parts) {
    told_.push_back({clock, std::move(parts), false});
    while (told_.size() > keep_) told_.pop_front();
  }
  // The node goes, and all that it waited for.
  void Forget() {
    ++epoch_;
    told_.clear();
  }
  // The oldest that has no answer; null: all have.
  const Told* Next() const {
    const auto next = std::find_if(told_.begin(), told_.end(), [](const Told& told) { return !told.answered; });
    return next == told_.end() ? nullptr : &*next;
  }
  void Answered(Clock clock) {
    for (Told& told : told_) told.answered |= told.clock == clock;
  }
  // Changes with whatever makes an answer that is under way void.
  uint64_t epoch() const { return epoch_; }

 private:
  const Fault fault_;
  std::deque<Told> told_;  // at most keep_
  size_t keep_ = 1;
  uint64_t epoch_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SCALAR_TELLING_H_
