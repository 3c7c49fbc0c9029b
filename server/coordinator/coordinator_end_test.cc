// How a run ends: saved, failed to be saved, stopped.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

TEST(CoordinatorEndTest, FromTheLastClockToTheSavedModel) {
  TestCluster t(TestCluster::Options(2, 1, 2));
  t.Start(1, 2);
  EXPECT_EQ(t.c->clocks(), 100u);
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 100}}, true).phase(), v1::RUNNING);
  EXPECT_LE(t.Send(t.worker[1]).next_ms(), 50u) << "the end is near";
  t.c->SaveFinished(absl::OkStatus(), "/early", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_EQ(t.Progress(t.worker[1], {{1, 100}}, true).phase(), v1::SAVING);
  EXPECT_FALSE(t.c->AllGone(t.now));
  t.c->MemberLost(MemberId(t.worker[0]), "gone early", t.now);
  EXPECT_EQ(t.c->phase(), v1::SAVING) << "workers are not needed any more";
  const v1::RegisterReply late = t.c->RegisterWorker(t.WorkerRequest("z", 1), t.now);
  EXPECT_EQ(late.mismatch(0), "the worker on host z is too late: the job is SAVING");
  t.c->SaveFinished(absl::OkStatus(), "/run/model", "p", "s", t.now);
  EXPECT_EQ(t.c->phase(), v1::FINISHED);
  const v1::StatusReply status = t.c->Status(t.now);
  EXPECT_EQ(status.model_dir(), "/run/model");
  EXPECT_EQ(status.parameters_sha256(), "p");
  EXPECT_EQ(status.state_sha256(), "s");
  EXPECT_FALSE(t.c->AllGone(t.now));
  EXPECT_EQ(t.Send(t.server[0]).phase(), v1::FINISHED);
  EXPECT_FALSE(t.c->AllGone(t.now));
  EXPECT_EQ(t.Send(t.worker[1]).phase(), v1::FINISHED);
  EXPECT_TRUE(t.c->AllGone(t.now));
}

TEST(CoordinatorEndTest, WhoNeverHearsOfTheEndIsWaitedForThreeSeconds) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true);
  t.c->SaveFinished(absl::OkStatus(), "", "", "", t.now);
  EXPECT_FALSE(t.c->AllGone(t.now + absl::Milliseconds(2900)));
  EXPECT_TRUE(t.c->AllGone(t.now + absl::Seconds(3)));
}

TEST(CoordinatorEndTest, AModelThatCannotBeSavedFailsTheJob) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true);
  t.c->SaveFinished(absl::ResourceExhaustedError("disk full"), "", "", "", t.now);
  EXPECT_EQ(t.c->first_cause(), "the model could not be saved: disk full");
  EXPECT_EQ(t.c->phase(), v1::FAILED);
}

v1::StopRequest StopBy(int signal, bool at_once = false) {
  v1::StopRequest stop;
  stop.set_signal(signal);
  stop.set_at_once(at_once);
  return stop;
}

TEST(CoordinatorEndTest, AStopFinishesTheClockInHandAndSaves) {
  TestCluster t(TestCluster::Options(2, 1, 2));
  t.Start(1, 2);
  EXPECT_FALSE(t.Send(t.worker[0]).stop());
  t.c->Stop(StopBy(15), t.now);
  EXPECT_EQ(t.c->stop_signal(), 15);
  EXPECT_TRUE(t.Send(t.worker[0]).stop());
  EXPECT_EQ(t.Progress(t.worker[0], {{0, 7}}, true).phase(), v1::RUNNING);
  EXPECT_EQ(t.Progress(t.worker[1], {{1, 7}}, true).phase(), v1::SAVING);
  t.c->SaveFinished(absl::OkStatus(), "/m", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::STOPPED);
}

TEST(CoordinatorEndTest, AWorkerThatDiesOrDallisesDuringAStopIsNotWaitedForLong) {
  TestCluster t(TestCluster::Options(2, 1, 2));
  t.Start(1, 2);
  t.c->Stop(StopBy(2), t.now);
  t.Progress(t.worker[0], {{0, 7}}, true);
  t.c->MemberLost(MemberId(t.worker[1]), "signal 2", t.now);
  EXPECT_EQ(t.c->phase(), v1::SAVING) << "its rank is idle, and not moved";

  TestCluster slow(TestCluster::Options(2, 1, 2));
  slow.Start(1, 2);
  slow.c->Stop(StopBy(2), slow.now);
  slow.Run(absl::Milliseconds(4500));
  EXPECT_EQ(slow.c->phase(), v1::RUNNING);
  slow.Run(absl::Milliseconds(500));
  EXPECT_EQ(slow.c->phase(), v1::SAVING);
}

// Its worker has died with the report.
TEST(CoordinatorEndTest, AStopTakesInTheRoundsThatNobodyWasLeftToReport) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 2);
  options.cuts.on_demand = true;
  TestCluster t(options);
  t.Start(1, 2);
  t.c->Stop(StopBy(15), t.now);
  t.Progress(t.worker[0], {{0, 7}}, true);
  t.Progress(t.worker[1], {{1, 5}});
  t.c->MemberLost(MemberId(t.worker[1]), "signal 9", t.now);
  ASSERT_EQ(t.c->phase(), v1::SAVING);
  CutSchedule& cuts = t.c->cuts();
  for (const uint64_t stands : {5, 7}) {
    t.c->Tick(t.now);
    ASSERT_EQ(cuts.stage(), CutSchedule::Stage::kPreparing);
    EXPECT_EQ(cuts.number(), stands);
    cuts.Prepared(absl::OkStatus(), t.now);
    v1::HeartbeatRequest beat = t.Beat(t.server[0]);
    beat.mutable_load()->set_round(7);
    v1::CutReport* const report = beat.add_cut();
    report->set_number(stands);
    report->set_attempt(cuts.attempt());
    if (stands == 5) {
      report->set_failure("the round is 7");
      report->set_past(true);
    }
    t.Send(beat);
    EXPECT_FALSE(cuts.demand_met());
  }
  ASSERT_EQ(cuts.stage(), CutSchedule::Stage::kCommitting);
  cuts.Committed(absl::OkStatus(), t.now);
  EXPECT_TRUE(cuts.demand_met());
  EXPECT_EQ(t.c->Status(t.now).round(), 7u);
}

TEST(CoordinatorEndTest, AStopThatComesFromEveryServerIsOneStop) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  t.c->Stop(StopBy(2), t.now);
  t.c->Stop(StopBy(15), t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "the clock in hand is being finished";
  EXPECT_EQ(t.c->stop_signal(), 2) << "the first one counts";
  t.Run(absl::Seconds(5));
  EXPECT_EQ(t.c->phase(), v1::SAVING);
  t.c->Stop(StopBy(15), t.now);
  EXPECT_EQ(t.c->phase(), v1::SAVING);
  t.c->SaveFinished(absl::OkStatus(), "/m", "", "", t.now);
  EXPECT_EQ(t.c->phase(), v1::STOPPED);
  EXPECT_EQ(t.c->Status(t.now).model_dir(), "/m");
}

TEST(CoordinatorEndTest, AStopAtOnceOrBeforeTrainingSavesNothing) {
  TestCluster at_once(TestCluster::Options(2, 1, 1));
  at_once.Start(1, 1);
  at_once.c->Stop(StopBy(15, true), at_once.now);
  EXPECT_EQ(at_once.c->phase(), v1::STOPPED);

  TestCluster early(TestCluster::Options(2, 1, 1));
  early.AddServer("a", 1);
  early.c->Stop(StopBy(15), early.now);
  EXPECT_EQ(early.c->phase(), v1::STOPPED);
  EXPECT_THAT(early.Log(), HasSubstr("-> STOPPED: stopped before training began"));
}

TEST(CoordinatorEndTest, AStopAmidARecoverySaysWhatIsThereToGoOnFrom) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.cuts.every_rounds = 50;
  for (bool found : {false, true}) {
    TestCluster t(options);
    t.Start(1, 1);
    t.c->Tick(t.now);
    t.c->cuts().Prepared(absl::OkStatus(), t.now);
    v1::CutReport report;
    report.set_number(50);
    report.set_attempt(t.c->cuts().attempt());
    t.c->cuts().Report(ServerId(0), report, t.now);
    t.c->cuts().Committed(absl::OkStatus(), t.now);
    t.Kill(t.server[0]);
    t.c->ReportFailure(FailureReportOf("server", "s0", 100, false, "signal 9"), t.now);
    ASSERT_TRUE(t.c->wants_generation());
    if (found) t.c->BeginGeneration(Generation(2), RestoreFrom{"cut-50", 50, {50, 50}, t.c->specs()}, t.now);
    ASSERT_EQ(t.c->phase(), v1::PLACING);
    t.c->Stop(StopBy(15), t.now);
    EXPECT_EQ(t.c->phase(), v1::STOPPED);
    EXPECT_EQ(t.c->Status(t.now).end_reason(),
              "a request to stop while going back to cut 50; it goes on with --resume");
    EXPECT_THAT(t.Log(), HasSubstr("PLACING -> STOPPED: stopped while going back to cut 50"));
  }
  TestCluster none(TestCluster::Options(2, 1, 1));
  none.Start(1, 1);
  none.c->ReportFailure(FailureReportOf("server", "s0", 100, false, "signal 9"), none.now);
  none.c->BeginGeneration(Generation(2), std::nullopt, none.now);
  none.c->Stop(StopBy(15), none.now);
  EXPECT_EQ(none.c->Status(none.now).end_reason(),
            "a request to stop while going back to the initial values; it goes on with --resume");
}

}  // namespace
}  // namespace descent
