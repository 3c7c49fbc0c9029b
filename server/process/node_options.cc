#include "server/process/node_options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/job/job.h"
#include "common/job/learning_rate_schedule.h"

namespace descent {

absl::StatusOr<StoreOptions> StoreOptionsOf(const v1::JobSpec& job, uint64_t clocks_per_epoch,
                                            std::shared_ptr<const RateChanges> changes) {
  const Consistency consistency = ConsistencyOf(job);
  StoreOptions store;
  store.geometry = GeometryOf(job);
  store.seed = job.seed();
  store.ranks = job.ranks();
  DESCENT_ASSIGN_OR_RETURN(store.rule, UpdateRule::Make(job.optimizer()));
  const uint64_t steps_per_round = consistency.apply_push ? std::max<uint64_t>(1, job.ranks()) : 1;
  store.rate = [schedule = LearningRateSchedule(job, clocks_per_epoch), steps_per_round,
                changes = std::move(changes)](Clock step) {
    const uint64_t clock = step.value / steps_per_round;
    return changes == nullptr ? schedule.At(clock) : changes->Apply(schedule.At(clock), clock);
  };
  // To adamw a step's l2 is its weight decay.
  store.l2 = static_cast<float>(job.optimizer().has_adamw() ? job.optimizer().adamw().weight_decay() : job.l2());
  store.l2_touched_rows_only = job.l2_rows() == v1::TOUCHED;
  store.reduce_sum = consistency.reduce_sum;
  store.apply_push = consistency.apply_push;
  store.cuts = job.checkpoint().every_rounds() > 0 || job.checkpoint().every_seconds() > 0 || job.record_order() ||
               job.stopping().early().restore_best();
  ServerNodeOptions node;
  node.staleness = consistency.staleness;
  node.store = store;
  store.history = std::max(store.history, HistoryFor(node));
  return store;
}

absl::StatusOr<ServerNodeOptions> NodeOptionsOf(const v1::JobSpec& job, uint64_t clocks_per_epoch,
                                                std::shared_ptr<const RateChanges> changes) {
  ServerNodeOptions options;
  options.staleness = ConsistencyOf(job).staleness;
  options.backup_ranks = ConsistencyOf(job).backup_ranks;
  options.scalars_every = job.metrics().every_rounds();
  options.record_order = job.record_order();
  DESCENT_ASSIGN_OR_RETURN(options.store, StoreOptionsOf(job, clocks_per_epoch, std::move(changes)));
  return options;
}

uint64_t RecordedPushes(const v1::JobSpec& job, uint64_t clocks) {
  return job.record_order() && ConsistencyOf(job).apply_push ? clocks * job.ranks() : 0;
}

std::string BudgetText(const StoreBudget& budget) {
  auto mib = [](uint64_t bytes) { return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20)); };
  return absl::StrCat("parameters ", mib(budget.parameters), ", optimizer state ", mib(budget.state), ", versions ",
                      mib(budget.versions), ", contributions ", mib(budget.contributions),
                      budget.cut > 0 ? absl::StrCat(", a checkpoint under way ", mib(budget.cut)) : "",
                      budget.order > 0 ? absl::StrCat(", the order of pushes ", mib(budget.order)) : "",
                      "; rows of tables come on top");
}

}  // namespace descent
