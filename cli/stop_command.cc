// descent stop ADDR: asks a cluster to save its model and stop.
#include <csignal>
#include <cstdio>
#include <memory>

#include "cli/cluster_control.h"
#include "cli/commands.h"

namespace descent {
namespace {

struct StopArguments {
  std::string address;
  bool at_once = false;
};

}  // namespace

void AddStopCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("stop", "Ask a running cluster to save its model and stop");
  auto arguments = std::make_shared<StopArguments>();
  command->add_option("address", arguments->address, "The coordinator, host:port")->required()->type_name("ADDR");
  command->add_flag("--now", arguments->at_once, "Without saving");
  command->callback([arguments, exit_status] {
    const absl::Status stopped = ConnectToCluster(arguments->address)->Stop(SIGTERM, arguments->at_once);
    if (!stopped.ok()) {
      *exit_status = Complain(stopped, 1);
      return;
    }
    std::printf("%s is stopping\n", arguments->address.c_str());
  });
}

}  // namespace descent
