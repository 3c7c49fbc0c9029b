#include "server/coordinator/run_metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
