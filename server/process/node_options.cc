#include "server/process/node_options.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/job/batch_norm_spec.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/learning_rate_schedule.h"
#include "common/job/stopping_spec.h"

namespace descent {

namespace {

std::function<float(Clock)> NoiseOf(const v1::GradientNoise& noise, uint64_t steps_per_round) {
  return [eta = noise.eta(), gamma = noise.gamma(), steps_per_round](Clock step) {
    return static_cast<float>(std::sqrt(eta / std::pow(1 + static_cast<double>(step.value / steps_per_round), gamma)));
  };
}

std::function<float(Clock)> AverageWeightOf(const v1::Averaging& averaging, uint64_t clocks_per_epoch,
                                            uint64_t steps_per_round) {
  uint64_t from = averaging.from_round();
  if (averaging.from_epoch() > 0) from = RoundsOf(averaging.from_epoch(), clocks_per_epoch);
  from *= steps_per_round;
  if (averaging.has_decay()) {
    return [from, rest = static_cast<float>(1 - averaging.decay())](Clock step) {
      return step.value <= from ? 1.0f : rest;
    };
  }
  return [from](Clock step) {
    return step.value <= from ? 1.0f : static_cast<float>(1 / static_cast<double>(step.value - from + 1));
  };
}

}  // namespace

absl::StatusOr<StoreOptions> StoreOptionsOf(const v1::JobSpec& job, uint64_t clocks_per_epoch,
                                            std::shared_ptr<const SharedRateChanges> changes) {
  const Consistency consistency = ConsistencyOf(job);
  StoreOptions store;
  if (TakesFullGradient(job.optimizer()) && clocks_per_epoch > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("optimizer: a round has the gradient of all data, but a rank's share has more than ", kWholeShare,
                     " rows: set ranks to at least ", uint64_t{job.ranks()} * clocks_per_epoch));
  }
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
  if (job.has_momentum_schedule()) {
    store.momentum = [schedule = LearningRateSchedule(job.momentum_schedule(), job, clocks_per_epoch),
                      steps_per_round](Clock step) { return schedule.At(step.value / steps_per_round); };
  }
  store.clip.value = static_cast<float>(job.clip().value());
  store.clip.norm = job.clip().norm();
  store.clip.global_norm = job.clip().global_norm();
  if (job.has_gradient_noise()) store.noise = NoiseOf(job.gradient_noise(), steps_per_round);
  if (job.has_averaging()) store.average_weight = AverageWeightOf(job.averaging(), clocks_per_epoch, steps_per_round);
  // To adamw and lamb a step's l2 is their weight decay. With local training that of the job is in the ranks' steps.
  store.l2 = static_cast<float>(job.optimizer().has_adamw()  ? job.optimizer().adamw().weight_decay()
                                : job.optimizer().has_lamb() ? job.optimizer().lamb().weight_decay()
                                : job.has_local_training()   ? 0
                                                             : job.l2());
  store.statistic_decay = StatisticDecayOf(job.model());
  store.l2_touched_rows_only = job.l2_rows() == v1::TOUCHED;
  store.reduce_sum = consistency.reduce_sum;
  store.apply_push = consistency.apply_push;
  store.cuts = job.checkpoint().every_rounds() > 0 || job.checkpoint().every_seconds() > 0 || job.record_order() ||
               CutsAtEvaluations(job);
  store.staleness_aware_rate = consistency.staleness_aware_rate;
  store.compensation = static_cast<float>(consistency.compensation);
  store.mean_square_decay = static_cast<float>(consistency.mean_square_decay);
  ServerNodeOptions node;
  node.staleness = consistency.staleness;
  node.store = store;
  store.history = std::max(store.history, HistoryFor(node));
  return store;
}

absl::StatusOr<ServerNodeOptions> NodeOptionsOf(const v1::JobSpec& job, uint64_t clocks_per_epoch,
                                                std::shared_ptr<const SharedRateChanges> changes) {
  ServerNodeOptions options;
  const Consistency consistency = ConsistencyOf(job);
  options.staleness = consistency.staleness;
  options.changes = consistency.changes;
  // Reads after the end, of all that was made, are of the bound that the last clock had.
  std::erase_if(options.changes, [clocks = ClocksOf(job, clocks_per_epoch)](const StalenessChange& change) {
    return change.from > 0 && change.from >= clocks;
  });
  options.tells_reads = consistency.tells_reads();
  options.backup_ranks = ConsistencyOf(job).backup_ranks;
  options.scalars_every = job.metrics().every_rounds();
  options.norms_of_all = job.metrics().gradient_histograms();
  options.record_order = job.record_order();
  options.encoding = EncodingOf(job);
  DESCENT_ASSIGN_OR_RETURN(options.store, StoreOptionsOf(job, clocks_per_epoch, std::move(changes)));
  return options;
}

uint64_t RecordedPushes(const v1::JobSpec& job, uint64_t clocks) {
  return job.record_order() && ConsistencyOf(job).apply_push ? clocks * job.ranks() : 0;
}

uint32_t VectorOfModel(const v1::JobSpec& job, const TensorSpec& spec, uint32_t state_slots) {
  return EvaluatesAverages(job) && spec.role == TensorRole::kTrainable ? state_slots : 0;
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
