// What a command asks of a running cluster's coordinator. Thread-safe. Every call has a deadline: UNAVAILABLE or
// DEADLINE_EXCEEDED names the address.
#ifndef DESCENT_CLI_CLUSTER_CONTROL_H_
#define DESCENT_CLI_CLUSTER_CONTROL_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

class ClusterControl {
 public:
  virtual ~ClusterControl() = default;
  virtual absl::StatusOr<v1::StatusReply> Status() = 0;
  virtual absl::Status Stop(int signal, bool at_once) = 0;
  virtual absl::Status ReportFailure(const v1::FailureReport& report) = 0;
};

using ControlFactory = std::function<std::unique_ptr<ClusterControl>(const std::string& address)>;

// Over gRPC. `address`: host:port.
std::unique_ptr<ClusterControl> ConnectToCluster(const std::string& address);

}  // namespace descent

#endif  // DESCENT_CLI_CLUSTER_CONTROL_H_
