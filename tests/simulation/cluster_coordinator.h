// The coordinator's process in the simulated cluster: the real Coordinator and RecoveryDisk, and what
// server/process/checkpointing and coordinator_runner make of them, here in virtual time: a generation made lasting
// before anybody serves it, primaries and backups before anybody hears of them, cuts, the model saved, a run that was
// stopped begun again.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_COORDINATOR_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_COORDINATOR_H_

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/coordinator/coordinator.h"
#include "server/coordinator/recovery_disk.h"
#include "tests/simulation/cluster_parts.h"
#include "tests/simulation/cluster_seat.h"

namespace descent::simulation {

class ClusterCoordinator {
 public:
  // `at`: the cluster is at such a moment now. `died`: the process has died in the middle of its disk work. `stopped`:
  // the run was asked to stop, and its coordinator is gone; GoOn is to follow.
  ClusterCoordinator(Cluster* cluster, std::function<void(Moment)> at, std::function<void()> died,
                     std::function<void()> stopped)
      : cluster_(cluster), at_(std::move(at)), died_(std::move(died)), stopped_(std::move(stopped)) {}

  void Start();
  void Killed();
  bool exited() const { return exited_; }
  // The run is asked to stop. Where it is `calm`, and nothing comes in between but the death of a server of which all
  // is held twice, it must be stopped with a cut of where it is.
  void Stop(bool calm);
  // Of a run that is being stopped: something comes in between. `covered`: such a death.
  void Disturb(bool covered = false);
  bool stopping() const { return stop_.has_value(); }
  // Another coordinator may begin, as `descent run --resume` does.
  void GoOn();
  // Dies within the disk work that comes next, after so many changes.
  void DieWithin(uint64_t changes);
  // UNAVAILABLE: it does not serve yet.
  template <typename F>
  auto Serve(F&& f) -> absl::StatusOr<decltype(f(std::declval<Coordinator&>()))> {
    if (coordinator_ == nullptr) return absl::UnavailableError("the coordinator does not serve yet");
    return f(*coordinator_);
  }
  Coordinator* coordinator() { return coordinator_.get(); }
  Moment moment() const;
  // What it was at when it last turned to its disk.
  Moment tended() const { return tended_; }
  // Who is to do what the cluster is at: takes over from a primary (kPromoting), or is sent images (kJoining); null:
  // nobody is.
  std::shared_ptr<ClusterSeat> Promoted() const;
  std::shared_ptr<ClusterSeat> Joining() const;
  // Who goes on without a backup that was given up last.
  std::shared_ptr<ClusterSeat> Alone() const;
  // Every server has a primary and a backup that holds everything, and the disk says so.
  bool AllSynced() const;
  // Where a server and its backup are; nullopt: there is none.
  std::optional<std::pair<ProcessId, ProcessId>> Pair(uint32_t server) const;
  // A byte of the newest committed cut changes on the disk, while nobody restores from it. False: there is none.
  bool Damage();
  bool saved() const { return saved_; }
  uint64_t parameters_hash() const { return parameters_hash_; }

 private:
  absl::StatusOr<RecoveryDisk::Beginning> Begin(bool restore);
  absl::StatusOr<RecoveryDisk::Beginning> BeginUncommitted();
  void Loop();
  void Tend();
  void KeepViews();
  void Prepare();
  void Commit();
  void Save(uint32_t server);
  void Saved();
  // Every server's node, if all of them are there.
  std::vector<ServerNode*> Nodes();
  std::string CheckEnd(const std::vector<ServerNode*>& nodes);
  // What a stop has left.
  std::string CheckStop();
  // "" or what the parts lack of what clients were told (PUSH: under ROUND a cut is of its clock).
  std::string WhatCutLacks();
  void Leave();
  void Drain();

  Cluster* const cluster_;
  const std::function<void(Moment)> at_;
  const std::function<void()> died_, stopped_;
  bool exited_ = false;
  bool run_begun_ = false;  // a coordinator has served before: its run directory says so
  bool saved_ = false;
  uint64_t parameters_hash_ = 0;
  struct Stopping {
    bool calm = false;
    bool joining = false;      // a backup was, when it was asked
    bool trained = false;      // it ran then
    bool death = false;        // of a server, meanwhile
    bool gone = false;         // and the coordinator has missed it
    std::optional<CutId> cut;  // demanded, and committed
    std::string lacks;         // WhatCutLacks, of that
  };
  std::optional<Stopping> stop_;
  std::optional<CutId> to_go_on_from_;  // a cut that was demanded

  // Of this life of the process.
  std::unique_ptr<ProcessStorage> storage_;
  std::unique_ptr<RecoveryDisk> disk_;
  std::unique_ptr<Coordinator> coordinator_;
  absl::Time tend_at_ = absl::InfinitePast();
  bool saving_ = false;
  Moment tended_ = Moment::kPlacing;
  uint64_t kept_change_ = 0;  // of primaries and backups, the last that was to be kept
  bool adopts_ = false;       // if it can, it goes on with what servers hold
  bool tried_to_save_ = false;
  absl::Time worker_gone_ = absl::InfinitePast();
  std::optional<uint32_t> alone_;  // the server whose backup was given up last
  std::set<uint32_t> taken_back_;  // servers whose backups are not synced yet
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_COORDINATOR_H_
