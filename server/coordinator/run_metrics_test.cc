#include "server/coordinator/run_metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

const absl::Time kNow = absl::FromUnixSeconds(1000);

class RunMetricsTest : public testing::Test {
 protected:
  RunMetricsTest() {
    job_.set_ranks(2);
    job_.mutable_metrics()->set_every_rounds(10);
    v1::StepRate* rate = job_.mutable_learning_rate()->mutable_step();
    rate->set_initial(0.5);
    rate->set_factor(0.5);
    rate->set_every_rounds(10);
    metrics_.emplace(&job_);
  }
  void Train(uint32_t rank, uint64_t first, double loss) {
    v1::TrainingPart part;
    part.set_rank(rank);
    part.set_first(first);
    part.set_clocks(10);
    part.set_loss(loss);
    part.set_weight(100);
    metrics_->AddTraining(part);
  }
  std::vector<std::string> Evaluate(uint32_t rank, uint64_t clock, double loss) {
    v1::EvaluationPart part;
    part.set_rank(rank);
    part.set_clock(clock);
    part.set_loss(loss);
    part.set_weight(40);
    return metrics_->AddEvaluation(part, kNow);
  }

  v1::JobSpec job_;
  std::optional<RunMetrics> metrics_;
};

TEST_F(RunMetricsTest, WindowsThatCloseTogetherShareTheTimeSinceTheLast) {
  metrics_->SetEpochs(50, 1000);
  metrics_->Start(kNow);
  for (uint32_t rank : {0, 1}) Train(rank, 0, 100), Train(rank, 10, 300);
  metrics_->CloseWindows(kNow + absl::Seconds(4));
  const std::vector<MetricRecord> records = metrics_->Drain();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].clock, 10u);
  EXPECT_EQ(records[0].loss, 1);
  EXPECT_EQ(records[0].rate, 0.5);
  EXPECT_EQ(records[1].clock, 20u);
  EXPECT_EQ(records[1].loss, 3);
  EXPECT_EQ(records[1].rate, 0.25);
  EXPECT_EQ(records[1].epoch, 0.4);
  for (const MetricRecord& record : records) {
    EXPECT_EQ(record.time, kNow + absl::Seconds(4));
    EXPECT_EQ(record.examples_per_second, 100.0);  // 4 x 100 in 4 s
    EXPECT_FALSE(record.gradient_norm.has_value());
  }
  EXPECT_EQ(metrics_->last_training()->clock, 20u);
  metrics_->CloseWindows(kNow + absl::Seconds(5));
  EXPECT_THAT(metrics_->Drain(), IsEmpty());
}

TEST_F(RunMetricsTest, AnEvaluationIsARecordOnceEveryRankIsIn) {
  EXPECT_EQ(metrics_->EvaluationText(), "");
  Evaluate(0, 50, 10);
  EXPECT_THAT(metrics_->Drain(), IsEmpty());
  Evaluate(1, 50, 30);
  const std::vector<MetricRecord> records = metrics_->Drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kEvaluation);
  EXPECT_EQ(records[0].loss, 0.5);
  EXPECT_EQ(records[0].epoch, 0) << "without data there are no epochs";
  EXPECT_EQ(metrics_->EvaluationText(), "clock 50, epoch 0: loss 0.5");
  Evaluate(0, 60, 10);
  EXPECT_THAT(Evaluate(0, 70, 10), IsEmpty());
  EXPECT_THAT(Evaluate(1, 70, 10), ElementsAre(HasSubstr("60"))) << "what is overtaken is told";
}

TEST_F(RunMetricsTest, ARollBackVoidsWhatIsNoRecordYet) {
  metrics_->SetEpochs(50, 1000);
  Train(0, 0, 100);
  Evaluate(0, 10, 10);
  metrics_->RollBack(5, Generation(3), kNow);
  std::vector<MetricRecord> records = metrics_->Drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kRolledBack);
  EXPECT_EQ(records[0].clock, 5u);
  EXPECT_EQ(records[0].epoch, 0.1);
  EXPECT_EQ(records[0].generation, 3u);
  Train(1, 0, 100);
  Evaluate(1, 10, 10);
  metrics_->CloseWindows(kNow);
  EXPECT_THAT(metrics_->Drain(), IsEmpty()) << "rank 0 has to tell again";
  Train(0, 0, 100);
  Evaluate(0, 10, 10);
  metrics_->CloseWindows(kNow);
  records = metrics_->Drain();
  EXPECT_EQ(records.size(), 2u);
}

// Two tensors that are trained and one that is frozen, on two servers; the first tensor has a block on each.
class NormsTest : public RunMetricsTest {
 protected:
  NormsTest() {
    job_.mutable_metrics()->set_every_rounds(3);
    job_.mutable_metrics()->set_gradient_histograms(true);
    metrics_.emplace(&job_);
    for (const char* name : {"deep", "frozen", "top"}) {
      TensorSpec spec;
      spec.name = name;
      spec.shape = {4};
      if (spec.name == "frozen") spec.role = TensorRole::kFrozen;
      specs_.push_back(std::move(spec));
    }
    map_.placement = {{ServerId(0), ServerId(1)}, {ServerId(1)}, {ServerId(0)}};
  }
  // The squares of each block of a server.
  absl::Status Tell(uint32_t server, uint64_t clock, std::vector<double> squares) {
    v1::ScalarPartials partials;
    partials.set_clock(clock);
    size_t at = 0;
    for (uint32_t t = 0; t < map_.placement.size(); ++t) {
      for (uint32_t b = 0; b < map_.placement[t].size(); ++b) {
        if (map_.placement[t][b].value != server) continue;
        v1::TensorPartials* tensor = partials.add_tensor();
        tensor->set_tensor(t);
        tensor->add_block(b);
        tensor->add_square(squares[at++]);
      }
    }
    return metrics_->AddNorms(ServerId(server), partials, map_, specs_, kNow);
  }
  void TellAll(uint64_t clock, double deep, double top) {
    ASSERT_TRUE(Tell(0, clock, {deep / 2, top}).ok());
    ASSERT_TRUE(Tell(1, clock, {deep / 2, 0}).ok());
  }

  std::vector<TensorSpec> specs_;
  PartitionMap map_;
};

TEST_F(NormsTest, AreCountedByTensorInWindows) {
  metrics_->SetEpochs(6, 1000);
  TellAll(0, 4e-6, 4);
  TellAll(1, 4e-6, 25);
  // One server is ahead of the other, and tells a clock twice.
  EXPECT_TRUE(Tell(0, 2, {2e-8, 4}).ok());
  EXPECT_TRUE(Tell(0, 3, {0.5, 4}).ok());
  EXPECT_TRUE(Tell(0, 2, {1e9, 1e9}).ok());
  EXPECT_THAT(metrics_->Drain(), IsEmpty());
  EXPECT_TRUE(Tell(1, 2, {2e-8, 0}).ok());
  const std::vector<MetricRecord> records = metrics_->Drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].kind, MetricRecord::Kind::kGradients);
  EXPECT_EQ(records[0].clock, 3u);
  EXPECT_EQ(records[0].epoch, 0.5);
  EXPECT_EQ(records[0].rounds, 3u);
  EXPECT_EQ(records[0].time, kNow);
  ASSERT_EQ(records[0].norms.size(), 2u) << "what is frozen has no gradients";
  EXPECT_EQ(records[0].norms[0].first, "deep");
  EXPECT_THAT(records[0].norms[0].second.Hit(), ElementsAre(Pair("0.0001", 1), Pair("0.001", 2)));
  EXPECT_EQ(records[0].norms[1].first, "top");
  EXPECT_THAT(records[0].norms[1].second.Hit(), ElementsAre(Pair("1", 2), Pair("4.64", 1)));
}

TEST_F(NormsTest, AtTheEndTheOpenWindowIsARecord) {
  for (uint64_t clock = 0; clock < 4; ++clock) TellAll(clock, 1, 1);
  EXPECT_EQ(metrics_->Drain().size(), 1u);
  metrics_->CloseNorms(specs_, kNow);
  const std::vector<MetricRecord> records = metrics_->Drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].clock, 4u);
  EXPECT_EQ(records[0].rounds, 1u);
  metrics_->CloseNorms(specs_, kNow);
  EXPECT_THAT(metrics_->Drain(), IsEmpty());
}

TEST_F(NormsTest, ARollBackVoidsTheOpenWindow) {
  for (uint64_t clock = 0; clock < 5; ++clock) TellAll(clock, 1, 1);
  EXPECT_TRUE(Tell(1, 5, {1, 0}).ok());
  metrics_->RollBack(4, Generation(2), kNow);
  EXPECT_EQ(metrics_->Drain().size(), 2u);
  TellAll(4, 100, 1);
  EXPECT_TRUE(Tell(0, 5, {50, 1}).ok());
  EXPECT_THAT(metrics_->Drain(), IsEmpty()) << "what the other server told before counts no more";
  EXPECT_TRUE(Tell(1, 5, {50, 0}).ok());
  EXPECT_THAT(metrics_->Drain(), IsEmpty()) << "two rounds of three";
  TellAll(6, 1, 1);
  const std::vector<MetricRecord> records = metrics_->Drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].clock, 6u);
  EXPECT_EQ(records[0].rounds, 2u);
  EXPECT_THAT(records[0].norms[0].second.Hit(), ElementsAre(Pair("10", 2)));
}

TEST_F(NormsTest, WhatDoesNotFitIsRefused) {
  v1::ScalarPartials partials;
  partials.add_tensor()->set_tensor(0);
  partials.mutable_tensor(0)->add_block(1);
  partials.mutable_tensor(0)->add_square(1);
  const absl::Status refused = metrics_->AddNorms(ServerId(0), partials, map_, specs_, kNow);
  EXPECT_EQ(refused.message(), "server 0 sent a scalar of block 1 of tensor 0, which it does not hold");
  EXPECT_EQ(metrics_->norms_refusal(ServerId(0)), refused.message());
}

TEST_F(RunMetricsTest, WhatIsRolledBackIsNotTheLastAnyMore) {
  for (uint32_t rank : {0, 1}) Train(rank, 0, 100);
  metrics_->CloseWindows(kNow);
  for (uint32_t rank : {0, 1}) Evaluate(rank, 10, 10);
  ASSERT_TRUE(metrics_->last_training().has_value());
  metrics_->RollBack(10, Generation(2), kNow);
  EXPECT_EQ(metrics_->last_training()->clock, 10u) << "up to the clock that is gone back to all of it holds";
  EXPECT_EQ(metrics_->last_evaluation()->clock, 10u);
  EXPECT_EQ(metrics_->LossAt(10), 0.25);
  metrics_->RollBack(9, Generation(3), kNow);
  EXPECT_FALSE(metrics_->last_training().has_value());
  EXPECT_FALSE(metrics_->last_evaluation().has_value());
  EXPECT_EQ(metrics_->EvaluationText(), "");
  EXPECT_FALSE(metrics_->LossAt(10).has_value());
  EXPECT_TRUE(metrics_->MayEvaluate(10));
}

TEST_F(RunMetricsTest, TheLossOfEachClockIsKnown) {
  EXPECT_TRUE(metrics_->MayEvaluate(10));
  for (uint64_t clock : {10, 30}) {
    for (uint32_t rank : {0, 1}) Evaluate(rank, clock, static_cast<double>(clock));
  }
  EXPECT_EQ(metrics_->LossAt(10), 0.25);
  EXPECT_EQ(metrics_->LossAt(30), 0.75);
  EXPECT_FALSE(metrics_->LossAt(20).has_value());
  EXPECT_FALSE(metrics_->MayEvaluate(20)) << "overtaken";
  EXPECT_FALSE(metrics_->MayEvaluate(30));
  EXPECT_TRUE(metrics_->MayEvaluate(31));
}

}  // namespace
}  // namespace descent
