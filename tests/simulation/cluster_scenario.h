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
  kCutAttemptKept,        // a cut that is ordered again is not told from the order before
  kNormsNotToldAgain,     // what one coordinator was told of the norms that a step waits for is not told the next
  // With replicas:
  kAckBeforeReplicate,  // a primary's replies do not wait for its backup
  kSyncedTooSoon,       // a primary says that its backup is synced as soon as it has one
  kViewsNotLasting,     // a promotion is heard of some time before it is on the disk
  kGoesAloneUnasked,    // a primary that does not reach its backup goes on without, before the coordinator says so
  kGivenUpPromoted,     // a backup that was given up stays the one to take over
};

// What the cluster is at when a fault comes.
enum class Moment : uint8_t {
  kPlacing,
  kRunning,
  kRestoring,
  kCutting,
  kCommitting,
  kSaving,
  kPromoting,  // a backup is to take over, and has not heard
  kJoining,    // a backup is being sent images
  kAdopting,   // a coordinator has begun, and would go on with what servers hold
  kAlone,      // a backup was given up: for blows alone, the cluster is at something else then
};
inline constexpr size_t kMoments = 9;  // that the cluster can be at
inline constexpr const char* kMomentNames[kMoments] = {"placing", "running",   "restoring", "cutting", "committing",
                                                       "saving",  "promoting", "joining",   "adopting"};
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
    kKillPair,         // of a server's primary and its backup
    kPartitionPair,    // between these two alone
    kCutOff,           // a server from the coordinator, for longer than it waits; which may die when it has promoted
    kStop,             // the run is asked to stop; once it has, it is begun again from what it left
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
  bool replicas = false;
  VirtualNetwork::Weather weather;
  uint64_t cut_every = 6;  // clocks
  uint32_t keep = 1;
  absl::Duration compute = absl::Milliseconds(20);  // least; twice as long at most
  bool pipelined = false;
  size_t max_payload_bytes = size_t{1} << 20;
  uint32_t send_window = 4;
  std::vector<Blow> blows;
};

Job MakeClusterJob(uint64_t seed, Dice& dice);
ClusterSchedule MakeClusterSchedule(Dice& dice);

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_SCENARIO_H_
