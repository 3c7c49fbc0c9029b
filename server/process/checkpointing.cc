#include "server/process/checkpointing.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/job/job.h"
#include "server/checkpoint/manifest.h"
#include "server/checkpoint/replica_views_file.h"

namespace descent {
namespace {

constexpr uint32_t kDefaultKeep = 3;

}  // namespace

Checkpointing::Checkpointing(std::string folder, const v1::JobSpec& job, RunId run, const Logger* log)
    : root_(std::move(folder)),
      job_(job),
      run_(run),
      log_(log),
      storage_(MakePosixStorage(root_)),
      lock_(root_, run_),
      folder_(storage_.get()),
      numerics_(ComputeNumericsFingerprint("")) {}

absl::StatusOr<Checkpointing::Beginning> Checkpointing::Begin(bool restore, std::optional<uint64_t> number) {
  Beginning beginning;
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(""));
  DESCENT_RETURN_IF_ERROR(lock_.Take());
  if (restore) {
    Prune(Generation(kUnbounded), std::nullopt);  // room for the next generation on a disk that may be full
  } else {
    DESCENT_ASSIGN_OR_RETURN(const std::vector<Cut> cuts, folder_.List());
    for (const Cut& cut : cuts) {
      if (cut.committed) {
        return absl::FailedPreconditionError(
            absl::StrCat("the checkpoint folder ", root_, " holds ", cut.name, " of another run; name another folder"));
      }
    }
  }
  DESCENT_ASSIGN_OR_RETURN(beginning.generation, folder_.BeginGeneration(run_));
  if (!restore) return beginning;
  if (absl::StatusOr<v1::ReplicaViews> views = ReadReplicaViews(storage_.get()); views.ok()) {
    if (views->run() == run_.value) beginning.views = *std::move(views);
  } else if (!absl::IsNotFound(views.status())) {
    log_->Log(absl::StrCat("warning: ", views.status().message()));
  }
  NewestCut newest;
  if (number.has_value()) {
    DESCENT_ASSIGN_OR_RETURN(newest, folder_.FindNewestGood(run_, JobFingerprint(job_), number));
  }
  if (!newest.good.has_value()) {
    DESCENT_ASSIGN_OR_RETURN(newest, folder_.FindNewestGood(run_, JobFingerprint(job_)));
  }
  for (const Cut& bad : newest.bad) {
    if (!bad.committed) continue;  // a server died while it was taken
    log_->Log(absl::StrCat("warning: checkpoint ", bad.name, " can't be used: ", bad.status.message()));
  }
  if (!newest.good.has_value()) return beginning;
  DESCENT_ASSIGN_OR_RETURN(const CutLayout layout, CheckManifest(newest.good->manifest));
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

void Checkpointing::KeepViews(CoordinatorHost* host) {
  const std::optional<Coordinator::LastingViews> wanted =
      host->With([](Coordinator& c, absl::Time) { return c.WantsViews(); });
  if (!wanted.has_value()) return;
  absl::Status kept = folder_.CheckGeneration(Generation(wanted->views.generation()));
  if (kept.ok()) kept = WriteReplicaViews(storage_.get(), wanted->views);
  if (absl::IsResourceExhausted(kept)) {  // a full disk: what is not needed makes room
    Prune(Generation(wanted->views.generation()), std::nullopt);
    kept = WriteReplicaViews(storage_.get(), wanted->views);
  }
  if (!kept.ok()) {
    log_->Log(absl::StrCat("warning: backups wait: ", kept.message()));
    absl::SleepFor(absl::Milliseconds(100));
    return;
  }
  host->With([&](Coordinator& c, absl::Time now) { c.ViewsLasting(wanted->change, wanted->news, now); });
}

void Checkpointing::Tend(CoordinatorHost* host) {
  KeepViews(host);
  struct View {
    bool wants_generation;
    std::optional<uint64_t> number;
    CutSchedule::Stage stage;
  };
  const View view = host->With([](Coordinator& c, absl::Time) {
    return View{c.wants_generation(), c.wants_cut(), c.cuts().stage()};
  });
  if (view.wants_generation) {
    absl::StatusOr<Beginning> beginning = Begin(/*restore=*/true, view.number);
    if (!beginning.ok()) {
      // The disk may come back; a run that can't be recovered for long ends by its time-out.
      log_->Log(absl::StrCat("warning: no new generation yet: ", beginning.status().message()));
      absl::SleepFor(absl::Milliseconds(500));
      return;
    }
    host->With([&](Coordinator& c, absl::Time now) {
      c.BeginGeneration(beginning->generation, std::move(beginning->restore), now);
    });
    return;
  }
  if (view.stage == CutSchedule::Stage::kPreparing) Prepare(host);
  if (view.stage == CutSchedule::Stage::kCommitting) Commit(host);
}

void Checkpointing::Prepare(CoordinatorHost* host) {
  const CutId cut = host->With([&](Coordinator& c, absl::Time) {
    return CutId{run_, c.generation(), c.cuts().number()};
  });
  if (std::exchange(given_up_, true)) Prune(cut.generation, std::nullopt);  // what the one before has left
  absl::Status prepared = lock_.Take();
  if (prepared.ok()) prepared = folder_.Prepare(cut);
  host->With([&](Coordinator& c, absl::Time now) {
    if (c.generation() != cut.generation || c.cuts().number() != cut.number) return;
    c.cut_folder = folder_.CutPath(cut);
    c.cuts().Prepared(prepared, now);
  });
}

void Checkpointing::Commit(CoordinatorHost* host) {
  v1::CutManifest manifest;
  std::optional<double> metric;
  CutId cut;
  const bool known = host->With([&](Coordinator& c, absl::Time now) {
    const std::optional<v1::CoordinatorState> state = c.StateOfCut();
    if (!state.has_value()) return false;
    state->SerializeToString(manifest.mutable_coordinator_state());
    if (job_.stopping().early().restore_best()) manifest.set_needs_cut(state->steering().best_clock());
    const CutSchedule& cuts = c.cuts();
    cut = CutId{run_, c.generation(), cuts.number()};
    for (uint64_t clock : cuts.RestartClocks(job_.ranks())) manifest.add_restart_clock(clock);
    const Geometry geometry = GeometryOf(job_);
    for (const TensorSpec& spec : c.specs()) {
      *manifest.add_tensor() = ToMessage(spec);
      manifest.add_blocks(geometry.blocks(spec));
    }
    manifest.set_block_elements(geometry.block_elements);
    manifest.set_slots(geometry.slots);
    for (const auto& [server, report] : cuts.reports()) *manifest.add_part() = report.part();
    manifest.set_created_unix_micros(absl::ToUnixMicros(now));
    metric = c.last_validation_loss();
    return true;
  });
  if (!known) return;  // what belongs to the cut is on its way
  manifest.set_format(kCutFormat);
  manifest.set_run(run_.value);
  manifest.set_generation(cut.generation.value);
  manifest.set_number(cut.number);
  manifest.set_apply(ConsistencyOf(job_).apply_push ? v1::PUSH : v1::ROUND);
  manifest.set_job_text(JobText(job_));
  manifest.set_job_fingerprint(JobFingerprint(job_));
  manifest.mutable_numerics()->set_build(numerics_.build);
  manifest.mutable_numerics()->set_instruction_set(numerics_.instruction_set);
  manifest.mutable_numerics()->set_probe(numerics_.probe);
  if (metric.has_value()) {
    manifest.set_metric_name("validation loss");
    manifest.set_metric(*metric);
  }
  const absl::Status committed = folder_.Commit(manifest);
  host->With([&](Coordinator& c, absl::Time now) {
    if (c.generation() == cut.generation && c.cuts().number() == cut.number) c.cuts().Committed(committed, now);
  });
  if (!committed.ok()) return;
  given_up_ = false;
  log_->Log(absl::StrCat("checkpoint ", folder_.CutPath(cut)));
  Prune(cut.generation, std::nullopt);
}

void Checkpointing::Prune(Generation generation, std::optional<CutId> in_progress) {
  PruneOptions options;
  options.keep_last = job_.checkpoint().keep() > 0 ? job_.checkpoint().keep() : kDefaultKeep;
  options.keep_best = job_.checkpoint().keep_best();
  options.run = run_;
  options.generation = generation;
  options.in_progress = in_progress;
  if (absl::StatusOr<std::vector<std::string>> removed = folder_.Prune(options); !removed.ok()) {
    log_->Log(absl::StrCat("warning: old checkpoints are not removed: ", removed.status().message()));
  }
}

}  // namespace descent
