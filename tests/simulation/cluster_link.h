// The way from a primary to its backup in the simulated cluster: a connection that keeps order and delays, breaks where
// a message is lost, and comes again; as server/replica/replica_link is over gRPC.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_LINK_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_LINK_H_

#include <functional>
#include <memory>
#include <string>

#include "server/replica/primary_node.h"
#include "tests/simulation/cluster_parts.h"

namespace descent::simulation {

class ClusterSeat;

class ClusterLink final : public BackupLink, public std::enable_shared_from_this<ClusterLink> {
 public:
  // Begins to connect. `home`: the primary's process. `address`: the backup's.
  static std::shared_ptr<ClusterLink> Make(Cluster* cluster, ProcessId home, std::weak_ptr<ClusterSeat> primary,
                                           std::string address, uint64_t view);
  ~ClusterLink() override;

  void Send(Request request) override;

  // From the backup's end of a connection.
  void Answer(uint64_t connection, Reply reply);
  void Ended(uint64_t connection);

 private:
  ClusterLink(Cluster* cluster, ProcessId home, std::weak_ptr<ClusterSeat> primary, std::string address, uint64_t view)
      : cluster_(cluster), home_(home), primary_(std::move(primary)), address_(std::move(address)), view_(view) {}

  void Connect(absl::Duration after);
  void TryToConnect();
  // Carries a message on; false: the connection has broken.
  bool Transmit(ProcessId from, ProcessId to, absl::Time* last, std::function<void()> arrive);
  void Break();
  void Down();
  bool Split() const { return cluster_->net.cut(home_, there_) || cluster_->net.cut(there_, home_); }

  Cluster* const cluster_;
  const ProcessId home_;
  const std::weak_ptr<ClusterSeat> primary_;
  const std::string address_;
  const uint64_t view_;
  uint64_t connection_ = 0;  // 0: none
  bool broken_ = false;      // before
  ProcessId there_ = 0;
  std::weak_ptr<ClusterSeat> backup_;
  absl::Time sent_, answered_;  // when what was last sent, or answered, arrives
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_LINK_H_
