#include "server/process/coordinator_runner.h"

#include <atomic>
#include <filesystem>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/job/job.h"
#include "common/job/optimizer_spec.h"
#include "common/job/stopping_spec.h"
#include "server/process/model_saver.h"
#include "server/process/node_options.h"

namespace descent {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(20);

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorRunner>> CoordinatorRunner::Create(const v1::JobSpec& job, RunId run,
                                                                             bool resumed,
                                                                             std::unique_ptr<RunDirectory> directory,
                                                                             const Logger* log,
                                                                             const TimeSource* time) {
  CoordinatorOptions options;
  options.job = job;
  options.job_fingerprint = JobFingerprint(job);
  options.run = run;
  options.geometry = GeometryOf(job);
  options.apply_push = ConsistencyOf(job).apply_push;
  DESCENT_ASSIGN_OR_RETURN(const StoreOptions store, StoreOptionsOf(job, /*clocks_per_epoch=*/1));  // makes no step
  options.memory = [store, job](ServerId server, const std::vector<TensorSpec>& tensors, const PartitionMap& map,
                                uint64_t clocks) {
    StoreOptions of_server = store;
    of_server.self = server;
    of_server.tensors = tensors;
    of_server.map = map;
    of_server.recorded_pushes = RecordedPushes(job, clocks);
    const StoreBudget budget = PlanStore(of_server);
    return MemoryPlan{budget.total(), BudgetText(budget)};
  };
  // Absolute, since it is passed on to other processes.
  const std::string folder =
      std::filesystem::absolute(job.checkpoint().path().empty() ? directory->checkpoints() : job.checkpoint().path());
  auto checkpointing = std::make_unique<Checkpointing>(folder, job, run, log);
  DESCENT_ASSIGN_OR_RETURN(RecoveryDisk::Beginning beginning, checkpointing->Begin(resumed));
  if (resumed) DESCENT_RETURN_IF_ERROR(directory->DropTornLine());  // nobody else writes it now
  options.generation = beginning.generation;
  options.resumed = resumed;
  options.restore = std::move(beginning.restore);
  options.adopt = std::move(beginning.views);
  options.cuts.every_rounds = job.checkpoint().every_rounds();
  options.cuts.every = absl::Seconds(job.checkpoint().every_seconds());
  options.cuts.at_end = job.record_order();
  options.cuts.on_demand = CutsAtEvaluations(job);
  options.checkpoint_folder = checkpointing->folder();
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<Coordinator> coordinator,
                           Coordinator::Create(std::move(options), time->Now()));
  return std::unique_ptr<CoordinatorRunner>(
      new CoordinatorRunner(job, std::move(coordinator), std::move(directory), std::move(checkpointing), log, time));
}

void CoordinatorRunner::Drain() {
  auto [lines, records] = host_.With([](Coordinator& coordinator, absl::Time) {
    return std::pair(coordinator.DrainLog(), coordinator.DrainRecords());
  });
  for (const LogLine& line : lines) {
    const char* level = line.level == LogLine::Level::kError     ? "error: "
                        : line.level == LogLine::Level::kWarning ? "warning: "
                                                                 : "";
    log_->Log(absl::StrCat(level, line.text));
  }
  for (const MetricRecord& record : records) {
    if (record.kind == MetricRecord::Kind::kTraining) summary_.training = record;
    if (record.kind == MetricRecord::Kind::kEvaluation) summary_.evaluation = record;
    if (record.kind == MetricRecord::Kind::kRolledBack) {
      for (std::optional<MetricRecord>* last : {&summary_.training, &summary_.evaluation}) {
        if (last->has_value() && (*last)->clock > record.clock) last->reset();
      }
    }
    absl::Status written = directory_->Append(record);
    if (written.ok() == std::exchange(disk_complained_, !written.ok())) {
      log_->Log(written.ok() ? std::string("metrics are written again")
                             : absl::StrCat("warning: metrics are not written: ", written.message()));
    }
  }
}

bool CoordinatorRunner::PartWanted(const std::string& folder, ServerId server) {
  return host_.With([&](Coordinator& coordinator, absl::Time) {
    return coordinator.cuts().stage() == CutSchedule::Stage::kOrdered && coordinator.cut_folder == folder &&
           server.value < coordinator.addresses().size();
  });
}

void CoordinatorRunner::CountMembers() {
  const v1::StatusReply status =
      host_.With([](Coordinator& coordinator, absl::Time now) { return coordinator.Status(now); });
  summary_.servers = summary_.workers = 0;
  for (const v1::MemberStatus& member : status.member()) {
    ++(member.role() == "server" ? summary_.servers : summary_.workers);
  }
}

void CoordinatorRunner::Save() {
  Drain();  // the last evaluation may have come since
  SaveModelRequest request;
  if (summary_.evaluation.has_value()) {
    const double* tuned = summary_.evaluation->metrics.Find("tuned_threshold");
    if (tuned != nullptr) request.threshold = *tuned;
  }
  request.job = job_;
  request.directory = directory_->model_dir();
  host_.With([&](Coordinator& coordinator, absl::Time) {
    request.envelope.job = JobFingerprint(job_);
    request.envelope.run = RunId(coordinator.GetJob().run());
    request.envelope.generation = coordinator.generation();
    request.tensors = coordinator.specs();
    request.features = coordinator.features();
    if (coordinator.map().has_value()) {
      request.map = *coordinator.map();
      request.envelope.map_epoch = request.map.epoch;
    }
    request.addresses = coordinator.addresses();
    request.clock = coordinator.round();
  });
  absl::StatusOr<SavedModelInfo> saved = SaveModel(request);
  if (saved.ok() && summary_.evaluation.has_value() && summary_.evaluation->train_loss.has_value()) {
    const Penalty penalty = PenaltyOf(job_);
    summary_.objective = *summary_.evaluation->train_loss + penalty.l1 * saved->decayed_absolute +
                         0.5 * penalty.l2 * saved->decayed_square + penalty.group * saved->decayed_rows;
  }
  host_.With([&](Coordinator& coordinator, absl::Time now) {
    coordinator.SaveFinished(saved.status(), directory_->model_dir(), saved.ok() ? saved->parameters_sha256 : "",
                             saved.ok() ? saved->state_sha256 : "", now);
  });
}

v1::Phase CoordinatorRunner::Run() {
  // Leases are watched whatever the disk does.
  std::atomic<bool> over = false;
  std::thread ticker([&] {
    while (!over) {
      host_.Tick();
      absl::SleepFor(kTick);
    }
  });
  const v1::Phase phase = Serve();
  over = true;
  ticker.join();
  return phase;
}

v1::Phase CoordinatorRunner::Serve() {
  bool summarised = false;
  while (true) {
    Drain();
    checkpointing_->Tend(&host_);
    const auto [phase, cut] = host_.With([](Coordinator& coordinator, absl::Time) {
      return std::pair(coordinator.phase(), coordinator.cuts().demand_met());
    });
    if (phase == v1::SAVING && cut) {
      CountMembers();
      Save();
      if (host_.With([](Coordinator& coordinator, absl::Time) { return coordinator.phase(); }) == v1::SAVING) {
        absl::SleepFor(10 * kTick);  // to be tried again
      }
      continue;
    }
    if (phase >= v1::FINISHED && !summarised) {
      summarised = true;
      Drain();
      const v1::StatusReply status =
          host_.With([](Coordinator& coordinator, absl::Time now) { return coordinator.Status(now); });
      summary_.payload_bytes = status.payload_bytes();
      if (absl::Status written = directory_->WriteSummary(status, summary_); !written.ok()) {
        log_->Log(absl::StrCat("warning: no summary: ", written.message()));
      }
    }
    if (host_.With([](Coordinator& coordinator, absl::Time now) { return coordinator.AllGone(now); })) {
      host_.With([](Coordinator& coordinator, absl::Time now) { coordinator.CloseRecords(now); });
      Drain();
      return phase;
    }
    absl::SleepFor(kTick);
  }
}

void CoordinatorRunner::Stop(int signal) {
  v1::StopRequest request;
  request.set_signal(signal);
  host_.With([&](Coordinator& coordinator, absl::Time now) { coordinator.Stop(request, now); });
}

int CoordinatorRunner::stop_signal() {
  return host_.With([](Coordinator& coordinator, absl::Time) { return coordinator.stop_signal(); });
}

}  // namespace descent
