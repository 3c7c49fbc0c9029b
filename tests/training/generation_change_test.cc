// A trainer is told in the middle that its generation is over, also while it waits for a server that answers nothing.
// It returns; one that is built for the new generation goes on with other servers, which begin again, and reaches the
// bits of a run that nothing has happened to.
#include <functional>
#include <memory>
#include <optional>
#include <string>
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
#include "worker/models/model_factory.h"

namespace descent {
namespace {

using testing::InProcessCluster;
using testing::LocalControl;

constexpr uint32_t kRanks = 4, kServers = 3;
constexpr uint64_t kClocks = 30;

// Fixed leases; at the `at`-th clock of a rank that is completed `f` is called. After End the generation is over, after
// Stop the run, and a server has moved.
class EndingControl final : public TrainerControl {
 public:
  EndingControl(std::vector<LeasedRank> leases, uint64_t at, std::function<void()> f)
      : leases_(std::move(leases)), at_(at), f_(std::move(f)) {}

  void End() {
    MutexLock lock(&mu_);
    over_ = true;
    changed_.SignalAll();
  }
  void Stop() {
    MutexLock lock(&mu_);
    stopped_ = true;
    changed_.SignalAll();
  }
  void AwaitCompleted() {
    Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return called_; });
  }
  // After a stop, and so many pauses, another server has moved.
  static constexpr int kPauses = 3;
  int pauses() {
    MutexLock lock(&mu_);
    return pauses_;
  }
  void AwaitLogged() {
    Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return logged_ > 0; });
  }

  std::vector<LeasedRank> Leases() override { return leases_; }
  absl::Status State() override {
    MutexLock lock(&mu_);
    if (stopped_) return absl::CancelledError("stop");
    return over_ ? absl::AbortedError("generation 1 is over") : absl::OkStatus();
  }
  void WaitForChange(absl::Time deadline) override {
    MutexLock lock(&mu_);
    while (!over_ && !stopped_ && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
  }
  std::vector<std::string> MovedServers() override {
    MutexLock lock(&mu_);
    if (!stopped_) return {};
    return {pauses_ < kPauses ? "another" : "a third"};
  }
  void Pause(absl::Time until) override {
    absl::SleepFor(until - absl::Now());
    MutexLock lock(&mu_);
    ++pauses_;
  }
  void Skipped(Rank, Clock, Clock) override {}
  void Completed(Rank, Clock, const BatchResult&) override {
    bool call;
    {
      MutexLock lock(&mu_);
      call = ++completed_ == at_;
    }
    if (!call) return;
    f_();
    MutexLock lock(&mu_);
    called_ = true;
    changed_.SignalAll();
  }
  void Evaluated(const RankEvaluation&) override {}
  void Done(Rank) override { ADD_FAILURE() << "the generation ends before the job"; }
  void Log(const std::string&) override {
    MutexLock lock(&mu_);
    ++logged_;
    changed_.SignalAll();
  }

 private:
  template <typename F>
  void Await(F&& f) {
    MutexLock lock(&mu_);
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (!f() && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
    EXPECT_TRUE(f()) << "nothing happened";
  }

  const std::vector<LeasedRank> leases_;
  const uint64_t at_;
  const std::function<void()> f_;
  Mutex mu_;
  CondVar changed_;
  uint64_t completed_ ABSL_GUARDED_BY(mu_) = 0;
  bool called_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t logged_ ABSL_GUARDED_BY(mu_) = 0;
  int pauses_ ABSL_GUARDED_BY(mu_) = 0;
  bool over_ ABSL_GUARDED_BY(mu_) = false, stopped_ ABSL_GUARDED_BY(mu_) = false;
};

// One worker of all ranks, whose model and batches stay over the generations.
class GenerationChange : public ::testing::Test {
 protected:
  GenerationChange() {
    v1::ModelSpec spec;
    spec.mutable_quadratic()->set_dim(40);
    auto made = MakeModel<float>(spec, {0, false, {}, {}, 0, {}}, {});
    EXPECT_TRUE(made.ok()) << made.status();
    model_ = *std::move(made);
    map_ = MakePartitionMap(model_->tensors(), geometry_, kServers);
  }

  std::unique_ptr<InProcessCluster> Servers(uint64_t generation) {
    std::vector<ServerNodeOptions> nodes(kServers);
    v1::Optimizer rule;
    rule.mutable_momentum()->set_momentum(0.9);
    for (uint32_t s = 0; s < kServers; ++s) {
      nodes[s].envelope.generation = Generation(generation);
      StoreOptions& store = nodes[s].store;
      store.tensors = model_->tensors();
      store.geometry = geometry_;
      store.map = map_;
      store.self = ServerId(s);
      store.seed = 5;
      store.ranks = kRanks;
      store.rule = *UpdateRule::Make(rule);
      store.rate = [](Clock) { return 0.01f; };
    }
    auto cluster = InProcessCluster::Create(std::move(nodes));
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    return *std::move(cluster);
  }

  std::vector<LeasedRank> Leases(uint64_t generation) const {
    std::vector<LeasedRank> leases;
    for (uint32_t r = 0; r < kRanks; ++r) leases.push_back({Rank(r), {Generation(generation), 1}});
    return leases;
  }

  Connection Connect(InProcessCluster* servers, uint64_t generation) {
    ClientOptions client;
    client.envelope.generation = Generation(generation);
    client.tensors = model_->tensors();
    client.geometry = geometry_;
    client.map = map_;
    Connection connection;
    connection.transport = servers->NewTransport();
    connection.client = ParameterClient::Create(client, connection.transport.get(), &time_);
    return connection;
  }

  absl::Status Train(InProcessCluster* servers, uint64_t generation, TrainerControl* control) {
    return Train(control, [=, this] { return Connect(servers, generation); });
  }
  absl::Status Train(TrainerControl* control, std::function<Connection()> connect) {
    TrainerOptions options;
    options.geometry = geometry_;
    options.ranks = kRanks;
    options.clocks = kClocks;
    Trainer trainer(options, model_.get(), &batches_, nullptr, nullptr, std::move(connect), control, &time_);
    return trainer.Run();
  }

  std::vector<float> TrainToTheEnd(InProcessCluster* servers, uint64_t generation) {
    LocalControl control(Leases(generation));
    EXPECT_TRUE(Train(servers, generation, &control).ok());
    AlignedFloats values;
    values.Resize(40);
    PullSpec pull;
    pull.clock = Clock(kClocks);
    pull.dense = {values.data()};
    Connection connection = Connect(servers, generation);
    EXPECT_TRUE(
        connection.client->Wait(connection.client->Exchange(std::nullopt, pull), absl::Now() + absl::Seconds(60)).ok());
    return {values.data(), values.data() + values.size()};
  }

  std::vector<float> Undisturbed() { return TrainToTheEnd(Servers(1).get(), 1); }

  const RealTimeSource time_;
  const Geometry geometry_{8, 1};
  std::unique_ptr<Model<float>> model_;
  NoDataSource batches_;
  PartitionMap map_;
};

TEST_F(GenerationChange, ATrainerBlockedInAPullReturnsAndTheNextOneReachesTheSameBits) {
  const std::vector<float> expected = Undisturbed();
  auto old_servers = Servers(1);
  // From the middle of the run on, one server answers nothing, as if its host were dead: no clock can be completed.
  EndingControl control(Leases(1), 11 * kRanks, [&] { old_servers->Pause(ServerId(1), true); });
  absl::Status status;
  std::thread worker([&] { status = Train(old_servers.get(), 1, &control); });
  control.AwaitCompleted();
  control.End();
  worker.join();
  EXPECT_TRUE(absl::IsAborted(status)) << status;

  auto new_servers = Servers(2);
  EXPECT_EQ(TrainToTheEnd(new_servers.get(), 2), expected);
}

TEST_F(GenerationChange, WhatIsOnItsWayWhenTheRunStopsGoesToWhoServesNow) {
  auto servers = Servers(1);
  EndingControl control(Leases(1), 11 * kRanks, [&] { servers->Pause(ServerId(1), true); });
  auto unaware = Servers(2);
  absl::Status status;
  int connections = 0;
  std::thread worker([&] {
    status = Train(&control, [&] {
      // Who is to serve now does not know that yet, and refuses; then somebody else does.
      if (++connections == 2) return Connect(unaware.get(), 1);
      if (connections == 3) servers->Pause(ServerId(1), false);
      return Connect(servers.get(), 1);
    });
  });
  const auto round = [&](uint32_t server) {
    uint64_t round = 0;
    servers->OnNode(ServerId(server), [&](ServerNode& node) { round = node.stats().round; });
    return round;
  };
  control.AwaitCompleted();
  for (const absl::Time deadline = absl::Now() + absl::Seconds(60); round(0) < 12;) ASSERT_LT(absl::Now(), deadline);
  control.Stop();
  worker.join();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(connections, 3);
  EXPECT_EQ(control.pauses(), EndingControl::kPauses);
  for (uint32_t server = 0; server < kServers; ++server) EXPECT_EQ(round(server), 12u);
}

TEST_F(GenerationChange, ServersThatKnowOfTheNewGenerationFirstEndNothingAndTakeNothing) {
  const std::vector<float> expected = Undisturbed();
  auto new_servers = Servers(2);
  EndingControl control(Leases(1), 1, [] { ADD_FAILURE() << "a push of the old generation was taken"; });
  absl::Status status;
  std::thread worker([&] { status = Train(new_servers.get(), 1, &control); });
  control.AwaitLogged();  // it was refused, and tries again
  control.End();
  worker.join();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_EQ(TrainToTheEnd(new_servers.get(), 2), expected);
}

}  // namespace
}  // namespace descent
