// The coordinator's process in the simulated cluster: the real Coordinator, and the disk work around it that
// server/process/checkpointing and coordinator_runner do, here in virtual time: a generation made lasting before
// anybody serves it, the newest good cut to go on from, primaries and backups made lasting before anybody hears of
// them, cuts' folders and manifests, what is not kept removed, the model saved.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_COORDINATOR_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_COORDINATOR_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/checkpoint/checkpoint_folder.h"
#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_parts.h"
#include "tests/simulation/cluster_seat.h"

namespace descent::simulation {

class ClusterCoordinator {
 public:
  // `at`: the cluster is at such a moment now. `died`: the process has died in the middle of its disk work.
  ClusterCoordinator(Cluster* cluster, std::function<void(Moment)> at, std::function<void()> died)
      : cluster_(cluster), at_(std::move(at)), died_(std::move(died)) {}

  void Start();
  void Killed();
  bool exited() const { return exited_; }
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
  // Every server has a primary and a backup that holds everything, and the disk says so.
  bool AllSynced() const;
  // Where a server and its backup are; nullopt: there is none.
  std::optional<std::pair<ProcessId, ProcessId>> Pair(uint32_t server) const;
  // A byte of the newest committed cut changes on the disk, while nobody restores from it. False: there is none.
  bool Damage();
  bool saved() const { return saved_; }
  uint64_t parameters_hash() const { return parameters_hash_; }

 private:
  struct Beginning {
    Generation generation;
    std::optional<RestoreFrom> restore;
    std::optional<CutId> from;
    std::optional<v1::ReplicaViews> views;
  };
  absl::StatusOr<Beginning> Begin(bool restore);
  void Loop();
  void Tend();
  void KeepViews();
  void Prepare();
  void Commit();
  void Prune(Generation generation);
  void Save(uint32_t server);
  void Saved();
  void Drain();

  Cluster* const cluster_;
  const std::function<void(Moment)> at_;
  const std::function<void()> died_;
  bool exited_ = false;
  bool run_begun_ = false;  // a coordinator has served before: its run directory says so
  bool saved_ = false;
  uint64_t parameters_hash_ = 0;

  // Of this life of the process.
  std::unique_ptr<ProcessStorage> storage_;
  std::unique_ptr<CheckpointFolder> folder_;
  std::unique_ptr<Coordinator> coordinator_;
  absl::Time tend_at_ = absl::InfinitePast();
  bool given_up_ = false;  // the last cut that was prepared has not been committed
  bool saving_ = false;
  Moment tended_ = Moment::kPlacing;
  uint64_t kept_change_ = 0;  // of primaries and backups, the last that was to be kept
  bool adopts_ = false;       // if it can, it goes on with what servers hold
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_COORDINATOR_H_
