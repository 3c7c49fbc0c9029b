// Backup ranks with real trainers and clients, over a network that delays, repeats and loses messages: rank r's
// gradient adds exactly 1 to element r of every block, so that what the servers hold at the end tells which ranks took
// part in how many rounds. Rank 0 never ends a batch in time, but where every rank is needed; with ABANDON it drops it,
// with FINISH it pushes it too late.
#include <algorithm>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/time_source.h"
#include "descent/v1/job.pb.h"
#include "gtest/gtest.h"
#include "tests/support/in_process_transport.h"
#include "tests/training/local_control.h"
#include "worker/loop/trainer.h"

namespace descent {
namespace {

using testing::InProcessCluster;
using testing::LocalControl;
using testing::NetworkFaults;

constexpr uint32_t kRanks = 4;
constexpr uint32_t kBlocks = 6;  // of kRanks elements
constexpr uint64_t kClocks = 40;

struct Case {
  uint32_t servers = 1;
  uint32_t workers = kRanks;
  uint32_t backup = 1;
  uint64_t evaluate_every = 10;
  bool finish = false;
  bool slow = true;
  bool table = false;
  NetworkFaults faults;
};

// The clock that any other rank has begun, last; rank 0 waits on it.
class Pace {
 public:
  void Begin(uint64_t clock) {
    MutexLock lock(&mu_);
    clock_ = std::max(clock_, clock);
    changed_.SignalAll();
  }
  void Await(uint64_t clock) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    MutexLock lock(&mu_);
    while (clock_ < clock && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
    EXPECT_GE(clock_, clock);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  uint64_t clock_ ABSL_GUARDED_BY(mu_) = 0;
};

// Wakes whoever waits for something that a worker learns from its servers.
class Arrivals {
 public:
  void Tell() {
    MutexLock lock(&mu_);
    changed_.SignalAll();
  }
  // Asks for the state again whenever something has come.
  void Await(const std::function<bool()>& state) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    MutexLock lock(&mu_);
    while (!state() && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
  }

 private:
  Mutex mu_;
  CondVar changed_;
};

// A worker's transport, which tells of all that comes once the client has taken it in.
class TellingTransport final : public ClientTransport, private ClientTransport::Handler {
 public:
  using Handler = ClientTransport::Handler;
  TellingTransport(std::unique_ptr<ClientTransport> inner, Arrivals* arrivals)
      : inner_(std::move(inner)), arrivals_(arrivals) {}
  void Start(Handler* handler) override {
    handler_ = handler;
    inner_->Start(this);
  }
  void Send(ServerId server, Request request) override { inner_->Send(server, std::move(request)); }
  void WakeAt(absl::Time when) override { inner_->WakeAt(when); }
  void Stop() override { inner_->Stop(); }

 private:
  void OnOpen(ServerId server) override { handler_->OnOpen(server); }
  void OnReply(ServerId server, Reply reply) override {
    handler_->OnReply(server, std::move(reply));
    arrivals_->Tell();
  }
  void OnClosed(ServerId server, absl::Status why) override { handler_->OnClosed(server, std::move(why)); }
  void OnWake(absl::Time now) override { handler_->OnWake(now); }

  const std::unique_ptr<ClientTransport> inner_;
  Arrivals* const arrivals_;
  Handler* handler_ = nullptr;
};

// A row whose label is its rank; its weight is 1. The key of its row of the table, if there is one, is its rank too.
class Source final : public BatchSource {
 public:
  explicit Source(bool table) : table_(table) {}
  void Request(Rank, Clock) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    auto batch = std::make_shared<Batch>();
    batch->rows = 1;
    batch->label = {static_cast<float>(rank.value), static_cast<float>(clock.value)};
    if (table_) batch->keys = {rank.value};
    return batch;
  }
  void Forget(Rank) override {}

 private:
  const bool table_;
};

class Adder final : public Model<float> {
 public:
  Adder(const Case& c, Pace* pace, Arrivals* arrivals) : case_(c), pace_(pace), arrivals_(arrivals) {
    TensorSpec spec;
    spec.name = "ledger";
    spec.shape = {kBlocks * kRanks};
    tensors_ = {spec};
    if (!c.table) return;
    spec.name = "table";
    spec.shape = {1};
    spec.sparse = true;
    tensors_.push_back(spec);
  }
  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }
  BatchResult Gradient(const Batch& batch, absl::Span<const float* const>, absl::Span<float* const> gradient) override {
    const auto rank = static_cast<uint32_t>(batch.label[0]);
    const auto clock = static_cast<uint64_t>(batch.label[1]);
    if (rank != 0) {
      pace_->Begin(clock);
    } else if (case_.slow && !Needed(clock) && case_.finish) {
      uint64_t until = clock + 1;
      while (until < clock + 3 && until + 1 < kClocks && !Needed(until)) ++until;
      pace_->Await(until);
    } else if (case_.slow && !Needed(clock)) {
      arrivals_->Await([this] { return Unwanted(); });
      EXPECT_TRUE(Unwanted()) << "clock " << clock;
    }
    for (uint32_t i = 0; i < kBlocks * kRanks; ++i) gradient[0][i] = i % kRanks == rank ? -1 : 0;
    if (case_.table) gradient[1][0] = -1;
    return {.loss = 1, .weight = 1};
  }
  BatchResult Evaluate(const Batch&, absl::Span<const float* const>) override { return {.loss = 1, .weight = 1}; }
  void Predict(const Batch&, absl::Span<const float* const>, std::vector<float>*) override {}

 private:
  bool Needed(uint64_t clock) const {
    // Of the last clock nobody begins the next: it is pushed in time, or not.
    return (case_.evaluate_every > 0 && clock > 0 && clock % case_.evaluate_every == 0) || clock + 1 == kClocks;
  }
  const Case case_;
  Pace* const pace_;
  Arrivals* const arrivals_;
  std::vector<TensorSpec> tensors_;
};

struct Found {
  std::vector<std::vector<float>> blocks;  // [block][rank]
  std::vector<uint64_t> completed, skipped;
  std::vector<uint64_t> evaluations;
};

Found Train(const Case& c) {
  Pace pace;
  const std::vector<TensorSpec> tensors = Adder(c, &pace, nullptr).tensors();
  const Geometry geometry{kRanks, 4};
  const PartitionMap map = MakePartitionMap(tensors, geometry, c.servers);
  std::vector<ServerNodeOptions> nodes(c.servers);
  for (uint32_t s = 0; s < c.servers; ++s) {
    nodes[s].store.tensors = tensors;
    nodes[s].store.geometry = geometry;
    nodes[s].store.map = map;
    nodes[s].store.self = ServerId(s);
    nodes[s].store.ranks = kRanks;
    nodes[s].store.rule = std::move(UpdateRule::Make(v1::Optimizer()).value());
    nodes[s].store.rate = [](Clock) { return 1.0f; };
    nodes[s].store.reduce_sum = true;
    nodes[s].backup_ranks = c.backup;
    nodes[s].full_every = c.evaluate_every;
  }
  auto cluster = InProcessCluster::Create(nodes, c.faults);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const RealTimeSource time;
  ClientOptions client;
  client.tensors = tensors;
  client.geometry = geometry;
  client.map = map;
  client.resend_after = absl::Milliseconds(50);
  client.backup_ranks = true;
  Found found;
  found.completed.resize(kRanks);
  found.skipped.resize(kRanks);
  found.evaluations.resize(kRanks);
  std::vector<std::thread> threads;
  for (uint32_t w = 0; w < c.workers; ++w) {
    threads.emplace_back([&, w] {
      std::vector<LeasedRank> leases;
      for (uint32_t r = w * kRanks / c.workers; r < (w + 1) * kRanks / c.workers; ++r) {
        leases.push_back({Rank(r), {Generation(0), 1}});
      }
      LocalControl control(leases);
      Source source(c.table);
      Arrivals arrivals;
      Adder model(c, &pace, &arrivals);
      TrainerOptions options;
      options.consistency.backup_ranks = c.backup;
      options.consistency.finish_late = c.finish;
      options.geometry = geometry;
      options.ranks = kRanks;
      options.clocks = kClocks;
      options.evaluate = true;
      options.evaluate_every = c.evaluate_every;
      const auto connect = [&] {
        Connection connection;
        connection.transport = std::make_unique<TellingTransport>((*cluster)->NewTransport(), &arrivals);
        connection.client = ParameterClient::Create(client, connection.transport.get(), &time);
        return connection;
      };
      Trainer trainer(options, &model, &source, nullptr, nullptr, connect, &control, &time);
      const absl::Status status = trainer.Run();
      EXPECT_TRUE(status.ok()) << status;
      for (const LeasedRank& lease : leases) {
        const uint32_t r = lease.rank.value;
        found.completed[r] = control.completed(lease.rank);
        found.skipped[r] = control.skipped(lease.rank);
      }
      for (const RankEvaluation& evaluation : control.evaluations()) ++found.evaluations[evaluation.rank.value];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE((*cluster)->failure().ok()) << (*cluster)->failure();
  for (uint32_t b = 0; b < kBlocks; ++b) {
    const BlockId id{TensorId(0), b};
    (*cluster)->OnNode(map.server(id), [&](ServerNode& node) {
      EXPECT_EQ(node.store().version(id), kClocks);
      std::vector<float>& values = found.blocks.emplace_back(kRanks);
      node.store().Read(id, std::nullopt).value().CopyTo(values.data());
    });
  }
  return found;
}

// Rounds take ranks - b contributions, or all: nothing is lost, nothing doubled, and whoever was told that its
// contribution counts is right.
void Check(const Case& c, const Found& found) {
  const uint64_t full = c.evaluate_every > 0 ? (kClocks - 1) / c.evaluate_every : 0;
  const uint64_t expected = (kClocks - full) * (kRanks - c.backup) + full * kRanks;
  for (const std::vector<float>& block : found.blocks) {
    float sum = 0;
    for (uint32_t r = 0; r < kRanks; ++r) {
      sum += block[r];
      if (c.servers == 1) {
        EXPECT_EQ(block[r], found.completed[r]) << "rank " << r;
      }
      EXPECT_LE(block[r], found.completed[r]) << "rank " << r;
    }
    EXPECT_EQ(sum, expected);
  }
  for (uint32_t r = 0; r < kRanks; ++r) {
    // Rounds that were over when its worker began are in neither.
    EXPECT_LE(found.completed[r] + found.skipped[r], kClocks) << "rank " << r;
    EXPECT_EQ(found.evaluations[r], full + 1) << "rank " << r;
  }
}

TEST(BackupRanks, ASlowRankDropsItsBatchWhenItsRoundHasClosed) {
  Case c;
  const Found found = Train(c);
  Check(c, found);
  // It takes part where it is needed: the evaluated rounds, and perhaps the last one.
  EXPECT_GE(found.completed[0], 3u);
  EXPECT_LE(found.completed[0], 4u);
}

TEST(BackupRanks, ASlowRankThatFinishesIsTooLateAndJumps) {
  Case c;
  c.finish = true;
  const Found found = Train(c);
  Check(c, found);
  EXPECT_GE(found.skipped[0], 20u);
}

TEST(BackupRanks, OnSeveralServersOverABadNetwork) {
  for (const bool finish : {false, true}) {
    for (const bool table : {false, true}) {
      Case c;
      c.servers = 3;
      c.finish = finish;
      c.table = table;
      c.faults.drop = 0.01;
      c.faults.duplicate = 0.05;
      c.faults.max_delay = absl::Microseconds(300);
      c.faults.seed += finish + 2 * table;
      Check(c, Train(c));
    }
  }
}

TEST(BackupRanks, WorkersOfSeveralRanks) {
  for (const uint32_t backup : {1, 2}) {
    for (const uint32_t workers : {1, 2, 3}) {
      Case c;
      c.servers = 2;
      c.workers = workers;
      c.backup = backup;
      c.slow = false;
      c.evaluate_every = workers == 3 ? 0 : 7;
      c.faults.max_delay = absl::Microseconds(200);
      Check(c, Train(c));
    }
  }
}

}  // namespace
}  // namespace descent
