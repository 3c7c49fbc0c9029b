// What a seed of the cluster simulation stands for: a job, the cluster and its network, and the faults that befall it.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_SCENARIO_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_SCENARIO_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/virtual_network.h"

namespace descent::simulation {

// Seeded bugs of the cluster's processes, for the simulation's tests of itself.
enum class ClusterFault : uint8_t {
  kNone,
  kSyncSkipped,           // part files are not synced
  kManifestBeforeParts,   // a part is reported some time before it is synced
  kGenerationNotDurable,  // a generation's file is made, but not synced
  kIncarnationReused,     // a worker pushes as if no lease had ever moved
  kUncommittedRestored,   // a run goes on from the newest folder of a cut, committed or not
  kZombieStays,           // a server that is told that nobody knows it does not register again
};

// What the cluster is at when a fault comes.
enum class Moment : uint8_t { kPlacing, kRunning, kRestoring, kCutting, kCommitting, kSaving };
inline constexpr size_t kMoments = 6;
inline constexpr const char* kMomentNames[kMoments] = {"placing", "running",    "restoring",
                                                       "cutting", "committing", "saving"};
enum class Role : uint8_t { kCoordinator, kServer, kWorker };
inline constexpr size_t kRoles = 3;
inline constexpr const char* kRoleNames[kRoles] = {"coordinator", "server", "worker"};

struct Blow {
  enum class Kind : uint8_t {
    kKill,
    kKillTwo,
    kPause,
    kPartition,        // between two processes, both ways
    kPartitionOneWay,  //
    kPowerLoss,        // of the coordinator's host
    kDiskFull,         // for a while
    kSyncFails,        // one, soon
    kRenameFails,      // the next
    kBadByte,          // in the newest committed cut
  };
  Kind kind = Kind::kKill;
  Role role = Role::kWorker;
  Moment moment = Moment::kRunning;  // it falls at the first such moment
  absl::Duration after;              // and so much later
  absl::Duration lasts;              // until the process is started again, wakes, is reached, the disk has room
};

struct ClusterSchedule {
  uint32_t servers = 3;
  uint32_t workers = 3;
  VirtualNetwork::Weather weather;
  uint64_t cut_every = 6;  // clocks
  uint32_t keep = 1;
  absl::Duration compute = absl::Milliseconds(20);  // least; twice as long at most
  bool pipelined = false;
  size_t max_payload_bytes = size_t{1} << 20;
  uint32_t send_window = 4;
  std::vector<Blow> blows;
};

Job MakeClusterJob(Dice& dice);
ClusterSchedule MakeClusterSchedule(Dice& dice);

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_SCENARIO_H_
