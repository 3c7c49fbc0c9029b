#include "common/job/evaluation_spec.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/job/model_spec.h"

namespace descent {

std::optional<Prediction> PredictionOf(const v1::ModelSpec& model) {
  if (!ReadsData(model) || model.has_custom() || model.kind_case() == v1::ModelSpec::KIND_NOT_SET) return std::nullopt;
  const uint32_t classes = ClassesOf(model);
  return Prediction{classes > 0, classes};
}

void ResolveEvaluationMetrics(v1::Evaluation* evaluation) {
  if (Wants(*evaluation, v1::TOP_K) && evaluation->top_k_size() == 0) evaluation->add_top_k(5);
  if (WantsScores(*evaluation) && !evaluation->has_exact_scores()) evaluation->set_exact_scores(65536);
  if (Wants(*evaluation, v1::CALIBRATION) && evaluation->calibration_bins() == 0) evaluation->set_calibration_bins(15);
}

void CheckEvaluationMetrics(const v1::JobSpec& job, JobErrors* errors) {
  const v1::Evaluation& evaluation = job.evaluation();
  if (!WantsMetrics(evaluation)) return;
  const bool data = job.data().has_train();
  if (evaluation.every_case() == v1::Evaluation::EVERY_NOT_SET || !data) {
    errors->Error("evaluation.metrics", "nothing is evaluated on data");
  }
  if (job.model().has_autoencoder()) {
    errors->Error("evaluation", "metrics are of labels, but an autoencoder's target is its input");
  } else if (const std::optional<Prediction> prediction = PredictionOf(job.model()); prediction.has_value()) {
    if (const absl::Status fit = CheckMetrics(evaluation, *prediction); !fit.ok()) {
      errors->Error("evaluation", fit.message());
    }
  }
  std::set<int> named;
  for (const int metric : evaluation.metrics()) {
    if (!named.insert(metric).second && v1::EvaluationMetric_IsValid(metric)) {
      errors->Error("evaluation.metrics", v1::EvaluationMetric_Name(static_cast<v1::EvaluationMetric>(metric)),
                    " is there twice");
    }
  }
  if (Wants(evaluation, v1::TOP_K)) {
    errors->Range<uint64_t>("evaluation.top_k", static_cast<uint64_t>(evaluation.top_k_size()), 1, 16);
    for (int i = 0; i < evaluation.top_k_size(); ++i) {
      errors->Range<uint64_t>(absl::StrCat("evaluation.top_k[", i, "]"), evaluation.top_k(i), 1, 65536);
    }
  } else if (evaluation.top_k_size() > 0) {
    errors->Error("evaluation.top_k", "is for the metric TOP_K");
  }
  // 2 MiB of scores: a message takes 4.
  if (WantsScores(evaluation)) {
    errors->Range<uint64_t>("evaluation.exact_scores", evaluation.exact_scores(), 0, uint64_t{1} << 19);
  } else if (evaluation.has_exact_scores()) {
    errors->Error("evaluation.exact_scores", "is for areas under curves and tune_threshold");
  }
  if (Wants(evaluation, v1::CALIBRATION)) {
    errors->Range<uint64_t>("evaluation.calibration_bins", evaluation.calibration_bins(), 1, 1000);
  } else if (evaluation.calibration_bins() != 0) {
    errors->Error("evaluation.calibration_bins", "is for the metric CALIBRATION");
  }
  if (evaluation.has_threshold() && !(evaluation.threshold() >= 0 && evaluation.threshold() <= 1)) {
    errors->Error("evaluation.threshold", evaluation.threshold(), " is no probability");
  }
}

}  // namespace descent
