// No better value of a metric for so many evaluations: what early stopping and a rate that is reduced on a plateau wait
// for. Pure; thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_PATIENCE_H_
#define DESCENT_SERVER_COORDINATOR_PATIENCE_H_

#include <cmath>
#include <cstdint>
#include <optional>

namespace descent {

class Patience {
 public:
  // `min_change`: what is better by no more than that is no better.
  Patience(uint32_t evaluations, double min_change, bool more_is_better)
      : evaluations_(evaluations), min_change_(min_change), more_is_better_(more_is_better) {}

  struct State {
    std::optional<double> best;
    uint32_t worse = 0;  // evaluations since then
  };
  // Takes in one value; nullopt or NaN is none, and no better. True: it is the best so far.
  bool Take(std::optional<double> value, State* state) const {
    const bool there = value.has_value() && !std::isnan(*value);
    const double gain = !there || !state->best.has_value() ? 0 : *value - *state->best;
    const bool better = there && (!state->best.has_value() || (more_is_better_ ? gain : -gain) > min_change_);
    if (better) state->best = value;
    state->worse = better ? 0 : state->worse + 1;
    return better;
  }
  bool Over(const State& state) const { return state.worse >= evaluations_; }

 private:
  uint32_t evaluations_;
  double min_change_;
  bool more_is_better_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_PATIENCE_H_
