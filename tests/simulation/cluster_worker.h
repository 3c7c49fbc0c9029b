// A worker's process in the simulated cluster: registers, beats, and runs the ranks it is leased with a real client, as
// worker/loop/control_link and the trainer do with threads. A new generation begins it anew.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_WORKER_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_WORKER_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/simulation/cluster_line.h"
#include "tests/simulation/cluster_parts.h"
#include "tests/simulation/simulated_worker.h"

namespace descent::simulation {

class ClusterWorker final : public SimulatedWorker::Host {
 public:
  ClusterWorker(Cluster* cluster, uint32_t index) : cluster_(cluster), index_(index) {}

  void Start();
  void Killed();
  bool exited() const { return exited_; }
  ProcessId process() const { return cluster_->worker_process(index_); }

  // From servers.
  void OnReply(const std::shared_ptr<ClusterLine>& line, const Reply& reply);
  void OnClosed(const std::shared_ptr<ClusterLine>& line);

  // --- SimulatedWorker::Host ---
  absl::Time now() const override { return cluster_->net.now(); }
  void Send(uint32_t worker, ServerId server, Request request) override;
  void Compute(uint32_t worker, Rank rank, Incarnation incarnation) override;
  void RankDone(Rank rank) override { Complete(rank, cluster_->job.clocks); }
  void RankStopped(Rank rank, uint64_t clock) override { Complete(rank, clock); }
  void PushRefused(Rank rank) override;
  void RankLost(Rank rank, Incarnation incarnation, const absl::Status& why) override;
  void RankLeftBehind() override { cluster_->truth.coverage.Add("ranks left behind"); }
  void Wrong(std::string what) override { cluster_->truth.Wrong(absl::StrCat(name(), ": ", what)); }

 private:
  std::string name() const { return absl::StrCat("worker process ", index_); }
  void After(absl::Duration after, std::function<void()> then);
  void Register();
  void Beat();
  void TakeNews(const v1::HeartbeatReply& news);
  void Enter(uint64_t generation);
  void Build(const v1::HeartbeatReply& news);
  void LetGo();
  void TakeLeases();
  void Complete(Rank rank, uint64_t clock);
  void Stop();
  void Connect(uint32_t server);
  void Disconnect();
  void AfterWorker();
  // The incarnation that pushes carry.
  Incarnation Used(Incarnation granted) const;

  Cluster* const cluster_;
  const uint32_t index_;
  bool exited_ = false;

  // Of this life of the process.
  uint64_t nonce_ = 0, member_ = 0;
  uint64_t era_ = 0;       // generation, as the coordinator says
  uint64_t moves_ = 0;     // of servers' addresses, within the generation
  bool beating_ = false;   // a call is under way
  bool zombie_ = false;    // and not yet registered again
  bool followed_ = false;  // a promotion, and not yet at work again
  absl::Time heard_;

  // Of this generation.
  std::unique_ptr<SimulatedWorker> core_;  // null: no generation runs that this worker knows of
  uint64_t build_ = 0;                     // counts them
  std::map<Rank, Incarnation> leases_;
  std::map<Rank, uint64_t> done_;  // and the clocks below which are complete
  bool stopping_ = false;
  std::vector<std::string> addresses_;
  std::vector<std::shared_ptr<ClusterLine>> lines_;  // by server id; null: none
  absl::Time wake_ = absl::InfiniteFuture();
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_WORKER_H_
