// descent inspect PATH: the checkpoints there, every byte of them read.
#include <cstdio>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/inspect.h"

namespace descent {
namespace {

struct InspectArguments {
  std::string path;
  bool json = false;
};

int RunInspect(const InspectArguments& arguments) {
  const auto inspection = InspectCheckpoints(arguments.path);
  if (!inspection.ok()) return Complain(inspection.status(), 2);
  std::fputs((arguments.json ? InspectionJson(*inspection) : InspectionText(*inspection)).c_str(), stdout);
  return inspection->good() ? 0 : 1;
}

}  // namespace

void AddInspectCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("inspect", "List checkpoints and check every byte of them");
  auto arguments = std::make_shared<InspectArguments>();
  command->add_option("path", arguments->path, "A run directory, its checkpoints folder, or one checkpoint's folder")
      ->required()
      ->type_name("PATH");
  command->add_flag("--json", arguments->json, "As JSON");
  command->callback([arguments, exit_status] { *exit_status = RunInspect(*arguments); });
}

}  // namespace descent
