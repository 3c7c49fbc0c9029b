// A worker process in the simulator: the client's real core and plans, and for each rank it leases the loop that a
// worker runs: ask for the expected clock, pull, compute for a while, push and pull the next, until the last clock. It
// does not know of lease moves until somebody tells it, so that it may be a zombie. A pipelined one goes on with up to
// two pushes not yet acknowledged.
#ifndef DESCENT_TESTS_SIMULATION_SIMULATED_WORKER_H_
#define DESCENT_TESTS_SIMULATION_SIMULATED_WORKER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/scenario.h"
#include "worker/client/client_session.h"

namespace descent::simulation {

class SimulatedWorker {
 public:
  class Host {
   public:
    virtual ~Host() = default;
    virtual absl::Time now() const = 0;
    virtual void Send(uint32_t worker, ServerId server, Request request) = 0;
    // Calls Computed later.
    virtual void Compute(uint32_t worker, Rank rank, Incarnation incarnation) = 0;
    virtual void RankDone(Rank rank) = 0;
    // The rank's request ended badly; the worker has dropped the rank.
    virtual void RankLost(Rank rank, Incarnation incarnation, const absl::Status& why) = 0;
    // After Stop: nothing of the rank is under way any more; the clocks below are complete, as far as is known.
    virtual void RankStopped(Rank rank, uint64_t clock) {}
    // After Stop: a push was refused. Calls PushAgain later.
    virtual void PushRefused(Rank rank) {}
    // With backup ranks: a round has closed without the rank, which goes on where the servers expect it.
    virtual void RankLeftBehind() {}
    virtual void Wrong(std::string what) = 0;  // a check has failed
  };

  SimulatedWorker(uint32_t index, const Job& job, ClientOptions options, ClientFaults faults, bool pipelined,
                  Ledger* ledger, Host* host);

  void Lease(Rank rank, Incarnation incarnation);
  void Drop(Rank rank, Incarnation incarnation);  // told that the lease is over
  void Computed(Rank rank, Incarnation incarnation);

  // The run is stopped. What is on its way is to arrive on every server or on none (worker/loop/trainer.cc): it is sent
  // again, without the pull that rides with it, since that may wait for ranks that have stopped.
  void Stop();
  void PushAgain(Rank rank);
  // For a worker that goes on with it at other servers, and Resumes it.
  struct Unfinished;
  std::map<Rank, Unfinished> TakeUnfinished();
  void Resume(std::map<Rank, Unfinished> unfinished);

  void OnOpen(ServerId server);
  void OnClosed(ServerId server) { session_.OnClosed(server); }
  void OnReply(ServerId server, const Reply& reply);
  void OnTimer();
  absl::Time next_timer() const { return session_.core().next_timer(); }
  const ClientCore& core() const { return session_.core(); }
  bool idle() const { return runs_.empty(); }
  bool holds(Rank rank) const { return runs_.contains(rank); }
  // Clocks of the rank that are complete, as far as this worker knows; 0: it does not hold it, or knows nothing yet.
  uint64_t completed(Rank rank) const;

 private:
  enum class Stage { kAsking, kReading, kComputing, kDraining };
  struct Sums {
    PushSpec push;  // of the vectors
    std::vector<float> ledger, values, rows;
  };
  using Pushes = std::vector<std::unique_ptr<Sums>>;  // of one rank, in the order of their clocks
  struct Run {
    Incarnation incarnation;
    Stage stage = Stage::kAsking;
    uint64_t clock = 0;                       // the next to be computed
    Ticket ticket = 0;                        // what the stage waits for
    std::vector<float> ledger, values, rows;  // read
    std::vector<uint64_t> pull_keys;
    std::map<Ticket, std::unique_ptr<Sums>> pushes;  // not yet complete
  };

  void Deliver(ClientSession::Output out);
  void Finished(Ticket ticket);
  void Advance(Rank rank);
  PullSpec Pull(Rank rank, Run& run, uint64_t clock);
  void Push(Rank rank, const Run& run, Sums& sums);
  void CheckRead(Rank rank, const Run& run);

  void SendAgain(Rank rank, Pushes pushes);
  void Drained(Rank rank);

  const uint32_t index_;
  const Job job_;
  const bool pipelined_;
  Ledger* const ledger_;
  Host* const host_;
  ClientSession session_;
  std::map<Rank, Run> runs_;
  bool stopping_ = false;
};

struct SimulatedWorker::Unfinished {
  Incarnation incarnation;
  uint64_t clock = 0;
  Pushes pushes;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_SIMULATED_WORKER_H_
