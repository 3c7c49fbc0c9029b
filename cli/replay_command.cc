// descent replay RUN_DIR: does a recorded run again and compares what comes out.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/replay.h"

namespace descent {
namespace {

int RunReplay(const ReplayOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const absl::StatusOr<ReplayOutcome> outcome = ReplayRun(options);
  if (!outcome.ok()) return Complain(outcome.status(), absl::IsDataLoss(outcome.status()) ? 1 : 2);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::fputs(outcome->note.c_str(), stdout);
  std::printf("%s: %llu gradients, %llu steps of blocks in %.1f s\n", outcome->cut.c_str(),
              static_cast<unsigned long long>(outcome->counts.gradients),
              static_cast<unsigned long long>(outcome->counts.steps), seconds.count());
  std::printf("recorded: parameters_sha256 %s\n          state_sha256      %s\n", outcome->recorded_sha256.c_str(),
              outcome->recorded_state_sha256.c_str());
  std::printf("replayed: parameters_sha256 %s\n          state_sha256      %s\n",
              outcome->replayed.parameters_sha256.c_str(), outcome->replayed.state_sha256.c_str());
  std::printf("%s\n", outcome->equal() ? "equal" : "DIFFERENT");
  return outcome->equal() ? 0 : 1;
}

}  // namespace

void AddReplayCommand(CLI::App* program, const std::string& user_cache, int* exit_status) {
  CLI::App* command = program->add_subcommand(
      "replay", "Do a run with record_order again, one step after another, and compare the parameters");
  auto options = std::make_shared<ReplayOptions>();
  options->user_cache = user_cache;
  command->add_option("run_dir", options->run_dir, "The run's directory")->required()->type_name("RUN_DIR");
  command->add_option("--data-root", options->data_root, "Where the job's data are, in the place of data.root")
      ->type_name("DIR");
  command->callback([options, exit_status] { *exit_status = RunReplay(*options); });
}

}  // namespace descent
