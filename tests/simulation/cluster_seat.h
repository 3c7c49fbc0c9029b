// What a server's process holds of one server in the simulated cluster: its blocks, as primary or as backup, and what
// goes on around them: what the same SeatState says is done here in virtual time, as server/process/seat and its
// parameter service do with threads. Without replicas a process has
// one, and its node is a plain one.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_SEAT_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_SEAT_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/node/server_node.h"
#include "server/process/insistence.h"
#include "server/process/scalar_telling.h"
#include "server/replica/backup_node.h"
#include "server/replica/primary_node.h"
#include "server/replica/seat_state.h"
#include "tests/simulation/cluster_line.h"
#include "tests/simulation/cluster_link.h"
#include "tests/simulation/cluster_part.h"
#include "tests/simulation/cluster_parts.h"

namespace descent::simulation {

class ClusterSeat final : public ServerNode::Output, public std::enable_shared_from_this<ClusterSeat> {
 public:
  // Serves at `address`; `own`: which is its process's. `storage`: the process's way to the disk, which outlives it.
  ClusterSeat(Cluster* cluster, ProcessId process, Storage* storage, ServerId server, std::string address, bool own)
      : cluster_(cluster),
        process_(process),
        storage_(storage),
        server_(server),
        address_(std::move(address)),
        own_(own),
        state_(server, cluster->schedule.replicas),
        telling_(cluster->telling_fault()) {}
  ~ClusterSeat() override { Uninstall(); }

  // --- The process's (seat.h of server/process)
  void Tend(const v1::HeartbeatReply& news, const v1::Seat& want);
  void Rest();
  void Carry(Generation generation);
  void Report(v1::HeartbeatRequest* beat);
  // In whose name norms are told (server/process/scalar_agent.h).
  void Speak(uint64_t member);
  bool ready() const { return state_.ready(); }
  bool ready(uint64_t generation) const { return state_.ready(generation); }
  bool writing() const { return part_ != nullptr; }
  bool own() const { return own_; }

  ProcessId process() const { return process_; }
  ServerId server() const { return server_; }
  const std::string& address() const { return address_; }
  bool primary() const { return state_.primary(); }
  bool joining() const { return ready() && !primary() && backup_node_ != nullptr && !backup_node_->whole(); }
  ServerNode* node() { return node_.get(); }  // null while it has no blocks
  Generation generation() const { return Generation(state_.generation()); }
  void CountNode();

  // --- From workers
  bool Accept(const std::shared_ptr<ClusterLine>& line);
  void Close(uint64_t line);
  void OnRequest(const std::shared_ptr<ClusterLine>& line, Request request);

  // --- From the link of its primary
  bool AcceptLink(uint64_t connection, std::weak_ptr<ClusterLink> link);
  void CloseLink(uint64_t connection);
  void OnReplica(uint64_t connection, Request request);
  // --- From its link to a backup
  void OnLinkUp(const std::weak_ptr<const ClusterLink>& link, uint64_t view);
  void OnConfirmed(const std::weak_ptr<const ClusterLink>& link, uint64_t view, const Reply& reply);
  void GoAlone(const std::weak_ptr<const ClusterLink>& link, uint64_t view);

  // --- ServerNode::Output
  void Send(ConnectionId to, Reply reply) override { out_.emplace_back(to, std::move(reply)); }
  void Fail(absl::Status cause) override { cluster_->truth.Wrong(absl::StrCat(name(), " failed: ", cause.message())); }
  void Scalars(Clock, std::vector<BlockSquare>) override {}
  void Measured(Clock clock, std::vector<BlockScalars> parts) override;

 private:
  std::string name() const;
  void After(absl::Duration after, void (ClusterSeat::*then)());
  void Place(const v1::HeartbeatReply& news, const v1::Seat& want);
  absl::Status MakeBlocks(const v1::HeartbeatReply& news, const v1::Seat& want);
  absl::Status Restore(const v1::RestorePoint& from, const PartitionMap& map);
  void Uninstall();
  void CloseAll();
  void Promote();
  void SetBackup(const v1::Seat& want);
  SeatState::NodeView NodeSays() const;
  // Whoever serves these blocks from now on holds what clients were told.
  void CheckTold(absl::string_view when);
  void TakeOrder(const v1::HeartbeatReply& news);
  void BeginCut();
  void WritePart();
  void Pump();
  void AfterNode();
  void TellNorms();
  void OnNorms(uint64_t epoch, Clock clock, const absl::StatusOr<v1::ScalarTotals>& totals);
  void SendToWorker(const std::shared_ptr<ClusterLine>& line, Reply reply);

  Cluster* const cluster_;
  const ProcessId process_;
  Storage* const storage_;
  const ServerId server_;
  const std::string address_;
  const bool own_;

  SeatState state_;
  bool fresh_ = false;     // its backup was made as the generation began
  uint64_t placing_ = 0;   // 0: no blocks are being made
  uint64_t placings_ = 0;  // counts them
  std::vector<TensorSpec> tensors_;
  PartitionMap map_;
  v1::CutOrder order_;  // of part_
  std::shared_ptr<ClusterPart> part_;
  bool cut_refused_ = false;  // so far

  ScalarTelling telling_;
  Insistence insistence_;
  std::pair<uint64_t, uint64_t> speaks_as_;  // member and generation
  bool asking_ = false;                      // what of telling_ comes next

  // Of this node.
  std::unique_ptr<ServerNode> node_;
  PrimaryNode* primary_node_ = nullptr;  // its two faces, with replicas
  BackupNode* backup_node_ = nullptr;
  std::map<uint64_t, std::shared_ptr<ClusterLine>> lines_;
  std::map<uint64_t, std::weak_ptr<ClusterLink>> links_;  // of primaries that pass on to this
  std::vector<std::pair<ConnectionId, Reply>> out_;
  absl::Time timer_ = absl::InfiniteFuture();
  bool pumping_ = false;
  uint64_t replicated_acks_ = 0;
  bool promoted_ = false;            // and has acknowledged nothing since
  std::vector<Incarnation> newest_;  // per rank, of those who pushed here
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_SEAT_H_
