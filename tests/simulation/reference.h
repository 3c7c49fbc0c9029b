// The job's result by a plain sequential program: no servers, no messages, one loop over clocks and ranks. What every
// schedule of a reproducible job must end in, to the bit.
#ifndef DESCENT_TESTS_SIMULATION_REFERENCE_H_
#define DESCENT_TESTS_SIMULATION_REFERENCE_H_

#include <cstdint>
#include <map>
#include <string>

#include "tests/simulation/scenario.h"

namespace descent::simulation {

// Hash of all parameters in the end, in the order (tensor, block or slot, element or key). The job is reproducible.
uint64_t ReferenceHash(const Job& job);

// Those of jobs by number, each computed once.
class References {
 public:
  // "" or that the job has ended in other bits.
  std::string Check(uint64_t job, uint64_t parameters_hash);

 private:
  std::map<uint64_t, uint64_t> hashes_;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_REFERENCE_H_
