// descent: the command line. Every command is a file of its own.
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "worker/loop/user_cache.h"

namespace descent {

int Complain(const absl::Status& status, int exit_status) {
  std::fflush(stdout);
  std::fprintf(stderr, "descent: %s\n", std::string(status.message()).c_str());
  return exit_status;
}

namespace {

int Main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App program("Descent, a distributed parameter server: trains models by gradient descent on many processes");
  program.name("descent");
  program.require_subcommand(1);
  program.allow_config_extras(false);
  int exit_status = 0;
  AddRunCommand(&program, &exit_status);
  AddTuneCommand(&program, &exit_status);
  AddValidateCommand(&program, &exit_status);
  AddStatusCommand(&program, &exit_status);
  AddStopCommand(&program, &exit_status);
  AddHealthCommand(&program, &exit_status);
  AddPredictCommand(&program, &exit_status);
  AddExportCommand(&program, &exit_status);
  AddInspectCommand(&program, &exit_status);
  AddCurvatureCommand(&program, UserCacheDir(std::getenv), &exit_status);
  AddReplayCommand(&program, UserCacheDir(std::getenv), &exit_status);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : 2;
  }
  return exit_status;
}

}  // namespace
}  // namespace descent

int main(int argc, char** argv) { return descent::Main(argc, argv); }
