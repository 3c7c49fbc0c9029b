// descent status ADDR: what the coordinator at an address says of its cluster.
#include <cstdio>
#include <memory>

#include "cli/cluster_control.h"
#include "cli/commands.h"
#include "cli/status_text.h"
#include "google/protobuf/util/json_util.h"

namespace descent {
namespace {

struct StatusArguments {
  std::string address;
  bool json = false;
};

int RunStatus(const StatusArguments& arguments) {
  const auto status = ConnectToCluster(arguments.address)->Status();
  if (!status.ok()) return Complain(status.status(), 1);
  if (!arguments.json) {
    std::fputs(StatusReport(*status).c_str(), stdout);
    return 0;
  }
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(*status, &text, options);
  if (!printed.ok()) return Complain(absl::InternalError(printed.ToString()), 1);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

void AddStatusCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("status", "Show the state of a running cluster");
  auto arguments = std::make_shared<StatusArguments>();
  command->add_option("address", arguments->address, "The coordinator, host:port")->required()->type_name("ADDR");
  command->add_flag("--json", arguments->json, "As JSON: a StatusReply");
  command->callback([arguments, exit_status] { *exit_status = RunStatus(*arguments); });
}

}  // namespace descent
