// The training loop of one worker process: for the ranks it holds leases of, compute the gradient of each rank's batch,
// push, pull, evaluate when the job says so.
//
// Of its ranks the loop serves those with the lowest clock first, all of them on one read of the parameters. Under
// ROUND it sums the gradients of ranks that form an aligned subtree of the reduction tree and pushes one partial sum:
// the same bits, less traffic. A rank carries nothing from clock to clock, so that a lease can be lost at any point:
// what was not pushed completely is computed again by whoever gets the rank.
//
// With backup ranks each rank is pushed on its own. Where the round of a batch closes before the batch is pushed, it is
// dropped (or, with late: FINISH, computed and pushed all the same), and its rank goes on at the least clock that a
// server expects of it: one that still waits for the rank gets what it waits for, the others say that it is too late.
//
// Thread-safety: none; Run is called once, on one thread.
#ifndef DESCENT_WORKER_LOOP_TRAINER_H_
#define DESCENT_WORKER_LOOP_TRAINER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "common/base/time_source.h"
#include "common/job/job.h"
#include "common/job/optimizer_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "worker/client/parameter_client.h"
#include "worker/data/batch.h"
#include "worker/data/dataset.h"
#include "worker/loop/local_steps.h"
#include "worker/models/model.h"

namespace descent {

struct LeasedRank {
  Rank rank;
  Incarnation incarnation;
  bool operator==(const LeasedRank&) const = default;
};

// Sums over one rank's share of a data set, on the parameters of one clock.
struct RankEvaluation {
  Rank rank;
  Clock clock;
  BatchResult validation;
  BatchResult train;       // weight 0 where the objective was not asked for
  double regularizer = 0;  // lambda/2 ||w||^2, from rank 0 alone; NaN where tables have a part in it
  bool fuzzy = false;      // under PUSH others went on while it read
  bool classification = false;
  // Of the validation data, or without any of the training data; where the job asks for more than loss and accuracy.
  std::optional<v1::MetricState> metrics;
};

// What the loop asks of the coordinator's side. Thread-safe.
class TrainerControl {
 public:
  virtual ~TrainerControl() = default;
  virtual std::vector<LeasedRank> Leases() = 0;
  // OK: go on. CANCELLED: finish what is in hand and return. ABORTED: the generation is over, drop what is in hand and
  // return. Anything else: the job is over, this is why.
  virtual absl::Status State() = 0;
  // Returns when leases or state have changed, or at the deadline.
  virtual void WaitForChange(absl::Time deadline) = 0;
  // Whether this clock may begin; else returns when it may, when leases or state have changed, or at the deadline: what
  // an evaluation leads to is decided before the next clock (server/coordinator/steering.h).
  virtual bool AwaitBegin(Clock /*clock*/, absl::Time /*deadline*/) { return true; }
  // Returns at `until`, whatever changes.
  virtual void Pause(absl::Time until) = 0;
  // Where servers have changed hands within the generation since the loop was made: all addresses. Else empty.
  virtual std::vector<std::string> MovedServers() { return {}; }
  virtual void Completed(Rank rank, Clock clock, const BatchResult& batch) = 0;
  // With backup ranks: the rounds of the clocks from `clock` on and below `next` have closed without the rank.
  virtual void Skipped(Rank rank, Clock clock, Clock next) = 0;
  virtual void Evaluated(const RankEvaluation& evaluation) = 0;
  virtual void Done(Rank rank) = 0;  // all clocks, and the last evaluation
  virtual void Log(const std::string& line) = 0;
};

// Batches of (rank, clock), prepared ahead.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual void Request(Rank rank, Clock clock) = 0;
  virtual absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) = 0;
  virtual void Forget(Rank rank) = 0;
};

// For models that need no data: one weight-1 example without features.
class NoDataSource final : public BatchSource {
 public:
  NoDataSource();
  void Request(Rank, Clock) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank, Clock) override { return batch_; }
  void Forget(Rank) override {}

 private:
  std::shared_ptr<const Batch> batch_;
};

// A client and the transport under it; destroyed in this order.
struct Connection {
  std::unique_ptr<ClientTransport> transport;
  std::unique_ptr<ParameterClient> client;
};

struct TrainerOptions {
  Consistency consistency;
  Geometry geometry;
  uint32_t ranks = 1;
  uint64_t clocks = 0;          // the job's length
  uint64_t evaluate_every = 0;  // clocks; 0: at the end alone
  bool evaluate = false;
  bool objective = false;
  v1::Evaluation metrics;  // which, if any
  uint32_t evaluation_batch = 1024;
  Penalty penalty;             // of the objective
  bool rounded = false;        // gradients are rounded on the wire, each rank's by itself
  bool full_gradient = false;  // batches are whole shares, of dense tensors (worker/loop/long_batch.h)
  std::optional<LocalStepsOptions> local_steps;  // what is pushed is how far a copy went, of dense tensors
  bool averaged = false;                         // averages of the parameters are evaluated
  bool record_order = false;                     // PUSH: each push says what it was computed from
};

class Trainer {
 public:
  // `train` and `validation` are what evaluation reads; either may be null. All pointers outlive the trainer. `connect`
  // makes a connection to the servers as they are now.
  Trainer(TrainerOptions options, Model<float>* model, BatchSource* batches, const Dataset* train,
          const Dataset* validation, std::function<Connection()> connect, TrainerControl* control,
          const TimeSource* time);
  ~Trainer();

  // Returns when the control's state says so: OK after CANCELLED, else the state or the error that ended it. Servers
  // that cannot be reached or belong to another generation end nothing: the control's word on them is waited for.
  absl::Status Run();

  ClientStats client_stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_TRAINER_H_
