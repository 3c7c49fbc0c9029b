#include "common/metrics/metric_state.h"

#include <limits>

#include "common/metrics/metric_names.h"
#include "common/metrics/score_curve.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

v1::Evaluation Asks(std::initializer_list<v1::EvaluationMetric> metrics) {
  v1::Evaluation evaluation;
  for (const v1::EvaluationMetric metric : metrics) evaluation.add_metrics(metric);
  evaluation.set_exact_scores(4);
  return evaluation;
}

v1::MetricState Counts(std::initializer_list<uint64_t> confusion, uint64_t examples) {
  v1::MetricState state;
  for (const uint64_t n : confusion) state.add_confusion(n);
  state.set_examples(examples);
  return state;
}

void MergeAll(const v1::MetricState& part, v1::MetricState* total) {
  MergeCounts(part, total);
  MergeSums(part, total);
}

double Of(const MetricResults& results, const std::string& name) {
  const double* value = results.Find(name);
  EXPECT_NE(value, nullptr) << name;
  return value == nullptr ? std::numeric_limits<double>::quiet_NaN() : *value;
}

TEST(MetricStateTest, CountsByClassAddUp) {
  const v1::Evaluation evaluation = Asks({v1::CONFUSION, v1::PRECISION, v1::RECALL, v1::F1});
  v1::MetricState total;
  MergeAll(Counts({3, 1, 0, 2}, 6), &total);
  MergeAll(Counts({1, 0, 2, 1}, 4), &total);
  const MetricResults results = Finish(evaluation, total);
  EXPECT_EQ(results.confusion, (std::vector<std::vector<uint64_t>>{{4, 1}, {2, 3}}));
  EXPECT_DOUBLE_EQ(Of(results, "accuracy"), 0.7);
  EXPECT_DOUBLE_EQ(Of(results, "precision"), 0.75);
  EXPECT_DOUBLE_EQ(Of(results, "recall"), 0.6);
  EXPECT_DOUBLE_EQ(Of(results, "f1"), 6.0 / 9);
  EXPECT_DOUBLE_EQ(Of(results, "f1_macro"), (8.0 / 11 + 6.0 / 9) / 2);
  EXPECT_DOUBLE_EQ(Of(results, "f1_micro"), 0.7);
}

TEST(MetricStateTest, ScatterOfLabelsMergesAsIfTheyWereOneSet) {
  const std::vector<double> labels = {1e6 + 1, 1e6 + 2, 1e6 + 4, 1e6 + 8, 1e6 + 16};
  const auto of = [&](size_t begin, size_t end) {
    v1::MetricState state;
    double sum = 0, scatter = 0;
    for (size_t i = begin; i < end; ++i) sum += labels[i];
    const double mean = end > begin ? sum / static_cast<double>(end - begin) : 0;
    for (size_t i = begin; i < end; ++i) scatter += (labels[i] - mean) * (labels[i] - mean);
    state.set_examples(end - begin);
    state.set_label_mean(mean);
    state.set_label_scatter(scatter);
    state.set_square_error(static_cast<double>(end - begin) * 9);
    return state;
  };
  v1::MetricState total;
  for (const auto& [begin, end] : {std::pair(0, 0), std::pair(0, 2), std::pair(2, 2), std::pair(2, 5)}) {
    MergeAll(of(begin, end), &total);
  }
  EXPECT_NEAR(total.label_mean(), 1e6 + 31.0 / 5, 1e-9);
  EXPECT_NEAR(total.label_scatter(), of(0, 5).label_scatter(), 1e-9);
  const MetricResults results = Finish(Asks({v1::RMSE, v1::R2}), total);
  EXPECT_DOUBLE_EQ(Of(results, "rmse"), 3);
  EXPECT_NEAR(Of(results, "r2"), 1 - 45 / 148.8, 1e-10);
}

TEST(MetricStateTest, CalibrationByHand) {
  v1::Evaluation evaluation = Asks({v1::CALIBRATION});
  evaluation.set_calibration_bins(2);
  v1::MetricState state;
  state.set_examples(5);
  for (const uint64_t n : {2, 3}) state.add_reliability_count(n);
  for (const double c : {0.5, 2.4}) state.add_reliability_confidence(c);
  for (const uint64_t n : {1, 2}) state.add_reliability_hits(n);
  v1::MetricState total;
  MergeAll(state, &total);
  const MetricResults results = Finish(evaluation, total);
  // 2/5 |0.25 - 0.5| + 3/5 |0.8 - 2/3|
  EXPECT_DOUBLE_EQ(Of(results, "calibration_error"), 0.1 + 0.08);
  ASSERT_EQ(results.reliability.size(), 2u);
  EXPECT_EQ(results.reliability[1].begin, 0.5);
  EXPECT_EQ(results.reliability[1].examples, 3u);
  EXPECT_DOUBLE_EQ(results.reliability[1].confidence, 0.8);
}

TEST(MetricStateTest, WhatIsNotDefinedIsNotThere) {
  const MetricResults results = Finish(Asks({v1::ROC_AUC, v1::PR_AUC}), [] {
    v1::MetricState state;
    state.add_negative(0.5f);
    state.set_examples(1);
    return state;
  }());
  EXPECT_TRUE(results.empty());
  EXPECT_TRUE(Finish(Asks({v1::RMSE}), {}).empty());
}

TEST(MetricStateTest, BinnedAreasComeWithTheirBound) {
  v1::MetricState state;
  state.mutable_positive_bin()->Resize(kScoreBins, 0);
  state.mutable_negative_bin()->Resize(kScoreBins, 0);
  (*state.mutable_positive_bin())[10] = 1;
  (*state.mutable_positive_bin())[20] = 1;
  (*state.mutable_negative_bin())[10] = 2;
  state.set_examples(4);
  const v1::Evaluation evaluation = Asks({v1::ROC_AUC});
  EXPECT_TRUE(CheckMetricState(evaluation, state).ok());
  const MetricResults results = Finish(evaluation, state);
  EXPECT_DOUBLE_EQ(Of(results, "roc_auc"), 0.75);
  EXPECT_DOUBLE_EQ(Of(results, "roc_auc_error"), 0.25);
}

TEST(MetricStateTest, WhatAPeerSendsIsChecked) {
  const v1::Evaluation confusion = Asks({v1::F1}), scores = Asks({v1::ROC_AUC});
  EXPECT_TRUE(CheckMetricState(confusion, Counts({1, 0, 0, 1}, 2)).ok());
  EXPECT_FALSE(CheckMetricState(confusion, Counts({1, 0, 0}, 2)).ok());
  EXPECT_FALSE(CheckMetricState(confusion, {}).ok());
  EXPECT_FALSE(CheckMetricState(scores, Counts({1, 0, 0, 1}, 2)).ok());
  v1::MetricState state;
  for (int i = 0; i < 4; ++i) state.add_positive(0.5f);
  EXPECT_TRUE(CheckMetricState(scores, state).ok());
  EXPECT_TRUE(CheckMerge(scores, state, {}).ok());
  v1::MetricState one;
  one.add_negative(0.5f);
  const absl::Status many = CheckMerge(scores, one, state);
  EXPECT_EQ(many.code(), absl::StatusCode::kInvalidArgument);
  state.add_negative(0.5f);
  EXPECT_FALSE(CheckMetricState(scores, state).ok());
  state.clear_positive();
  state.set_negative(0, std::numeric_limits<float>::infinity());
  EXPECT_FALSE(CheckMetricState(scores, state).ok());
  state.clear_negative();
  state.mutable_positive_bin()->Resize(kScoreBins, 0);
  EXPECT_FALSE(CheckMetricState(scores, state).ok());  // and no negative ones
  state.mutable_negative_bin()->Resize(kScoreBins, 0);
  EXPECT_TRUE(CheckMetricState(scores, state).ok());
  EXPECT_FALSE(CheckMerge(scores, state, one).ok());
  EXPECT_FALSE(CheckMerge(confusion, Counts({1, 0, 0, 1}, 2), Counts({1}, 1)).ok());
}

TEST(MetricNamesTest, WhatAModelCanNotGiveIsRefusedByName) {
  const Prediction number{false, 0}, two{true, 2}, ten{true, 10};
  EXPECT_TRUE(CheckMetrics(Asks({v1::RMSE, v1::MAE, v1::R2}), number).ok());
  EXPECT_TRUE(CheckMetrics(Asks({v1::ROC_AUC, v1::F1, v1::CALIBRATION}), two).ok());
  EXPECT_EQ(CheckMetrics(Asks({v1::ROC_AUC, v1::RMSE, v1::TOP_K}), ten).message(),
            "ROC_AUC is of two classes, RMSE is of numbers; the model predicts 10 classes");
  EXPECT_FALSE(CheckMetrics(Asks({v1::F1}), number).ok());
  EXPECT_FALSE(CheckMetrics(Asks({v1::F1}), {true, 1000}).ok());
}

TEST(MetricNamesTest, NamesAreThoseOfTheResults) {
  v1::Evaluation evaluation =
      Asks({v1::PRECISION, v1::RECALL, v1::F1, v1::TOP_K, v1::ROC_AUC, v1::PR_AUC, v1::LOG_LOSS, v1::CALIBRATION});
  evaluation.add_top_k(1);
  evaluation.set_calibration_bins(1);
  v1::MetricState state = Counts({1, 0, 0, 1}, 2);
  state.add_top(2);
  state.add_positive(0.75f);
  state.add_negative(0.25f);
  state.add_reliability_count(2);
  state.add_reliability_confidence(1);
  state.add_reliability_hits(1);
  ASSERT_TRUE(CheckMetricState(evaluation, state).ok());
  const MetricResults results = Finish(evaluation, state);
  size_t told = 0;
  for (const NamedMetric& named : NamedMetrics(evaluation, {true, 2})) {
    if (named.name == "loss") continue;
    EXPECT_NE(results.Find(named.name), nullptr) << named.name;
    ++told;
  }
  EXPECT_EQ(told, results.values.size());
}

}  // namespace
}  // namespace descent
