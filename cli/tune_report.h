// What `descent tune` tells of its trials. Pure; values.
#ifndef DESCENT_CLI_TUNE_REPORT_H_
#define DESCENT_CLI_TUNE_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cli/tune_space.h"
#include "descent/v1/job.pb.h"

namespace descent {

// By what trials are compared: a name that summary.json has.
struct TuneMetric {
  std::string name;
  bool more_is_better = false;
};

struct Trial {
  uint32_t number = 0;  // from 1
  TrialFields fields;
  std::string result;           // "finished", "failed", "stopped"
  std::optional<double> value;  // of the metric
  std::optional<double> training_loss;
  double seconds = 0;
  std::string cause;  // of one that failed
  std::string run_dir;
};

// `wanted`, or if that is empty the validation loss, else the objective, else the training loss: whichever the job has.
// INVALID_ARGUMENT lists what its evaluations give.
absl::StatusOr<TuneMetric> MetricOf(const v1::JobSpec& job, const std::string& wanted);

// Takes value, training loss and cause from the text of summary.json; what is not there, or no number, is left out.
void ReadSummary(absl::string_view summary, absl::string_view metric, Trial* trial);

// Best first; those without a value behind the others, in their order.
std::vector<Trial> Ranked(std::vector<Trial> trials, const TuneMetric& metric);

// A header and a line for each of ranked trials.
std::vector<std::string> TuneTable(const std::vector<Trial>& ranked, const TuneMetric& metric);

// One line of trials.jsonl, with its end.
std::string TrialLine(const Trial& trial, const TuneMetric& metric);

// "learning_rate.constant=0.1 ranks=4"; with `flags` as arguments of a command line: "--set a=b --set 'c=d e'".
std::string FieldsText(const TrialFields& fields, bool flags);

}  // namespace descent

#endif  // DESCENT_CLI_TUNE_REPORT_H_
