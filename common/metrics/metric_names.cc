#include "common/metrics/metric_names.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace descent {

bool Wants(const v1::Evaluation& evaluation, v1::EvaluationMetric metric) {
  return std::find(evaluation.metrics().begin(), evaluation.metrics().end(), metric) != evaluation.metrics().end();
}

bool WantsConfusion(const v1::Evaluation& evaluation) {
  return Wants(evaluation, v1::CONFUSION) || Wants(evaluation, v1::PRECISION) || Wants(evaluation, v1::RECALL) ||
         Wants(evaluation, v1::F1) || evaluation.has_threshold();
}

bool WantsScores(const v1::Evaluation& evaluation) {
  return Wants(evaluation, v1::ROC_AUC) || Wants(evaluation, v1::PR_AUC) || evaluation.tune_threshold();
}

bool WantsMetrics(const v1::Evaluation& evaluation) {
  return evaluation.metrics_size() > 0 || WantsConfusion(evaluation) || WantsScores(evaluation);
}

absl::Status CheckMetrics(const v1::Evaluation& evaluation, const Prediction& prediction) {
  std::vector<std::string> unfit;
  const auto need = [&unfit](absl::string_view what, bool fits, absl::string_view of) {
    if (!fits) unfit.push_back(absl::StrCat(what, " is of ", of));
  };
  for (const int value : evaluation.metrics()) {
    const auto metric = static_cast<v1::EvaluationMetric>(value);
    const std::string& name = v1::EvaluationMetric_Name(metric);
    switch (metric) {
      case v1::CONFUSION:
      case v1::PRECISION:
      case v1::RECALL:
      case v1::F1:
        need(name, prediction.classifier && prediction.classes <= kMostCountedClasses,
             absl::StrCat("at most ", kMostCountedClasses, " classes"));
        break;
      case v1::TOP_K:
      case v1::LOG_LOSS:
      case v1::CALIBRATION:
        need(name, prediction.classifier, "classes");
        break;
      case v1::ROC_AUC:
      case v1::PR_AUC:
        need(name, prediction.classes == 2, "two classes");
        break;
      case v1::RMSE:
      case v1::MAE:
      case v1::R2:
        need(name, !prediction.classifier, "numbers");
        break;
      default:
        break;  // unknown: the parser's business
    }
  }
  if (evaluation.has_threshold()) need("threshold", prediction.classes == 2, "two classes");
  if (evaluation.tune_threshold()) need("tune_threshold", prediction.classes == 2, "two classes");
  if (unfit.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(absl::StrJoin(unfit, ", "), "; the model predicts ",
                   prediction.classifier ? absl::StrCat(prediction.classes, " classes") : "a number"));
}

std::vector<NamedMetric> NamedMetrics(const v1::Evaluation& evaluation, const Prediction& prediction) {
  std::vector<NamedMetric> named = {{"loss", false}};
  const auto add = [&](v1::EvaluationMetric metric, std::string name, bool more) {
    if (Wants(evaluation, metric)) named.push_back({std::move(name), more});
  };
  if (prediction.classifier) named.push_back({"accuracy", true});
  if (evaluation.objective()) {
    named.push_back({"train_loss", false});
    named.push_back({"objective", false});
  }
  const std::pair<v1::EvaluationMetric, const char*> kinds[] = {
      {v1::PRECISION, "precision"}, {v1::RECALL, "recall"}, {v1::F1, "f1"}};
  for (const auto& [metric, name] : kinds) {
    if (prediction.classes == 2) add(metric, name, true);
    add(metric, absl::StrCat(name, "_macro"), true);
    add(metric, absl::StrCat(name, "_micro"), true);
  }
  if (Wants(evaluation, v1::TOP_K)) {
    for (const uint32_t k : evaluation.top_k()) named.push_back({absl::StrCat("top_", k, "_accuracy"), true});
  }
  add(v1::ROC_AUC, "roc_auc", true);
  add(v1::PR_AUC, "pr_auc", true);
  if (evaluation.tune_threshold()) named.push_back({"tuned_f1", true});
  add(v1::LOG_LOSS, "log_loss", false);
  add(v1::CALIBRATION, "calibration_error", false);
  add(v1::RMSE, "rmse", false);
  add(v1::MAE, "mae", false);
  add(v1::R2, "r2", true);
  return named;
}

}  // namespace descent
