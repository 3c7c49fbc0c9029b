#include "cli/tune_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "cli/status_text.h"
#include "common/job/evaluation_spec.h"
#include "common/metrics/metric_names.h"

namespace descent {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kTrainingLoss[] = "training_loss";

std::string Number(const std::optional<double>& value) {
  return value.has_value() ? absl::StrFormat("%.6g", *value) : "-";
}

std::optional<double> NumberIn(const Json& json, absl::string_view name) {
  const auto found = json.find(std::string(name));
  if (found == json.end() || !found->is_number() || !std::isfinite(found->get<double>())) return std::nullopt;
  return found->get<double>();
}

}  // namespace

absl::StatusOr<TuneMetric> MetricOf(const v1::JobSpec& job, const std::string& wanted) {
  const bool evaluated = job.evaluation().every_case() != v1::Evaluation::EVERY_NOT_SET;
  // Without validation data an evaluation has the loss of a model without data alone.
  const bool loss = job.data().has_validation() || !job.data().has_train();
  std::vector<TuneMetric> known;
  for (const NamedMetric& named : NamedMetrics(job.evaluation(), PredictionOf(job.model()).value_or(Prediction()))) {
    if (!evaluated || named.name == "train_loss") continue;  // summary.json has the objective instead
    if (loss || named.name != "loss") known.push_back({named.name, named.more_is_better});
  }
  known.push_back({kTrainingLoss, false});
  if (wanted.empty()) {
    for (const char* name : {"loss", "objective"}) {
      for (const TuneMetric& metric : known) {
        if (metric.name == name) return metric;
      }
    }
    return known.back();
  }
  for (const TuneMetric& metric : known) {
    if (metric.name == wanted) return metric;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--metric ", wanted, ": none of what this job's evaluations give: ",
                   absl::StrJoin(known, ", ", [](std::string* out, const TuneMetric& m) { out->append(m.name); })));
}

void ReadSummary(absl::string_view summary, absl::string_view metric, Trial* trial) {
  const Json json = Json::parse(summary.begin(), summary.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return;
  trial->training_loss = NumberIn(json, kTrainingLoss);
  trial->value = NumberIn(json, metric);
  if (const auto more = json.find("metrics"); !trial->value.has_value() && more != json.end() && more->is_object()) {
    trial->value = NumberIn(*more, metric);
  }
  const auto cause = json.find("first_cause");
  if (cause != json.end() && cause->is_string()) trial->cause = Printable(cause->get<std::string>());
}

std::vector<Trial> Ranked(std::vector<Trial> trials, const TuneMetric& metric) {
  std::stable_sort(trials.begin(), trials.end(), [&](const Trial& a, const Trial& b) {
    // A trial that was cut short is not compared with those that were not.
    const bool counts_a = a.value.has_value() && a.result == "finished";
    const bool counts_b = b.value.has_value() && b.result == "finished";
    if (counts_a != counts_b) return counts_a;
    if (!counts_a || *a.value == *b.value) return a.number < b.number;
    return (*a.value < *b.value) != metric.more_is_better;
  });
  return trials;
}

std::vector<std::string> TuneTable(const std::vector<Trial>& ranked, const TuneMetric& metric) {
  const auto row = [&](absl::string_view number, absl::string_view value, absl::string_view loss,
                       absl::string_view seconds, absl::string_view rest) {
    const std::string training =
        metric.name == kTrainingLoss ? std::string() : absl::StrFormat("  %13s", std::string(loss));
    return absl::StrFormat("%5s  %13s%s  %7s  %s", number, value, training, seconds, rest);
  };
  std::vector<std::string> lines = {row("trial", metric.name, "training loss", "seconds", "fields")};
  for (const Trial& trial : ranked) {
    std::string rest = FieldsText(trial.fields, /*flags=*/false);
    if (trial.result != "finished") absl::StrAppend(&rest, "  (", trial.result, ")");
    lines.push_back(row(absl::StrCat(trial.number), Number(trial.value), Number(trial.training_loss),
                        absl::StrFormat("%.1f", trial.seconds), rest));
  }
  return lines;
}

std::string TrialLine(const Trial& trial, const TuneMetric& metric) {
  Json json;
  json["trial"] = trial.number;
  for (const auto& [path, value] : trial.fields) json["set"][path] = value;
  json["result"] = trial.result;
  json["metric"] = metric.name;
  json["value"] = trial.value.has_value() ? Json(*trial.value) : Json();
  if (trial.training_loss.has_value()) json[kTrainingLoss] = *trial.training_loss;
  if (!trial.cause.empty()) json["first_cause"] = trial.cause;
  json["seconds"] = trial.seconds;
  json["run_dir"] = trial.run_dir;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string FieldsText(const TrialFields& fields, bool flags) {
  return absl::StrJoin(fields, " ", [&](std::string* out, const auto& field) {
    const std::string text = absl::StrCat(field.first, "=", field.second);
    if (!flags) return absl::StrAppend(out, text);
    const bool plain =
        text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=,+-/") ==
        std::string::npos;
    absl::StrAppend(out, "--set ", plain ? text : absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'"));
  });
}

}  // namespace descent
