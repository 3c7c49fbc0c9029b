#include "tests/simulation/cluster_coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "server/checkpoint/replica_views_file.h"
#include "tests/simulation/cluster_server.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(20);
constexpr absl::Duration kTryAgain = absl::Milliseconds(200);

v1::JobSpec SpecOf(const Cluster& cluster) {
  v1::JobSpec job;
  job.set_name("simulated");
  job.set_ranks(cluster.job.ranks);
  job.set_batch_size(1);
  job.set_rounds(cluster.job.clocks);
  job.mutable_cluster()->set_servers(cluster.schedule.servers);
  job.mutable_cluster()->set_workers(cluster.schedule.workers);
  job.mutable_cluster()->set_lease_seconds(absl::ToDoubleSeconds(kSimulatedLease));
  job.mutable_learning_rate()->set_constant(1);
  job.mutable_metrics()->set_every_rounds(1000);
  if (cluster.schedule.replicas) job.set_replicas(1);
  job.mutable_consistency()->set_backup_ranks(cluster.job.backup_ranks);
  job.mutable_evaluation()->set_every_rounds(cluster.job.full_every);
  return job;
}

}  // namespace

void ClusterCoordinator::Start() {
  storage_ = cluster_->MakeStorage(0);
  RecoveryDisk::Options keep;
  keep.run = kRun;
  keep.job_fingerprint = kFingerprint;
  keep.geometry = cluster_->job.geometry();
  keep.ranks = cluster_->job.ranks;
  keep.apply_push = cluster_->job.apply_push;
  keep.keep_last = cluster_->schedule.keep;
  disk_ = std::make_unique<RecoveryDisk>(storage_.get(), keep, [this](const std::string& what) {
    cluster_->Note("coordinator", what);
    if (absl::StartsWith(what, "replica-views")) cluster_->truth.Wrong(what);  // they are replaced as a whole
  });
  saving_ = tried_to_save_ = false;
  alone_.reset();
  taken_back_.clear();
  tend_at_ = absl::InfinitePast();
  kept_change_ = 0;
  tended_ = run_begun_ ? Moment::kRestoring : Moment::kPlacing;
  CoordinatorOptions options;
  options.job = SpecOf(*cluster_);
  options.job_fingerprint = kFingerprint;
  options.run = kRun;
  options.geometry = cluster_->job.geometry();
  options.apply_push = cluster_->job.apply_push;
  options.resumed = run_begun_;
  absl::StatusOr<RecoveryDisk::Beginning> beginning = Begin(run_begun_);
  if (!beginning.ok()) {
    cluster_->Note("coordinator", absl::StrCat("can't begin: ", beginning.status().ToString()));
    return died_();
  }
  if (cluster_->disk.Open("finished").ok()) options.end.emplace();
  options.generation = beginning->generation;
  options.restore = std::move(beginning->restore);
  adopts_ = beginning->views.has_value();
  options.adopt = std::move(beginning->views);
  options.cuts.every_rounds = cluster_->schedule.cut_every;
  options.cuts.reach = absl::Milliseconds(250);
  options.cuts.patience = absl::Seconds(5);
  options.cuts.fault = cluster_->cut_fault();
  options.replica_fault = cluster_->table_fault();
  auto made = Coordinator::Create(std::move(options), cluster_->net.now());
  if (!made.ok()) return cluster_->truth.Wrong(made.status().ToString());
  coordinator_ = *std::move(made);
  run_begun_ = true;
  cluster_->truth.Serves(beginning->generation, beginning->from);
  if (to_go_on_from_.has_value() && beginning->from == to_go_on_from_) {
    cluster_->truth.Await("stops gone on from", cluster_->net.now());
  }
  to_go_on_from_.reset();
  Loop();
}

void ClusterCoordinator::Killed() {
  if (stop_.has_value()) return Leave();  // nobody starts it again
  coordinator_.reset();
  disk_.reset();
  storage_.reset();
}

void ClusterCoordinator::Leave() {
  if (std::exchange(exited_, true)) return;
  coordinator_.reset();
  disk_.reset();
  storage_.reset();
  if (stop_.has_value()) stopped_();
}

void ClusterCoordinator::DieWithin(uint64_t changes) {
  if (storage_ != nullptr) storage_->DieAfter(changes);
}

absl::StatusOr<RecoveryDisk::Beginning> ClusterCoordinator::Begin(bool restore) {
  ClusterTruth& truth = cluster_->truth;
  if (restore && cluster_->fault == ClusterFault::kUncommittedRestored) return BeginUncommitted();
  DESCENT_ASSIGN_OR_RETURN(RecoveryDisk::Beginning beginning, disk_->Begin(restore));
  for (const Cut& bad : beginning.bad) {
    truth.coverage.Add("bad cuts skipped");
    if (bad.committed && truth.damaged()) truth.coverage.Add("damaged cuts found");
  }
  return beginning;
}

// The newest folder of a cut, whatever it holds.
absl::StatusOr<RecoveryDisk::Beginning> ClusterCoordinator::BeginUncommitted() {
  RecoveryDisk::Beginning beginning;
  DESCENT_ASSIGN_OR_RETURN(beginning.generation, disk_->folder().BeginGeneration(kRun));
  DESCENT_ASSIGN_OR_RETURN(const std::vector<Cut> cuts, disk_->folder().List());
  if (cuts.empty()) return beginning;
  beginning.from = CutId{kRun, cuts[0].id.generation, cuts[0].id.number};
  const uint64_t clock = cluster_->job.apply_push ? 0 : cuts[0].id.number;
  beginning.restore = RestoreFrom{cuts[0].name, cuts[0].id.number, std::vector<uint64_t>(cluster_->job.ranks, clock),
                                  cluster_->job.tensors()};
  return beginning;
}

bool ClusterCoordinator::Damage() {
  if (coordinator_ == nullptr || coordinator_->phase() != v1::RUNNING) return false;
  CheckpointFolder folder(&cluster_->disk);
  const auto cuts = folder.List();
  if (!cuts.ok()) return false;
  std::vector<const Cut*> good;
  for (const Cut& cut : *cuts) {
    if (cut.status.ok() && folder.Verify(cut).ok()) good.push_back(&cut);
  }
  if (good.empty()) return false;
  const std::string path = absl::StrCat(good[0]->name, "/", good[0]->manifest.part(0).name());
  absl::StatusOr<std::string> bytes = cluster_->disk.ReadFile(path, size_t{1} << 30);
  if (!bytes.ok()) return false;
  (*bytes)[cluster_->dice->Below(bytes->size())] ^= 1;
  cluster_->disk.Put(path, *std::move(bytes));
  cluster_->truth.Damaged(good.size() > 1 ? std::optional(good[1]->id) : std::nullopt);
  return true;
}

Moment ClusterCoordinator::moment() const {
  if (coordinator_ == nullptr) return Moment::kRestoring;
  switch (coordinator_->phase()) {
    case v1::STARTING:
    case v1::PLACING:
      if (adopts_ && !coordinator_->wants_generation()) return Moment::kAdopting;
      return cluster_->truth.generations() > 1 || coordinator_->wants_generation() ? Moment::kRestoring
                                                                                   : Moment::kPlacing;
    case v1::RUNNING:
      break;
    default:
      return Moment::kSaving;
  }
  if (Promoted() != nullptr) return Moment::kPromoting;
  if (Joining() != nullptr) return Moment::kJoining;
  switch (coordinator_->cuts().stage()) {
    case CutSchedule::Stage::kOrdered:
      return Moment::kCutting;
    case CutSchedule::Stage::kCommitting:
      return Moment::kCommitting;
    default:
      return Moment::kRunning;
  }
}

std::shared_ptr<ClusterSeat> ClusterCoordinator::Promoted() const {
  if (!cluster_->schedule.replicas) return nullptr;
  for (const std::string& address : coordinator_->addresses()) {
    const std::shared_ptr<ClusterSeat> seat = cluster_->SeatAt(address);
    if (seat != nullptr && !seat->primary()) return seat;
  }
  return nullptr;
}

std::shared_ptr<ClusterSeat> ClusterCoordinator::Alone() const {
  if (!alone_.has_value() || coordinator_ == nullptr) return nullptr;
  return cluster_->SeatAt(coordinator_->addresses()[*alone_]);
}

std::shared_ptr<ClusterSeat> ClusterCoordinator::Joining() const {
  if (!cluster_->schedule.replicas) return nullptr;
  for (const ClusterServer* server : cluster_->servers) {
    for (const auto& [id, seat] : server->seats()) {
      if (seat->joining()) return seat;
    }
  }
  return nullptr;
}

bool ClusterCoordinator::AllSynced() const {
  if (coordinator_ == nullptr || !cluster_->schedule.replicas || coordinator_->WantsViews().has_value()) return false;
  const v1::Phase phase = coordinator_->phase();
  if (phase != v1::RUNNING && phase != v1::SAVING) return false;
  const v1::StatusReply status = coordinator_->Status(cluster_->net.now());
  for (const v1::ServerStatus& server : status.server()) {
    if (!server.synced() || !Pair(server.server()).has_value()) return false;
  }
  for (const std::string& address : coordinator_->addresses()) {
    const std::shared_ptr<ClusterSeat> seat = cluster_->SeatAt(address);
    if (seat == nullptr || !seat->primary()) return false;
  }
  return status.server_size() > 0;
}

std::optional<std::pair<ProcessId, ProcessId>> ClusterCoordinator::Pair(uint32_t server) const {
  std::optional<ProcessId> primary, backup;
  for (const ClusterServer* at : cluster_->servers) {
    const auto seat = at->seats().find(server);
    if (seat == at->seats().end() || !seat->second->ready() || !cluster_->net.alive(at->process())) continue;
    (seat->second->primary() ? primary : backup) = at->process();
  }
  if (!primary.has_value() || !backup.has_value()) return std::nullopt;
  return std::pair(*primary, *backup);
}

void ClusterCoordinator::Loop() {
  Coordinator& c = *coordinator_;
  c.Tick(cluster_->net.now());
  Drain();
  if (c.phase() == v1::FAILED && (!stop_.has_value() || stop_->calm)) {
    return cluster_->truth.Wrong(absl::StrCat("the job failed: ", c.first_cause()));
  }
  if (c.phase() == v1::RUNNING) {
    cluster_->truth.Runs(c.generation());
    cluster_->truth.Reached(c.generation(), c.round(), cluster_->net.now());
  }
  if (alone_.has_value()) at_(Moment::kAlone);
  if (coordinator_ == nullptr) return;  // struck
  if (!c.ended()) at_(moment());
  if (coordinator_ == nullptr) return;  // struck
  tended_ = moment();
  if (cluster_->net.now() >= tend_at_) Tend();
  if (storage_->dead()) return died_();
  if (c.AllGone(cluster_->net.now())) return Leave();
  cluster_->net.On(0, kTick, [this] { Loop(); });
}

void ClusterCoordinator::Drain() {
  for (const LogLine& line : coordinator_->DrainLog()) {
    cluster_->Note("coordinator", line.text);
    uint32_t server = 0;
    const std::vector<absl::string_view> words = absl::StrSplit(line.text, absl::ByAnyChar(" :"));
    const bool of_server = words.size() > 1 && words[0] == "server" && absl::SimpleAtoi(words[1], &server);
    if (of_server && absl::StrContains(line.text, "confirms nothing")) {
      cluster_->truth.Await("backups given up", cluster_->net.now());
      alone_ = server;
    }
    if (of_server && absl::StrContains(line.text, "becomes its backup again")) {
      taken_back_.insert(server);
      alone_.reset();
    }
    if (absl::StartsWith(line.text, "gone: worker")) worker_gone_ = cluster_->net.now();
    // Somebody's lease is over, with no fault that was dealt but the network's losses.
    const bool goes_on = !coordinator_->ended() || coordinator_->phase() == v1::FAILED;
    if (stop_.has_value() && goes_on && absl::StartsWith(line.text, "gone: ")) {
      const bool dealt = stop_->death && !std::exchange(stop_->gone, true);
      stop_->calm = stop_->calm && dealt && !absl::StartsWith(line.text, "gone: worker");
    }
  }
  coordinator_->DrainRecords();
  if (taken_back_.empty()) return;
  const v1::StatusReply status = coordinator_->Status(cluster_->net.now());
  for (const v1::ServerStatus& server : status.server()) {
    if (server.synced() && taken_back_.erase(server.server()) > 0) cluster_->truth.coverage.Add("backups taken back");
  }
}

void ClusterCoordinator::KeepViews() {
  Coordinator& c = *coordinator_;
  std::optional<Coordinator::LastingViews> wanted = c.WantsViews();
  if (!wanted.has_value()) return;
  if (cluster_->fault == ClusterFault::kViewsNotLasting && c.phase() >= v1::RUNNING &&
      wanted->change != std::exchange(kept_change_, wanted->change)) {
    cluster_->net.On(0, absl::Seconds(2), [this, late = wanted->views] {
      if (storage_ != nullptr) WriteReplicaViews(storage_.get(), late).IgnoreError();
    });
    return c.ViewsLasting(wanted->change, wanted->news, cluster_->net.now());
  }
  kept_change_ = wanted->change;
  const absl::Status kept = disk_->KeepViews(wanted->views);
  if (kept.ok()) return c.ViewsLasting(wanted->change, wanted->news, cluster_->net.now());
  cluster_->Note("coordinator", absl::StrCat("backups wait: ", kept.ToString()));
}

void ClusterCoordinator::Tend() {
  Coordinator& c = *coordinator_;
  KeepViews();
  if (c.wants_generation()) {
    absl::StatusOr<RecoveryDisk::Beginning> beginning = Begin(/*restore=*/true);
    if (!beginning.ok()) {
      cluster_->Note("coordinator", absl::StrCat("no generation yet: ", beginning.status().ToString()));
      tend_at_ = cluster_->net.now() + kTryAgain;
      return;
    }
    cluster_->truth.Serves(beginning->generation, beginning->from);
    c.BeginGeneration(beginning->generation, std::move(beginning->restore), cluster_->net.now());
  } else if (c.cuts().stage() == CutSchedule::Stage::kPreparing) {
    Prepare();
  } else if (c.cuts().stage() == CutSchedule::Stage::kCommitting) {
    Commit();
  } else if (c.phase() == v1::SAVING && c.cuts().demand_met() && !saving_) {
    saving_ = true;
    Save(0);
  }
}

void ClusterCoordinator::Prepare() {
  Coordinator& c = *coordinator_;
  const CutId cut{kRun, c.generation(), c.cuts().number()};
  if (disk_->given_up()) cluster_->truth.coverage.Add("cuts given up");
  const absl::Status prepared = disk_->Prepare(cut);
  c.cut_folder = disk_->folder().CutPath(cut);
  c.cuts().Prepared(prepared, cluster_->net.now());
}

void ClusterCoordinator::Commit() {
  Coordinator& c = *coordinator_;
  const CutId cut{kRun, c.generation(), c.cuts().number()};
  cluster_->truth.Committing(cut);
  std::string lacks = stop_.has_value() ? WhatCutLacks() : "";
  const absl::Status committed = disk_->Commit(disk_->ManifestOf(c));
  cluster_->Note("coordinator", absl::StrCat("commits ", disk_->folder().CutPath(cut), ": ", committed.ToString()));
  c.cuts().Committed(committed, cluster_->net.now());
  if (!committed.ok()) return;
  cluster_->truth.Committed(cut);
  cluster_->truth.coverage.Add("cuts committed");
  if (stop_.has_value() && c.phase() == v1::SAVING) {
    stop_->cut = cut;
    stop_->lacks = std::move(lacks);
  }
}

}  // namespace descent::simulation
