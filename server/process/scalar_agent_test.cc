#include "server/process/scalar_agent.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/node/node_harness.h"

namespace descent {
namespace {

using H = NodeHarness;

// Answers AgreeScalars as the test says, once it says so.
class ScriptedControl final : public ControlClient {
 public:
  absl::StatusOr<v1::ScalarTotals> AgreeScalars(const v1::ScalarPartials& partials) override {
    MutexLock lock(&mu_);
    asked_.push_back(partials);
    changed_.SignalAll();
    while (answers_.empty()) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
    auto answer = std::move(answers_.front());
    answers_.erase(answers_.begin());
    return answer;
  }
  void Answer(absl::StatusOr<v1::ScalarTotals> totals) {
    MutexLock lock(&mu_);
    answers_.push_back(std::move(totals));
    changed_.SignalAll();
  }
  v1::ScalarPartials WaitAsked(size_t count) {
    MutexLock lock(&mu_);
    while (asked_.size() < count) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
    return asked_[count - 1];
  }

  absl::StatusOr<v1::GetJobReply> WaitForJob(absl::Duration) override { return No(); }
  absl::StatusOr<v1::GetJobReply> GetJob() override { return No(); }
  absl::StatusOr<v1::RegisterReply> RegisterServer(v1::RegisterServerRequest) override { return No(); }
  absl::StatusOr<v1::RegisterReply> RegisterWorker(v1::RegisterWorkerRequest) override { return No(); }
  void ForgetRegistration() override {}
  absl::StatusOr<v1::HeartbeatReply> Heartbeat(const v1::HeartbeatRequest&) override { return No(); }
  absl::StatusOr<v1::ShareStatisticsReply> ShareStatistics(const v1::ShareStatisticsRequest&) override { return No(); }
  absl::Status Leave(uint64_t, const std::string&) override { return No(); }
  absl::StatusOr<v1::StatusReply> Status() override { return No(); }
  absl::Status Stop(int, bool) override { return No(); }
  absl::Status ReportFailure(const v1::FailureReport&) override { return No(); }
  void Cancel() override {}

 private:
  static absl::Status No() { return absl::UnimplementedError("not in this test"); }
  Mutex mu_;
  CondVar changed_;
  std::vector<v1::ScalarPartials> asked_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::StatusOr<v1::ScalarTotals>> answers_ ABSL_GUARDED_BY(mu_);
};

// Keeps what is posted for the test's thread, which owns the node.
class KeptTasks final : public ParameterService {
 public:
  ServerNode::Output* output() override { return nullptr; }
  void Install(ServerNodeOptions, std::unique_ptr<ServerNode>) override {}
  void Carry(Generation) override {}
  void Uninstall() override {}
  void Register(grpc::ServerBuilder*) override {}
  void Start() override {}
  void Stop() override {}
  void Post(std::function<void(ServerNode*)> task) override {
    MutexLock lock(&mu_);
    tasks_.push_back(std::move(task));
    changed_.SignalAll();
  }
  std::function<void(ServerNode*)> Take() {
    MutexLock lock(&mu_);
    while (tasks_.empty()) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
    auto task = std::move(tasks_.front());
    tasks_.erase(tasks_.begin());
    return task;
  }
  bool empty() {
    MutexLock lock(&mu_);
    return tasks_.empty();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::function<void(ServerNode*)>> tasks_ ABSL_GUARDED_BY(mu_);
};

v1::ScalarTotals TotalsOf(uint64_t clock, double square) {
  v1::ScalarTotals totals;
  totals.set_ready(true);
  totals.set_clock(clock);
  totals.add_tensor_square(square);
  totals.add_parameter_square(0);
  return totals;
}

void Ignored(const std::string&) {}

std::vector<BlockScalars> Parts(double square) { return {{BlockId{TensorId(0), 0}, square, 0, 0, {}}}; }

TEST(ScalarAgent, AsksUntilThereIsAnAnswerAndGivesItToTheNode) {
  ServerNodeOptions options = H::AddingJob({H::Dense("w", 4)}, {4, 4}, 1);
  options.store.clip.global_norm = 1;
  H h(options);
  h.Do(h.PushOf(0, 0, {0}, 1, Floats({1, 1, 1, 1})));
  const auto values = [&] { return ToFloats(h.node->store().Read({TensorId(0), 0}, std::nullopt).value()); };
  EXPECT_EQ(values(), std::vector<float>(4, 0.0f));

  ScriptedControl control;
  KeptTasks service;
  ScalarAgent agent;
  agent.Measured(Clock(0), Parts(4));
  agent.Speak({7, 3, 1}, 2, &control, &service, Ignored);
  const v1::ScalarPartials asked = control.WaitAsked(1);
  EXPECT_TRUE(asked.before_step());
  EXPECT_EQ(asked.member(), 7u);
  EXPECT_EQ(asked.generation(), 3u);
  EXPECT_EQ(asked.server(), 1u);
  EXPECT_EQ(asked.tensor(0).square(0), 4.0);
  control.Answer(absl::UnavailableError("a coordinator that is being replaced"));
  control.WaitAsked(2);
  control.Answer(v1::ScalarTotals());  // not ready
  EXPECT_EQ(control.WaitAsked(3).clock(), 0u);
  control.Answer(TotalsOf(0, 4));
  service.Take()(h.node.get());
  EXPECT_EQ(values(), std::vector<float>(4, 0.5f));
}

TEST(ScalarAgent, ANewGenerationIsToldAllThatIsKept) {
  ScriptedControl control;
  KeptTasks service;
  ScalarAgent agent;
  agent.Speak({7, 3, 1}, 2, &control, &service, Ignored);
  for (uint64_t clock = 0; clock < 3; ++clock) {
    agent.Measured(Clock(clock), Parts(1));
    control.WaitAsked(clock + 1);
    control.Answer(TotalsOf(clock, 1));
    service.Take();
  }
  agent.Speak({7, 3, 1}, 2, &control, &service, Ignored);  // the same again: nothing
  agent.Speak({8, 4, 1}, 2, &control, &service, Ignored);
  EXPECT_EQ(control.WaitAsked(4).clock(), 1u);
  control.Answer(TotalsOf(1, 1));
  const v1::ScalarPartials last = control.WaitAsked(5);
  EXPECT_EQ(last.clock(), 2u);
  EXPECT_EQ(last.generation(), 4u);
  control.Answer(TotalsOf(2, 1));
  service.Take();
  service.Take();
}

TEST(ScalarAgent, WhatIsUnderWayReachesNoLaterNode) {
  ScriptedControl control;
  KeptTasks service;
  ScalarAgent agent;
  agent.Speak({7, 3, 1}, 2, &control, &service, Ignored);
  agent.Measured(Clock(5), Parts(1));
  control.WaitAsked(1);
  agent.Forget();
  control.Answer(TotalsOf(5, 1));
  agent.Measured(Clock(2), Parts(1));
  EXPECT_EQ(control.WaitAsked(2).clock(), 2u);
  EXPECT_TRUE(service.empty());
  control.Answer(TotalsOf(2, 1));
  service.Take();
}

TEST(ScalarAgent, DoesNotSpinWhereItIsAnsweredAtOnce) {
  ScriptedControl control;
  KeptTasks service;
  for (int i = 0; i < 10; ++i) control.Answer(v1::ScalarTotals());  // not ready, without waiting
  control.Answer(TotalsOf(0, 1));
  ScalarAgent agent;
  agent.Measured(Clock(0), Parts(1));
  const absl::Time begin = absl::Now();
  agent.Speak({7, 3, 1}, 2, &control, &service, Ignored);
  service.Take();
  // At least the pauses in between, though each may end early for no reason once in a long while.
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(2 + 4 + 8 + 16 + 5 * 32));
}

TEST(ScalarAgent, SaysWhatTheCoordinatorDoesNotTake) {
  ScriptedControl control;
  KeptTasks service;
  Insistence::Options options;
  options.silence = absl::ZeroDuration();
  ScalarAgent agent(options);
  Mutex mu;
  CondVar changed;
  std::vector<std::string> lines;
  agent.Measured(Clock(5), Parts(1));
  agent.Speak({7, 3, 1}, 2, &control, &service, [&](std::string line) {
    MutexLock lock(&mu);
    lines.push_back(std::move(line));
    changed.SignalAll();
  });
  control.Answer(absl::InvalidArgumentError("server 1 sent a scalar of block 7"));
  {
    MutexLock lock(&mu);
    while (lines.empty()) changed.WaitUntil(&mu, absl::InfiniteFuture());
    EXPECT_EQ(lines[0],
              "the step of clock 5 waits: its norms can't be told to the coordinator for 0: "
              "server 1 sent a scalar of block 7");
  }
  control.Answer(TotalsOf(5, 1));
  service.Take();
}

TEST(ScalarAgent, SaysWhatItsNodeDoesNotTake) {
  ServerNodeOptions options = H::AddingJob({H::Dense("w", 4)}, {4, 4}, 1);
  options.store.clip.global_norm = 1;
  H h(options);
  ScriptedControl control;
  KeptTasks service;
  ScalarAgent agent;
  std::vector<std::string> lines;  // of this thread, which does the node's tasks
  agent.Measured(Clock(0), Parts(1));
  agent.Speak({7, 3, 1}, 2, &control, &service, [&](std::string line) { lines.push_back(std::move(line)); });
  v1::ScalarTotals totals = TotalsOf(0, 1);
  totals.add_tensor_square(1);
  control.Answer(totals);
  service.Take()(h.node.get());
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].find("the step waits for ever: scalars of clock 0: expected sums of squares of 1 tensors"), 0u)
      << lines[0];
}

TEST(Insistence, PausesLongerEachTimeAndTellsFailuresSeldom) {
  Insistence insistence;
  const absl::Time begin = absl::FromUnixSeconds(1000);
  for (int ms : {2, 4, 8, 16, 32, 32}) EXPECT_EQ(insistence.NotReady(), absl::Milliseconds(ms));
  std::vector<int64_t> told;
  for (int ms = 0; ms < 25000; ms += 100) {
    if (insistence.Failed(begin + absl::Milliseconds(ms))) told.push_back(ms);
  }
  EXPECT_EQ(told, (std::vector<int64_t>{2000, 12000, 22000}));
  EXPECT_EQ(insistence.failing_for(begin + absl::Seconds(25)), absl::Seconds(25));
  insistence.Reset();
  EXPECT_EQ(insistence.NotReady(), absl::Milliseconds(2));
  EXPECT_FALSE(insistence.Failed(begin + absl::Seconds(30)));
  EXPECT_TRUE(insistence.Failed(begin + absl::Seconds(32)));
}

}  // namespace
}  // namespace descent
