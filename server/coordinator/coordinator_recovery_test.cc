// What becomes of a run when a server or the coordinator dies, and the cuts it goes on from.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

RestoreFrom CutAt(uint64_t clock, const TestCluster& t, uint32_t ranks) {
  RestoreFrom from;
  from.folder = absl::StrCat("cut-", clock);
  from.number = clock;
  from.clocks.assign(ranks, clock);
  from.tensors = t.c->specs();
  return from;
}

v1::FailureReport Death(const std::string& host, uint64_t pid) {
  v1::FailureReport report;
  report.set_role("server");
  report.set_host(host);
  report.set_pid(pid);
  report.set_cause("ended by signal 9");
  return report;
}

TEST(CoordinatorRecoveryTest, AServersDeathBeginsAGenerationThatGoesOnFromTheCut) {
  TestCluster t(TestCluster::Options(4, 2, 2));
  t.Start(2, 2);
  t.Progress(t.worker[0], {{0, 45}, {1, 45}});
  t.Progress(t.worker[1], {{2, 46}, {3, 45}});
  t.c->DrainRecords();
  t.Kill(t.server[1]);
  t.c->ReportFailure(Death("s1", 101), t.now);
  EXPECT_EQ(t.c->phase(), v1::PLACING);
  EXPECT_EQ(t.c->first_cause(), "");
  ASSERT_TRUE(t.c->wants_generation());
  // Nobody trains, and nothing is placed, before the generation is lasting.
  t.Run(absl::Seconds(5));
  EXPECT_EQ(t.c->phase(), v1::PLACING);
  EXPECT_EQ(t.c->generation(), Generation(1));

  t.c->BeginGeneration(Generation(2), CutAt(40, t, 4), t.now);
  EXPECT_FALSE(t.c->wants_generation());
  v1::HeartbeatReply reply = t.Send(t.server[0]);
  EXPECT_EQ(reply.generation(), 2u);
  EXPECT_FALSE(reply.unknown_member());
  EXPECT_FALSE(reply.has_map()) << "before every server is there";
  EXPECT_EQ(reply.leases_size(), 0);
  EXPECT_THAT(reply.message(), HasSubstr("server 1, which is to come back"));

  const uint64_t fresh = t.AddServer("s1b", 901);
  reply = t.Send(t.server[0]);
  ASSERT_TRUE(reply.has_map());
  EXPECT_EQ(reply.restore().folder(), "cut-40");
  EXPECT_EQ(reply.restore().number(), 40u);
  EXPECT_EQ(reply.restore().clock(3), 40u);
  EXPECT_EQ(reply.map().address(1), "s1b:901");
  EXPECT_FALSE(t.Send(t.worker[0]).has_map()) << "a worker connects once all have their blocks";
  t.Run(absl::Seconds(1));
  ASSERT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  EXPECT_EQ(t.c->Status(t.now).member(3).server(), 1u);
  EXPECT_EQ(t.c->Status(t.now).recoveries(), 1u);
  EXPECT_EQ(t.c->round(), 40u);
  EXPECT_NE(fresh, t.server[1]);

  // A worker that has not heard yet speaks of another generation: ignored, and told what it needs.
  v1::HeartbeatRequest old;
  old.set_member(t.worker[0]);
  old.set_run(77);
  old.set_generation(1);
  old.set_ready(true);
  old.add_progress()->set_clock(70);
  reply = t.Send(old);
  EXPECT_EQ(t.c->round(), 40u);
  ASSERT_TRUE(reply.has_map());
  EXPECT_FALSE(reply.has_restore());
  ASSERT_EQ(reply.leases_size(), 2);
  EXPECT_EQ(reply.leases(0).generation(), 2u);
  EXPECT_EQ(reply.leases(0).number(), 1u);

  const std::vector<MetricRecord> records = t.c->DrainRecords();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kRolledBack);
  EXPECT_EQ(records[0].clock, 40u);
  EXPECT_EQ(records[0].generation, 2u);
  EXPECT_THAT(t.Log(), HasSubstr("generation 2: 5 clocks are rolled back"));
}

TEST(CoordinatorRecoveryTest, WithoutACutItBeginsAnew) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  t.Progress(t.worker[0], {{0, 5}, {1, 5}});
  t.Kill(t.server[0]);
  t.Run(absl::Seconds(11));  // silent for longer than its lease
  ASSERT_TRUE(t.c->wants_generation());
  t.c->BeginGeneration(Generation(2), std::nullopt, t.now);
  t.AddServer("s0", 100);  // the same address
  EXPECT_FALSE(t.Send(t.alive.begin()->first).has_restore());
  t.Run(absl::Seconds(1));
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_EQ(t.c->round(), 0u);
}

TEST(CoordinatorRecoveryTest, ServersThatDieBeforeTrainingGoesOnNeedNoFurtherGeneration) {
  TestCluster t(TestCluster::Options(2, 2, 1));
  t.Start(2, 1);
  t.Kill(t.server[1]);
  t.c->ReportFailure(Death("s1", 101), t.now);
  t.c->BeginGeneration(Generation(2), CutAt(3, t, 2), t.now);
  const uint64_t second = t.AddServer("s1", 102);
  t.Kill(second);
  t.c->ReportFailure(Death("s1", 102), t.now);
  EXPECT_FALSE(t.c->wants_generation());
  t.Kill(t.server[0]);
  t.c->ReportFailure(Death("s0", 100), t.now);
  EXPECT_FALSE(t.c->wants_generation());
  t.AddServer("s1", 103);
  t.AddServer("s0", 104);
  t.Run(absl::Seconds(1));
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_EQ(t.c->generation(), Generation(2));
}

TEST(CoordinatorRecoveryTest, AServerThatComesUpAtTheAddressOfAnotherTakesItsPlace) {
  TestCluster t(TestCluster::Options(2, 2, 1));
  t.Start(2, 1);
  t.Kill(t.server[1]);
  v1::RegisterServerRequest again = t.ServerRequest("s1", 101);
  again.set_nonce(4711);
  const v1::RegisterReply reply = t.c->RegisterServer(again, t.now);
  EXPECT_EQ(reply.mismatch_size(), 0) << reply.DebugString();
  EXPECT_EQ(reply.server(), 1u);
  EXPECT_TRUE(t.c->wants_generation());
}

TEST(CoordinatorRecoveryTest, WhoComesWithTheIdOfAnotherIsUnknown) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  v1::RegisterWorkerRequest request = t.WorkerRequest("w0", 200);
  request.set_nonce(11);
  const uint64_t member = t.c->RegisterWorker(request, t.now).member();
  v1::HeartbeatRequest beat = t.Beat(member);
  beat.set_nonce(11);
  EXPECT_FALSE(t.Send(beat).unknown_member());
  beat.set_nonce(12);
  EXPECT_TRUE(t.Send(beat).unknown_member());
  v1::LeaveRequest leave;
  leave.set_member(member);
  leave.set_nonce(12);
  t.c->Leave(leave, t.now);
  EXPECT_EQ(t.c->Status(t.now).member_size(), 1);
  leave.set_nonce(11);
  t.c->Leave(leave, t.now);
  EXPECT_EQ(t.c->Status(t.now).member_size(), 0);
}

TEST(CoordinatorRecoveryTest, AServerTooManyKnocksUntilOneHasBeenSilentForLong) {
  TestCluster t(TestCluster::Options(2, 2, 1));
  t.Start(2, 1);
  v1::RegisterReply reply = t.c->RegisterServer(t.ServerRequest("s9", 900), t.now);
  EXPECT_TRUE(reply.later());
  EXPECT_THAT(reply.mismatch(0), HasSubstr("finds all 2 servers there"));
  t.Kill(t.server[0]);
  t.Run(absl::Seconds(3));
  EXPECT_TRUE(t.c->RegisterServer(t.ServerRequest("s9", 900), t.now).later());
  t.Run(absl::Seconds(2));
  reply = t.c->RegisterServer(t.ServerRequest("s9", 900), t.now);
  EXPECT_EQ(reply.mismatch_size(), 0);
  EXPECT_EQ(reply.server(), 0u);
  EXPECT_TRUE(t.c->wants_generation());
}

TEST(CoordinatorRecoveryTest, ADeathWhileTheModelIsSavedIsRecoveredToo) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true);
  ASSERT_EQ(t.c->phase(), v1::SAVING);
  // The saving meets it before the coordinator hears of it.
  t.Kill(t.server[0]);
  t.c->SaveFinished(absl::UnavailableError("server 0"), "", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::SAVING);
  t.c->MemberLost(MemberId(t.server[0]), "signal 6", t.now);
  EXPECT_EQ(t.c->phase(), v1::PLACING);
  t.c->SaveFinished(absl::UnavailableError("server 0"), "", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::PLACING) << "the saving of a generation that is over says nothing";
}

TEST(CoordinatorRecoveryTest, ADeathDuringAStopEndsTheRun) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  v1::StopRequest stop;
  stop.set_signal(15);
  t.c->Stop(stop, t.now);
  t.c->MemberLost(MemberId(t.server[0]), "signal 9", t.now);
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_THAT(t.c->first_cause(), HasSubstr("server 0 on host s0 (pid 100) is gone: signal 9, while the run was"));
}

TEST(CoordinatorRecoveryTest, ARunThatNeverGetsAnywhereFails) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  uint64_t server = t.server[0];
  for (uint64_t g = 2; t.c->phase() != v1::FAILED; ++g) {
    ASSERT_LT(g, 50u);
    t.Kill(server);
    t.c->MemberLost(MemberId(server), "signal 11", t.now);
    t.c->BeginGeneration(Generation(g), std::nullopt, t.now);
    if (t.c->phase() == v1::FAILED) break;
    server = t.AddServer("s0", 100 + g);
    t.Run(absl::Seconds(1));
  }
  EXPECT_THAT(t.c->first_cause(), HasSubstr("no clock was finished in 20 generations; the last to go was server 0"));
}

TEST(CoordinatorRecoveryTest, ANewCoordinatorWaitsALeaseForWorkersAndGoesOnWithThoseThatCame) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 3);
  options.generation = Generation(7);
  options.resumed = true;
  RestoreFrom from;
  from.number = 30;
  from.clocks = {30, 30, 30, 30};
  from.folder = "cut-30";
  {
    TestCluster first(TestCluster::Options(4, 1, 1));
    first.Start(1, 1);
    from.tensors = first.c->specs();
  }
  options.restore = from;
  TestCluster t(options);
  EXPECT_EQ(t.c->generation(), Generation(7));
  t.generation[t.AddServer("s0", 100)] = 7;
  t.generation[t.AddWorker("w0", 200)] = 7;
  t.Run(absl::Seconds(9));
  EXPECT_EQ(t.c->phase(), v1::STARTING);
  t.Run(absl::Seconds(3));
  ASSERT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  EXPECT_EQ(t.c->round(), 30u);

  options.restore->tensors[0].name = "other";
  TestCluster other(options);
  other.generation[other.AddServer("s0", 100)] = 7;
  other.generation[other.AddWorker("w0", 200)] = 7;
  other.Run(absl::Seconds(12));
  EXPECT_THAT(other.c->first_cause(), HasSubstr("the cut cut-30 is of another model"));
}

TEST(CoordinatorRecoveryTest, ACutIsOrderedFromServersAloneAndOnlyInItsGeneration) {
  CoordinatorOptions options = TestCluster::Options(2, 2, 1);
  options.cuts.every_rounds = 50;
  TestCluster t(options);
  t.Start(2, 1);
  t.c->Tick(t.now);
  ASSERT_EQ(t.c->cuts().stage(), CutSchedule::Stage::kPreparing);
  EXPECT_FALSE(t.Send(t.server[0]).has_cut());
  t.c->cut_folder = "cut-000000000050-g1";
  t.c->cuts().Prepared(absl::OkStatus(), t.now);
  const v1::HeartbeatReply reply = t.Send(t.server[0]);
  EXPECT_EQ(reply.cut().number(), 50u);
  EXPECT_EQ(reply.cut().at(), 50u);
  EXPECT_EQ(reply.cut().folder(), "cut-000000000050-g1");
  EXPECT_LE(reply.next_ms(), 100u);
  EXPECT_FALSE(t.Send(t.worker[0]).has_cut());
  for (uint64_t server : t.server) {
    v1::HeartbeatRequest beat = t.Beat(server);
    beat.add_cut()->set_number(50);
    beat.mutable_cut(0)->set_attempt(reply.cut().attempt());
    t.Send(beat);
  }
  EXPECT_EQ(t.c->cuts().stage(), CutSchedule::Stage::kCommitting);
  EXPECT_FALSE(t.Send(t.server[0]).has_cut());
  t.c->cuts().Committed(absl::OkStatus(), t.now);
  EXPECT_EQ(t.c->Status(t.now).last_cut(), 50u);
  t.c->ReportFailure(Death("s1", 101), t.now);
  t.c->Tick(t.now);
  EXPECT_EQ(t.c->cuts().stage(), CutSchedule::Stage::kIdle);
}

TEST(CoordinatorRecoveryTest, AStopTakesACutOfTheClockThatEveryServerHasReached) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.cuts.every_rounds = 50;
  TestCluster t(options);
  t.Start(1, 1);
  t.c->Tick(t.now);
  v1::HeartbeatRequest beat = t.Beat(t.server[0]);
  beat.mutable_load()->set_round(17);
  t.Send(beat);
  v1::StopRequest stop;
  stop.set_signal(15);
  t.c->Stop(stop, t.now);
  t.Progress(t.worker[0], {{0, 17}, {1, 17}}, true);
  ASSERT_EQ(t.c->phase(), v1::SAVING);
  EXPECT_FALSE(t.c->cuts().demand_met());
  t.c->Tick(t.now);
  ASSERT_EQ(t.c->cuts().stage(), CutSchedule::Stage::kPreparing);
  EXPECT_EQ(t.c->cuts().number(), 17u);
}

TEST(CoordinatorRecoveryTest, ARecordedRunEndsWithACut) {
  for (bool recorded : {true, false}) {
    CoordinatorOptions options = TestCluster::Options(2, 1, 1);
    options.cuts.at_end = recorded;
    options.apply_push = true;
    TestCluster t(options);
    t.Start(1, 1);
    t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true);
    ASSERT_EQ(t.c->phase(), v1::SAVING);
    EXPECT_EQ(t.c->cuts().demand_met(), !recorded) << "before the model is saved";
    t.c->Tick(t.now);
    EXPECT_EQ(t.c->cuts().stage(), recorded ? CutSchedule::Stage::kPreparing : CutSchedule::Stage::kIdle);
  }
}

// A cut every 10 clocks, evaluated every 10, of which the best are kept.
class BestCutsTest : public testing::Test {
 protected:
  static CoordinatorOptions Options() {
    CoordinatorOptions options = TestCluster::Options(2, 1, 1);
    options.job.mutable_checkpoint()->set_keep_best(1);
    options.job.mutable_evaluation()->set_every_rounds(10);
    options.cuts.every_rounds = 10;
    return options;
  }
  explicit BestCutsTest(CoordinatorOptions options = Options()) : t(std::move(options)) { t.Start(1, 1); }

  void Evaluate(uint64_t clock, double loss) {
    v1::HeartbeatRequest beat = t.Beat(t.worker[0]);
    for (uint32_t rank : {0, 1}) {
      v1::EvaluationPart* part = beat.add_evaluation();
      part->set_rank(rank);
      part->set_clock(clock);
      part->set_loss(loss);
      part->set_weight(1);
    }
    t.Send(beat);
  }
  // All ranks are at this clock.
  void Reach(uint64_t clock) { t.Progress(t.worker[0], {{0, clock}, {1, clock}}); }
  // A cut is ordered, and its parts are in.
  void TakeParts(uint64_t number) {
    t.c->Tick(t.now);
    ASSERT_EQ(t.c->cuts().stage(), CutSchedule::Stage::kPreparing) << t.Log();
    ASSERT_EQ(t.c->cuts().number(), number);
    t.c->cuts().Prepared(absl::OkStatus(), t.now);
    v1::CutReport report;
    report.set_number(number);
    report.set_attempt(t.c->cuts().attempt());
    t.c->cuts().Report(ServerId(0), report, t.now);
    ASSERT_EQ(t.c->cuts().stage(), CutSchedule::Stage::kCommitting);
  }
  bool known() { return t.c->StateOfCut().has_value(); }

  TestCluster t;
};

TEST_F(BestCutsTest, ACutWaitsForTheEvaluationOfItsOwnClock) {
  TakeParts(10);
  EXPECT_FALSE(known());
  EXPECT_FALSE(t.c->MetricOfCut().has_value());
  Reach(10);
  Evaluate(10, 5);
  EXPECT_TRUE(known());
  EXPECT_EQ(t.c->MetricOfCut(), 5);
  t.c->cuts().Committed(absl::OkStatus(), t.now);
  // Ranks are fast: the next evaluation is there before the manifest is written.
  TakeParts(20);
  Evaluate(20, 4);
  Reach(30);
  Evaluate(30, 3);
  EXPECT_TRUE(known());
  EXPECT_EQ(t.c->MetricOfCut(), 4) << "not the newest";
}

TEST_F(BestCutsTest, AnEvaluationThatIsLostIsNotWaitedForLong) {
  TakeParts(10);
  Reach(10);
  t.Run(absl::Seconds(60));
  EXPECT_FALSE(known()) << "evaluating takes as long as it takes";
  Reach(11);
  EXPECT_FALSE(known()) << "it may be in the next beat";
  t.Run(absl::Seconds(6));
  EXPECT_TRUE(known());
  EXPECT_FALSE(t.c->MetricOfCut().has_value());
}

TEST_F(BestCutsTest, AnEvaluationThatIsOvertakenIsNotWaitedFor) {
  TakeParts(10);
  Reach(10);
  Evaluate(20, 4);
  EXPECT_TRUE(known());
  EXPECT_FALSE(t.c->MetricOfCut().has_value());
}

TEST_F(BestCutsTest, AStopDoesNotWaitForAnEvaluation) {
  TakeParts(10);
  EXPECT_FALSE(known());
  v1::StopRequest stop;
  stop.set_signal(15);
  t.c->Stop(stop, t.now);
  EXPECT_TRUE(known());
}

TEST_F(BestCutsTest, ACutOfAnotherClockHasNoMetric) {
  TakeParts(10);
  Reach(10);
  Evaluate(10, 5);
  t.c->cuts().Committed(absl::OkStatus(), t.now);
  t.c->cuts().Demand(13, t.now);
  TakeParts(13);
  EXPECT_TRUE(known());
  EXPECT_FALSE(t.c->MetricOfCut().has_value());
}

TEST(CoordinatorRecoveryTest, WhereNoBestCutsAreKeptNoneWaitsForAnEvaluation) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.job.mutable_evaluation()->set_every_rounds(10);
  options.cuts.every_rounds = 10;
  TestCluster t(std::move(options));
  t.Start(1, 1);
  t.c->Tick(t.now);
  EXPECT_TRUE(t.c->StateOfCut().has_value());
}

}  // namespace
}  // namespace descent
