// descent predict --model DIR --data FILE: a line for each example on standard output, how well it did on standard
// error.
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/predict_data.h"
#include "common/base/status_macros.h"
#include "common/saved_model/saved_model.h"
#include "worker/models/predictor.h"

namespace descent {
namespace {

struct PredictArguments {
  std::string model;
  PredictDataOptions data;
  PredictOptions options;
};

absl::Status RunPredict(const PredictArguments& arguments) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<SavedModel> model, SavedModel::Load(arguments.model));
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<TemporaryFolder> folder, TemporaryFolder::Make());
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> data, OpenPredictData(*model, arguments.data, *folder));
  for (const std::string& note : data->Notes()) std::fprintf(stderr, "descent: %s\n", note.c_str());
  PredictOptions options = arguments.options;
  options.metrics = !arguments.data.no_labels;
  PredictSummary summary;
  std::ios::sync_with_stdio(false);
  DESCENT_RETURN_IF_ERROR(Predict(*model, *data, std::cout, options, &summary));
  std::cout.flush();
  if (!std::cout) return absl::UnavailableError("predictions can't be written: the output takes no more");
  std::string line = absl::StrCat("descent: ", summary.rows, summary.rows == 1 ? " example" : " examples");
  if (options.metrics && summary.rows > 0) {
    absl::StrAppendFormat(&line, ", loss %.6g", summary.loss);
    if (summary.classifier) absl::StrAppendFormat(&line, ", accuracy %.6g", summary.accuracy);
    for (const auto& [name, value] : summary.metrics.values) {
      if (name != "accuracy") absl::StrAppendFormat(&line, ", %s %.6g", name, value);
    }
  }
  std::fprintf(stderr, "%s\n", line.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddPredictCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("predict", "Apply a trained model: one line for each example");
  auto arguments = std::make_shared<PredictArguments>();
  command->add_option("--model", arguments->model, "A run's model folder")->required()->type_name("DIR");
  command->add_option("--data", arguments->data.files, "Data, plain or gzip; - is standard input; may be repeated")
      ->required()
      ->type_name("FILE");
  command->add_option("--format", arguments->data.format, "idx, libsvm or csv (default: as the model's job has it)")
      ->type_name("FORMAT");
  command->add_option("--labels", arguments->data.labels, "Labels of IDX data")->type_name("FILE");
  command->add_flag("--no-labels", arguments->data.no_labels, "The data have no labels, so no loss is told");
  command->add_flag("--probabilities", arguments->options.probabilities, "After the class, each class's probability");
  command->callback([arguments, exit_status] {
    const absl::Status done = RunPredict(*arguments);
    if (!done.ok()) *exit_status = Complain(done, 1);
  });
}

}  // namespace descent
