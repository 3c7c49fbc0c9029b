// A cluster in virtual time on one thread, with everything that can die: the real coordinator with its checkpoints on a
// simulated disk, server processes around real nodes, worker processes around real clients; and by seed, deaths of each
// of them at each moment, stopped processes, partitions, losses of power, full and failing disks. A function of its
// options alone.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_SIMULATION_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_SIMULATION_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/core/engine.h"
#include "tests/simulation/cluster_scenario.h"
#include "tests/simulation/cluster_truth.h"
#include "tests/simulation/reference.h"
#include "worker/client/client_core.h"

namespace descent::simulation {

struct ClusterOptions {
  uint64_t seed = 0;
  ClusterFault fault = ClusterFault::kNone;
  EngineFault server_fault = EngineFault::kNone;
  ClientFaults client_faults;
  bool verbose = false;  // tells what happens, on stdout
};

struct ClusterResult {
  std::string error;  // "": everything held
  uint64_t job = 0;
  bool has_reference = false;  // the job has one result, whatever happened
  uint64_t parameters_hash = 0;
  uint64_t trace_hash = 0;
  uint64_t events = 0, pulls = 0;
  uint32_t blows = 0;
  ClusterCoverage coverage;
};

ClusterResult SimulateCluster(const ClusterOptions& options);

// Every seeded bug of the cluster's processes, by name.
const std::vector<std::pair<std::string, ClusterFault>>& AllClusterFaults();

struct ClusterCampaign {
  uint64_t seeds = 0, pulls = 0, events = 0, blows = 0;
  ClusterCoverage coverage;
  References references;
  std::vector<std::pair<uint64_t, std::string>> errors;  // seed, what

  // One more seed. False: an error was found.
  bool Run(const ClusterOptions& options);
  std::vector<std::string> Uncovered() const;
  std::string Report() const;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_SIMULATION_H_
