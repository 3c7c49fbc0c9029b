#include "common/metrics/metric_state.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/metrics/metric_names.h"
#include "common/metrics/score_curve.h"

namespace descent {
namespace {

template <typename T>
using Repeated = google::protobuf::RepeatedField<T>;

template <typename T>
void AddEach(const Repeated<T>& part, Repeated<T>* total) {
  if (total->empty()) total->Resize(part.size(), T(0));
  for (int i = 0; i < std::min(part.size(), total->size()); ++i) (*total)[i] += part[i];
}

int ClassesOf(const v1::MetricState& state) {
  return static_cast<int>(std::lround(std::sqrt(static_cast<double>(state.confusion_size()))));
}

// A mean of nothing is 0, as scikit-learn has it (zero_division=0).
double Share(double part, double whole) { return whole > 0 ? part / whole : 0; }

struct ClassCounts {
  double hits = 0, predicted = 0, labelled = 0;
};

double PrecisionOf(const ClassCounts& c) { return Share(c.hits, c.predicted); }
double RecallOf(const ClassCounts& c) { return Share(c.hits, c.labelled); }
double F1Of(const ClassCounts& c) { return Share(2 * c.hits, c.predicted + c.labelled); }

void FinishConfusion(const v1::Evaluation& evaluation, const v1::MetricState& state, MetricResults* results) {
  const int classes = ClassesOf(state);
  std::vector<ClassCounts> counts(static_cast<size_t>(classes));
  ClassCounts all;
  for (int label = 0; label < classes; ++label) {
    for (int predicted = 0; predicted < classes; ++predicted) {
      const double n = static_cast<double>(state.confusion(label * classes + predicted));
      counts[label].labelled += n;
      counts[predicted].predicted += n;
      if (label == predicted) counts[label].hits += n;
    }
  }
  for (const ClassCounts& c : counts) {
    all.hits += c.hits;
    all.predicted += c.predicted;
    all.labelled += c.labelled;
  }
  results->values.emplace_back("accuracy", Share(all.hits, all.labelled));
  const auto add = [&](v1::EvaluationMetric metric, const std::string& name, double (*of)(const ClassCounts&)) {
    if (!Wants(evaluation, metric)) return;
    std::vector<double> each;
    double sum = 0;
    for (const ClassCounts& c : counts) {
      each.push_back(of(c));
      sum += each.back();
    }
    if (classes == 2) results->values.emplace_back(name, each[1]);
    results->values.emplace_back(name + "_macro", Share(sum, classes));
    results->values.emplace_back(name + "_micro", of(all));
    results->per_class.emplace_back(name + "_per_class", std::move(each));
  };
  add(v1::PRECISION, "precision", PrecisionOf);
  add(v1::RECALL, "recall", RecallOf);
  add(v1::F1, "f1", F1Of);
  if (!Wants(evaluation, v1::CONFUSION)) return;
  for (int label = 0; label < classes; ++label) {
    const auto row = state.confusion().begin() + label * classes;
    results->confusion.emplace_back(row, row + classes);
  }
}

void FinishScores(const v1::Evaluation& evaluation, v1::MetricState* state, MetricResults* results) {
  const bool equal = state->positive_bin().empty();
  std::vector<ScoreGroup> groups;
  if (equal) {
    std::sort(state->mutable_positive()->begin(), state->mutable_positive()->end());
    std::sort(state->mutable_negative()->begin(), state->mutable_negative()->end());
    groups = GroupsOfScores(state->positive(), state->negative());
  } else {
    groups = GroupsOfBins(state->positive_bin(), state->negative_bin());
  }
  const auto add = [&](v1::EvaluationMetric metric, const std::string& name, const std::optional<Area>& area) {
    if (!Wants(evaluation, metric) || !area.has_value()) return;
    results->values.emplace_back(name, area->value);
    if (!equal) results->values.emplace_back(name + "_error", area->error);
  };
  add(v1::ROC_AUC, "roc_auc", RocArea(groups, equal));
  add(v1::PR_AUC, "pr_auc", PrArea(groups, equal));
  if (!evaluation.tune_threshold()) return;
  if (const std::optional<Threshold> best = BestThreshold(groups); best.has_value()) {
    results->values.emplace_back("tuned_f1", best->f1);
    results->values.emplace_back("tuned_threshold", best->value);
  }
}

void FinishReliability(const v1::MetricState& state, MetricResults* results) {
  const int bins = state.reliability_count_size();
  double examples = 0, gap = 0;
  for (int b = 0; b < bins; ++b) {
    ReliabilityBin bin;
    bin.begin = static_cast<double>(b) / bins;
    bin.end = static_cast<double>(b + 1) / bins;
    bin.examples = state.reliability_count(b);
    const double n = static_cast<double>(bin.examples);
    bin.confidence = Share(state.reliability_confidence(b), n);
    bin.accuracy = Share(static_cast<double>(state.reliability_hits(b)), n);
    examples += n;
    gap += n * std::fabs(bin.confidence - bin.accuracy);
    results->reliability.push_back(bin);
  }
  results->values.emplace_back("calibration_error", Share(gap, examples));
}

absl::Status Wrong(absl::string_view what, uint64_t found, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("a metric state has ", found, " ", what, "; expected ", expected));
}

uint64_t Scores(const v1::MetricState& state) {
  return static_cast<uint64_t>(state.positive_size()) + static_cast<uint64_t>(state.negative_size());
}

bool AllFinite(const Repeated<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

absl::Status CheckMetricState(const v1::Evaluation& evaluation, const v1::MetricState& state) {
  const int classes = ClassesOf(state);
  if (state.confusion_size() != classes * classes || classes > static_cast<int>(kMostCountedClasses) ||
      (classes > 0) != WantsConfusion(evaluation)) {
    return Wrong("counts by class", static_cast<uint64_t>(state.confusion_size()),
                 WantsConfusion(evaluation) ? "the square of a number of classes" : "none");
  }
  const int top = Wants(evaluation, v1::TOP_K) ? evaluation.top_k_size() : 0;
  if (state.top_size() != top)
    return Wrong("counts of top k", static_cast<uint64_t>(state.top_size()), absl::StrCat(top));
  const uint64_t scores = Scores(state);
  if (scores > (WantsScores(evaluation) ? evaluation.exact_scores() : 0)) {
    return Wrong("scores", scores, absl::StrCat("at most ", WantsScores(evaluation) ? evaluation.exact_scores() : 0));
  }
  if (!AllFinite(state.positive()) || !AllFinite(state.negative())) {
    return absl::InvalidArgumentError("a metric state has a score that is not finite");
  }
  const int bins = state.positive_bin_size();
  const bool binned = WantsScores(evaluation) && scores == 0 && bins == static_cast<int>(kScoreBins);
  if (state.negative_bin_size() != bins || (bins != 0 && !binned)) {
    return Wrong("score bins", static_cast<uint64_t>(bins), absl::StrCat("none, or ", kScoreBins, " and no scores"));
  }
  const int reliability = Wants(evaluation, v1::CALIBRATION) ? static_cast<int>(evaluation.calibration_bins()) : 0;
  if (state.reliability_count_size() != reliability || state.reliability_confidence_size() != reliability ||
      state.reliability_hits_size() != reliability) {
    return Wrong("calibration bins", static_cast<uint64_t>(state.reliability_count_size()), absl::StrCat(reliability));
  }
  return absl::OkStatus();
}

absl::Status CheckMerge(const v1::Evaluation& evaluation, const v1::MetricState& part, const v1::MetricState& total) {
  if (part.confusion_size() != total.confusion_size()) {
    return Wrong("counts by class", static_cast<uint64_t>(part.confusion_size()), absl::StrCat(total.confusion_size()));
  }
  const uint64_t scores = Scores(part) + Scores(total);
  const bool mixed = part.positive_bin_size() != total.positive_bin_size();
  if (mixed || (scores > 0 && scores > evaluation.exact_scores())) {
    return Wrong("scores, with those of other ranks,", scores, mixed ? "bins, or scores, from all ranks" : "fewer");
  }
  return absl::OkStatus();
}

void MergeCounts(const v1::MetricState& part, v1::MetricState* total) {
  AddEach(part.confusion(), total->mutable_confusion());
  AddEach(part.top(), total->mutable_top());
  total->mutable_positive()->MergeFrom(part.positive());
  total->mutable_negative()->MergeFrom(part.negative());
  AddEach(part.positive_bin(), total->mutable_positive_bin());
  AddEach(part.negative_bin(), total->mutable_negative_bin());
  AddEach(part.reliability_count(), total->mutable_reliability_count());
  AddEach(part.reliability_hits(), total->mutable_reliability_hits());
}

void MergeSums(const v1::MetricState& part, v1::MetricState* total) {
  AddEach(part.reliability_confidence(), total->mutable_reliability_confidence());
  total->set_log_loss(total->log_loss() + part.log_loss());
  total->set_absolute_error(total->absolute_error() + part.absolute_error());
  total->set_square_error(total->square_error() + part.square_error());
  if (part.examples() == 0) return;
  // Chan, Golub and LeVeque, 1979: the scatter of two sets about their common mean.
  const double a = static_cast<double>(total->examples()), b = static_cast<double>(part.examples());
  const double apart = part.label_mean() - total->label_mean();
  total->set_label_scatter(total->label_scatter() + part.label_scatter() + apart * apart * (a * b / (a + b)));
  total->set_label_mean(total->label_mean() + apart * (b / (a + b)));
  total->set_examples(total->examples() + part.examples());
}

void DropCounts(v1::MetricState* part) {
  part->clear_confusion();
  part->clear_top();
  part->clear_positive();
  part->clear_negative();
  part->clear_positive_bin();
  part->clear_negative_bin();
  part->clear_reliability_count();
  part->clear_reliability_hits();
}

const double* MetricResults::Find(const std::string& name) const {
  const auto found = std::find_if(values.begin(), values.end(), [&](const auto& value) { return value.first == name; });
  return found == values.end() ? nullptr : &found->second;
}

MetricResults Finish(const v1::Evaluation& evaluation, v1::MetricState total) {
  MetricResults results;
  const double examples = static_cast<double>(total.examples());
  if (examples == 0) return results;
  if (!total.confusion().empty()) FinishConfusion(evaluation, total, &results);
  for (int i = 0; i < total.top_size(); ++i) {
    results.values.emplace_back(absl::StrCat("top_", evaluation.top_k(i), "_accuracy"),
                                static_cast<double>(total.top(i)) / examples);
  }
  if (WantsScores(evaluation)) FinishScores(evaluation, &total, &results);
  const auto add = [&](v1::EvaluationMetric metric, const char* name, double value) {
    if (Wants(evaluation, metric)) results.values.emplace_back(name, value);
  };
  add(v1::LOG_LOSS, "log_loss", total.log_loss() / examples);
  if (!total.reliability_count().empty()) FinishReliability(total, &results);
  add(v1::RMSE, "rmse", std::sqrt(total.square_error() / examples));
  add(v1::MAE, "mae", total.absolute_error() / examples);
  if (total.label_scatter() > 0) add(v1::R2, "r2", 1 - total.square_error() / total.label_scatter());
  return results;
}

}  // namespace descent
