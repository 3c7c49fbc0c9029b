// descent_simulate: the long forms of the simulator, and the replay of one seed.
//   --seeds N [--first K] [--fault NAME]   N seeds from K on; exit status 1 if any fails (with --fault: if none does)
//   --seed S [--fault NAME]                one seed: its trace hash, its result
// With --cluster before these: of whole clusters, coordinator, disk and all; --verbose tells what happens.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "tests/simulation/campaign.h"
#include "tests/simulation/cluster_simulation.h"

namespace {

constexpr size_t kMaxErrors = 5;

int Usage() {
  std::fprintf(
      stderr,
      "usage: descent_simulate [--cluster [--verbose]] --seeds N [--first K] [--fault NAME] | --seed S [--fault NAME]\n"
      "faults:");
  for (const auto& [name, fault] : descent::simulation::AllFaults()) std::fprintf(stderr, " %s", name.c_str());
  std::fprintf(stderr, "\nof clusters, besides those:");
  for (const auto& [name, fault] : descent::simulation::AllClusterFaults()) std::fprintf(stderr, " %s", name.c_str());
  std::fprintf(stderr, "\n");
  return 2;
}

int RunClusters(descent::simulation::ClusterOptions options, bool single, uint64_t first, uint64_t seeds, bool faulty) {
  if (seeds == 0) return Usage();
  descent::simulation::ClusterCampaign campaign;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    options.seed = seed;
    campaign.Run(options);
    if (campaign.errors.size() >= (faulty ? 1 : kMaxErrors)) break;
  }
  if (single) {
    const descent::simulation::ClusterResult r = SimulateCluster(options);
    std::printf("seed %llu job %llu trace %016llx parameters %016llx\n", static_cast<unsigned long long>(first),
                static_cast<unsigned long long>(r.job), static_cast<unsigned long long>(r.trace_hash),
                static_cast<unsigned long long>(r.parameters_hash));
  }
  std::fputs(campaign.Report().c_str(), stdout);
  return campaign.errors.empty() == !faulty ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  namespace sim = descent::simulation;
  uint64_t seeds = 0, first = 0, one = 0;
  bool single = false, faulty = false, clusters = false;
  sim::Faults faults;
  sim::ClusterOptions cluster;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--cluster" || flag == "--verbose") {
      (flag == "--cluster" ? clusters : cluster.verbose) = true;
      --i;
      continue;
    }
    if (i + 1 >= argc) return Usage();
    const std::string value = argv[i + 1];
    if (flag == "--fault") {
      for (const auto& [name, fault] : sim::AllFaults()) {
        if (name == value) faults = fault, faulty = true;
      }
      for (const auto& [name, fault] : sim::AllClusterFaults()) {
        if (clusters && name == value) cluster.fault = fault, faulty = true;
      }
      if (!faulty) return Usage();
      continue;
    }
    uint64_t number = 0;
    if (!absl::SimpleAtoi(value, &number)) return Usage();
    if (flag == "--seeds") {
      seeds = number;
    } else if (flag == "--first") {
      first = number;
    } else if (flag == "--seed") {
      one = number;
      single = true;
    } else {
      return Usage();
    }
  }
  cluster.server_fault = faults.server;
  cluster.client_faults = faults.client;
  if (clusters) return RunClusters(cluster, single, single ? one : first, single ? 1 : seeds, faulty);
  if (single) {
    const sim::SimulationResult r = sim::Simulate({one, faults.server, faults.client});
    std::printf("seed %llu job %llu trace %016llx parameters %016llx pulls %llu events %llu\n%s\n",
                static_cast<unsigned long long>(one), static_cast<unsigned long long>(r.job),
                static_cast<unsigned long long>(r.trace_hash), static_cast<unsigned long long>(r.parameters_hash),
                static_cast<unsigned long long>(r.pulls), static_cast<unsigned long long>(r.events),
                r.error.empty() ? "all checks held" : r.error.c_str());
    return r.error.empty() ? 0 : 1;
  }
  if (seeds == 0) return Usage();
  sim::Campaign campaign;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    campaign.Run(seed, faults);
    if (campaign.errors.size() >= (faulty ? 1 : kMaxErrors)) break;
  }
  std::fputs(campaign.Report().c_str(), stdout);
  return campaign.errors.empty() == !faulty ? 0 : 1;
}
