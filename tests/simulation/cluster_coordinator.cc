#include "tests/simulation/cluster_coordinator.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "server/checkpoint/manifest.h"
#include "server/checkpoint/replica_views_file.h"
#include "tests/simulation/cluster_server.h"
#include "tests/simulation/final_state.h"

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
  folder_ = std::make_unique<CheckpointFolder>(storage_.get());
  given_up_ = saving_ = false;
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
  absl::StatusOr<Beginning> beginning = Begin(run_begun_);
  if (!beginning.ok()) {
    cluster_->Note("coordinator", absl::StrCat("can't begin: ", beginning.status().ToString()));
    return died_();
  }
  options.finished = cluster_->disk.Open("finished").ok();
  options.generation = beginning->generation;
  options.restore = std::move(beginning->restore);
  adopts_ = beginning->views.has_value();
  options.adopt = std::move(beginning->views);
  options.cuts.every_rounds = cluster_->schedule.cut_every;
  options.cuts.reach = absl::Milliseconds(250);
  options.cuts.patience = absl::Seconds(5);
  auto made = Coordinator::Create(std::move(options), cluster_->net.now());
  if (!made.ok()) return cluster_->truth.Wrong(made.status().ToString());
  coordinator_ = *std::move(made);
  run_begun_ = true;
  cluster_->truth.Serves(beginning->generation, beginning->from);
  Loop();
}

void ClusterCoordinator::Killed() {
  coordinator_.reset();
  folder_.reset();
  storage_.reset();
}

void ClusterCoordinator::DieWithin(uint64_t changes) {
  if (storage_ != nullptr) storage_->DieAfter(changes);
}

absl::StatusOr<ClusterCoordinator::Beginning> ClusterCoordinator::Begin(bool restore) {
  Beginning beginning;
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(""));
  const bool any = cluster_->fault == ClusterFault::kUncommittedRestored;
  if (restore && !any) Prune(Generation(kUnbounded));
  DESCENT_ASSIGN_OR_RETURN(beginning.generation, folder_->BeginGeneration(kRun));
  if (!restore) return beginning;
  if (absl::StatusOr<v1::ReplicaViews> views = ReadReplicaViews(storage_.get()); views.ok()) {
    if (views->run() == kRun.value) beginning.views = *std::move(views);
  } else if (!absl::IsNotFound(views.status())) {
    if (absl::IsDataLoss(views.status())) cluster_->truth.Wrong(views.status().ToString());
    cluster_->Note("coordinator", views.status().ToString());
  }
  if (any) {
    DESCENT_ASSIGN_OR_RETURN(const std::vector<Cut> cuts, folder_->List());
    if (cuts.empty()) return beginning;
    beginning.from = CutId{kRun, cuts[0].id.generation, cuts[0].id.number};
    const uint64_t clock = cluster_->job.apply_push ? 0 : cuts[0].id.number;
    beginning.restore = RestoreFrom{cuts[0].name, cuts[0].id.number, std::vector<uint64_t>(cluster_->job.ranks, clock),
                                    cluster_->job.tensors()};
    return beginning;
  }
  DESCENT_ASSIGN_OR_RETURN(const NewestCut newest, folder_->FindNewestGood(kRun, kFingerprint));
  for (const Cut& bad : newest.bad) {
    cluster_->truth.coverage.Add("bad cuts skipped");
    cluster_->Note("coordinator", absl::StrCat("skips ", bad.name, ": ", bad.status.ToString()));
  }
  if (!newest.good.has_value()) return beginning;
  DESCENT_ASSIGN_OR_RETURN(const CutLayout layout, CheckManifest(newest.good->manifest));
  beginning.from = newest.good->id;
  RestoreFrom& from = beginning.restore.emplace();
  from.folder = newest.good->name;
  from.number = newest.good->id.number;
  for (Clock clock : layout.restart) from.clocks.push_back(clock.value);
  from.tensors = layout.tensors;
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
  if (c.phase() == v1::FAILED) return cluster_->truth.Wrong(absl::StrCat("the job failed: ", c.first_cause()));
  if (!c.ended()) at_(moment());
  if (coordinator_ == nullptr) return;  // struck
  tended_ = moment();
  if (cluster_->net.now() >= tend_at_) Tend();
  if (storage_->dead()) return died_();
  if (c.AllGone(cluster_->net.now())) {
    exited_ = true;
    Killed();
    return;
  }
  cluster_->net.On(0, kTick, [this] { Loop(); });
}

void ClusterCoordinator::Drain() {
  for (const LogLine& line : coordinator_->DrainLog()) {
    cluster_->Note("coordinator", line.text);
    if (absl::StrContains(line.text, "confirms nothing")) cluster_->truth.coverage.Add("backups given up");
    if (absl::StrContains(line.text, "becomes its backup again")) cluster_->truth.coverage.Add("backups taken back");
  }
  coordinator_->DrainRecords();
}

// server/process/checkpointing.cc
void ClusterCoordinator::KeepViews() {
  Coordinator& c = *coordinator_;
  const std::optional<Coordinator::LastingViews> wanted = c.WantsViews();
  if (!wanted.has_value()) return;
  const Generation generation(wanted->views.generation());
  if (cluster_->fault == ClusterFault::kViewsNotLasting && c.phase() >= v1::RUNNING &&
      wanted->change != std::exchange(kept_change_, wanted->change)) {
    cluster_->net.On(0, absl::Seconds(2), [this, late = wanted->views] {
      if (storage_ != nullptr) WriteReplicaViews(storage_.get(), late).IgnoreError();
    });
    return c.ViewsLasting(wanted->change, wanted->news, cluster_->net.now());
  }
  kept_change_ = wanted->change;
  absl::Status kept = folder_->CheckGeneration(generation);
  if (kept.ok()) kept = WriteReplicaViews(storage_.get(), wanted->views);
  if (absl::IsResourceExhausted(kept)) {
    Prune(generation);
    kept = WriteReplicaViews(storage_.get(), wanted->views);
  }
  if (kept.ok()) return c.ViewsLasting(wanted->change, wanted->news, cluster_->net.now());
  cluster_->Note("coordinator", absl::StrCat("backups wait: ", kept.ToString()));
}

void ClusterCoordinator::Tend() {
  Coordinator& c = *coordinator_;
  KeepViews();
  if (c.wants_generation()) {
    absl::StatusOr<Beginning> beginning = Begin(/*restore=*/true);
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
  if (std::exchange(given_up_, true)) {
    cluster_->truth.coverage.Add("cuts given up");
    Prune(cut.generation);
  }
  const absl::Status prepared = folder_->Prepare(cut);
  c.cut_folder = folder_->CutPath(cut);
  c.cuts().Prepared(prepared, cluster_->net.now());
}

void ClusterCoordinator::Commit() {
  Coordinator& c = *coordinator_;
  const CutId cut{kRun, c.generation(), c.cuts().number()};
  v1::CutManifest manifest;
  for (uint64_t clock : c.cuts().RestartClocks(cluster_->job.ranks)) manifest.add_restart_clock(clock);
  const Geometry geometry = cluster_->job.geometry();
  for (const TensorSpec& spec : c.specs()) {
    *manifest.add_tensor() = ToMessage(spec);
    manifest.add_blocks(geometry.blocks(spec));
  }
  manifest.set_block_elements(geometry.block_elements);
  manifest.set_slots(geometry.slots);
  for (const auto& [server, report] : c.cuts().reports()) *manifest.add_part() = report.part();
  manifest.set_format(kCutFormat);
  manifest.set_run(kRun.value);
  manifest.set_generation(cut.generation.value);
  manifest.set_number(cut.number);
  manifest.set_apply(cluster_->job.apply_push ? v1::PUSH : v1::ROUND);
  manifest.set_job_fingerprint(kFingerprint);
  cluster_->truth.Committing(cut);
  const absl::Status committed = folder_->Commit(manifest);
  cluster_->Note("coordinator", absl::StrCat("commits ", folder_->CutPath(cut), ": ", committed.ToString()));
  c.cuts().Committed(committed, cluster_->net.now());
  if (!committed.ok()) return;
  cluster_->truth.Committed(cut);
  cluster_->truth.coverage.Add("cuts committed");
  given_up_ = false;
  Prune(cut.generation);
}

void ClusterCoordinator::Prune(Generation generation) {
  PruneOptions options;
  options.keep_last = cluster_->schedule.keep;
  options.run = kRun;
  options.generation = generation;
  if (const auto removed = folder_->Prune(options); !removed.ok()) {
    cluster_->Note("coordinator", absl::StrCat("can't prune: ", removed.status().ToString()));
  }
}

// Reads one server after the other, where the coordinator says it is.
void ClusterCoordinator::Save(uint32_t s) {
  if (s == cluster_->schedule.servers) return Saved();
  const std::shared_ptr<ClusterSeat> at = cluster_->SeatAt(coordinator_->addresses()[s]);
  const auto tried = [this](const absl::Status& status) {
    if (coordinator_->phase() != v1::SAVING) {
      saving_ = false;  // a server is gone, and all go back to a cut
      return;
    }
    cluster_->truth.coverage.Add("saves tried again");
    coordinator_->SaveFinished(absl::UnavailableError(status.message()), "", "", "", cluster_->net.now());
    cluster_->net.On(0, kTryAgain, [this] { saving_ = false; });
  };
  if (at == nullptr) return tried(absl::UnavailableError(absl::StrCat("server ", s, " has no address")));
  cluster_->net.Call<bool>(
      0, at->process(),
      [seat = std::weak_ptr<ClusterSeat>(at), generation = coordinator_->generation()]() -> absl::StatusOr<bool> {
        const auto at = seat.lock();
        if (at != nullptr && at->primary() && at->node() != nullptr && at->generation() == generation) return true;
        return absl::UnavailableError("it has no blocks of this generation");
      },
      [this, s, tried](absl::StatusOr<bool> read) { read.ok() ? Save(s + 1) : tried(read.status()); });
}

void ClusterCoordinator::Saved() {
  saving_ = false;
  Coordinator& c = *coordinator_;
  std::vector<ServerNode*> nodes;
  for (const std::string& address : c.addresses()) {
    const std::shared_ptr<ClusterSeat> seat = cluster_->SeatAt(address);
    if (seat == nullptr || !seat->primary() || seat->node() == nullptr) continue;
    if (seat->generation() == c.generation() && cluster_->net.alive(seat->process())) nodes.push_back(seat->node());
  }
  if (nodes.size() != cluster_->schedule.servers || c.phase() != v1::SAVING) return;  // somebody has died since
  if (std::string wrong =
          CheckServers(cluster_->job, *c.map(), cluster_->truth.ledger(c.generation()), nodes, &parameters_hash_);
      !wrong.empty()) {
    return cluster_->truth.Wrong(std::move(wrong));
  }
  for (uint32_t s = 0; s < nodes.size(); ++s) {
    const std::string wrong =
        cluster_->truth.told(c.generation(), ServerId(s))
            .Check(cluster_->job, *c.map(), ServerId(s), cluster_->truth.ledger(c.generation()), *nodes[s]);
    if (!wrong.empty()) cluster_->truth.Wrong(absl::StrCat("in the end server ", s, ": ", wrong));
  }
  for (ServerNode* node : nodes) {
    if (const uint64_t held = node->stats().held_pulls; held > 0) {
      cluster_->truth.Wrong(absl::StrCat("in the end a server holds ", held, " pulls"));
    }
  }
  saved_ = true;
  const absl::Status lasting = storage_->CreateExclusive("finished", "model");
  if (!lasting.ok() && !absl::IsAlreadyExists(lasting)) {
    storage_->Remove("finished").IgnoreError();
    return c.SaveFinished(absl::UnavailableError(lasting.message()), "", "", "", cluster_->net.now());
  }
  c.SaveFinished(absl::OkStatus(), "model", "", "", cluster_->net.now());
}

}  // namespace descent::simulation
