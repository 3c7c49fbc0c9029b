// What the processes of a simulated cluster share: virtual time and network, the disk of the coordinator's host, and
// the names by which they reach each other. Nothing of it is known to the code under test.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_PARTS_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_PARTS_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "descent/v1/coordinator.pb.h"
#include "server/coordinator/cut_schedule.h"
#include "server/coordinator/replica_table.h"
#include "server/core/engine.h"
#include "server/process/scalar_telling.h"
#include "server/replica/primary_node.h"
#include "tests/simulation/cluster_scenario.h"
#include "tests/simulation/cluster_truth.h"
#include "tests/simulation/process_storage.h"
#include "tests/simulation/virtual_network.h"
#include "tests/support/simulated_disk.h"
#include "worker/client/client_core.h"

namespace descent::simulation {

class ClusterCoordinator;
class ClusterSeat;
class ClusterServer;
class ClusterWorker;

inline constexpr uint64_t kFingerprint = 0xde5ce27;
inline constexpr RunId kRun{77};
inline constexpr absl::Duration kSimulatedLease = absl::Seconds(2);
inline constexpr absl::Duration kBeatAgain = absl::Milliseconds(100);

struct Cluster {
  Cluster(const Job& job_in, const ClusterSchedule& schedule_in, Dice* dice_in)
      : job(job_in),
        schedule(schedule_in),
        dice(dice_in),
        net(1 + schedule.servers + schedule.workers, schedule.weather, dice),
        disk([this](uint64_t n) { return dice->Below(n); }),
        truth(job) {}

  // Process 0 is the coordinator's, in which server process 0 lives as well.
  ProcessId server_process(uint32_t s) const { return s == 0 ? 0 : 1 + s; }
  ProcessId worker_process(uint32_t w) const { return 1 + schedule.servers + w; }
  std::unique_ptr<ProcessStorage> MakeStorage(ProcessId p) {
    return std::make_unique<ProcessStorage>(
        &disk, fault, [this, p] { return !net.cut(p, 0) && !net.cut(0, p); },
        [this](std::function<void()> action) { net.At(absl::Seconds(1), std::move(action)); });
  }
  // Whoever serves at that address, as primary or as backup; null: nobody does.
  std::shared_ptr<ClusterSeat> SeatAt(const std::string& address) const;
  ReplicaFault replica_fault() const {
    return fault == ClusterFault::kAckBeforeReplicate ? ReplicaFault::kAckBeforeReplicate : ReplicaFault::kNone;
  }
  CutSchedule::Fault cut_fault() const {
    return fault == ClusterFault::kCutAttemptKept ? CutSchedule::Fault::kAttemptKept : CutSchedule::Fault::kNone;
  }
  ScalarTelling::Fault telling_fault() const {
    return fault == ClusterFault::kNormsNotToldAgain ? ScalarTelling::Fault::kNotToldAgain
                                                     : ScalarTelling::Fault::kNone;
  }
  ReplicaTable::Fault table_fault() const {
    return fault == ClusterFault::kGivenUpPromoted ? ReplicaTable::Fault::kGivenUpPromoted : ReplicaTable::Fault::kNone;
  }
  template <typename Request>
  void Sign(Request* request) const {
    request->set_protocol(kProtocolVersion);
    request->set_job_fingerprint(kFingerprint);
    request->mutable_numerics()->set_build("b");
    request->mutable_numerics()->set_instruction_set("i");
    request->mutable_numerics()->set_probe(1);
  }
  void Note(absl::string_view who, absl::string_view what) const {
    if (!verbose) return;
    absl::FPrintF(stdout, "%10.6f %s: %s\n", absl::ToDoubleSeconds(net.now() - absl::UnixEpoch() - absl::Hours(24)),
                  who, what);
  }

  const Job job;
  const ClusterSchedule schedule;
  Dice* const dice;
  ClusterFault fault = ClusterFault::kNone;
  EngineFault engine_fault = EngineFault::kNone;
  ClientFaults client_faults;
  bool verbose = false;
  VirtualNetwork net;
  testing::SimulatedDisk disk;
  ClusterTruth truth;
  ClusterCoordinator* coordinator = nullptr;
  std::vector<ClusterServer*> servers;  // by process, not by server id
  std::vector<ClusterWorker*> workers;
  // Who was promoted, or went on with a server's blocks into another generation.
  std::map<std::pair<Generation, ServerId>, std::weak_ptr<ClusterSeat>> successors;
  uint64_t next_line = 1;
  uint64_t next_nonce = 1;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_PARTS_H_
