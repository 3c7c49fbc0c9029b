// The world of one simulation: its events in virtual time, the network, the processes and what befalls them.
//
//   simulation.cc          the loop, and what must hold in the end
//   simulation_network.cc  connections, messages, and the ends of both
//   simulation_faults.cc   deaths of workers and of all servers, connections that break, leases that move
#ifndef DESCENT_TESTS_SIMULATION_SIMULATION_WORLD_H_
#define DESCENT_TESTS_SIMULATION_SIMULATION_WORLD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/node/server_node.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/server_images.h"
#include "tests/simulation/simulated_worker.h"
#include "tests/simulation/simulation.h"

namespace descent::simulation {

inline const absl::Time kSimulationStart = absl::UnixEpoch() + absl::Hours(24);

class Simulation final : public SimulatedWorker::Host {
 public:
  explicit Simulation(const SimulationOptions& options)
      : options_(options),
        dice_(options.seed),
        job_(MakeJob(options.seed % kJobs)),
        schedule_(MakeSchedule(job_, dice_)),
        ledger_(job_) {
    envelope_.run = RunId(1);
    envelope_.generation = Generation(1);
    envelope_.map_epoch = 1;
    specs_ = job_.tensors();
    map_ = MakePartitionMap(specs_, job_.geometry(), schedule_.servers);
  }

  SimulationResult Run();

  // --- SimulatedWorker::Host ---
  absl::Time now() const override { return now_; }
  void Send(uint32_t worker, ServerId server, Request request) override;
  void Compute(uint32_t worker, Rank rank, Incarnation incarnation) override;
  void RankDone(Rank rank) override;
  void RankLost(Rank rank, Incarnation incarnation, const absl::Status& why) override;
  void Wrong(std::string what) override {
    if (error_.empty()) error_ = std::move(what);
  }

 private:
  enum class Kind : uint8_t {
    kRequest,
    kReply,
    kSent,
    kNodeTimer,
    kWake,
    kComputed,
    kOpen,
    kBreak,
    kKill,
    kStart,
    kMove,
    kLease,
    kFence,
    kTold,
    kCut,
    kDie
  };
  struct Event {
    absl::Time when;
    uint64_t sequence = 0;
    Kind kind = Kind::kWake;
    uint32_t worker = 0, server = 0;
    uint64_t life = 0;  // of the worker process
    ConnectionId connection;
    Rank rank;
    Incarnation incarnation;
    std::unique_ptr<Request> request;
    std::unique_ptr<Reply> reply;
    uint64_t sent_as = 0;  // number of the message in its direction of its connection
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
  };
  struct Line {
    uint32_t worker = 0, server = 0;
    bool alive = false;
    absl::Time last[2] = {absl::InfinitePast(), absl::InfinitePast()};  // latest delivery, per direction
    uint64_t sent[2] = {0, 0}, delivered[2] = {0, 0};
    absl::flat_hash_set<uint64_t> seen, to_be_fenced;  // pushes delivered to the server; never iterated
  };
  struct Process {
    uint64_t life = 0;
    std::unique_ptr<SimulatedWorker> worker;  // null: dead
    std::vector<uint64_t> line;               // per server; 0: none
    absl::Time wake = absl::InfiniteFuture();
  };
  struct Node final : ServerNode::Output {
    void Send(ConnectionId to, Reply reply) override { out.emplace_back(to, std::move(reply)); }
    void Fail(absl::Status cause) override { failure = std::move(cause); }
    void Scalars(Clock, std::vector<BlockSquare>) override {}
    std::unique_ptr<ServerNode> node;
    std::vector<std::pair<ConnectionId, Reply>> out;
    absl::Status failure;
    absl::Time timer = absl::InfiniteFuture();
    std::vector<Incarnation> newest;       // per rank, as it was told
    std::shared_ptr<ServerImages> images;  // of the cut
  };

  Event& Push(absl::Duration after, Kind kind);
  void Commit();
  // On from the images of the servers before, where there are any.
  bool MakeNodes(const std::vector<std::shared_ptr<ServerImages>>& images);
  void CutServer(uint32_t server);
  void DieIfAllAreCut();
  void Die();
  void CountNodes();
  void StopWorker(uint32_t worker);
  void StartWorker(uint32_t worker);
  void Close(uint64_t line);
  void Transmit(Line& line, int direction, Event event);
  void Handle(Event& event);
  void HandleFault(Event& event);
  void HandleRequest(Event& event);
  void AfterNode(uint32_t server);
  void AfterWorker(uint32_t worker);
  void Grant(Rank rank, uint32_t worker, absl::Duration after);
  bool Deliverable(const Event& event, int direction);
  void CheckEnd(SimulationResult* result);
  uint32_t AnyWorker() { return static_cast<uint32_t>(dice_.Below(schedule_.workers)); }

  const SimulationOptions options_;
  Dice dice_;
  const Job job_;
  const Schedule schedule_;
  Ledger ledger_;
  Envelope envelope_;
  std::vector<TensorSpec> specs_;
  PartitionMap map_;

  absl::Time now_ = kSimulationStart;
  std::vector<Event> events_;  // a heap
  Event next_;
  uint64_t sequence_ = 0;
  std::vector<Line> lines_{1};  // by connection id
  std::vector<Process> processes_;
  std::vector<std::unique_ptr<Node>> nodes_;
  struct Lease {
    uint32_t worker = 0;
    Incarnation incarnation;
    bool done = false;
  };
  std::vector<Lease> leases_;
  uint32_t done_ = 0;
  bool dies_ = false;  // an event is under way that ends all servers
  std::string error_;
  uint64_t trace_ = 0;
  uint64_t handled_ = 0;
  Coverage coverage_;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_SIMULATION_WORLD_H_
