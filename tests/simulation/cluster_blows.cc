// The faults of a simulated cluster: when they fall, whom they strike, and what the cluster must make of them.
#include <algorithm>

#include "tests/simulation/cluster_run.h"

namespace descent::simulation {

ProcessId ClusterSimulation::Pick(Role role) {
  switch (role) {
    case Role::kCoordinator:
      return 0;
    case Role::kServer:
      return cluster_.server_process(1 + static_cast<uint32_t>(cluster_.dice->Below(cluster_.schedule.servers - 1)));
    case Role::kWorker:
      break;
  }
  return cluster_.worker_process(static_cast<uint32_t>(cluster_.dice->Below(cluster_.schedule.workers)));
}

// Whoever is just taking over, or joins, is worth more than others.
ProcessId ClusterSimulation::Target(const Blow& blow) {
  if (cluster_.schedule.replicas && coordinator_.coordinator() != nullptr && blow.role == Role::kServer) {
    const auto alone = blow.moment == Moment::kAlone ? coordinator_.Alone() : nullptr;
    if (alone != nullptr) return alone->process();
    const auto promoted = blow.moment == Moment::kPromoting ? coordinator_.Promoted() : nullptr;
    const auto joining = blow.moment == Moment::kJoining ? coordinator_.Joining() : nullptr;
    if (promoted != nullptr && cluster_.dice->Chance(0.7)) return promoted->process();
    if (joining != nullptr && cluster_.dice->Chance(0.7)) {
      const auto pair = coordinator_.Pair(joining->server().value);
      return pair.has_value() && cluster_.dice->Chance(0.5) ? pair->first : joining->process();
    }
  }
  return Pick(blow.role);
}

void ClusterSimulation::Expect(const Blow& blow, ProcessId p) {
  using Kind = Blow::Kind;
  using Expected = ClusterTruth::Expected;
  ClusterTruth& truth = cluster_.truth;
  const absl::Time from = cluster_.net.now() + blow.lasts;
  // What was before is over, and everything is held twice.
  const bool quiet = cluster_.schedule.replicas && healed_ <= cluster_.net.now() && !dying_ &&
                     !coordinator_.stopping() && coordinator_.AllSynced();
  if (!quiet) {
    // Nothing but coordinators has died: the servers' processes that live hold all of it.
    const bool again = truth.expected() == Expected::kNothingRolledBack && blow.kind == Kind::kKill && p == 0 &&
                       coordinator_.moment() == Moment::kAdopting;
    if (!again) return truth.Expect(Expected::kAnything);
    return truth.Expect(Expected::kNothingRolledBack,
                        "deaths of the coordinator amid an adoption got over without a roll-back", from);
  }
  switch (blow.kind) {
    case Kind::kKill:
    case Kind::kPowerLoss:
      if (p == 0 || blow.kind == Kind::kPowerLoss) {
        return truth.Expect(Expected::kNothingRolledBack, "deaths of the coordinator got over without a roll-back",
                            from);
      }
      return truth.Expect(Expected::kSameGeneration,
                          p < cluster_.worker_process(0) ? "deaths got over without a new generation" : "", from);
    case Kind::kPause:
    case Kind::kPartition:
    case Kind::kPartitionOneWay:
    case Kind::kPartitionPair:
    case Kind::kDiskFull:
    case Kind::kSyncFails:
    case Kind::kRenameFails:
    case Kind::kCutOff:
      return truth.Expect(Expected::kSameGeneration, "other faults got over without a new generation", from);
    case Kind::kKillTwo:
    case Kind::kKillPair:
    case Kind::kBadByte:
    case Kind::kStop:
      return truth.Expect(Expected::kAnything);
  }
}

ProcessId ClusterSimulation::PickOther(ProcessId p) {
  ProcessId other = p;
  while (other == p) other = Pick(static_cast<Role>(cluster_.dice->Below(kRoles)));
  return other;
}

void ClusterSimulation::At(Moment moment) {
  // One whose moment does not come would be no fault at all.
  if (moment == Moment::kSaving && struck_ == 0 && armed_.size() == cluster_.schedule.blows.size()) {
    armed_.front().moment = Moment::kSaving;
  }
  for (size_t i = 0; i < armed_.size();) {
    if (armed_[i].moment != moment) {
      ++i;
      continue;
    }
    const Blow blow = armed_[i];
    armed_.erase(armed_.begin() + static_cast<std::ptrdiff_t>(i));
    if (blow.after == absl::ZeroDuration()) {
      Strike(blow);
    } else {
      cluster_.net.At(blow.after, [this, blow] { Strike(blow); });
    }
  }
}

void ClusterSimulation::Strike(const Blow& blow) {
  if (coordinator_.exited()) return;
  ++struck_;
  const ProcessId p = Target(blow);
  Expect(blow, p);
  if (blow.kind != Blow::Kind::kStop) {
    const bool of_server = p != 0 && p < cluster_.worker_process(0);
    const bool covered = blow.kind == Blow::Kind::kKill && of_server && coordinator_.AllSynced();
    coordinator_.Disturb(covered);
    // A stop sees to servers that have changed hands, not to ranks that have.
    if (!covered) unsettled_ = std::max(unsettled_, cluster_.net.now() + blow.lasts + 2 * kSimulatedLease);
  }
  Heal(blow.lasts);
  using Kind = Blow::Kind;
  cluster_.Note("blow", absl::StrCat("kind ", static_cast<int>(blow.kind), " at process ", p, " for ",
                                     absl::FormatDuration(blow.lasts)));
  switch (blow.kind) {
    case Kind::kKill:
    case Kind::kKillTwo:
      if (!cluster_.net.alive(p)) break;
      // In the middle of what the coordinator does with its disk next, or at once.
      if (p == 0 && cluster_.dice->Chance(0.5)) {
        dying_for_ = blow.lasts;
        dying_ = true;
        coordinator_.DieWithin(cluster_.dice->Below(14));
        break;
      }
      CountKill(p, coordinator_.moment(), blow.lasts);
      if (blow.kind == Kind::kKillTwo) {
        const ProcessId other = PickOther(p);
        if (cluster_.net.alive(other)) {
          CountKill(other, coordinator_.moment(), blow.lasts);
          Await("double kills", blow.lasts);
          Kill(other, blow.lasts * cluster_.dice->Fraction());
        }
      }
      Kill(p, blow.lasts);
      break;
    case Kind::kPause:
      Await("pauses", blow.lasts);
      cluster_.net.Pause(p, blow.lasts);
      break;
    case Kind::kPartition:
    case Kind::kPartitionOneWay: {
      ProcessId other = PickOther(p);
      if (cluster_.dice->Chance(0.5)) other = p == 0 ? other : 0;
      cluster_.net.Cut(p, other, blow.lasts);
      if (blow.kind == Kind::kPartition) cluster_.net.Cut(other, p, blow.lasts);
      Await(blow.kind == Kind::kPartition ? "partitions two-way" : "partitions one-way", blow.lasts);
      break;
    }
    case Kind::kPowerLoss:
      if (!cluster_.net.alive(0)) break;
      dying_for_ = blow.lasts;
      if (cluster_.dice->Chance(0.6)) {
        dying_of_power_ = dying_ = true;
        coordinator_.DieWithin(cluster_.dice->Below(14));
        break;
      }
      Await("power losses", blow.lasts);
      CountKill(0, coordinator_.moment(), blow.lasts);
      cluster_.disk.CutPowerAfter(0);
      power_out_ = true;
      Kill(0, blow.lasts);
      break;
    case Kind::kDiskFull:
      cluster_.disk.set_capacity(cluster_.disk.used() + cluster_.dice->Below(3000));
      cluster_.net.At(blow.lasts, [this] { cluster_.disk.set_capacity(kUnbounded); });
      break;
    case Kind::kSyncFails:
      cluster_.disk.Fail(testing::DiskOperation::kSync, 1 + cluster_.dice->Below(3));
      break;
    case Kind::kRenameFails:
      cluster_.disk.Fail(testing::DiskOperation::kRename);
      break;
    case Kind::kKillPair:
      KillPair(blow);
      break;
    case Kind::kPartitionPair:
      PartitionPair(blow);
      break;
    case Kind::kCutOff:
      CutOff(p, blow);
      break;
    case Kind::kBadByte:
      if (!coordinator_.Damage()) break;
      // Somebody is to notice.
      CountKill(0, coordinator_.moment(), blow.lasts);
      Kill(0, blow.lasts);
      break;
    case Kind::kStop:
      coordinator_.Stop(std::max(healed_, unsettled_) <= cluster_.net.now() && !dying_);
      break;
  }
}

void ClusterSimulation::KillPair(const Blow& blow) {
  const auto pair = coordinator_.Pair(static_cast<uint32_t>(cluster_.dice->Below(cluster_.schedule.servers)));
  if (!pair.has_value()) return;
  Await("kills of a primary and its backup", blow.lasts);
  for (ProcessId p : {pair->first, pair->second}) {
    CountKill(p, coordinator_.moment(), blow.lasts);
    Kill(p, blow.lasts * cluster_.dice->Fraction());
  }
}

void ClusterSimulation::PartitionPair(const Blow& blow) {
  const auto pair = coordinator_.Pair(static_cast<uint32_t>(cluster_.dice->Below(cluster_.schedule.servers)));
  if (!pair.has_value()) return;
  Await("partitions of a primary and its backup", blow.lasts);
  const uint64_t ways = cluster_.dice->Below(4);
  if (ways != 0) cluster_.net.Cut(pair->first, pair->second, blow.lasts);
  if (ways != 1) cluster_.net.Cut(pair->second, pair->first, blow.lasts);
}

// The server's backups take over while it lives; it may be the next coordinator that it hears of again.
void ClusterSimulation::CutOff(ProcessId p, const Blow& blow) {
  Await("servers cut off from the coordinator", blow.lasts);
  cluster_.net.Cut(p, 0, blow.lasts);
  cluster_.net.Cut(0, p, blow.lasts);
  if (cluster_.dice->Chance(0.5)) return;
  const absl::Duration after = cluster_.dice->Between(absl::Seconds(1), blow.lasts + absl::Milliseconds(200));
  Heal(after);
  cluster_.truth.Expect(ClusterTruth::Expected::kAnything);
  cluster_.net.At(after, [this] {
    if (!cluster_.net.alive(0) || coordinator_.exited()) return;
    const absl::Duration until_start = cluster_.dice->Between(absl::Milliseconds(50), absl::Milliseconds(500));
    CountKill(0, coordinator_.moment(), until_start);
    Kill(0, until_start);
  });
}

}  // namespace descent::simulation
