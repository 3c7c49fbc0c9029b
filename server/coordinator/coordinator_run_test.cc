// A running job: leases that move, deaths, first causes, stalls.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

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
  t.c->ReportFailure(FailureReportOf("worker", "w1", 201, false, "ended by signal 9"), t.now);
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
  t.c->ReportFailure(FailureReportOf("somebody", "x", 1, false, "a peer is strange", at - 5), t.now);
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << "word of a stranger ends nothing";
  v1::FailureReport own = FailureReportOf("worker", "w0", 200, true, "cascade", at - 1);
  own.set_member(t.worker[0]);
  t.c->ReportFailure(own, t.now);
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_EQ(t.c->first_cause(), "worker 3 on host w0 (pid 200): cascade");
  v1::FailureReport earlier = FailureReportOf("server", "s0", 100, true, "NaN in tensor 'w'", at - 2);
  earlier.set_member(t.server[0]);
  t.c->ReportFailure(earlier, t.now);
  EXPECT_EQ(t.c->first_cause(), "server 0 on host s0 (pid 100): NaN in tensor 'w'");
  t.c->ReportFailure(FailureReportOf("worker", "w1", 201, true, "later", at - 1), t.now);
  EXPECT_EQ(t.c->first_cause(), "server 0 on host s0 (pid 100): NaN in tensor 'w'");
  EXPECT_EQ(t.Send(t.worker[1]).message(), t.c->first_cause());
}

TEST(CoordinatorRunTest, AnOldWordAboutAPeerIsNotTheCause) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 1);
  options.job.mutable_cluster()->set_stall_timeout_seconds(300);
  TestCluster t(options);
  t.Start(1, 1);
  t.c->ReportFailure(FailureReportOf("somebody", "x", 1, false, "a hiccup"), t.now);
  t.Run(absl::Seconds(310));
  EXPECT_THAT(t.c->first_cause(), HasSubstr("no rank finished a clock"));
}

TEST(CoordinatorRunTest, AnOwnFailureBeforeRegistrationCountsWhileTheJobStarts) {
  TestCluster t(TestCluster::Options(4, 1, 2));
  t.c->ReportFailure(FailureReportOf("worker", "w0", 5, true, "x.csv: no such file"), t.now);
  EXPECT_EQ(t.c->first_cause(), "worker on host w0 (pid 5): x.csv: no such file");

  TestCluster running(TestCluster::Options(4, 1, 2));
  running.Start(1, 2);
  running.c->ReportFailure(FailureReportOf("worker", "w9", 5, true, "x.csv: no such file"), running.now);
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

}  // namespace
}  // namespace descent
