#include "server/coordinator/recovery_disk.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "server/checkpoint/manifest.h"
#include "server/checkpoint/replica_views_file.h"

namespace descent {

absl::StatusOr<RecoveryDisk::Beginning> RecoveryDisk::Begin(bool restore, std::optional<uint64_t> number) {
  Beginning beginning;
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(""));
  if (restore) {
    Prune(Generation(kUnbounded));  // room for the next generation on a disk that may be full
  } else {
    DESCENT_ASSIGN_OR_RETURN(const std::vector<Cut> cuts, folder_.List());
    for (const Cut& cut : cuts) {
      if (cut.committed) return absl::FailedPreconditionError(absl::StrCat("there is ", cut.name, " of another run"));
    }
  }
  DESCENT_ASSIGN_OR_RETURN(beginning.generation, folder_.BeginGeneration(options_.run));
  if (!restore) return beginning;
  if (absl::StatusOr<v1::ReplicaViews> views = ReadReplicaViews(storage_); views.ok()) {
    if (views->run() == options_.run.value) beginning.views = *std::move(views);
  } else if (!absl::IsNotFound(views.status())) {
    warn_(std::string(views.status().message()));
  }
  if (number == uint64_t{0}) return beginning;
  NewestCut newest;
  if (number.has_value()) {
    DESCENT_ASSIGN_OR_RETURN(newest, folder_.FindNewestGood(options_.run, options_.job_fingerprint, number));
  }
  if (!newest.good.has_value()) {
    DESCENT_ASSIGN_OR_RETURN(newest, folder_.FindNewestGood(options_.run, options_.job_fingerprint));
  }
  beginning.bad = std::move(newest.bad);
  for (const Cut& bad : beginning.bad) {
    if (!bad.committed) continue;  // a server died while it was taken
    warn_(absl::StrCat("checkpoint ", bad.name, " can't be used: ", bad.status.message()));
  }
  if (!newest.good.has_value()) return beginning;
  DESCENT_ASSIGN_OR_RETURN(const CutLayout layout, CheckManifest(newest.good->manifest));
  beginning.from = newest.good->id;
  RestoreFrom& from = beginning.restore.emplace();
  from.folder = newest.good->name;
  from.number = newest.good->id.number;
  for (Clock clock : layout.restart) from.clocks.push_back(clock.value);
  from.tensors = layout.tensors;
  if (!from.state.ParseFromString(newest.good->manifest.coordinator_state())) {
    return absl::DataLossError(absl::StrCat("the coordinator's state in ", newest.good->name, " can't be read"));
  }
  return beginning;
}

absl::Status RecoveryDisk::KeepViews(const v1::ReplicaViews& views) {
  const Generation generation(views.generation());
  DESCENT_RETURN_IF_ERROR(folder_.CheckGeneration(generation));
  const absl::Status kept = WriteReplicaViews(storage_, views);
  if (!absl::IsResourceExhausted(kept)) return kept;
  Prune(generation);  // a full disk: what is not needed makes room
  return WriteReplicaViews(storage_, views);
}

absl::Status RecoveryDisk::Prepare(const CutId& cut) {
  if (std::exchange(given_up_, true)) Prune(cut.generation);  // what the one before has left
  return folder_.Prepare(cut);
}

absl::Status RecoveryDisk::Commit(const v1::CutManifest& manifest) {
  DESCENT_RETURN_IF_ERROR(folder_.Commit(manifest));
  given_up_ = false;
  Prune(Generation(manifest.generation()));
  return absl::OkStatus();
}

void RecoveryDisk::Prune(Generation generation) {
  PruneOptions options;
  options.keep_last = options_.keep_last;
  options.keep_best = options_.keep_best;
  options.run = options_.run;
  options.generation = generation;
  if (absl::StatusOr<std::vector<std::string>> removed = folder_.Prune(options); !removed.ok()) {
    warn_(absl::StrCat("old checkpoints are not removed: ", removed.status().message()));
  }
}

v1::CutManifest RecoveryDisk::ManifestOf(Coordinator& coordinator) const {
  const CutSchedule& cuts = coordinator.cuts();
  v1::CutManifest manifest;
  manifest.set_format(kCutFormat);
  manifest.set_run(options_.run.value);
  manifest.set_generation(coordinator.generation().value);
  manifest.set_number(cuts.number());
  manifest.set_apply(options_.apply_push ? v1::PUSH : v1::ROUND);
  manifest.set_job_fingerprint(options_.job_fingerprint);
  for (uint64_t clock : cuts.RestartClocks(options_.ranks)) manifest.add_restart_clock(clock);
  for (const TensorSpec& spec : coordinator.specs()) {
    *manifest.add_tensor() = ToMessage(spec);
    manifest.add_blocks(options_.geometry.blocks(spec));
  }
  manifest.set_block_elements(options_.geometry.block_elements);
  manifest.set_slots(options_.geometry.slots);
  for (const auto& [server, report] : cuts.reports()) *manifest.add_part() = report.part();
  if (const std::optional<v1::CoordinatorState> state = coordinator.StateOfCut(); state.has_value()) {
    state->SerializeToString(manifest.mutable_coordinator_state());
    for (const uint64_t number : coordinator.NeededCuts(*state)) manifest.add_needs_cut(number);
  }
  if (const std::optional<double> loss = coordinator.MetricOfCut(); loss.has_value()) {
    manifest.set_metric_name("validation loss");
    manifest.set_metric(*loss);
  }
  return manifest;
}

}  // namespace descent
