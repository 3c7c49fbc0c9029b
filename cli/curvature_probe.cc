#include "cli/curvature_probe.h"

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/features/fitted_features.h"
#include "common/job/job.h"
#include "common/job/model_spec.h"
#include "common/job/optimizer_spec.h"
#include "common/saved_model/saved_model.h"
#include "worker/loop/worker_data.h"

namespace descent {
namespace {

// Of the net that the model is or ends in; null: it has none.
const v1::Mlp* NetOf(const v1::ModelSpec& model) {
  switch (model.kind_case()) {
    case v1::ModelSpec::kMlp:
      return &model.mlp();
    case v1::ModelSpec::kAutoencoder:
      return &model.autoencoder();
    case v1::ModelSpec::kConvolution:
      return &model.convolution().top();
    default:
      return nullptr;
  }
}

// Whether the job's objective is a function with two derivatives that the probe can take.
absl::Status CheckObjective(const v1::JobSpec& job) {
  const v1::ModelSpec& model = job.model();
  if (model.has_custom()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.custom: the probe takes products in double, and a custom model, here \"",
                     model.custom().name(), "\", exists in float only"));
  }
  if (HasTable(model)) {
    return absl::InvalidArgumentError(
        "model: of a sparse_table only the rows that occurred are there, so that there is no vector of all parameters "
        "to take products with");
  }
  if (const v1::Mlp* net = NetOf(model); net != nullptr && (net->dropout() > 0 || net->input_dropout() > 0)) {
    return absl::InvalidArgumentError(
        "model: with dropout the training loss is a random one; to probe the loss without it, --set dropout and "
        "input_dropout to 0");
  }
  const Penalty penalty = PenaltyOf(job);
  const v1::Proximal& step = job.optimizer().proximal();
  if (penalty.l1 > 0 || penalty.group > 0 || step.has_lower() || step.has_upper() || step.non_negative()) {
    return absl::InvalidArgumentError(
        "optimizer: with l1, group_lasso or a box the objective has no gradient where it is least; to probe the smooth "
        "part, --set optimizer='{ sgd {} }'");
  }
  return absl::OkStatus();
}

// The job that the model holds, overridden, without what only training needs.
absl::StatusOr<v1::JobSpec> JobOf(const SavedModel& model, const CurvatureProbe& probe) {
  DESCENT_ASSIGN_OR_RETURN(v1::JobSpec job, ParseJob(model.description().job_text, "model.json: job"));
  for (const std::string& set : probe.sets) DESCENT_RETURN_IF_ERROR(OverrideJob(set, &job));
  std::error_code error;
  DESCENT_RETURN_IF_ERROR(ResolveJob(0, 0, std::filesystem::current_path(error).string(), &job));
  DESCENT_RETURN_IF_ERROR(ValidateJob(job));
  DESCENT_RETURN_IF_ERROR(CheckObjective(job));
  job.clear_local_training();
  if (job.has_data()) {
    job.mutable_data()->clear_validation();
    job.mutable_data()->clear_resampling();
    job.mutable_data()->set_sampling(v1::SEQUENTIAL);
  }
  return job;
}

absl::Status CheckTensors(const std::vector<TensorSpec>& expected, const std::vector<TensorSpec>& found) {
  bool same = expected.size() == found.size();
  for (size_t i = 0; same && i < found.size(); ++i) {
    same = expected[i].name == found[i].name && expected[i].shape == found[i].shape &&
           expected[i].sparse == found[i].sparse;
  }
  if (same) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "model.json: its tensors are not those of the job's model on these data: are they the training data of the run?");
}

}  // namespace

absl::StatusOr<CurvatureReport> ProbeCurvature(const CurvatureProbe& probe) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<SavedModel> saved, SavedModel::Load(probe.model));
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec job, JobOf(*saved, probe));
  DESCENT_ASSIGN_OR_RETURN(const WorkerData data,
                           OpenWorkerData(job, probe.data_root, CacheDirOf(job, "", probe.user_cache), {}));
  DESCENT_RETURN_IF_ERROR(CheckTensors(data.model->tensors(), saved->description().specs));
  if (data.features != nullptr && FeaturesToJson(*data.features) != saved->description().fitted) {
    return absl::FailedPreconditionError(
        "these are not the data that the model's features were fitted to (features.json): are they the training data "
        "of "
        "the run?");
  }
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<Model<double>> model, MakeModel<double>(job.model(), data.input, {}));
  std::vector<absl::Span<const float>> parameters;
  for (uint32_t t = 0; t < model->tensors().size(); ++t) parameters.push_back(saved->dense(TensorId(t)));
  CurvatureReport report;
  report.probe = probe;
  report.l2 = PenaltyOf(job).l2;
  report.train_rows = data.train == nullptr ? 0 : data.train->rows();
  MeanLossOptions options;
  options.l2 = report.l2;
  DESCENT_ASSIGN_OR_RETURN(
      const std::unique_ptr<MeanLoss> loss,
      MeanLoss::Create(model.get(), data.train.get(), SpacedRows(report.train_rows, probe.rows), parameters, options));
  report.rows = loss->rows();
  report.parameters = loss->size();
  DESCENT_ASSIGN_OR_RETURN(report.curvature, MeasureCurvature(loss.get(), probe.options));
  return report;
}

std::string CurvatureText(const CurvatureReport& report) {
  const Curvature& found = report.curvature;
  const ExtremeEigenvalues& hessian = found.hessian;
  std::string text = absl::StrFormat("%d parameters", report.parameters);
  if (report.train_rows > 0) absl::StrAppendFormat(&text, ", %d of %d training rows", report.rows, report.train_rows);
  absl::StrAppendFormat(&text, "\nmean loss %.9g", found.mean_loss);
  if (report.l2 > 0) absl::StrAppendFormat(&text, ", and to it l2 %.6g", report.l2);
  absl::StrAppendFormat(&text, "\ngradient norm %.6g\n", found.gradient_norm);
  absl::StrAppendFormat(&text, "least eigenvalue of the Hessian     %.9g, to within %.3g\n", hessian.least.value,
                        hessian.least.bound);
  absl::StrAppendFormat(&text, "greatest eigenvalue of the Hessian  %.9g, to within %.3g\n", hessian.greatest.value,
                        hessian.greatest.bound);
  absl::StrAppendFormat(&text, "%d products%s, seed %d\n", hessian.steps,
                        hessian.converged ? "" : ", which are not enough for six digits",
                        report.probe.options.lanczos.seed);
  absl::StrAppend(&text, KindText(found, report.probe.options), "\n");
  return text;
}

std::string CurvatureJson(const CurvatureReport& report) {
  const Curvature& found = report.curvature;
  const auto ritz = [](const RitzValue& value) {
    return nlohmann::ordered_json{{"eigenvalue", value.value}, {"bound", value.bound}};
  };
  nlohmann::ordered_json json;
  json["model"] = report.probe.model;
  json["parameters"] = report.parameters;
  json["rows"] = report.rows;
  json["train_rows"] = report.train_rows;
  json["l2"] = report.l2;
  json["mean_loss"] = found.mean_loss;
  json["gradient_norm"] = found.gradient_norm;
  json["least"] = ritz(found.hessian.least);
  json["greatest"] = ritz(found.hessian.greatest);
  json["products"] = found.hessian.steps;
  json["converged"] = found.hessian.converged;
  json["seed"] = report.probe.options.lanczos.seed;
  json["stationary_below"] = report.probe.options.stationary;
  json["flat"] = report.probe.options.flat;
  json["verdict"] = KindName(found.kind);
  return json.dump(2) + "\n";
}

}  // namespace descent
