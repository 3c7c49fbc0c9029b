#include "cli/cluster_control.h"

#include <utility>

#include "common/control/control_client.h"

namespace descent {
namespace {

class ControlOfCluster : public ClusterControl {
 public:
  explicit ControlOfCluster(std::unique_ptr<ControlClient> client) : client_(std::move(client)) {}
  absl::StatusOr<v1::StatusReply> Status() override { return client_->Status(); }
  absl::Status Stop(int signal, bool at_once) override { return client_->Stop(signal, at_once); }
  absl::Status ReportFailure(const v1::FailureReport& report) override { return client_->ReportFailure(report); }

 private:
  const std::unique_ptr<ControlClient> client_;
};

}  // namespace

std::unique_ptr<ClusterControl> ConnectToCluster(const std::string& address) {
  ControlClientOptions options;
  options.address = address;
  return std::make_unique<ControlOfCluster>(ControlClient::Create(std::move(options)));
}

}  // namespace descent
