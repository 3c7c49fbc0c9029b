#include "server/process/checkpointing.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/job/job.h"

namespace descent {
namespace {

constexpr uint32_t kDefaultKeep = 3;

RecoveryDisk::Options OptionsOf(const v1::JobSpec& job, RunId run) {
  RecoveryDisk::Options options;
  options.run = run;
  options.job_fingerprint = JobFingerprint(job);
  options.geometry = GeometryOf(job);
  options.ranks = job.ranks();
  options.apply_push = ConsistencyOf(job).apply_push;
  options.keep_last = job.checkpoint().keep() > 0 ? job.checkpoint().keep() : kDefaultKeep;
  options.keep_best = job.checkpoint().keep_best();
  return options;
}

}  // namespace

Checkpointing::Checkpointing(std::string folder, const v1::JobSpec& job, RunId run, const Logger* log)
    : root_(std::move(folder)),
      job_(job),
      run_(run),
      log_(log),
      storage_(MakePosixStorage(root_)),
      lock_(root_, run_),
      disk_(storage_.get(), OptionsOf(job, run),
            [log](std::string what) { log->Log(absl::StrCat("warning: ", what)); }),
      numerics_(ComputeNumericsFingerprint("")) {}

absl::StatusOr<RecoveryDisk::Beginning> Checkpointing::Begin(bool restore, std::optional<uint64_t> number) {
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(""));
  DESCENT_RETURN_IF_ERROR(lock_.Take());
  absl::StatusOr<RecoveryDisk::Beginning> beginning = disk_.Begin(restore, number);
  if (!restore && absl::IsFailedPrecondition(beginning.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat("the checkpoint folder ", root_, ": ", beginning.status().message(), "; name another folder"));
  }
  return beginning;
}

void Checkpointing::KeepViews(CoordinatorHost* host) {
  const std::optional<Coordinator::LastingViews> wanted =
      host->With([](Coordinator& c, absl::Time) { return c.WantsViews(); });
  if (!wanted.has_value()) return;
  if (const absl::Status kept = disk_.KeepViews(wanted->views); !kept.ok()) {
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
    absl::StatusOr<RecoveryDisk::Beginning> beginning = Begin(/*restore=*/true, view.number);
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
  absl::Status prepared = lock_.Take();
  if (prepared.ok()) prepared = disk_.Prepare(cut);
  host->With([&](Coordinator& c, absl::Time now) {
    if (c.generation() != cut.generation || c.cuts().number() != cut.number) return;
    c.cut_folder = disk_.folder().CutPath(cut);
    c.cuts().Prepared(prepared, now);
  });
}

void Checkpointing::Commit(CoordinatorHost* host) {
  v1::CutManifest manifest;
  const bool known = host->With([&](Coordinator& c, absl::Time now) {
    if (!c.StateOfCut().has_value()) return false;
    manifest = disk_.ManifestOf(c);
    manifest.set_created_unix_micros(absl::ToUnixMicros(now));
    return true;
  });
  if (!known) return;  // what belongs to the cut is on its way
  manifest.set_job_text(JobText(job_));
  manifest.mutable_numerics()->set_build(numerics_.build);
  manifest.mutable_numerics()->set_instruction_set(numerics_.instruction_set);
  manifest.mutable_numerics()->set_probe(numerics_.probe);
  const CutId cut{run_, Generation(manifest.generation()), manifest.number()};
  const absl::Status committed = disk_.Commit(manifest);
  host->With([&](Coordinator& c, absl::Time now) {
    if (c.generation() == cut.generation && c.cuts().number() == cut.number) c.cuts().Committed(committed, now);
  });
  if (committed.ok()) log_->Log(absl::StrCat("checkpoint ", disk_.folder().CutPath(cut)));
}

}  // namespace descent
