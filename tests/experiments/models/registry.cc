#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "tests/experiments/models/models.h"

namespace descent {
namespace {

absl::StatusOr<double> Number(const std::string& model, const std::string& option, absl::string_view text) {
  double value;
  if (!absl::SimpleAtod(text, &value)) {
    return absl::InvalidArgumentError(
        absl::StrCat("model '", model, "': option ", option, ": expected a number, got '", text, "'"));
  }
  return value;
}

absl::StatusOr<std::string> Option(const ModelInput& input, const std::string& model, const std::string& option) {
  const auto found = input.options.find(option);
  if (found == input.options.end()) {
    return absl::InvalidArgumentError(absl::StrCat("model '", model, "': option ", option, " is missing"));
  }
  return found->second;
}

absl::StatusOr<double> NumberOption(const ModelInput& input, const std::string& model, const std::string& option) {
  DESCENT_ASSIGN_OR_RETURN(const std::string text, Option(input, model, option));
  return Number(model, option, text);
}

absl::StatusOr<std::unique_ptr<Model<float>>> CurvedQuadraticOf(const ModelInput& input) {
  const std::string name = "curved_quadratic";
  DESCENT_ASSIGN_OR_RETURN(const std::string text, Option(input, name, "curvatures"));
  std::vector<double> curvature;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    DESCENT_ASSIGN_OR_RETURN(const double value, Number(name, "curvatures", part));
    curvature.push_back(value);
  }
  DESCENT_ASSIGN_OR_RETURN(const double start, NumberOption(input, name, "start"));
  return MakeCurvedQuadratic<float>(std::move(curvature), start);
}

absl::StatusOr<std::unique_ptr<Model<float>>> SaddleOf(const ModelInput& input) {
  if (input.sparse || input.features != 1) {
    return absl::InvalidArgumentError(absl::StrCat("model 'saddle': expected one dense feature, got ", input.features));
  }
  DESCENT_ASSIGN_OR_RETURN(const double start, NumberOption(input, "saddle", "start"));
  return MakeSaddle<float>(start);
}

absl::StatusOr<std::unique_ptr<Model<float>>> ElmanOf(const ModelInput& input) {
  DESCENT_ASSIGN_OR_RETURN(const double steps, NumberOption(input, "elman", "steps"));
  DESCENT_ASSIGN_OR_RETURN(const double units, NumberOption(input, "elman", "units"));
  DESCENT_ASSIGN_OR_RETURN(const double gain, NumberOption(input, "elman", "gain"));
  if (!(steps >= 1 && steps <= 1e6) || !(units >= 1 && units <= 1e4)) {
    return absl::InvalidArgumentError("model 'elman': expected 1 to 1e6 steps and 1 to 1e4 units");
  }
  const auto count = static_cast<uint64_t>(steps);
  if (input.sparse || input.features % count != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model 'elman': expected ", count, " steps of equally many dense features, got ", input.features));
  }
  return MakeElman<float>(count, input.features / count, static_cast<size_t>(units), gain);
}

}  // namespace

CustomModels ExperimentModels() {
  return {{"curved_quadratic", CurvedQuadraticOf}, {"saddle", SaddleOf}, {"elman", ElmanOf}};
}

}  // namespace descent
