#include "tests/simulation/cluster_simulation.h"

#include <algorithm>
#include <memory>

#include "tests/simulation/cluster_run.h"

namespace descent::simulation {
namespace {

// From the last blow's healing to the end of the run. A rank that goes on from the beginning takes a few seconds.
constexpr absl::Duration kProgressLimit = absl::Seconds(120);
constexpr absl::Duration kEndLimit = absl::Seconds(120);  // for every process to end once the model is saved
constexpr uint64_t kClusterEventLimit = 2'000'000;

}  // namespace

ClusterSimulation::ClusterSimulation(const ClusterOptions& options, Dice* dice, const Job& job,
                                     const ClusterSchedule& schedule)
    : cluster_(job, schedule, dice),
      coordinator_(
          &cluster_, [this](Moment moment) { At(moment); },
          [this] {
            const absl::Duration until_start = std::max(dying_for_, absl::Milliseconds(100));
            if (std::exchange(dying_, false)) {
              Await("deaths amid disk work", until_start);
              CountKill(0, coordinator_.tended(), until_start);
            }
            if (dying_of_power_) {
              Await("power losses", until_start);
              cluster_.disk.CutPowerAfter(0);
              power_out_ = true;
              dying_of_power_ = false;
            }
            Kill(0, until_start);
          },
          // Whoever was not told of the end by then is stopped by the supervisor.
          [this] { cluster_.net.At(absl::Seconds(5), [this] { GoOn(); }); }),
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

void ClusterSimulation::StartAll() {
  for (ProcessId p = 0; p < processes(); ++p) {
    if (p == 1) continue;  // server 0 lives in the coordinator's process
    cluster_.net.At(cluster_.dice->Between(absl::ZeroDuration(), absl::Milliseconds(100)),
                    [this, p] { StartProcess(p, true); });
  }
}

void ClusterSimulation::StartProcess(ProcessId p, bool elsewhere) {
  if (cluster_.net.alive(p) || coordinator_.stopping()) return;
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
  if (p == 0) coordinator_.Disturb();
  End(p);
  Heal(until_start);
  cluster_.net.At(until_start, [this, p] { StartProcess(p, cluster_.dice->Chance(0.5)); });
}

void ClusterSimulation::End(ProcessId p) {
  cluster_.net.Kill(p);
  if (p == 0) {
    servers_[0]->Killed();
    coordinator_.Killed();
  } else if (p < cluster_.worker_process(0)) {
    servers_[p - 1]->Killed();
  } else {
    workers_[p - cluster_.worker_process(0)]->Killed();
  }
}

void ClusterSimulation::CountKill(ProcessId p, Moment moment, absl::Duration until_start) {
  const Role role = p == 0 ? Role::kCoordinator : p < cluster_.worker_process(0) ? Role::kServer : Role::kWorker;
  Await(absl::StrCat("kills of a ", kRoleNames[static_cast<size_t>(role)], " while ",
                     kMomentNames[static_cast<size_t>(moment)]),
        until_start);
}

void ClusterSimulation::GoOn() {
  for (ProcessId p = 0; p < processes(); ++p) {
    if (cluster_.net.alive(p)) End(p);
  }
  coordinator_.GoOn();
  dying_ = dying_of_power_ = false;
  healed_ = std::max(healed_, cluster_.net.now());
  // Its servers hold nothing.
  cluster_.truth.Expect(ClusterTruth::Expected::kAnything);
  StartAll();
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
  StartAll();
  while (truth.error().empty() && (coordinator_.stopping() || !AllExited()) && cluster_.net.Step()) {
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
  if (truth.error().empty()) {
    // All of it has been got over.
    truth.Ended(cluster_.net.now());
    const testing::DiskCounters& disk = cluster_.disk.counters();
    truth.coverage.Add("torn or lost writes", disk.torn_files + disk.lost_files + disk.lost_changes);
    truth.coverage.Add("disk full", disk.full_disk);
    truth.coverage.Add("failing fsyncs", disk.failure(testing::DiskOperation::kSync));
    truth.coverage.Add("failing renames", disk.failure(testing::DiskOperation::kRename));
  }
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

ClusterResult SimulateCluster(const ClusterOptions& options) {
  Dice dice(options.seed);
  const Job job = MakeClusterJob(options.seed, dice);
  const ClusterSchedule schedule = MakeClusterSchedule(dice);
  return ClusterSimulation(options, &dice, job, schedule).Run();
}

}  // namespace descent::simulation
