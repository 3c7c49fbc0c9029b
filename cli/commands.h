// The subcommands of `descent`, one file each. Each adds itself to the program and, when chosen, leaves its exit
// status: 0 done, 1 failed, 2 usage or job file, 128 + signal stopped.
#ifndef DESCENT_CLI_COMMANDS_H_
#define DESCENT_CLI_COMMANDS_H_

#include <string>

#include "CLI/App.hpp"
#include "absl/status/status.h"

namespace descent {

void AddRunCommand(CLI::App* program, int* exit_status);
void AddTuneCommand(CLI::App* program, int* exit_status);
void AddValidateCommand(CLI::App* program, int* exit_status);
void AddStatusCommand(CLI::App* program, int* exit_status);
void AddStopCommand(CLI::App* program, int* exit_status);
void AddHealthCommand(CLI::App* program, int* exit_status);
void AddPredictCommand(CLI::App* program, int* exit_status);
void AddExportCommand(CLI::App* program, int* exit_status);
void AddInspectCommand(CLI::App* program, int* exit_status);
void AddCurvatureCommand(CLI::App* program, const std::string& user_cache, int* exit_status);
void AddReplayCommand(CLI::App* program, const std::string& user_cache, int* exit_status);

// "descent: <message>" on standard error; returns `exit_status`.
int Complain(const absl::Status& status, int exit_status);

}  // namespace descent

#endif  // DESCENT_CLI_COMMANDS_H_
