// A running job: leases that move, deaths, first causes, stalls, stops, the end, metrics and status.
#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

v1::FailureReport Report(const std::string& role, const std::string& host, uint64_t pid, bool own,
                         const std::string& cause, double unix_seconds = 0) {
  v1::FailureReport report;
  report.set_role(role);
  report.set_host(host);
  report.set_pid(pid);
  report.set_own(own);
  report.set_cause(cause);
  report.set_unix_seconds(unix_seconds);
  return report;
}

TEST(CoordinatorRunTest, ASilentWorkersRanksGoToTheStandbyUnderNewIncarnations) {
  TestCluster t(TestCluster::Options(4, 1, 2));
  t.Start(1, 2);
  const uint64_t standby = t.AddWorker("w9", 9);
  const v1::StatusReply status = t.c->Status(t.now);
  EXPECT_TRUE(status.member(3).standby());
  EXPECT_FALSE(status.member(1).standby());
  const uint64_t dead = t.worker[0], other = t.worker[1];
  t.Progress(dead, {{0, 3}, {1, 2}});
  t.Kill(dead);
  t.Run(absl::Seconds(10));
  EXPECT_EQ(t.Holders(), absl::StrCat(dead, " ", dead, " ", other, " ", other));
  t.Run(absl::Seconds(1));
  EXPECT_EQ(t.Holders(), absl::StrCat(standby, " ", standby, " ", other, " ", other));
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  const v1::HeartbeatReply reply = t.Send(standby);
  ASSERT_EQ(reply.leases_size(), 2);
  EXPECT_EQ(reply.leases(0).number(), 2u);
  EXPECT_EQ(t.Send(t.server[0]).leases(0).number(), 2u) << "for the server to fence the first";
  EXPECT_THAT(t.Log(), HasSubstr("moved: worker 4 on host w9 (pid 9) holds ranks 0 (incarnation 1.2, clock 3), 1 "
                                 "(incarnation 1.2, clock 2)"));

  // The process wakes up: it is fenced, and what it says changes nothing.
  EXPECT_TRUE(t.Progress(dead, {{0, 40}}).unknown_member());
  EXPECT_EQ(t.c->Status(t.now).rank(0).clock(), 3u);
  t.Progress(other, {{0, 40}});
  EXPECT_EQ(t.c->Status(t.now).rank(0).clock(), 3u) << "only the holder is believed";
  t.Progress(standby, {{0, 5}});
  EXPECT_EQ(t.c->Status(t.now).rank(0).clock(), 5u);
}

TEST(CoordinatorRunTest, LeavingAndAReportedDeathMoveRanksAtOnce) {
  TestCluster t(TestCluster::Options(4, 1, 3));
  t.Start(1, 3);
  EXPECT_EQ(t.Holders(), "2 2 3 4");
  v1::LeaveRequest leave;
  leave.set_member(2);
  leave.set_why("spot instance");
  t.c->Leave(leave, t.now);
  EXPECT_EQ(t.Holders(), "3 4 3 4");
  t.c->ReportFailure(Report("worker", "w1", 201, false, "ended by signal 9"), t.now);
  EXPECT_EQ(t.Holders(), "4 4 4 4");
  EXPECT_THAT(t.Log(), HasSubstr("gone: worker 3 on host w1 (pid 201): ended by signal 9"));
  t.c->MemberLost(MemberId(77), "never was", t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_EQ(t.c->first_cause(), "");
}

TEST(CoordinatorRunTest, WithoutAnyWorkerItWaitsForOneAndThenFailsWithTheLastDeath) {
  CoordinatorOptions options = TestCluster::Options(2, 1, 1);
  options.job.mutable_cluster()->set_start_timeout_seconds(40);
  for (const bool rescued : {true, false}) {
    TestCluster t(options);
    t.Start(1, 1);
    t.Kill(t.worker[0]);
    t.c->MemberLost(MemberId(t.worker[0]), "ended by signal 11", t.now);
    EXPECT_EQ(t.Holders(), "- -");
    t.Run(absl::Seconds(20));
    EXPECT_THAT(t.Send(t.server[0]).message(), HasSubstr("waiting 20 s for a worker: 2 of 2 ranks have none"));
    if (rescued) {
      const uint64_t fresh = t.AddWorker("w5", 5);
      EXPECT_EQ(t.Holders(), absl::StrCat(fresh, " ", fresh));
    }
    t.Run(absl::Seconds(25));
    EXPECT_EQ(t.c->phase(), rescued ? v1::RUNNING : v1::FAILED);
    if (!rescued) {
      EXPECT_EQ(t.c->first_cause(),
                "no worker is left for 2 of 2 ranks since 40s; the last to go was worker 2 on host w0 (pid 200): ended "
                "by signal 11");
    }
  }
}

TEST(CoordinatorRunTest, OfAllReportsTheEarliestOwnOneIsTheCause) {
  TestCluster t(TestCluster::Options(4, 2, 2));
  t.Start(2, 2);
  const double at = absl::ToDoubleSeconds(t.now - absl::UnixEpoch());
  t.c->ReportFailure(Report("somebody", "x", 1, false, "a peer is strange", at - 5), t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "word of a stranger ends nothing";
  v1::FailureReport own = Report("worker", "w0", 200, true, "cascade", at - 1);
  own.set_member(t.worker[0]);
  t.c->ReportFailure(own, t.now);
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_EQ(t.c->first_cause(), "worker 3 on host w0 (pid 200): cascade");
  v1::FailureReport earlier = Report("server", "s0", 100, true, "NaN in tensor 'w'", at - 2);
  earlier.set_member(t.server[0]);
  t.c->ReportFailure(earlier, t.now);
  EXPECT_EQ(t.c->first_cause(), "server 0 on host s0 (pid 100): NaN in tensor 'w'");
  t.c->ReportFailure(Report("worker", "w1", 201, true, "later", at - 1), t.now);
  EXPECT_EQ(t.c->first_cause(), "server 0 on host s0 (pid 100): NaN in tensor 'w'");
  EXPECT_EQ(t.Send(t.worker[1]).message(), t.c->first_cause());
}

TEST(CoordinatorRunTest, AnOldWordAboutAPeerIsNotTheCause) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 1);
  options.job.mutable_cluster()->set_stall_timeout_seconds(300);
  TestCluster t(options);
  t.Start(1, 1);
  t.c->ReportFailure(Report("somebody", "x", 1, false, "a hiccup"), t.now);
  t.Run(absl::Seconds(310));
  EXPECT_THAT(t.c->first_cause(), HasSubstr("no rank finished a clock"));
}

TEST(CoordinatorRunTest, AnOwnFailureBeforeRegistrationCountsWhileTheJobStarts) {
  TestCluster t(TestCluster::Options(4, 1, 2));
  t.c->ReportFailure(Report("worker", "w0", 5, true, "x.csv: no such file"), t.now);
  EXPECT_EQ(t.c->first_cause(), "worker on host w0 (pid 5): x.csv: no such file");

  TestCluster running(TestCluster::Options(4, 1, 2));
  running.Start(1, 2);
  running.c->ReportFailure(Report("worker", "w9", 5, true, "x.csv: no such file"), running.now);
  EXPECT_EQ(running.c->phase(), v1::RUNNING) << "a job that runs needs no further worker";
}

TEST(CoordinatorRunTest, AStallNamesRankWorkerAndClock) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 2);
  options.job.mutable_cluster()->set_stall_timeout_seconds(30);
  TestCluster t(options);
  t.Start(1, 2);
  t.Progress(t.worker[0], {{0, 9}, {1, 9}});
  t.Progress(t.worker[1], {{2, 9}, {3, 8}});
  t.Run(absl::Seconds(20));
  t.Progress(t.worker[0], {{0, 10}});
  t.Run(absl::Seconds(30));
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "somebody finished a clock in between";
  t.Run(absl::Seconds(1));
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_EQ(
      t.c->first_cause(),
      "no rank finished a clock for 30s: waiting for rank 3 of worker 3 on host w1 (pid 201), whose last finished "
      "clock is 8");
}

TEST(CoordinatorRunTest, AStallNamesTheRankThatServersWaitForAndItsLastRpc) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 2);
  options.job.mutable_cluster()->set_stall_timeout_seconds(30);
  TestCluster t(options);
  t.Start(1, 2);
  t.Progress(t.worker[0], {{0, 9}, {1, 8}});
  t.Progress(t.worker[1], {{2, 9}, {3, 9}});
  v1::HeartbeatRequest beat = t.Beat(t.server[0]);
  v1::Waited* waited = beat.mutable_load()->add_waited();
  waited->set_rank(2);
  waited->set_seconds(31);
  waited->set_last_rpc("push of clock 9, 3 of 8 contributions, 30.9 s ago");
  t.Send(beat);
  t.Run(absl::Seconds(31));
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_EQ(t.c->first_cause(),
            "no rank finished a clock for 30s: waiting for rank 2 of worker 3 on host w1 (pid 201), whose last "
            "finished clock is 9; the last RPC from it: push of clock 9, 3 of 8 contributions, 30.9 s ago, to server "
            "0");
}

TEST(CoordinatorRunTest, WithBackupRanksTheRoundIsNotThatOfTheSlowest) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 2);
  options.job.mutable_consistency()->set_backup_ranks(1);
  TestCluster t(options);
  t.Start(1, 2);
  t.Progress(t.worker[0], {{0, 9}, {1, 2}});
  t.Progress(t.worker[1], {{2, 7}, {3, 9}});
  EXPECT_EQ(t.c->Status(t.now).round(), 7u);
  EXPECT_EQ(t.c->Status(t.now).staleness_spread(), 2u);
  // A round at which the model is evaluated does not close without rank 1.
  options.job.mutable_evaluation()->set_every_rounds(4);
  TestCluster e(options);
  e.Start(1, 2);
  e.Progress(e.worker[0], {{0, 9}, {1, 2}});
  e.Progress(e.worker[1], {{2, 7}, {3, 9}});
  EXPECT_EQ(e.c->Status(e.now).round(), 4u);
  e.Progress(e.worker[0], {{1, 5}});
  EXPECT_EQ(e.c->Status(e.now).round(), 7u);
}

TEST(CoordinatorRunTest, TheCoordinatorsOwnAbsenceIsChargedToNobody) {
  TestCluster t(TestCluster::Options(4, 1, 2));
  t.Start(1, 2);
  t.now += absl::Hours(1);
  t.c->Tick(t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_THAT(t.Log(), HasSubstr("the coordinator did not run for 1h"));
  t.Kill(t.worker[0]);
  t.Run(absl::Seconds(11));
  EXPECT_EQ(t.Holders(), "3 3 3 3") << "leases end as ever afterwards";
  t.now -= absl::Minutes(30);
  t.c->Tick(t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "a clock set back";
}

TEST(CoordinatorRunTest, FromTheLastClockToTheSavedModel) {
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

TEST(CoordinatorRunTest, WhoNeverHearsOfTheEndIsWaitedForThreeSeconds) {
  TestCluster t(TestCluster::Options(2, 1, 1));
  t.Start(1, 1);
  t.Progress(t.worker[0], {{0, 100}, {1, 100}}, true);
  t.c->SaveFinished(absl::OkStatus(), "", "", "", t.now);
  EXPECT_FALSE(t.c->AllGone(t.now + absl::Milliseconds(2900)));
  EXPECT_TRUE(t.c->AllGone(t.now + absl::Seconds(3)));
}

TEST(CoordinatorRunTest, AModelThatCannotBeSavedFailsTheJob) {
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

TEST(CoordinatorRunTest, AStopFinishesTheClockInHandAndSaves) {
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

TEST(CoordinatorRunTest, AWorkerThatDiesOrDallisesDuringAStopIsNotWaitedForLong) {
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

TEST(CoordinatorRunTest, AStopThatComesFromEveryServerIsOneStop) {
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

TEST(CoordinatorRunTest, AStopAtOnceOrBeforeTrainingSavesNothing) {
  TestCluster at_once(TestCluster::Options(2, 1, 1));
  at_once.Start(1, 1);
  at_once.c->Stop(StopBy(15, true), at_once.now);
  EXPECT_EQ(at_once.c->phase(), v1::STOPPED);

  TestCluster early(TestCluster::Options(2, 1, 1));
  early.AddServer("a", 1);
  early.c->Stop(StopBy(15), early.now);
  EXPECT_EQ(early.c->phase(), v1::STOPPED);
}

TEST(CoordinatorRunTest, TrainingRecordsCarryRateNormAndSpeed) {
  CoordinatorOptions options = TestCluster::Options(2, 2, 2);
  v1::StepRate* rate = options.job.mutable_learning_rate()->mutable_step();
  rate->set_initial(0.25);
  rate->set_factor(0.5);
  rate->set_every_rounds(10);
  TestCluster t(options);
  t.Start(2, 2);
  const auto partials = [&](int server, std::vector<std::pair<uint32_t, double>> blocks) {
    v1::ScalarPartials p;
    p.set_member(t.server[server]);
    p.set_generation(1);
    p.set_clock(0);
    v1::TensorPartials* tensor = p.add_tensor();
    for (const auto& [block, square] : blocks) {
      tensor->add_block(block);
      tensor->add_square(square);
    }
    return t.c->AgreeScalars(p, t.now);
  };
  const PartitionMap& map = *t.c->map();
  std::vector<std::pair<uint32_t, double>> mine[2];
  for (uint32_t b = 0; b < 4; ++b) mine[map.placement[0][b].value].emplace_back(b, 4.0);
  EXPECT_FALSE(partials(0, mine[0])->ready());
  EXPECT_EQ(partials(0, mine[1]).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(partials(1, mine[1])->ready());
  EXPECT_EQ(partials(0, mine[0])->square(), 16.0) << "asked again, answered again";

  t.now += absl::Milliseconds(4000);
  for (int w : {1, 0}) {
    v1::HeartbeatRequest beat = t.Beat(t.worker[w]);
    v1::TrainingPart* part = beat.add_training();
    part->set_rank(w);
    part->set_clocks(10);
    part->set_loss(100 * (w + 1));
    part->set_weight(100);
    v1::TrainingPart* foreign = beat.add_training();  // of a rank that it does not hold
    *foreign = *part;
    foreign->set_rank(1 - w);
    foreign->set_loss(1e9);
    v1::TrainingPart* beyond = beat.add_training();  // and of clocks that the job does not have
    *beyond = *part;
    beyond->set_first(90);
    beyond->set_clocks(uint64_t{1} << 40);
    t.Send(beat);
  }
  const std::vector<MetricRecord> records = t.c->DrainRecords();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kTraining);
  EXPECT_EQ(records[0].clock, 10u);
  EXPECT_EQ(records[0].epoch, 0.2);
  EXPECT_EQ(records[0].loss, 1.5);
  EXPECT_EQ(records[0].rate, 0.25);
  EXPECT_EQ(records[0].gradient_norm, 4.0);
  EXPECT_GT(records[0].examples_per_second, 200.0 / 5);
  EXPECT_LE(records[0].examples_per_second, 200.0 / 4);
  const v1::StatusReply status = t.c->Status(t.now);
  EXPECT_EQ(status.loss(), 1.5);
  EXPECT_EQ(status.gradient_norm(), 4.0);
  EXPECT_TRUE(t.c->DrainRecords().empty());
}

TEST(CoordinatorRunTest, StepsWaitForThePartsOfAllServersWithBlocks) {
  TestCluster t(TestCluster::Options(2, 2, 2));
  t.Start(2, 2);
  const PartitionMap& map = *t.c->map();
  const auto tell = [&](int server, uint64_t clock, double times) {
    v1::ScalarPartials p;
    p.set_member(t.server[server]);
    p.set_generation(1);
    p.set_clock(clock);
    p.set_before_step(true);
    for (uint32_t tensor = 0; tensor < map.placement.size(); ++tensor) {
      v1::TensorPartials* of = p.add_tensor();
      of->set_tensor(tensor);
      for (uint32_t b = 0; b < map.placement[tensor].size(); ++b) {
        if (map.placement[tensor][b].value != static_cast<uint32_t>(server)) continue;
        of->add_block(b);
        of->add_square(times * (b + 1));
        of->add_parameter_square(0.5);
      }
    }
    return t.c->AgreeScalars(p, t.now);
  };
  EXPECT_FALSE(tell(1, 7, 1)->ready());
  EXPECT_FALSE(tell(1, 7, 100)->ready()) << "told again: it counts once";
  const auto totals = tell(0, 7, 1);
  ASSERT_TRUE(totals.ok()) << totals.status();
  ASSERT_TRUE(totals->ready());
  EXPECT_EQ(totals->clock(), 7u);
  for (uint32_t tensor = 0; tensor < map.placement.size(); ++tensor) {
    const double blocks = static_cast<double>(map.placement[tensor].size());
    EXPECT_EQ(totals->tensor_square(static_cast<int>(tensor)), blocks * (blocks + 1) / 2);
    EXPECT_EQ(totals->parameter_square(static_cast<int>(tensor)), 0.5 * blocks);
  }
  EXPECT_EQ(tell(1, 7, 3)->tensor_square(0), totals->tensor_square(0));
  // What steps wait for is no record, whose squares are of something else.
  EXPECT_EQ(t.c->Status(t.now).gradient_norm(), 0);
}

TEST(CoordinatorRunTest, AnEvaluationIsARecordAndALineOfStatus) {
  TestCluster t(TestCluster::Options(2, 1, 2));
  t.Start(1, 2);
  for (int w : {0, 1}) {
    v1::HeartbeatRequest beat = t.Beat(t.worker[w]);
    v1::EvaluationPart* part = beat.add_evaluation();
    part->set_rank(w);
    part->set_clock(50);
    part->set_loss(10);
    part->set_weight(40);
    part->set_correct(30);
    part->set_classification(true);
    t.Send(beat);
    t.Send(beat);
  }
  const std::vector<MetricRecord> records = t.c->DrainRecords();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kEvaluation);
  EXPECT_EQ(records[0].epoch, 1.0);
  EXPECT_EQ(records[0].loss, 0.25);
  EXPECT_EQ(t.c->Status(t.now).last_evaluation(), "clock 50, epoch 1: loss 0.25, accuracy 0.7500");
}

TEST(CoordinatorRunTest, StatusTellsSpeedSpreadTimeLeftAndWhoIsWaitedFor) {
  TestCluster t(TestCluster::Options(2, 1, 2));
  t.Start(1, 2);
  for (uint64_t c = 1; c <= 20; ++c) {
    t.Progress(t.worker[0], {{0, c + 3}});
    t.Progress(t.worker[1], {{1, c}});
    t.Run(absl::Milliseconds(500));
  }
  v1::HeartbeatRequest beat = t.Beat(t.server[0]);
  v1::Waited* waited = beat.mutable_load()->add_waited();
  waited->set_rank(1);
  waited->set_seconds(3);
  waited->set_why("clock 20");
  waited->set_clock(20);
  waited->set_last_rpc("read for clock 20, 3.0 s ago");
  beat.mutable_load()->add_waited()->set_rank(999);
  t.Send(beat);
  const v1::StatusReply status = t.c->Status(t.now);
  EXPECT_EQ(status.round(), 20u);
  EXPECT_EQ(status.staleness_spread(), 3u);
  EXPECT_EQ(status.batch_size(), 10u);
  EXPECT_NEAR(status.examples_per_second(), 40, 4);  // 2 ranks x 2 clocks/s x 10
  EXPECT_NEAR(status.seconds_left(), 80 / 2.0, 4);
  beat.mutable_load()->set_lead(2);
  t.Send(beat);
  EXPECT_EQ(t.c->Status(t.now).staleness_spread(), 2u) << "servers see all ranks at one moment";
  ASSERT_EQ(status.waited_size(), 1);
  EXPECT_EQ(status.waited(0).rank(), 1u);
  EXPECT_EQ(status.waited(0).seconds(), 3);
  EXPECT_EQ(status.waited(0).host(), "w1");
  EXPECT_EQ(status.waited(0).pid(), 201u);
  EXPECT_EQ(status.waited(0).clock(), 20u);
  EXPECT_EQ(status.waited(0).last_rpc(), "read for clock 20, 3.0 s ago, to server 0");
  EXPECT_EQ(status.rank(1).last_rpc(), "read for clock 20, 3.0 s ago, to server 0");
  EXPECT_EQ(status.rank(0).last_rpc(), "");
  EXPECT_GT(status.rank(1).since_seconds(), 0);
  EXPECT_THAT(status.memory(), HasSubstr("server 0 needs"));
  EXPECT_EQ(status.message(), "");
  t.now += absl::Seconds(7);
  t.Progress(t.worker[0], {{0, 24}});
  t.Send(t.server[0]);
  EXPECT_EQ(t.c->Status(t.now).message(), "nothing heard of worker 3 on host w1 (pid 201) for 7 s");
}

TEST(CoordinatorRunTest, ExamplesOfEarlierLeasesCount) {
  TestCluster t(TestCluster::Options(1, 1, 1));
  t.Start(1, 1);
  t.Progress(t.worker[0], {{0, 10}});
  t.c->MemberLost(MemberId(t.worker[0]), "x", t.now);
  t.Kill(t.worker[0]);
  const uint64_t next = t.AddWorker("w1", 9);
  t.Progress(next, {{0, 20}});  // 200 examples of its own
  t.now += absl::Seconds(10);
  EXPECT_NEAR(t.c->Status(t.now).examples_per_second(), 30, 2);
}

// Random members, deaths, reports and nonsense: leases stay consistent, the job always ends or goes on, and the same
// calls give the same answers.
std::string Fuzz(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t n) { return random() % n; };
  const uint32_t ranks = 1 + below(9), servers = 1 + below(3), workers = 1 + below(4);
  CoordinatorOptions options = TestCluster::Options(ranks, servers, workers);
  options.job.mutable_cluster()->set_start_timeout_seconds(60);
  options.job.mutable_cluster()->set_stall_timeout_seconds(60);
  TestCluster t(options);
  std::string trace;
  std::map<uint32_t, uint64_t> incarnation;
  std::map<uint32_t, uint64_t> holder;
  Generation generation(1);
  std::vector<uint64_t> members = {0, 12345};
  for (int step = 0; step < 300; ++step) {
    t.now += absl::Milliseconds(below(1500));
    const uint64_t member = members[below(members.size())];
    switch (below(12)) {
      case 0: {
        const v1::RegisterReply reply = t.c->RegisterServer(t.ServerRequest("s", below(6)), t.now);
        if (reply.mismatch_size() == 0) t.alive[reply.member()] = true, members.push_back(reply.member());
        break;
      }
      case 1: {
        v1::RegisterWorkerRequest request = t.WorkerRequest("w", below(20));
        request.set_capacity(below(4));
        if (below(5) == 0) request.set_train_rows(below(3));
        const v1::RegisterReply reply = t.c->RegisterWorker(request, t.now);
        if (reply.mismatch_size() == 0) t.alive[reply.member()] = false, members.push_back(reply.member());
        break;
      }
      case 2: {
        if (below(6) != 0) break;
        v1::LeaveRequest leave;
        leave.set_member(member);
        t.c->Leave(leave, t.now);
        break;
      }
      case 3:
        if (below(6) == 0) t.c->ReportFailure(Report("worker", "w", below(20), below(10) == 0, "died"), t.now);
        break;
      case 4: {
        v1::ScalarPartials partials;
        partials.set_member(member);
        partials.set_generation(below(2));
        partials.add_tensor()->set_tensor(below(3));
        (void)t.c->AgreeScalars(partials, t.now);
        break;
      }
      default: {
        for (const auto& [id, is_server] : t.alive) {
          if (below(8) == 0) continue;
          v1::HeartbeatRequest beat = t.Beat(id);
          for (uint32_t i = 0; i < ranks + 1; ++i) {
            v1::RankProgress* progress = beat.add_progress();
            progress->set_rank(i);
            progress->set_clock(step + below(5));
            progress->set_done(step > 100 && below(3) == 0);
            if (below(3) == 0) {
              v1::TrainingPart* part = beat.add_training();
              part->set_rank(i);
              part->set_first(step);
              part->set_clocks(below(5));
            }
            if (below(20) == 0) {
              beat.add_evaluation()->set_rank(i);
              beat.mutable_evaluation()->rbegin()->set_clock(step / 10);
            }
          }
          const v1::HeartbeatReply reply = t.Send(beat);
          if (reply.generation() > beat.generation()) t.ready.erase(id);
          if (reply.has_map()) t.generation[id] = reply.generation();
          if (is_server && reply.has_map()) t.ready.insert(id);
          absl::StrAppend(&trace, reply.ShortDebugString(), "\n");
        }
      }
    }
    t.c->Tick(t.now);
    if (t.c->wants_generation() && below(3) == 0) {
      RestoreFrom from;
      from.number = t.c->round() / 2;
      from.clocks.assign(ranks, from.number);
      from.tensors = t.c->specs();
      t.c->BeginGeneration(Generation(t.c->generation().value + 1), below(2) == 0 ? std::optional(from) : std::nullopt,
                           t.now);
    }
    if (t.c->generation() != generation) {
      generation = t.c->generation();
      incarnation.clear();
      holder.clear();
    }
    if (t.c->phase() == v1::SAVING && below(3) == 0) t.c->SaveFinished(absl::OkStatus(), "/m", "", "", t.now);
    const v1::StatusReply status = t.c->Status(t.now);
    std::set<uint64_t> living;
    for (const v1::MemberStatus& m : status.member()) living.insert(m.member());
    for (const v1::RankStatus& rank : status.rank()) {
      EXPECT_GE(rank.incarnation(), incarnation[rank.rank()]);
      if (rank.member() != 0) {
        EXPECT_TRUE(living.contains(rank.member()));
        if (holder[rank.rank()] != rank.member()) {
          EXPECT_GT(rank.incarnation(), incarnation[rank.rank()]) << "another holder, the same incarnation";
        }
        holder[rank.rank()] = rank.member();
      }
      incarnation[rank.rank()] = rank.incarnation();
    }
    EXPECT_EQ(t.c->phase() == v1::FAILED, !t.c->first_cause().empty());
    for (const MetricRecord& record : t.c->DrainRecords()) {
      absl::StrAppend(&trace, record.clock, " ", record.weight, "\n");
    }
  }
  absl::StrAppend(&trace, v1::Phase_Name(t.c->phase()), "\n", t.Log());
  return trace;
}

TEST(CoordinatorRunTest, RandomLivesOfAClusterKeepTheInvariantsAndRepeatExactly) {
  std::map<std::string, int> seen;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const std::string trace = Fuzz(seed);
    ASSERT_EQ(trace, Fuzz(seed)) << "seed " << seed;
    for (const char* what :
         {"phase STARTING -> PLACING", "-> RUNNING", "-> SAVING", "-> FINISHED", "-> FAILED", "lease moved", "refused",
          "unknown_member", "RUNNING -> PLACING", "generation 2:", "have no worker"}) {
      seen[what] += trace.find(what) != std::string::npos;
    }
  }
  for (const auto& [what, count] : seen) EXPECT_GT(count, 0) << what;
}

}  // namespace
}  // namespace descent
