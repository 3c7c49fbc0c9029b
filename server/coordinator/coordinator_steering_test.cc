// What the coordinator does about what evaluations lead to, and what becomes of that when somebody dies.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Two ranks on one worker, evaluated every 10 of 100 clocks.
CoordinatorOptions Early() {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.job.mutable_evaluation()->set_every_rounds(10);
  v1::EarlyStopping* early = options.job.mutable_stopping()->mutable_early();
  early->set_metric("loss");
  early->set_patience(1);
  early->set_restore_best(true);
  options.cuts.on_demand = true;
  return options;
}
CoordinatorOptions Plateau() {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.job.mutable_evaluation()->set_every_rounds(10);
  v1::ReduceOnPlateau* plateau = options.job.mutable_reduce_on_plateau();
  plateau->set_metric("loss");
  plateau->set_patience(1);
  plateau->set_factor(0.5);
  plateau->set_min_factor(1e-4);
  return options;
}

// Both ranks have come to the clock and evaluated there.
v1::HeartbeatReply Evaluate(TestCluster* t, uint64_t clock, double loss) {
  v1::HeartbeatRequest beat = t->Beat(t->worker[0]);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    v1::RankProgress* progress = beat.add_progress();
    progress->set_rank(rank);
    progress->set_clock(clock);
    v1::EvaluationPart* part = beat.add_evaluation();
    part->set_rank(rank);
    part->set_clock(clock);
    part->set_loss(loss);
    part->set_weight(1);
  }
  return t->Send(beat);
}

// The owner, the server and the disk do what the cut that is wanted takes.
v1::CoordinatorState TakeCut(TestCluster* t, uint64_t number) {
  t->c->Tick(t->now);
  EXPECT_EQ(t->c->cuts().stage(), CutSchedule::Stage::kPreparing) << t->Log();
  EXPECT_EQ(t->c->cuts().number(), number);
  t->c->cuts().Prepared(absl::OkStatus(), t->now);
  v1::CutReport report;
  report.set_number(number);
  report.set_attempt(t->c->cuts().attempt());
  t->c->cuts().Report(ServerId(0), report, t->now);
  EXPECT_EQ(t->c->cuts().stage(), CutSchedule::Stage::kCommitting);
  const std::optional<v1::CoordinatorState> state = t->c->StateOfCut();
  EXPECT_TRUE(state.has_value());
  t->c->cuts().Committed(absl::OkStatus(), t->now);
  return state.value_or(v1::CoordinatorState());
}

RestoreFrom CutAt(uint64_t clock, const TestCluster& t, const v1::CoordinatorState& state) {
  return {absl::StrCat("cut-", clock), clock, {clock, clock}, t.c->specs(), state};
}

// A server finds that it has no room for the cut that is wanted.
void FailCut(TestCluster* t, uint64_t number) {
  t->c->Tick(t->now += absl::Seconds(1));
  ASSERT_EQ(t->c->cuts().stage(), CutSchedule::Stage::kPreparing) << t->Log();
  ASSERT_EQ(t->c->cuts().number(), number);
  t->c->cuts().Prepared(absl::OkStatus(), t->now);
  v1::CutReport report;
  report.set_number(number);
  report.set_attempt(t->c->cuts().attempt());
  report.set_failure("No space left on device");
  t->c->cuts().Report(ServerId(0), report, t->now);
  t->Send(t->worker[0]);
  t->Send(t->server[0]);
}

TEST(CoordinatorSteeringTest, TheBestModelIsCutThenGoneBackToAndSaved) {
  TestCluster t(Early());
  t.Start(1, 1);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 10u);
  EXPECT_EQ(Evaluate(&t, 10, 5).begin_below(), 10u) << "not before there is a cut";
  const v1::CoordinatorState state = TakeCut(&t, 10);
  EXPECT_EQ(state.steering().clock(), 0u) << "what comes of the evaluation at its own clock is decided again";
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  Evaluate(&t, 20, 6);
  EXPECT_TRUE(t.Send(t.worker[0]).stop());
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 20}, {1, 20}}, true).phase(), v1::PLACING) << t.Log();
  ASSERT_TRUE(t.c->wants_generation());
  EXPECT_EQ(t.c->wants_cut(), 10u);

  t.c->BeginGeneration(Generation(2), CutAt(10, t, state), t.now);
  t.Run(absl::Seconds(2));
  ASSERT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 10u);
  EXPECT_FALSE(t.Send(t.worker[0]).stop());
  Evaluate(&t, 10, 5);
  EXPECT_TRUE(t.Send(t.worker[0]).stop());
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 10}, {1, 10}}, true).phase(), v1::SAVING);
  t.c->SaveFinished(absl::OkStatus(), "/m", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::FINISHED);
  const v1::StatusReply status = t.c->Status(t.now);
  EXPECT_EQ(status.end_reason(), "loss was no better in 1 evaluations than 5 at clock 10");
  EXPECT_EQ(status.recoveries(), 0u);
  EXPECT_EQ(status.round(), 10u);
}

TEST(CoordinatorSteeringTest, TheBestOfARunThatReachesItsLengthIsGoneBackTo) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  TakeCut(&t, 10);
  Evaluate(&t, 100, 6);
  t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true);
  EXPECT_EQ(t.c->wants_cut(), 10u);
  EXPECT_EQ(t.c->phase(), v1::PLACING);
}

TEST(CoordinatorSteeringTest, ALastModelThatIsTheBestStands) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 100, 6);
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true).phase(), v1::SAVING);
  EXPECT_EQ(t.c->Status(t.now).end_reason(), "the length is reached: 100 clocks");
}

TEST(CoordinatorSteeringTest, ABestModelWhoseCutIsLostIsToldAndTheLastIsSaved) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  const v1::CoordinatorState state = TakeCut(&t, 10);
  Evaluate(&t, 20, 6);
  t.Progress(t.worker[0], {{0, 20}, {1, 20}}, true);
  ASSERT_EQ(t.c->wants_cut(), 10u);
  t.c->BeginGeneration(Generation(2), std::nullopt, t.now);
  EXPECT_FALSE(t.c->wants_cut().has_value());
  EXPECT_THAT(t.Log(), HasSubstr("the checkpoint of the best model, of clock 10, can't be used"));
  t.Run(absl::Seconds(2));
  Evaluate(&t, 10, 5);
  TakeCut(&t, 10);
  Evaluate(&t, 20, 6);
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 20}, {1, 20}}, true).phase(), v1::SAVING);
}

TEST(CoordinatorSteeringTest, AServerThatDiesAfterTheDecisionFailsNothing) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  const v1::CoordinatorState state = TakeCut(&t, 10);
  Evaluate(&t, 20, 6);
  EXPECT_TRUE(t.c->stopping());
  t.Kill(t.server[0]);
  t.c->ReportFailure(FailureReportOf("server", "s0", 100, false, "signal 9"), t.now);
  ASSERT_EQ(t.c->phase(), v1::PLACING) << t.Log();
  EXPECT_FALSE(t.c->stopping());
  EXPECT_FALSE(t.c->wants_cut().has_value());
  t.c->BeginGeneration(Generation(2), CutAt(10, t, state), t.now);
  t.AddServer("s0", 300);
  t.Run(absl::Seconds(2));
  ASSERT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  // All of it again, to the same end; the cut is there.
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 10u);
  Evaluate(&t, 10, 5);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  Evaluate(&t, 20, 6);
  EXPECT_TRUE(t.c->stopping());
}

TEST(CoordinatorSteeringTest, ARateIsKnownToEveryServerBeforeItsClockBegins) {
  TestCluster t(Plateau());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  EXPECT_EQ(Evaluate(&t, 20, 5).begin_below(), 20u);
  v1::HeartbeatReply reply = t.Send(t.server[0]);
  ASSERT_EQ(reply.rate_change_size(), 1);
  EXPECT_EQ(reply.rate_change(0).clock(), 20u);
  EXPECT_EQ(reply.rate_change(0).factor(), 0.5);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  v1::HeartbeatRequest beat = t.Beat(t.server[0]);
  beat.set_rate_changes(1);
  EXPECT_EQ(t.Send(beat).rate_change_size(), 0) << "it knows";
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 30u);
  // A server in the place of a dead one is told all of it with its placement.
  t.Kill(t.server[0]);
  t.c->ReportFailure(FailureReportOf("server", "s0", 100, false, "signal 9"), t.now);
  v1::CoordinatorState state;
  state.mutable_steering()->set_clock(20);
  *state.mutable_steering()->add_rate_change() = reply.rate_change(0);
  t.c->BeginGeneration(Generation(2), CutAt(25, t, state), t.now);
  const uint64_t fresh = t.AddServer("s0", 300);
  reply = t.Send(fresh);
  ASSERT_TRUE(reply.has_map());
  EXPECT_EQ(reply.rate_change_size(), 1);
  std::vector<MetricRecord> decisions;
  for (MetricRecord& record : t.c->DrainRecords()) {
    if (record.kind == MetricRecord::Kind::kDecision) decisions.push_back(std::move(record));
  }
  ASSERT_EQ(decisions.size(), 1u);
  EXPECT_EQ(decisions[0].clock, 20u);
  EXPECT_EQ(decisions[0].decision, "rate");
}

TEST(CoordinatorSteeringTest, ACoordinatorInThePlaceOfADeadOneDecidesTheSame) {
  v1::CoordinatorState state;
  state.mutable_steering()->set_clock(10);
  state.mutable_steering()->set_best(5);
  state.mutable_steering()->set_best_clock(10);
  CoordinatorOptions options = Early();
  options.resumed = true;
  options.generation = Generation(2);
  TestCluster t(Early());
  t.Start(1, 1);
  options.restore = CutAt(15, t, state);
  TestCluster second(std::move(options));
  second.server.push_back(second.AddServer("s0", 100));
  second.worker.push_back(second.AddWorker("w0", 200));
  second.Run(absl::Seconds(2));
  ASSERT_EQ(second.c->phase(), v1::RUNNING) << second.Log();
  EXPECT_EQ(second.Send(second.worker[0]).begin_below(), 20u);
  Evaluate(&second, 20, 6);
  EXPECT_TRUE(second.c->stopping());
  second.Progress(second.worker[0], {{0, 20}, {1, 20}}, true);
  EXPECT_EQ(second.c->wants_cut(), 10u);
}

CoordinatorOptions Diverging(v1::DivergenceAction action) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.job.mutable_evaluation()->set_every_rounds(10);
  v1::Divergence* divergence = options.job.mutable_divergence();
  divergence->set_metric("loss");
  divergence->set_loss_above(100);
  divergence->set_action(action);
  divergence->set_rate_factor(0.5);
  divergence->set_max_rollbacks(2);
  options.cuts.on_demand = true;
  return options;
}

v1::FailureReport NotFinite(const std::string& host, uint64_t pid, uint64_t generation) {
  v1::FailureReport report =
      FailureReportOf("worker", host, pid, true, "push of rank 1 was refused: weights[3] is nan");
  report.set_diverged_generation(generation);
  return report;
}

TEST(CoordinatorSteeringTest, ADivergedRunFails) {
  TestCluster t(Diverging(v1::STOP));
  t.Start(1, 1);
  Evaluate(&t, 10, 500);
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "which tensor it was may still be told";
  t.Run(absl::Seconds(3));
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_EQ(t.c->first_cause(),
            "the run has diverged at clock 10: loss is 500, above 100; of the ranks' shares that of rank 0 has the "
            "greatest loss, 500");
}

TEST(CoordinatorSteeringTest, ADivergedRunGoesBackWithASmallerRate) {
  TestCluster t(Diverging(v1::ROLLBACK));
  t.Start(1, 1);
  EXPECT_EQ(Evaluate(&t, 10, 5).begin_below(), 10u) << "not before there is a cut";
  const v1::CoordinatorState state = TakeCut(&t, 10);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  Evaluate(&t, 20, 500);
  t.Run(absl::Seconds(3));
  ASSERT_TRUE(t.c->wants_generation()) << t.Log();
  EXPECT_EQ(t.c->wants_cut(), 10u);
  t.c->BeginGeneration(Generation(2), CutAt(10, t, state), t.now);
  EXPECT_FALSE(t.c->wants_cut().has_value());
  // The servers hear of the rate with their placement.
  const v1::HeartbeatReply reply = t.Send(t.server[0]);
  ASSERT_EQ(reply.rate_change_size(), 1);
  EXPECT_EQ(reply.rate_change(0).clock(), 10u);
  EXPECT_EQ(reply.rate_change(0).factor(), 0.5);
  t.Run(absl::Seconds(2));
  ASSERT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  EXPECT_EQ(t.c->Status(t.now).recoveries(), 0u) << "nobody has died";

  // A gradient that is not finite, told by several, counts once.
  Evaluate(&t, 10, 5);
  t.c->ReportFailure(NotFinite("w0", 200, 1), t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "that generation is over";
  t.c->ReportFailure(NotFinite("w0", 200, 2), t.now);
  t.c->ReportFailure(NotFinite("w0", 200, 2), t.now);
  ASSERT_TRUE(t.c->wants_generation()) << t.Log();
  EXPECT_EQ(t.c->wants_cut(), 10u);
  t.c->BeginGeneration(Generation(3), CutAt(10, t, state), t.now);
  EXPECT_EQ(t.Send(t.server[0]).rate_change(0).factor(), 0.25);
  t.Run(absl::Seconds(2));
  ASSERT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  t.c->ReportFailure(NotFinite("w0", 200, 3), t.now);
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_THAT(t.c->first_cause(), HasSubstr("after 2 rollbacks"));
  EXPECT_THAT(t.c->first_cause(), HasSubstr("weights[3] is nan"));
  std::vector<std::string> decisions;
  for (const MetricRecord& record : t.c->DrainRecords()) {
    if (record.kind == MetricRecord::Kind::kDecision) decisions.push_back(record.decision);
  }
  EXPECT_THAT(decisions, testing::ElementsAre("rollback", "rollback", "diverged"));
}

TEST(CoordinatorSteeringTest, BeforeTheFirstEvaluationTheBeginningIsGoneBackTo) {
  TestCluster t(Diverging(v1::ROLLBACK));
  t.Start(1, 1);
  t.c->ReportFailure(NotFinite("w0", 200, 1), t.now);
  ASSERT_TRUE(t.c->wants_generation()) << t.Log();
  EXPECT_EQ(t.c->wants_cut(), 0u);
  t.c->BeginGeneration(Generation(2), std::nullopt, t.now);
  EXPECT_EQ(t.Send(t.server[0]).rate_change(0).factor(), 0.5);
  t.Run(absl::Seconds(2));
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
}

TEST(CoordinatorSteeringTest, ACutThatIsLostCanNotBeGoneBackTo) {
  TestCluster t(Diverging(v1::ROLLBACK));
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  TakeCut(&t, 10);
  t.c->ReportFailure(NotFinite("w0", 200, 1), t.now);
  t.c->BeginGeneration(Generation(2), std::nullopt, t.now);
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_THAT(t.c->first_cause(), HasSubstr("the checkpoint of clock 10, to go back to, can't be used"));
}

TEST(CoordinatorSteeringTest, TimeEndsTrainingAndDeathsDoNotProlongIt) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.job.mutable_stopping()->set_seconds(60);
  TestCluster t(std::move(options));
  t.Start(1, 1);
  t.Run(absl::Seconds(55));
  EXPECT_FALSE(t.c->stopping());
  EXPECT_NEAR(t.c->StateOfCut()->steering().seconds(), 55, 2);
  t.Run(absl::Seconds(6));
  EXPECT_TRUE(t.c->stopping());
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 7}, {1, 7}}, true).phase(), v1::SAVING);
  t.c->SaveFinished(absl::OkStatus(), "/m", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::FINISHED);
  EXPECT_EQ(t.c->Status(t.now).end_reason(), "the time is over: 60 s");
}

TEST(CoordinatorSteeringTest, AWaitForNormsThatAreRefusedIsNamed) {
  CoordinatorOptions options = Early();
  options.job.mutable_cluster()->set_servers(2);
  options.job.mutable_cluster()->set_stall_timeout_seconds(30);
  TestCluster t(std::move(options));
  t.Start(2, 1);
  const auto tell = [&](uint32_t server, double square) {
    v1::ScalarPartials partials;
    partials.set_member(t.server[server]);
    partials.set_generation(1);
    partials.set_clock(3);
    partials.set_before_step(true);
    v1::TensorPartials* tensor = partials.add_tensor();
    const std::vector<ServerId>& placement = t.c->map()->placement[0];
    for (uint32_t block = 0; block < placement.size(); ++block) {
      if (placement[block] != ServerId(server)) continue;
      tensor->add_block(block);
      tensor->add_square(square);
    }
    return t.c->AgreeScalars(partials, t.now).status();
  };
  EXPECT_TRUE(tell(0, 4).ok());
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(tell(1, -1).ok());
  t.Run(absl::Seconds(8));
  EXPECT_THAT(t.c->Status(t.now).message(),
              HasSubstr("s for the norms of clock 3 of server 1, which server 1 on host s1 (pid 101) serves (refused: "
                        "server 1 sent the squared norm -1 of block"));
  // A server that waits for a rank has nothing to tell yet: the rank is to be named.
  v1::HeartbeatRequest beat = t.Beat(t.server[1]);
  beat.mutable_load()->add_waited()->set_rank(1);
  t.Send(beat);
  EXPECT_THAT(t.c->Status(t.now).message(), HasSubstr("for a clock to be finished"));
  beat.mutable_load()->clear_waited();
  t.Send(beat);
  t.Run(absl::Seconds(30));
  EXPECT_THAT(t.c->first_cause(), HasSubstr("no rank finished a clock for 30s: waiting for the norms of clock 3 of "
                                            "server 1, which server 1 on host s1 (pid 101) serves"));
  const std::string log = t.Log(), said = "scalars refused: server 1 sent";
  const size_t first = log.find(said);
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(log.find(said, first + 1), std::string::npos) << "once, however often it is asked";
}

TEST(CoordinatorSteeringTest, WhoIsAskedToStopGoesBackToNothing) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  TakeCut(&t, 10);
  v1::StopRequest stop;
  stop.set_signal(15);
  t.c->Stop(stop, t.now);
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 15}, {1, 15}}, true).phase(), v1::SAVING);
  EXPECT_EQ(t.c->Status(t.now).end_reason(), "a request to stop");
}

TEST(CoordinatorSteeringTest, ADiskThatIsFullForAMomentHoldsTheRanksAndIsNamed) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  for (int i = 0; i < 10; ++i) FailCut(&t, 10);
  EXPECT_EQ(t.c->Status(t.now).message(),
            "waiting 10 s for the checkpoint of the best model, of clock 10, before the next clock begins; "
            "the last attempt failed: server 0: No space left on device");
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 10u);
  t.now += absl::Seconds(1);
  TakeCut(&t, 10);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  EXPECT_THAT(t.c->Status(t.now).message(), Not(HasSubstr("best model")));
}

TEST(CoordinatorSteeringTest, ADiskThatStaysFullCostsTheBestModelNotTheRun) {
  CoordinatorOptions options = Early();
  options.job.mutable_cluster()->set_stall_timeout_seconds(120);
  TestCluster t(std::move(options));
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  for (int i = 0; i < 30; ++i) FailCut(&t, 10);
  EXPECT_THAT(t.Log(), HasSubstr("the best model, of clock 10, is not kept: its checkpoint failed 30 times in"));
  EXPECT_THAT(t.Log(), HasSubstr("the last time: server 0: No space left on device; training goes on"));
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  t.Run(absl::Seconds(100));
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "the time that ranks were held counts for nobody";
  Evaluate(&t, 20, 6);
  EXPECT_TRUE(t.Send(t.worker[0]).stop());
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 20}, {1, 20}}, true).phase(), v1::SAVING) << "there is nothing to go back to";
  EXPECT_FALSE(t.c->wants_cut().has_value());
  EXPECT_EQ(t.c->Status(t.now).end_reason(),
            "loss was no better in 1 evaluations than 5 at clock 10; the best model, of clock 10, could not be kept");
}

TEST(CoordinatorSteeringTest, ABetterModelLaterIsKeptAgain) {
  TestCluster t(Early());
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  for (int i = 0; i < 30; ++i) FailCut(&t, 10);
  Evaluate(&t, 20, 4);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
  t.now += absl::Seconds(1);
  TakeCut(&t, 20);
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 30u);
  Evaluate(&t, 30, 6);
  t.Progress(t.worker[0], {{0, 30}, {1, 30}}, true);
  EXPECT_EQ(t.c->wants_cut(), 20u);
}

// Its parts never come: no attempt fails for the patience of a cut.
TEST(CoordinatorSteeringTest, ADiskThatHangsIsNotWaitedForUntilTheRunCountsAsStalled) {
  CoordinatorOptions options = Early();
  options.job.mutable_cluster()->set_stall_timeout_seconds(60);
  TestCluster t(std::move(options));
  t.Start(1, 1);
  Evaluate(&t, 10, 5);
  t.c->Tick(t.now);
  t.c->cuts().Prepared(absl::OkStatus(), t.now);
  t.Run(absl::Seconds(20));
  EXPECT_THAT(t.c->Status(t.now).message(), HasSubstr("for the checkpoint of the best model, of clock 10, before the "
                                                      "next clock begins; 0 of 1 parts are there"));
  t.Run(absl::Seconds(55));
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  EXPECT_THAT(t.Log(), HasSubstr("the best model, of clock 10, is not kept"));
  EXPECT_EQ(t.Send(t.worker[0]).begin_below(), 20u);
}

}  // namespace
}  // namespace descent
