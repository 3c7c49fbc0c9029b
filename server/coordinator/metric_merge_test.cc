#include "server/coordinator/metric_merge.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

v1::EvaluationPart Evaluation(uint32_t rank, uint64_t clock, double loss, double weight, double correct) {
  v1::EvaluationPart part;
  part.set_rank(rank);
  part.set_clock(clock);
  part.set_loss(loss);
  part.set_weight(weight);
  part.set_correct(correct);
  part.set_classification(true);
  return part;
}

v1::TrainingPart Training(uint32_t rank, uint64_t first, uint64_t clocks, double loss, double weight) {
  v1::TrainingPart part;
  part.set_rank(rank);
  part.set_first(first);
  part.set_clocks(clocks);
  part.set_loss(loss);
  part.set_weight(weight);
  return part;
}

TEST(EvaluationMergeTest, TheSumIsInRankOrderWhoeverReportsFirst) {
  // 1e16 + 1 - 1e16 is 0 or 1, by the order.
  const double losses[] = {1e16, 1, -1e16};
  std::vector<std::string> dropped;
  double first = 0;
  for (const auto& order : std::vector<std::vector<uint32_t>>{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}}) {
    EvaluationMerge merge(3);
    std::optional<MetricRecord> record;
    for (uint32_t r : order) {
      EXPECT_FALSE(record.has_value());
      record = merge.Add(Evaluation(r, 10, losses[r], 1, 0), &dropped);
    }
    ASSERT_TRUE(record.has_value());
    if (order[0] == 0) first = record->loss;
    EXPECT_EQ(record->loss, first);
  }
  EXPECT_EQ(first, ((1e16 + 1) - 1e16) / 3);
}

TEST(EvaluationMergeTest, MeansAccuracyAndObjective) {
  EvaluationMerge merge(2);
  std::vector<std::string> dropped;
  v1::EvaluationPart a = Evaluation(0, 5, 6, 4, 3), b = Evaluation(1, 5, 2, 4, 4);
  a.set_train_loss(10);
  a.set_train_weight(20);
  a.set_regularizer(0.25);
  b.set_train_loss(20);
  b.set_train_weight(40);
  b.set_fuzzy(true);
  EXPECT_FALSE(merge.Add(a, &dropped).has_value());
  EXPECT_FALSE(merge.Add(a, &dropped).has_value()) << "the same part again is no other rank's";
  const std::optional<MetricRecord> record = merge.Add(b, &dropped);
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->loss, 1.0);
  EXPECT_EQ(record->weight, 8u);
  EXPECT_EQ(record->accuracy, 7.0 / 8);
  EXPECT_EQ(record->objective, 0.75);
  EXPECT_TRUE(record->fuzzy);
  EXPECT_FALSE(merge.Add(a, &dropped).has_value()) << "an old clock is over";
  EXPECT_EQ(merge.pending(), 0u);
}

TEST(EvaluationMergeTest, ALossThatIsNoClassifiersHasNoAccuracyAndWithoutTrainingSumsNoObjective) {
  EvaluationMerge merge(1);
  std::vector<std::string> dropped;
  v1::EvaluationPart part = Evaluation(0, 1, 3, 2, 0);
  part.set_classification(false);
  const std::optional<MetricRecord> record = merge.Add(part, &dropped);
  ASSERT_TRUE(record.has_value());
  EXPECT_FALSE(record->accuracy.has_value());
  EXPECT_FALSE(record->objective.has_value());
}

TEST(EvaluationMergeTest, AnIncompleteOneIsDroppedAloudWhenALaterOneIsComplete) {
  EvaluationMerge merge(2);
  std::vector<std::string> dropped;
  merge.Add(Evaluation(0, 5, 1, 1, 0), &dropped);
  merge.Add(Evaluation(0, 10, 1, 1, 0), &dropped);
  EXPECT_TRUE(merge.Add(Evaluation(1, 10, 1, 1, 0), &dropped).has_value());
  ASSERT_EQ(dropped.size(), 1u);
  EXPECT_EQ(dropped[0], "the evaluation at clock 5 stays incomplete: ranks 1 did not report");
  EXPECT_EQ(merge.pending(), 0u);
}

v1::EvaluationPart Scored(uint32_t rank, uint64_t clock, float positive, float negative, double error) {
  v1::EvaluationPart part = Evaluation(rank, clock, 1, 2, 1);
  v1::MetricState* metrics = part.mutable_metrics();
  metrics->set_examples(2);
  metrics->add_positive(positive);
  metrics->add_negative(negative);
  metrics->set_log_loss(error);
  return part;
}

v1::Evaluation Asks() {
  v1::Evaluation evaluation;
  evaluation.add_metrics(v1::ROC_AUC);
  evaluation.add_metrics(v1::LOG_LOSS);
  evaluation.set_exact_scores(6);
  return evaluation;
}

TEST(EvaluationMergeTest, MetricsAreOfAllRanksInRankOrderAndEachCountsOnce) {
  const v1::EvaluationPart parts[] = {Scored(0, 4, 0.5f, 0.5f, 1e16), Scored(1, 4, 0.75f, 0.25f, 6),
                                      Scored(2, 4, 0.125f, 0.25f, -1e16)};
  for (const auto& order : std::vector<std::vector<uint32_t>>{{0, 0, 1, 2}, {2, 1, 2, 0}, {1, 2, 1, 0}}) {
    EvaluationMerge merge(3, Asks());
    std::vector<std::string> trouble;
    std::optional<MetricRecord> record;
    for (uint32_t r : order) record = merge.Add(parts[r], &trouble);
    ASSERT_TRUE(record.has_value());
    EXPECT_TRUE(trouble.empty()) << trouble[0];
    ASSERT_NE(record->metrics.Find("roc_auc"), nullptr);
    EXPECT_DOUBLE_EQ(*record->metrics.Find("roc_auc"), (2.5 + 3 + 0) / 9);
    EXPECT_EQ(*record->metrics.Find("log_loss"), ((1e16 + 6) - 1e16) / 6);
  }
}

TEST(EvaluationMergeTest, APartThatIsNoneOfThisJobsIsLeftOutAloudAndMayComeAgain) {
  EvaluationMerge merge(2, Asks());
  std::vector<std::string> trouble;
  EXPECT_FALSE(merge.Add(Scored(0, 4, 0.5f, 0.5f, 1), &trouble).has_value());
  v1::EvaluationPart bad = Scored(1, 4, 0.75f, 0.5f, 1);
  bad.mutable_metrics()->add_confusion(3);
  EXPECT_FALSE(merge.Add(bad, &trouble).has_value());
  bad = Scored(1, 4, std::numeric_limits<float>::infinity(), 0.5f, 1);
  EXPECT_FALSE(merge.Add(bad, &trouble).has_value());
  bad = Scored(1, 4, 0.5f, 0.5f, 1);
  for (int i = 0; i < 4; ++i) bad.mutable_metrics()->add_positive(0);
  EXPECT_FALSE(merge.Add(bad, &trouble).has_value()) << "more than exact_scores, with those of rank 0";
  ASSERT_EQ(trouble.size(), 3u);
  EXPECT_THAT(trouble[0], HasSubstr("rank 1's part of the evaluation at clock 4 is left out"));
  EXPECT_TRUE(merge.Add(Scored(1, 4, 0.75f, 0.5f, 1), &trouble).has_value());
}

TEST(EvaluationMergeTest, LargeStatesPendInSmallNumber) {
  v1::Evaluation evaluation;
  evaluation.add_metrics(v1::CONFUSION);
  EvaluationMerge merge(2, evaluation);
  std::vector<std::string> trouble;
  v1::EvaluationPart part = Evaluation(0, 0, 1, 1, 0);
  part.mutable_metrics()->mutable_confusion()->Resize(512 * 512, uint64_t{1} << 60);
  for (uint64_t clock = 1; clock <= 100; ++clock) {
    part.set_clock(clock);
    merge.Add(part, &trouble);
  }
  EXPECT_LE(merge.pending(), 32u);
  EXPECT_EQ(merge.pending() + trouble.size(), 100u);
}

TEST(EvaluationMergeTest, MemoryIsBounded) {
  EvaluationMerge merge(2);
  std::vector<std::string> dropped;
  for (uint64_t c = 1; c <= 5000; ++c) merge.Add(Evaluation(0, c, 1, 1, 0), &dropped);
  EXPECT_LE(merge.pending(), 256u);
  EXPECT_FALSE(merge.Add(Evaluation(7, 1, 1, 1, 0), &dropped).has_value()) << "no such rank";
}

TEST(TrainingMergeTest, AWindowIsOutWhenEveryRankIsPastIt) {
  TrainingMerge merge(2, 10);
  merge.Add(Training(0, 0, 4, 4, 8));
  merge.Add(Training(0, 4, 6, 2, 12));
  merge.Add(Training(0, 10, 10, 1, 1));
  EXPECT_FALSE(merge.Next().has_value());
  merge.Add(Training(1, 0, 10, 14, 20));
  const std::optional<MetricRecord> record = merge.Next();
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->clock, 10u);
  EXPECT_EQ(record->loss, 20.0 / 40);
  EXPECT_EQ(record->weight, 40u);
  EXPECT_FALSE(merge.Next().has_value());
}

TEST(TrainingMergeTest, PartsSentAgainCountOnceAndARankThatMovedMayLeaveAGap) {
  TrainingMerge merge(2, 10);
  merge.Add(Training(0, 0, 5, 5, 5));
  merge.Add(Training(0, 0, 5, 5, 5));
  merge.Add(Training(0, 8, 2, 2, 2));  // 5 to 7 went with the worker
  merge.Add(Training(1, 0, 10, 0, 3));
  const std::optional<MetricRecord> record = merge.Next();
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->weight, 10u);
  EXPECT_EQ(record->loss, 0.7);
}

TEST(TrainingMergeTest, TheLastWindowIsShorter) {
  TrainingMerge merge(1, 10);
  merge.Add(Training(0, 0, 10, 1, 1));
  merge.Add(Training(0, 10, 3, 6, 3));
  EXPECT_EQ(merge.Next()->clock, 10u);
  EXPECT_FALSE(merge.Next().has_value());
  merge.Done(Rank(0));
  const std::optional<MetricRecord> record = merge.Next();
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->clock, 13u);
  EXPECT_EQ(record->loss, 2);
}

TEST(TrainingMergeTest, NonsenseIsIgnoredAndMemoryBounded) {
  TrainingMerge merge(2, 1);
  merge.Add(Training(5, 0, 1, 1, 1));
  merge.Add(Training(0, 0, 0, 1, 1));
  merge.Add(Training(0, std::numeric_limits<uint64_t>::max(), 2, 1, 1));
  EXPECT_EQ(merge.pending(), 0u);
  for (uint64_t c = 0; c < 5000; ++c) merge.Add(Training(0, c, 1, 1, 1));
  EXPECT_LE(merge.pending(), 1024u);
}

v1::ScalarPartials Partials(uint64_t clock, std::vector<std::pair<uint32_t, double>> blocks) {
  v1::ScalarPartials partials;
  partials.set_clock(clock);
  v1::TensorPartials* tensor = partials.add_tensor();
  for (const auto& [block, square] : blocks) {
    tensor->add_block(block);
    tensor->add_square(square);
  }
  return partials;
}

PartitionMap TwoServers() {
  PartitionMap map;
  map.servers = 2;
  map.placement = {{ServerId(0), ServerId(1), ServerId(0)}};
  return map;
}

TEST(ScalarMergeTest, SumsInBlockOrderOnceEveryServerHasReported) {
  // In block order (1e16 + 1) + -; by server it would be (1e16 + 1) + 1 with another rounding.
  const double expected = (1e16 + 1) + 1;
  for (bool swap : {false, true}) {
    ScalarMerge merge;
    const auto a = Partials(7, {{0, 1e16}, {2, 1}}), b = Partials(7, {{1, 1}});
    ASSERT_TRUE(merge.Add(ServerId(swap ? 1 : 0), swap ? b : a, TwoServers()).ok());
    EXPECT_EQ(merge.Totals(7), nullptr);
    ASSERT_TRUE(merge.Add(ServerId(swap ? 1 : 0), swap ? b : a, TwoServers()).ok());
    EXPECT_EQ(merge.Totals(7), nullptr) << "one server twice is not two";
    ASSERT_TRUE(merge.Add(ServerId(swap ? 0 : 1), swap ? a : b, TwoServers()).ok());
    ASSERT_NE(merge.Totals(7), nullptr);
    EXPECT_EQ(merge.Totals(7)->square[0], expected);
    ASSERT_NE(merge.Within(0, 8), nullptr);
    EXPECT_EQ(merge.Within(0, 8)->square[0], expected);
    EXPECT_EQ(merge.Within(0, 7), nullptr);
    EXPECT_EQ(merge.Within(8, 20), nullptr);
  }
}

TEST(ScalarMergeTest, RefusesWhatDoesNotFit) {
  ScalarMerge merge;
  const PartitionMap map = TwoServers();
  EXPECT_THAT(merge.Add(ServerId(0), Partials(1, {{1, 1}}), map).message(), HasSubstr("block 1 of tensor 0"));
  EXPECT_THAT(merge.Add(ServerId(0), Partials(1, {{9, 1}}), map).message(), HasSubstr("block 9"));
  EXPECT_THAT(merge.Add(ServerId(0), Partials(1, {{0, std::nan("")}}), map).message(), HasSubstr("nan"));
  EXPECT_THAT(merge.Add(ServerId(0), Partials(1, {{0, -1}}), map).message(), HasSubstr("at least 0"));
  EXPECT_EQ(merge.Add(ServerId(0), Partials(1, {{0, 1}, {2, 1}, {0, 1}}), map),
            absl::InvalidArgumentError("server 0 sent two scalars of block 0 of tensor 0; expected one"));
  v1::ScalarPartials infinite = Partials(1, {{0, std::numeric_limits<double>::infinity()}});
  infinite.set_before_step(true);
  EXPECT_EQ(merge.Add(ServerId(0), infinite, map),
            absl::InvalidArgumentError("server 0 sent the squared norm inf of block 0 of tensor 0; "
                                       "expected a finite number of at least 0"));
  v1::ScalarPartials ragged = Partials(1, {{0, 1}});
  ragged.mutable_tensor(0)->add_block(2);
  EXPECT_THAT(merge.Add(ServerId(0), ragged, map).message(), HasSubstr("1, 0 and 0 scalars for 2 blocks"));
  v1::ScalarPartials unknown = Partials(1, {{0, 1}});
  unknown.mutable_tensor(0)->set_tensor(4);
  EXPECT_THAT(merge.Add(ServerId(0), unknown, map).message(), HasSubstr("tensor 4"));
  EXPECT_EQ(merge.Add(ServerId(0), unknown, map).code(), absl::StatusCode::kInvalidArgument);
  // Nothing of it was kept.
  EXPECT_FALSE(merge.awaited(map).has_value());
  infinite.set_before_step(false);
  EXPECT_TRUE(merge.Add(ServerId(0), infinite, map).ok()) << "for the record";
}

TEST(ScalarMergeTest, TellsWhoIsAwaited) {
  ScalarMerge merge;
  const PartitionMap map = TwoServers();
  EXPECT_FALSE(merge.awaited(map).has_value());
  ASSERT_TRUE(merge.Add(ServerId(0), Partials(7, {{0, 1}, {2, 1}}), map).ok());
  ASSERT_TRUE(merge.awaited(map).has_value());
  EXPECT_EQ(merge.awaited(map)->clock, 7u);
  EXPECT_EQ(merge.awaited(map)->servers, std::vector<ServerId>{ServerId(1)});
  ASSERT_TRUE(merge.Add(ServerId(1), Partials(7, {{1, 1}}), map).ok());
  EXPECT_FALSE(merge.awaited(map).has_value());
  ASSERT_TRUE(merge.Add(ServerId(1), Partials(6, {{1, 1}}), map).ok());
  EXPECT_FALSE(merge.awaited(map).has_value()) << "an older one, told again";
  ASSERT_TRUE(merge.Add(ServerId(1), Partials(8, {{1, 1}}), map).ok());
  EXPECT_EQ(merge.awaited(map)->servers, std::vector<ServerId>{ServerId(0)});
}

}  // namespace
}  // namespace descent
