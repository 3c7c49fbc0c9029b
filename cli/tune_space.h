// What `descent tune` tries: the fields, and the values of them in each trial. Pure; values.
//
// A grid is every combination of its values. Random search (Bergstra and Bengio, 2012) draws each field by itself in
// every trial. A range (Smith, 2017, section 3.3, with a trial for each rate instead of one run in which it grows) is a
// grid of values with equal ratios.
#ifndef DESCENT_CLI_TUNE_SPACE_H_
#define DESCENT_CLI_TUNE_SPACE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace descent {

constexpr uint32_t kMostTrials = 10000;

struct TuneSpace {
  std::vector<std::string> grid = {};    // "learning_rate.constant=0.1,0.01"; with a | anywhere, that is between values
  std::vector<std::string> range = {};   // "learning_rate.constant=1e-4..1"
  std::vector<std::string> random = {};  // "optimizer.adam.beta1=0.8..0.99": uniform; whole numbers between whole ones
  std::vector<std::string> random_log = {};  // likewise, the logarithm uniform
  uint32_t trials = 0;                       // values of a range, or how often to draw; 0: 10
  uint64_t seed = 0;                         // of the draws: trial i's are a function of it, i and the field's place
};

// Path and value, as --set takes them; in the order grid, range, random, random_log.
using TrialFields = std::vector<std::pair<std::string, std::string>>;

// At least one trial. With random fields, trial i has the grid's point i modulo their number. INVALID_ARGUMENT names
// the flag and its value.
absl::StatusOr<std::vector<TrialFields>> TrialsOf(const TuneSpace& space);

}  // namespace descent

#endif  // DESCENT_CLI_TUNE_SPACE_H_
