// A server's process in the simulated cluster: registers, beats, places blocks or restores them from a cut, writes its
// part of a cut on order, and answers workers with a real ServerNode; as server/process/server_member does with
// threads. It holds one seat, that of the server id it was given.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_SERVER_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_SERVER_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/checkpoint/part_file.h"
#include "server/node/cut_sink.h"
#include "server/node/server_node.h"
#include "tests/simulation/cluster_parts.h"

namespace descent::simulation {

// A connection of a worker to a server. Both ends hold it; it ends for both, though not at the same moment.
struct ClusterLine {
  uint64_t id = 0;
  ProcessId worker = 0, server = 0;
  uint64_t worker_life = 0;
  uint32_t server_id = 0;
  bool at_server = true, at_worker = true;           // open, for this end
  absl::flat_hash_set<uint64_t> seen, to_be_fenced;  // pushes delivered to the server; never iterated
};

class ClusterServer final : public ServerNode::Output {
 public:
  ClusterServer(Cluster* cluster, uint32_t index) : cluster_(cluster), index_(index) {}

  void Start(bool elsewhere);  // the process begins; perhaps at another address
  void Killed();               // what it was is gone
  bool exited() const { return exited_; }
  const std::string& address() const { return address_; }
  ProcessId process() const { return cluster_->server_process(index_); }
  // Null while it has no blocks.
  ServerNode* node() { return node_.get(); }
  Generation generation() const { return generation_; }

  // From workers.
  bool Accept(const std::shared_ptr<ClusterLine>& line);
  bool Has(uint64_t line) const { return lines_.contains(line); }
  void Close(uint64_t line);
  void OnRequest(const std::shared_ptr<ClusterLine>& line, Request request);

  void Send(ConnectionId to, Reply reply) override { out_.emplace_back(to, std::move(reply)); }
  void Fail(absl::Status cause) override { cluster_->truth.Wrong(absl::StrCat(name(), " failed: ", cause.message())); }
  void Scalars(Clock, std::vector<BlockSquare>) override {}

  void CountNode();

 private:
  // Takes the images of one cut and writes them, one in a while.
  class Part;

  std::string name() const { return absl::StrCat("server process ", index_); }
  void After(absl::Duration after, void (ClusterServer::*then)());
  void Register();
  void Beat();
  void TakeNews(const v1::HeartbeatReply& news);
  void TakeOrder(const v1::HeartbeatReply& news);
  void Place(const v1::HeartbeatReply& news);
  absl::Status MakeNode(const v1::HeartbeatReply& news);
  void Uninstall();
  void WritePart();
  void AfterNode();
  void End();

  Cluster* const cluster_;
  const uint32_t index_;
  uint32_t moves_ = 0;
  std::string address_;
  bool exited_ = false;

  // Of this life of the process.
  std::unique_ptr<ProcessStorage> storage_;
  uint64_t nonce_ = 0;
  v1::RegisterReply registration_;
  bool ready_ = false, placing_ = false;
  Generation generation_;  // of the node
  absl::Time heard_;
  std::shared_ptr<Part> part_;
  std::vector<TensorSpec> tensors_;

  // Of this node.
  std::unique_ptr<ServerNode> node_;
  std::map<uint64_t, std::shared_ptr<ClusterLine>> lines_;
  std::vector<std::pair<ConnectionId, Reply>> out_;
  absl::Time timer_ = absl::InfiniteFuture();
  std::vector<Incarnation> newest_;  // per rank, of those who pushed here
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_SERVER_H_
