// Reference numbers: scikit-learn 1.9.1 on the same examples, drawn by the same generator.
#include "worker/metrics/metric_observer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "common/metrics/metric_state.h"
#include "common/metrics/score_curve.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

// x -> (1103515245 x + 12345) mod 2^31, the upper bits.
class Draws {
 public:
  explicit Draws(uint32_t seed) : x_(seed) {}
  uint32_t Next(uint32_t below) {
    x_ = (x_ * 1103515245u + 12345u) & 0x7fffffffu;
    return (x_ >> 16) % below;
  }

 private:
  uint32_t x_;
};

struct Examples {
  std::vector<float> labels, outputs;
  size_t width = 1;
};

Examples TwoClasses() {
  Draws draws(7);
  Examples out;
  for (int i = 0; i < 40; ++i) {
    const float score = static_cast<float>(draws.Next(21)) / 20.0f;
    const uint32_t t = draws.Next(100);
    out.outputs.push_back(score);
    out.labels.push_back(t < 20 + 60 * static_cast<double>(score) ? 1 : 0);
  }
  return out;
}

// Of class 3 there is no example.
Examples FourClasses() {
  Draws draws(11);
  Examples out;
  out.width = 4;
  for (int i = 0; i < 30; ++i) {
    uint32_t w[4], sum = 0;
    for (uint32_t& each : w) sum += each = draws.Next(8) + 1;
    for (const uint32_t each : w) out.outputs.push_back(static_cast<float>(each) / static_cast<float>(sum));
    const auto label = i % 3 != 0 ? draws.Next(4) : static_cast<uint32_t>(std::max_element(w, w + 4) - w);
    out.labels.push_back(static_cast<float>(std::min(label, 2u)));
  }
  return out;
}

Examples Numbers() {
  Draws draws(13);
  Examples out;
  for (int i = 0; i < 25; ++i) {
    out.labels.push_back(static_cast<float>(draws.Next(1000)) / 8.0f + 1000.0f);
    out.outputs.push_back(out.labels.back() + (static_cast<float>(draws.Next(100)) - 50.0f) / 4.0f);
  }
  return out;
}

v1::Evaluation Asks(std::initializer_list<v1::EvaluationMetric> metrics) {
  v1::Evaluation evaluation;
  for (const v1::EvaluationMetric metric : metrics) evaluation.add_metrics(metric);
  evaluation.set_exact_scores(100);
  evaluation.set_calibration_bins(4);
  evaluation.add_top_k(2);
  return evaluation;
}
const v1::Evaluation kClassMetrics =
    Asks({v1::CONFUSION, v1::PRECISION, v1::RECALL, v1::F1, v1::TOP_K, v1::LOG_LOSS, v1::CALIBRATION});

// As `ranks` ranks with batches of `batch` would.
v1::MetricState Observe(const v1::Evaluation& evaluation, const Prediction& prediction, const Examples& examples,
                        size_t ranks = 1, size_t batch = 1000) {
  const size_t rows = examples.labels.size();
  v1::MetricState total;
  for (size_t rank = 0; rank < ranks; ++rank) {
    MetricObserver observer(evaluation, prediction, rows);
    const size_t end = rows * (rank + 1) / ranks;
    for (size_t at = rows * rank / ranks; at < end; at += batch) {
      const size_t n = std::min(batch, end - at);
      observer.Add(absl::MakeSpan(examples.labels).subspan(at, n),
                   absl::MakeSpan(examples.outputs).subspan(at * examples.width, n * examples.width));
    }
    const v1::MetricState part = observer.Take();
    EXPECT_TRUE(CheckMetricState(evaluation, part).ok()) << CheckMetricState(evaluation, part);
    if (rank > 0) {
      EXPECT_TRUE(CheckMerge(evaluation, part, total).ok()) << CheckMerge(evaluation, part, total);
    }
    MergeCounts(part, &total);
    MergeSums(part, &total);
  }
  return total;
}

double Of(const MetricResults& results, const std::string& name) {
  const double* value = results.Find(name);
  EXPECT_NE(value, nullptr) << name;
  return value == nullptr ? std::numeric_limits<double>::quiet_NaN() : *value;
}

void ExpectEach(const MetricResults& results, const std::string& name, const std::vector<double>& expected) {
  for (const auto& [found, values] : results.per_class) {
    if (found != name) continue;
    ASSERT_EQ(values.size(), expected.size());
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-14) << name << " of " << i;
    return;
  }
  ADD_FAILURE() << "no " << name;
}

TEST(MetricObserverTest, TwoClassesAgreeWithScikitLearn) {
  v1::Evaluation evaluation = kClassMetrics;
  for (const auto metric : {v1::ROC_AUC, v1::PR_AUC}) evaluation.add_metrics(metric);
  const MetricResults results = Finish(evaluation, Observe(evaluation, {true, 2}, TwoClasses()));
  EXPECT_NEAR(Of(results, "roc_auc"), 0.71843434343434343, 1e-15);
  EXPECT_NEAR(Of(results, "pr_auc"), 0.75374554990968379, 1e-15);
  EXPECT_EQ(results.confusion, (std::vector<std::vector<uint64_t>>{{11, 7}, {8, 14}}));
  EXPECT_NEAR(Of(results, "precision_macro"), 0.62280701754385959, 1e-15);
  EXPECT_NEAR(Of(results, "recall_macro"), 0.6237373737373737, 1e-15);
  EXPECT_NEAR(Of(results, "f1_macro"), 0.62287869264613449, 1e-15);
  EXPECT_NEAR(Of(results, "f1_micro"), 0.625, 1e-15);
  EXPECT_NEAR(Of(results, "f1"), 0.6511627906976745, 1e-15);
  EXPECT_NEAR(Of(results, "accuracy"), 0.625, 1e-15);
  ExpectEach(results, "precision_per_class", {0.5789473684210527, 0.6666666666666666});
  ExpectEach(results, "recall_per_class", {0.6111111111111112, 0.6363636363636364});
  // log_loss of float32 probabilities, some of which are 0 or 1; it computes in float32.
  EXPECT_NEAR(Of(results, "log_loss"), 0.97300624847412109, 2e-7);
  // calibration_curve(n_bins=4)
  const double accuracy[] = {0.3, 0.5555555555555556, 0.5454545454545454, 0.8};
  const double confidence[] = {0.11000000089406967, 0.41111110978656346, 0.6363636363636364, 0.9199999928474426};
  ASSERT_EQ(results.reliability.size(), 4u);
  for (int b = 0; b < 4; ++b) {
    EXPECT_NEAR(results.reliability[b].accuracy, accuracy[b], 1e-14);
    EXPECT_NEAR(results.reliability[b].confidence, confidence[b], 1e-7);
  }
}

TEST(MetricObserverTest, MoreClassesAgreeWithScikitLearn) {
  const MetricResults results = Finish(kClassMetrics, Observe(kClassMetrics, {true, 4}, FourClasses()));
  EXPECT_EQ(results.confusion,
            (std::vector<std::vector<uint64_t>>{{7, 0, 2, 0}, {2, 2, 2, 1}, {2, 3, 3, 6}, {0, 0, 0, 0}}));
  EXPECT_NEAR(Of(results, "precision_macro"), 0.36623376623376624, 1e-15);
  EXPECT_NEAR(Of(results, "recall_macro"), 0.31944444444444442, 1e-15);
  EXPECT_NEAR(Of(results, "f1_macro"), 0.3297619047619047, 1e-15);
  EXPECT_NEAR(Of(results, "recall_micro"), 0.4, 1e-15);
  ExpectEach(results, "f1_per_class", {0.7, 0.3333333333333333, 0.2857142857142857, 0});
  EXPECT_NEAR(Of(results, "log_loss"), 1.4237337429528032, 1e-7);
  EXPECT_EQ(results.Find("precision"), nullptr);
}

TEST(MetricObserverTest, NumbersAgreeWithScikitLearn) {
  const v1::Evaluation evaluation = Asks({v1::RMSE, v1::MAE, v1::R2});
  const MetricResults results = Finish(evaluation, Observe(evaluation, {false, 0}, Numbers()));
  EXPECT_NEAR(Of(results, "rmse"), 7.3350187457156508, 1e-14);
  EXPECT_NEAR(Of(results, "mae"), 6.4299999999999997, 1e-14);
  EXPECT_NEAR(Of(results, "r2"), 0.92788300271304136, 1e-14);
}

TEST(MetricObserverTest, TheFirstOfEquallyLikelyClassesComesFirst) {
  const v1::Evaluation evaluation = Asks({v1::TOP_K});
  Examples examples;
  examples.width = 3;
  examples.labels = {0, 1, 2, 2};
  for (int i = 0; i < 3; ++i) examples.outputs.insert(examples.outputs.end(), {0.25f, 0.25f, 0.25f});
  examples.outputs.insert(examples.outputs.end(), {0.5f, 0.2f, 0.3f});
  const MetricResults results = Finish(evaluation, Observe(evaluation, {true, 3}, examples));
  EXPECT_EQ(Of(results, "top_2_accuracy"), 0.75);
}

TEST(MetricObserverTest, AThresholdDecidesWhatIsPredicted) {
  v1::Evaluation evaluation = Asks({v1::CONFUSION});
  evaluation.set_threshold(0.75);
  Examples examples;
  examples.labels = {1, 1, 0, 0};
  examples.outputs = {0.75f, 0.7f, 0.8f, 0.6f};
  const MetricResults results = Finish(evaluation, Observe(evaluation, {true, 2}, examples));
  EXPECT_EQ(results.confusion, (std::vector<std::vector<uint64_t>>{{1, 1}, {1, 1}}));
  // Given both probabilities, it is that of class 1.
  examples.width = 2;
  examples.outputs = {0.25f, 0.75f, 0.3f, 0.7f, 0.2f, 0.8f, 0.4f, 0.6f};
  EXPECT_EQ(Finish(evaluation, Observe(evaluation, {true, 2}, examples)).confusion, results.confusion);
}

TEST(MetricObserverTest, TheTunedThresholdGivesItsF1) {
  v1::Evaluation evaluation = Asks({});
  evaluation.set_tune_threshold(true);
  const Examples examples = TwoClasses();
  const MetricResults tuned = Finish(evaluation, Observe(evaluation, {true, 2}, examples));
  double best = 0;
  for (int i = 0; i <= 20; ++i) {
    v1::Evaluation with = Asks({v1::F1});
    with.set_threshold(static_cast<double>(static_cast<float>(i) / 20.0f));
    const double f1 = Of(Finish(with, Observe(with, {true, 2}, examples)), "f1");
    best = std::max(best, f1);
    if (with.threshold() == Of(tuned, "tuned_threshold")) {
      EXPECT_DOUBLE_EQ(f1, Of(tuned, "tuned_f1"));
    }
  }
  EXPECT_DOUBLE_EQ(Of(tuned, "tuned_f1"), best);
}

TEST(MetricObserverTest, BeyondExactScoresBinsAreCounted) {
  v1::Evaluation evaluation = Asks({v1::ROC_AUC, v1::PR_AUC});
  const MetricResults exact = Finish(evaluation, Observe(evaluation, {true, 2}, TwoClasses()));
  evaluation.set_exact_scores(39);
  const v1::MetricState state = Observe(evaluation, {true, 2}, TwoClasses());
  EXPECT_EQ(state.positive_bin_size(), static_cast<int>(kScoreBins));
  EXPECT_EQ(state.positive_size(), 0);
  const MetricResults binned = Finish(evaluation, state);
  for (const std::string name : {"roc_auc", "pr_auc"}) {
    EXPECT_EQ(exact.Find(name + "_error"), nullptr);
    // Scores of different bins keep their order; equal ones are in one.
    EXPECT_NEAR(Of(binned, name), Of(exact, name), 1e-15);
    EXPECT_GE(Of(binned, name + "_error"), 0);
  }
}

TEST(MetricObserverTest, ResultsAreThoseOfOneShareWhateverTheBatches) {
  v1::Evaluation two = kClassMetrics;
  two.add_metrics(v1::ROC_AUC);
  const v1::Evaluation numbers = Asks({v1::RMSE, v1::MAE, v1::R2});
  const auto same = [](const v1::Evaluation& evaluation, const Prediction& prediction, const Examples& examples) {
    const std::string whole = Observe(evaluation, prediction, examples).SerializeAsString();
    for (const size_t batch : {1, 7}) {
      EXPECT_EQ(Observe(evaluation, prediction, examples, 1, batch).SerializeAsString(), whole);
    }
    const MetricResults expected = Finish(evaluation, Observe(evaluation, prediction, examples));
    for (const size_t ranks : {2, 3, 64}) {
      const MetricResults results = Finish(evaluation, Observe(evaluation, prediction, examples, ranks, 2));
      ASSERT_EQ(results.values.size(), expected.values.size());
      for (const auto& [name, value] : expected.values) EXPECT_NEAR(Of(results, name), value, 1e-13) << name;
      EXPECT_EQ(results.confusion, expected.confusion);
    }
  };
  same(two, {true, 2}, TwoClasses());
  same(kClassMetrics, {true, 4}, FourClasses());
  same(numbers, {false, 0}, Numbers());
}

TEST(MetricObserverTest, NaNsNeitherCrashNorPass) {
  v1::Evaluation evaluation = kClassMetrics;
  evaluation.add_metrics(v1::ROC_AUC);
  Examples examples;
  examples.labels = {1, 0};
  examples.outputs = {std::numeric_limits<float>::quiet_NaN(), 0.5f};
  const MetricResults results = Finish(evaluation, Observe(evaluation, {true, 2}, examples));
  EXPECT_TRUE(std::isnan(Of(results, "log_loss")));
}

}  // namespace
}  // namespace descent
