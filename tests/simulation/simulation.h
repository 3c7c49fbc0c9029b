// A whole cluster in virtual time on one thread: real server nodes, real client cores, a network that loses, repeats,
// reorders and delays, connections that break, workers that die, leases that move. A function of its options alone.
#ifndef DESCENT_TESTS_SIMULATION_SIMULATION_H_
#define DESCENT_TESTS_SIMULATION_SIMULATION_H_

#include <cstdint>
#include <string>

#include "server/core/engine.h"
#include "worker/client/client_core.h"

namespace descent::simulation {

struct SimulationOptions {
  uint64_t seed = 0;
  EngineFault server_fault = EngineFault::kNone;
  ClientFaults client_faults;
};

// What happened, so that a run in which nothing interesting did can't pass for a test.
struct Coverage {
  uint64_t duplicates = 0;  // pushes that servers dropped as known
  uint64_t fenced = 0;
  uint64_t held = 0;  // pulls that waited
  uint64_t waiting_notices = 0;
  uint64_t too_early = 0;
  uint64_t retried = 0;                                 // requests sent again
  uint64_t dropped = 0, duplicated = 0, reordered = 0;  // messages, by the network
  uint64_t breaks = 0, kills = 0, moves = 0;
  uint64_t restores = 0;   // of all servers from a cut
  uint64_t overtaken = 0;  // holders who found that a zombie had gone on meanwhile

  void Add(const Coverage& other);
};

struct SimulationResult {
  std::string error;  // "": everything held
  uint64_t job = 0;
  bool reproducible = false;     // the job's mode has one result
  uint64_t parameters_hash = 0;  // of all blocks and rows in the end
  uint64_t trace_hash = 0;       // of everything that was delivered, and when
  uint64_t staleness = 0;
  bool lead_must_be_reached = false;  // one rank was slow
  uint64_t largest_lead = 0;
  uint64_t pulls = 0;  // checked by the ledger
  uint64_t events = 0;
  Coverage coverage;
};

SimulationResult Simulate(const SimulationOptions& options);

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_SIMULATION_H_
