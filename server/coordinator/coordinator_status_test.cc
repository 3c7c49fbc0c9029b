// What a running job tells: metrics and status.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

TEST(CoordinatorStatusTest, TrainingRecordsCarryRateNormAndSpeed) {
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

// Norms of every round are of histograms alone: the norm in records and status is of the clocks that it ever was of.
TEST(CoordinatorStatusTest, NormsOfEveryRoundBecomeHistograms) {
  CoordinatorOptions options = TestCluster::Options(1, 2, 1);
  options.job.mutable_metrics()->set_every_rounds(10);
  options.job.mutable_metrics()->set_gradient_histograms(true);
  TestCluster t(options);
  t.Start(2, 1);
  const PartitionMap& map = *t.c->map();
  const auto partials = [&](int server, uint64_t clock) {
    v1::ScalarPartials p;
    p.set_member(t.server[server]);
    p.set_generation(1);
    p.set_clock(clock);
    p.set_norms_only(clock % 10 != 0);
    for (uint32_t tensor = 0; tensor < map.placement.size(); ++tensor) {
      v1::TensorPartials* of = p.add_tensor();
      of->set_tensor(tensor);
      for (uint32_t b = 0; b < map.placement[tensor].size(); ++b) {
        if (map.placement[tensor][b].value != static_cast<uint32_t>(server)) continue;
        of->add_block(b);
        of->add_square(clock == 0 ? 4 : 100);
        if (!p.norms_only()) of->add_step_square(1);
      }
    }
    return p;
  };
  for (int server : {0, 1}) {
    v1::ScalarPartials together = partials(server, 0);
    for (uint64_t clock = 1; clock < 13; ++clock) *together.add_also() = partials(server, clock);
    EXPECT_EQ(t.c->AgreeScalars(together, t.now)->ready(), server == 1);
  }
  std::vector<MetricRecord> records = t.c->DrainRecords();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kGradients);
  EXPECT_EQ(records[0].clock, 10u);
  EXPECT_EQ(records[0].rounds, 10u);
  ASSERT_EQ(records[0].norms.size(), map.placement.size());
  uint64_t blocks = 0;
  for (const std::vector<ServerId>& placement : map.placement) blocks += placement.size();
  EXPECT_EQ(t.c->Status(t.now).gradient_norm(), std::sqrt(100.0 * static_cast<double>(blocks))) << "of clock 10";
  t.c->CloseRecords(t.now);
  records = t.c->DrainRecords();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].rounds, 3u);
  v1::ScalarPartials wrong = partials(0, 20);
  *wrong.add_also() = partials(1, 21);
  EXPECT_EQ(t.c->AgreeScalars(wrong, t.now).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CoordinatorStatusTest, AnEvaluationIsARecordAndALineOfStatus) {
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

TEST(CoordinatorStatusTest, StatusTellsSpeedSpreadTimeLeftAndWhoIsWaitedFor) {
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

TEST(CoordinatorStatusTest, ExamplesOfEarlierLeasesCount) {
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

}  // namespace
}  // namespace descent
