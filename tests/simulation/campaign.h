// Many seeds in a row, and what they show together: that jobs have one result, and that something happened.
#ifndef DESCENT_TESTS_SIMULATION_CAMPAIGN_H_
#define DESCENT_TESTS_SIMULATION_CAMPAIGN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/simulation/reference.h"
#include "tests/simulation/simulation.h"

namespace descent::simulation {

struct Faults {
  EngineFault server = EngineFault::kNone;
  ClientFaults client;
};
// By name, as on the command line: every seeded bug there is.
const std::vector<std::pair<std::string, Faults>>& AllFaults();

struct Campaign {
  uint64_t seeds = 0, pulls = 0, events = 0;
  Coverage coverage;
  References references;
  std::vector<std::pair<uint64_t, std::string>> errors;  // seed, what

  // One more seed. False: an error was found.
  bool Run(uint64_t seed, const Faults& faults);
  // Names of counters that are still 0.
  std::vector<std::string> Uncovered() const;
  std::string Report() const;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CAMPAIGN_H_
