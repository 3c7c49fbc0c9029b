// descent health ADDR: grpc.health.v1 of a server, for scripts and containers: exit status 0 when it serves, else 1.
#include <cstdio>
#include <memory>

#include "absl/time/time.h"
#include "cli/commands.h"
#include "cli/grpc_health.h"

namespace descent {
namespace {

struct HealthArguments {
  std::string address, service;
  double timeout_seconds = 5;
};

}  // namespace

void AddHealthCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("health", "Exit with 0 if a server serves, else with 1");
  auto arguments = std::make_shared<HealthArguments>();
  command->add_option("address", arguments->address, "A server, host:port")->required()->type_name("ADDR");
  command->add_option("--service", arguments->service, "Of one service; default: of the server")->type_name("NAME");
  command->add_option("--timeout", arguments->timeout_seconds, "Seconds to wait (default: 5)")->type_name("S");
  command->callback([arguments, exit_status] {
    const absl::Status healthy =
        CheckHealth(arguments->address, arguments->service, absl::Seconds(arguments->timeout_seconds));
    if (!healthy.ok()) {
      *exit_status = Complain(healthy, 1);
      return;
    }
    std::printf("serving\n");
  });
}

}  // namespace descent
