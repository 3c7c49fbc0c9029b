#include "server/coordinator/run_metrics.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/job/learning_rate_schedule.h"

namespace descent {
namespace {

constexpr uint64_t kDefaultEvery = 50;

}  // namespace

std::optional<double> ClippedShare(const ClippedSteps& before, const ClippedSteps& now) {
  // A server that began again counts from 0.
  if (now.steps <= before.steps || now.clipped < before.clipped) return std::nullopt;
  return static_cast<double>(now.clipped - before.clipped) / static_cast<double>(now.steps - before.steps);
}

RunMetrics::RunMetrics(const v1::JobSpec* job)
    : job_(job),
      every_(job->metrics().every_rounds() > 0 ? job->metrics().every_rounds() : kDefaultEvery),
      training_(job->ranks(), every_),
      evaluation_(job->ranks(), job->evaluation()),
      norms_(kMaxNorms),
      histograms_(every_) {}

void RunMetrics::SetEpochs(uint64_t clocks_per_epoch, uint64_t train_rows) {
  clocks_per_epoch_ = clocks_per_epoch;
  train_rows_ = train_rows;
}

double RunMetrics::EpochOf(uint64_t clock) const {
  if (train_rows_ == 0 || clocks_per_epoch_ == 0) return 0;
  return static_cast<double>(clock) / static_cast<double>(clocks_per_epoch_);
}

void RunMetrics::RollBack(uint64_t clock, Generation generation, absl::Time now) {
  training_ = TrainingMerge(job_->ranks(), every_);
  evaluation_ = EvaluationMerge(job_->ranks(), job_->evaluation());
  scalars_ = step_scalars_ = ScalarMerge();
  norms_ = ScalarMerge(kMaxNorms);
  histograms_.Restart();
  losses_.erase(losses_.upper_bound(clock), losses_.end());
  for (std::optional<MetricRecord>* last : {&last_training_, &last_evaluation_}) {
    if (last->has_value() && (*last)->clock > clock) last->reset();
  }
  MetricRecord record;
  record.kind = MetricRecord::Kind::kRolledBack;
  record.time = now;
  record.clock = clock;
  record.epoch = EpochOf(clock);
  record.generation = generation.value;
  records_.push_back(std::move(record));
}

void RunMetrics::CloseWindows(absl::Time now, const ClippedSteps& steps) {
  std::vector<MetricRecord> fresh;
  double examples = 0;
  while (std::optional<MetricRecord> record = training_.Next()) {
    examples += static_cast<double>(record->weight);
    fresh.push_back(*std::move(record));
  }
  if (fresh.empty()) return;
  const double seconds = absl::ToDoubleSeconds(now - told_);
  told_ = now;
  std::optional<double> clipped;
  if (job_->has_clip()) clipped = ClippedShare(steps_told_, steps);
  steps_told_ = steps;
  const LearningRateSchedule rate(*job_, clocks_per_epoch_);
  for (MetricRecord& record : fresh) {
    record.time = now;
    record.epoch = EpochOf(record.clock);
    const uint64_t first = record.clock == 0 ? 0 : (record.clock - 1) / every_ * every_;
    record.rate = rate_changes_.Apply(rate.At(record.clock - 1), record.clock - 1);
    if (seconds > 0) record.examples_per_second = examples / seconds;
    if (const ScalarTotals* totals = scalars_.Within(first, record.clock); totals != nullptr) {
      record.gradient_norm = std::sqrt(SumOfSquares(*totals));
      record.parameter_change = std::sqrt(totals->step_square);
    }
    record.clipped = clipped;
    last_training_ = record;
    records_.push_back(std::move(record));
  }
}

std::vector<std::string> RunMetrics::AddEvaluation(const v1::EvaluationPart& part, absl::Time now) {
  std::vector<std::string> dropped;
  std::optional<MetricRecord> record = evaluation_.Add(part, &dropped);
  if (record.has_value()) {
    record->time = now;
    record->epoch = EpochOf(record->clock);
    last_evaluation_ = record;
    losses_[record->clock] = record->loss;
    if (losses_.size() > kMaxLosses) losses_.erase(losses_.begin());
    records_.push_back(*std::move(record));
    ++evaluations_;
  }
  return dropped;
}

std::optional<double> RunMetrics::LossAt(uint64_t clock) const {
  const auto loss = losses_.find(clock);
  return loss == losses_.end() ? std::nullopt : std::optional(loss->second);
}

absl::Status RunMetrics::AddNorms(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map,
                                  const std::vector<TensorSpec>& specs, absl::Time now) {
  const bool known = norms_.Totals(partials.clock()) != nullptr;
  const absl::Status added = norms_.Add(from, partials, map);
  const ScalarTotals* const totals = norms_.Totals(partials.clock());
  if (!added.ok() || known || totals == nullptr) return added;
  for (const GradientWindow& window : histograms_.Add(partials.clock(), totals->square)) AddWindow(window, specs, now);
  return absl::OkStatus();
}

void RunMetrics::CloseNorms(const std::vector<TensorSpec>& specs, absl::Time now) {
  if (const std::optional<GradientWindow> last = histograms_.Close()) AddWindow(*last, specs, now);
}

void RunMetrics::AddWindow(const GradientWindow& window, const std::vector<TensorSpec>& specs, absl::Time now) {
  MetricRecord record;
  record.kind = MetricRecord::Kind::kGradients;
  record.time = now;
  record.clock = window.clock;
  record.epoch = EpochOf(window.clock);
  record.rounds = window.rounds;
  for (size_t t = 0; t < window.tensors.size() && t < specs.size(); ++t) {
    if (specs[t].role == TensorRole::kTrainable) record.norms.emplace_back(specs[t].name, window.tensors[t]);
  }
  records_.push_back(std::move(record));
}

void RunMetrics::AddDecision(MetricRecord record, absl::Time now) {
  record.time = now;
  record.epoch = EpochOf(record.clock);
  records_.push_back(std::move(record));
}

std::string RunMetrics::EvaluationText() const {
  if (!last_evaluation_.has_value()) return "";
  const MetricRecord& e = *last_evaluation_;
  std::string line = absl::StrFormat("clock %d, epoch %.4g: loss %.6g", e.clock, e.epoch, e.loss);
  if (e.accuracy.has_value()) absl::StrAppendFormat(&line, ", accuracy %.4f", *e.accuracy);
  if (e.objective.has_value()) absl::StrAppendFormat(&line, ", objective %.10g", *e.objective);
  for (const auto& [name, value] : e.metrics.values) {
    if (name != "accuracy") absl::StrAppendFormat(&line, ", %s %.5g", name, value);
  }
  if (e.fuzzy) absl::StrAppend(&line, " (of a moving model)");
  return line;
}

}  // namespace descent
