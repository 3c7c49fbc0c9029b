#include "tests/simulation/cluster_simulation.h"

#include <algorithm>
#include <memory>

#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_coordinator.h"
#include "tests/simulation/cluster_parts.h"
#include "tests/simulation/cluster_server.h"
#include "tests/simulation/cluster_worker.h"

namespace descent::simulation {
namespace {

// From the last blow's healing to the end of the run. A rank that goes on from the beginning takes a few seconds.
constexpr absl::Duration kProgressLimit = absl::Seconds(120);
constexpr absl::Duration kEndLimit = absl::Seconds(120);  // for every process to end once the model is saved
constexpr uint64_t kClusterEventLimit = 2'000'000;

class ClusterSimulation {
 public:
  ClusterSimulation(const ClusterOptions& options, Dice* dice, const Job& job, const ClusterSchedule& schedule);
  ClusterResult Run();

 private:
  void At(Moment moment);
  void Strike(const Blow& blow);
  void Kill(ProcessId p, absl::Duration until_start);
  void StartProcess(ProcessId p, bool elsewhere);
  ProcessId Pick(Role role);
  ProcessId Target(const Blow& blow);
  // What a cluster that held everything twice makes of it.
  ClusterTruth::Expected Expected(const Blow& blow, ProcessId p);
  void KillPair(const Blow& blow);
  void PartitionPair(const Blow& blow);
  void CutOff(ProcessId p, const Blow& blow);
  ProcessId PickOther(ProcessId p);
  void CountKill(ProcessId p, Moment moment);
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
};

ClusterSimulation::ClusterSimulation(const ClusterOptions& options, Dice* dice, const Job& job,
                                     const ClusterSchedule& schedule)
    : cluster_(job, schedule, dice),
      coordinator_(
          &cluster_, [this](Moment moment) { At(moment); },
          [this] {
            if (std::exchange(dying_, false)) {
              cluster_.truth.coverage.Add("deaths amid disk work");
              CountKill(0, coordinator_.tended());
            }
            if (dying_of_power_) {
              cluster_.disk.CutPowerAfter(0);
              power_out_ = true;
              dying_of_power_ = false;
            }
            Kill(0, std::max(dying_for_, absl::Milliseconds(100)));
          }),
      armed_(schedule.blows),
      healed_(cluster_.net.now()) {
  cluster_.fault = options.fault;
  cluster_.engine_fault = options.server_fault;
  cluster_.client_faults = options.client_faults;
  cluster_.verbose = options.verbose;
  cluster_.coordinator = &coordinator_;
  for (uint32_t s = 0; s < schedule.servers; ++s) {
    servers_.push_back(std::make_unique<ClusterServer>(&cluster_, s));
    cluster_.servers.push_back(servers_.back().get());
  }
  for (uint32_t w = 0; w < schedule.workers; ++w) {
    workers_.push_back(std::make_unique<ClusterWorker>(&cluster_, w));
    cluster_.workers.push_back(workers_.back().get());
  }
}

void ClusterSimulation::StartProcess(ProcessId p, bool elsewhere) {
  if (cluster_.net.alive(p)) return;
  cluster_.Note(absl::StrCat("process ", p), "starts");
  if (p == 0) {
    if (std::exchange(power_out_, false)) cluster_.disk.Crash();
    cluster_.net.Start(0);
    if (!coordinator_.exited()) coordinator_.Start();
    if (cluster_.net.alive(0)) servers_[0]->Start(elsewhere);
    return;
  }
  cluster_.net.Start(p);
  if (p < cluster_.worker_process(0)) {
    servers_[p - 1]->Start(elsewhere);
  } else {
    workers_[p - cluster_.worker_process(0)]->Start();
  }
}

// Killed as by kill -9; what watches over the cluster starts it again.
void ClusterSimulation::Kill(ProcessId p, absl::Duration until_start) {
  if (!cluster_.net.alive(p)) return;
  cluster_.Note(absl::StrCat("process ", p), "is killed");
  cluster_.net.Kill(p);
  if (p == 0) {
    servers_[0]->Killed();
    coordinator_.Killed();
  } else if (p < cluster_.worker_process(0)) {
    servers_[p - 1]->Killed();
  } else {
    workers_[p - cluster_.worker_process(0)]->Killed();
  }
  Heal(until_start);
  cluster_.net.At(until_start, [this, p] { StartProcess(p, cluster_.dice->Chance(0.5)); });
}

void ClusterSimulation::CountKill(ProcessId p, Moment moment) {
  const Role role = p == 0 ? Role::kCoordinator : p < cluster_.worker_process(0) ? Role::kServer : Role::kWorker;
  cluster_.truth.coverage.Add(absl::StrCat("kills of a ", kRoleNames[static_cast<size_t>(role)], " while ",
                                           kMomentNames[static_cast<size_t>(moment)]));
}

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

ClusterTruth::Expected ClusterSimulation::Expected(const Blow& blow, ProcessId p) {
  using Kind = Blow::Kind;
  ClusterCoverage& coverage = cluster_.truth.coverage;
  switch (blow.kind) {
    case Kind::kKill:
    case Kind::kPowerLoss:
      if (p == 0 || blow.kind == Kind::kPowerLoss) {
        coverage.Add("deaths of the coordinator to be got over without a roll-back");
        return ClusterTruth::Expected::kNothingRolledBack;
      }
      if (p < cluster_.worker_process(0)) coverage.Add("deaths to be got over without a new generation");
      return ClusterTruth::Expected::kSameGeneration;
    case Kind::kPause:
    case Kind::kPartition:
    case Kind::kPartitionOneWay:
    case Kind::kPartitionPair:
    case Kind::kDiskFull:
    case Kind::kSyncFails:
    case Kind::kRenameFails:
    case Kind::kCutOff:
      coverage.Add("other faults to be got over without a new generation");
      return ClusterTruth::Expected::kSameGeneration;
    case Kind::kKillTwo:
    case Kind::kKillPair:
    case Kind::kBadByte:
      break;
  }
  return ClusterTruth::Expected::kAnything;
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
  ClusterCoverage& coverage = cluster_.truth.coverage;
  const ProcessId p = Target(blow);
  // What was before is over, and everything is held twice.
  const bool quiet = cluster_.schedule.replicas && healed_ <= cluster_.net.now() && !dying_ && coordinator_.AllSynced();
  cluster_.truth.Expect(quiet ? Expected(blow, p) : ClusterTruth::Expected::kAnything);
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
      CountKill(p, coordinator_.moment());
      if (blow.kind == Kind::kKillTwo) {
        const ProcessId other = PickOther(p);
        if (cluster_.net.alive(other)) {
          CountKill(other, coordinator_.moment());
          coverage.Add("double kills");
          Kill(other, blow.lasts * cluster_.dice->Fraction());
        }
      }
      Kill(p, blow.lasts);
      break;
    case Kind::kPause:
      coverage.Add("pauses");
      cluster_.net.Pause(p, blow.lasts);
      break;
    case Kind::kPartition:
    case Kind::kPartitionOneWay: {
      ProcessId other = PickOther(p);
      if (cluster_.dice->Chance(0.5)) other = p == 0 ? other : 0;
      cluster_.net.Cut(p, other, blow.lasts);
      if (blow.kind == Kind::kPartition) cluster_.net.Cut(other, p, blow.lasts);
      coverage.Add(blow.kind == Kind::kPartition ? "partitions two-way" : "partitions one-way");
      break;
    }
    case Kind::kPowerLoss:
      if (!cluster_.net.alive(0)) break;
      coverage.Add("power losses");
      dying_for_ = blow.lasts;
      if (cluster_.dice->Chance(0.6)) {
        dying_of_power_ = dying_ = true;
        coordinator_.DieWithin(cluster_.dice->Below(14));
        break;
      }
      CountKill(0, coordinator_.moment());
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
      coverage.Add("bytes damaged");
      // Somebody is to notice.
      CountKill(0, coordinator_.moment());
      Kill(0, blow.lasts);
      break;
  }
}

void ClusterSimulation::KillPair(const Blow& blow) {
  const auto pair = coordinator_.Pair(static_cast<uint32_t>(cluster_.dice->Below(cluster_.schedule.servers)));
  if (!pair.has_value()) return;
  cluster_.truth.coverage.Add("kills of a primary and its backup");
  for (ProcessId p : {pair->first, pair->second}) {
    CountKill(p, coordinator_.moment());
    Kill(p, blow.lasts * cluster_.dice->Fraction());
  }
}

void ClusterSimulation::PartitionPair(const Blow& blow) {
  const auto pair = coordinator_.Pair(static_cast<uint32_t>(cluster_.dice->Below(cluster_.schedule.servers)));
  if (!pair.has_value()) return;
  cluster_.truth.coverage.Add("partitions of a primary and its backup");
  const uint64_t ways = cluster_.dice->Below(4);
  if (ways != 0) cluster_.net.Cut(pair->first, pair->second, blow.lasts);
  if (ways != 1) cluster_.net.Cut(pair->second, pair->first, blow.lasts);
}

// The server's backups take over while it lives; it may be the next coordinator that it hears of again.
void ClusterSimulation::CutOff(ProcessId p, const Blow& blow) {
  cluster_.truth.coverage.Add("servers cut off from the coordinator");
  cluster_.net.Cut(p, 0, blow.lasts);
  cluster_.net.Cut(0, p, blow.lasts);
  if (cluster_.dice->Chance(0.5)) return;
  const absl::Duration after = cluster_.dice->Between(absl::Seconds(1), blow.lasts + absl::Milliseconds(200));
  Heal(after);
  cluster_.truth.Expect(ClusterTruth::Expected::kAnything);
  cluster_.net.At(after, [this] {
    if (!cluster_.net.alive(0) || coordinator_.exited()) return;
    CountKill(0, coordinator_.moment());
    Kill(0, cluster_.dice->Between(absl::Milliseconds(50), absl::Milliseconds(500)));
  });
}

bool ClusterSimulation::AllExited() const {
  bool all = coordinator_.exited();
  for (const auto& server : servers_) all = all && server->exited();
  for (const auto& worker : workers_) all = all && worker->exited();
  return all;
}

ClusterResult ClusterSimulation::Run() {
  ClusterResult result;
  ClusterTruth& truth = cluster_.truth;
  for (ProcessId p = 0; p < processes(); ++p) {
    if (p == 1) continue;  // server 0 lives in the coordinator's process
    cluster_.net.At(cluster_.dice->Between(absl::ZeroDuration(), absl::Milliseconds(100)),
                    [this, p] { StartProcess(p, true); });
  }
  while (truth.error().empty() && !AllExited() && cluster_.net.Step()) {
    const absl::Duration since = cluster_.net.now() - healed_;
    if (since > kProgressLimit + (coordinator_.saved() ? kEndLimit : absl::ZeroDuration())) {
      std::string where;
      for (const auto& server : servers_) {
        absl::StrAppend(&where, server->exited() ? " (ended)" : " (there)");
        for (const auto& [id, seat] : server->seats()) {
          absl::StrAppend(&where, "\n", seat->address(), " has server ", id);
          if (seat->node() != nullptr) absl::StrAppend(&where, ": ", seat->node()->DebugState());
        }
      }
      truth.Wrong(absl::StrCat(coordinator_.saved() ? "not every process ended" : "no progress", " in ",
                               absl::FormatDuration(since), " after the last fault: ", where));
    }
    if (cluster_.net.events() > kClusterEventLimit) truth.Wrong("too many events");
  }
  if (truth.error().empty() && !AllExited()) truth.Wrong("nothing happens any more");
  if (truth.error().empty() && !coordinator_.saved()) truth.Wrong("the run ended without a model");
  const testing::DiskCounters& disk = cluster_.disk.counters();
  truth.coverage.Add("torn or lost writes", disk.torn_files + disk.lost_files + disk.lost_changes);
  truth.coverage.Add("disk full", disk.full_disk);
  truth.coverage.Add("failing fsyncs", disk.failure(testing::DiskOperation::kSync));
  truth.coverage.Add("failing renames", disk.failure(testing::DiskOperation::kRename));
  for (const auto& server : servers_) {
    for (const auto& [id, seat] : server->seats()) seat->CountNode();
  }
  result.error = truth.error();
  result.job = cluster_.job.number;
  // Under ROUND with staleness the versions before a cut are gone, and reads get newer ones.
  result.has_reference = cluster_.job.reproducible() && (cluster_.job.staleness == 0 || !truth.restored_from_cut());
  result.parameters_hash = coordinator_.parameters_hash();
  result.trace_hash = cluster_.net.trace();
  result.events = cluster_.net.events();
  result.pulls = truth.pulls();
  result.blows = struck_;
  result.coverage = truth.coverage;
  return result;
}

}  // namespace

ClusterResult SimulateCluster(const ClusterOptions& options) {
  Dice dice(options.seed);
  const Job job = MakeClusterJob(options.seed, dice);
  const ClusterSchedule schedule = MakeClusterSchedule(dice);
  return ClusterSimulation(options, &dice, job, schedule).Run();
}

}  // namespace descent::simulation
