// One run of the cluster simulation: its processes, and the faults that befall them (cluster_blows.cc).
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_RUN_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_RUN_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_coordinator.h"
#include "tests/simulation/cluster_parts.h"
#include "tests/simulation/cluster_server.h"
#include "tests/simulation/cluster_simulation.h"
#include "tests/simulation/cluster_worker.h"

namespace descent::simulation {

class ClusterSimulation {
 public:
  ClusterSimulation(const ClusterOptions& options, Dice* dice, const Job& job, const ClusterSchedule& schedule);
  ClusterResult Run();

 private:
  void At(Moment moment);
  void Strike(const Blow& blow);
  void Kill(ProcessId p, absl::Duration until_start);
  void End(ProcessId p);
  void StartAll();
  void StartProcess(ProcessId p, bool elsewhere);
  ProcessId Pick(Role role);
  ProcessId Target(const Blow& blow);
  // What a cluster that held everything twice makes of it.
  void Expect(const Blow& blow, ProcessId p);
  void KillPair(const Blow& blow);
  void PartitionPair(const Blow& blow);
  void CutOff(ProcessId p, const Blow& blow);
  ProcessId PickOther(ProcessId p);
  void CountKill(ProcessId p, Moment moment, absl::Duration until_start);
  void Await(std::string name, absl::Duration from) {
    cluster_.truth.Await(std::move(name), cluster_.net.now() + from);
  }
  // The run has been stopped, and is begun again by processes that know nothing.
  void GoOn();
  void Heal(absl::Duration after) { healed_ = std::max(healed_, cluster_.net.now() + after); }
  bool AllExited() const;
  uint32_t processes() const { return 1 + cluster_.schedule.servers + cluster_.schedule.workers; }

  Cluster cluster_;
  ClusterCoordinator coordinator_;
  std::vector<std::unique_ptr<ClusterServer>> servers_;
  std::vector<std::unique_ptr<ClusterWorker>> workers_;
  std::vector<Blow> armed_;
  uint32_t struck_ = 0;
  bool power_out_ = false;
  bool dying_ = false;           // the coordinator is to die within its disk work
  bool dying_of_power_ = false;  // what is to die within its disk work, dies with its host
  absl::Duration dying_for_;
  absl::Time healed_;
  absl::Time unsettled_ = absl::InfinitePast();  // until then
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_RUN_H_
