#include "worker/loop/local_steps.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/models/model_factory.h"

namespace descent {
namespace {

using ::testing::ElementsAre;

// f(w) = c/2 (w - y)^2 of an example with label y, with the curvature c as its only feature; and a statistic, the sum
// of labels. It writes down what it is asked.
class Parabola final : public Model<float> {
 public:
  struct Call {
    uint64_t clock;
    uint32_t rank;
    std::vector<float> labels;
    float w;
    bool operator==(const Call&) const = default;
  };

  Parabola() {
    tensors_.resize(2);
    tensors_[0].name = "w";
    tensors_[0].shape = {1};
    tensors_[1].name = "labels";
    tensors_[1].shape = {1};
    tensors_[1].role = TensorRole::kStatistic;
    tensors_[1].decay = false;
  }
  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }
  BatchResult Gradient(const Batch& batch, absl::Span<const float* const> parameters,
                       absl::Span<float* const> gradient) override {
    const float w = parameters[0][0];
    calls.push_back({batch.clock, batch.rank, batch.label, w});
    statistic_read = parameters[1];
    gradient[0][0] = gradient[1][0] = 0;
    for (size_t i = 0; i < batch.rows; ++i) {
      gradient[0][0] += batch.dense[i] * (w - batch.label[i]);
      gradient[1][0] += batch.label[i];
    }
    return Evaluate(batch, parameters);
  }
  BatchResult Evaluate(const Batch& batch, absl::Span<const float* const> parameters) override {
    BatchResult result;
    result.weight = weightless ? 0 : static_cast<double>(batch.rows);
    result.correct = 1;
    for (size_t i = 0; i < batch.rows; ++i) {
      result.loss += 0.5 * batch.dense[i] * std::pow(parameters[0][0] - batch.label[i], 2);
    }
    return result;
  }
  void Predict(const Batch&, absl::Span<const float* const>, std::vector<float>* out) override { out->assign(1, 0); }

  std::vector<Call> calls;
  const float* statistic_read = nullptr;
  bool weightless = false;

 private:
  std::vector<TensorSpec> tensors_;
};

Batch MakeBatch(std::vector<float> labels, float curvature = 1) {
  Batch batch;
  batch.rows = labels.size();
  batch.rank = 3;
  batch.clock = 7;
  batch.features = 1;
  batch.dense.Resize(labels.size());
  for (size_t i = 0; i < labels.size(); ++i) batch.dense[i] = curvature;
  batch.label = std::move(labels);
  return batch;
}

struct Outcome {
  float difference, statistic;
  BatchResult result;
};

Outcome Contribute(LocalSteps* steps, const Batch& batch, float w, Parabola* model,
                   const std::function<bool()>& unwanted = nullptr) {
  AlignedFloats parameter, statistic, difference, sum;
  for (AlignedFloats* values : {&parameter, &statistic, &difference, &sum}) values->Resize(1);
  parameter[0] = w;
  statistic[0] = 99;
  difference[0] = sum[0] = 1e9f;  // is written, and not added to
  const std::vector<const float*> from = {parameter.data(), statistic.data()};
  const std::vector<float*> to = {difference.data(), sum.data()};
  const BatchResult result = steps->Contribution(batch, from, model, to, unwanted);
  EXPECT_EQ(parameter[0], w) << "what was read is changed";
  EXPECT_EQ(statistic[0], 99);
  EXPECT_EQ(model->statistic_read, statistic.data());
  return {difference[0], sum[0], result};
}

TEST(LocalSteps, GoesAsFarAsTheClosedForm) {
  // Every step leaves (1 - rate c) of the distance to the label.
  const Batch batch = MakeBatch({2, 2, 2, 2, 2, 2}, 0.5f);
  LocalSteps steps({3, 2, 0.25f, 0});
  Parabola model;
  const Outcome out = Contribute(&steps, batch, 10, &model);
  const double end = 2 + 8 * std::pow(1 - 0.125, 3);
  EXPECT_EQ(out.result.weight, 6);
  EXPECT_NEAR(out.difference, 6 * (10 - end), 1e-5);
  EXPECT_EQ(out.statistic, 12);
  // The copies are where each step before has left them, and the losses are theirs.
  ASSERT_EQ(model.calls.size(), 3u);
  double loss = 0;
  for (int k = 0; k < 3; ++k) {
    const double w = 2 + 8 * std::pow(1 - 0.125, k);
    EXPECT_NEAR(model.calls[k].w, w, 1e-6);
    loss += 2 * 0.25 * (w - 2) * (w - 2);
  }
  EXPECT_NEAR(out.result.loss, loss, 1e-5);
  EXPECT_EQ(out.result.correct, 3);
}

TEST(LocalSteps, DecaysTheCopyInEachStep) {
  const Batch batch = MakeBatch({0, 0});
  LocalSteps steps({2, 1, 0.1f, 0.5f});
  Parabola model;
  // Curvature 1 + l2.
  EXPECT_NEAR(Contribute(&steps, batch, 4, &model).difference, 2 * (4 - 4 * std::pow(1 - 0.15, 2)), 1e-5);
  class NotDecayed final : public Model<float> {
   public:
    NotDecayed() : tensors_(inner_.tensors()) { tensors_[0].decay = false; }
    const std::vector<TensorSpec>& tensors() const override { return tensors_; }
    bool classifier() const override { return false; }
    size_t outputs() const override { return 1; }
    BatchResult Gradient(const Batch& batch, absl::Span<const float* const> parameters,
                         absl::Span<float* const> gradient) override {
      return inner_.Gradient(batch, parameters, gradient);
    }
    BatchResult Evaluate(const Batch& batch, absl::Span<const float* const> parameters) override {
      return inner_.Evaluate(batch, parameters);
    }
    void Predict(const Batch&, absl::Span<const float* const>, std::vector<float>* out) override { out->assign(1, 0); }

   private:
    Parabola inner_;
    std::vector<TensorSpec> tensors_;
  } bias;
  float w = 4, statistic = 0, difference = 0, sum = 0;
  const std::vector<const float*> from = {&w, &statistic};
  const std::vector<float*> to = {&difference, &sum};
  steps.Contribution(batch, from, &bias, to);
  EXPECT_NEAR(difference, 2 * (4 - 4 * std::pow(1 - 0.1, 2)), 1e-5);
}

TEST(LocalSteps, MiniBatchesAreRunsOfTheBatchAndHaveNumbersOfTheirOwn) {
  LocalSteps steps({3, 2, 0.5f, 0});
  Parabola model;
  // The end of an epoch: one whole mini-batch and a part of one.
  const Outcome out = Contribute(&steps, MakeBatch({1, 3, 10}), 0, &model);
  EXPECT_THAT(model.calls, ElementsAre(Parabola::Call{21, 3, {1, 3}, 0}, Parabola::Call{22, 3, {10}, 1}));
  EXPECT_EQ(out.difference, 3 * (0 - 5.5f));
  EXPECT_EQ(out.statistic, 14);
  EXPECT_EQ(out.result.weight, 3);
  // Used again, for another rank's batch: nothing of before is left.
  model.calls.clear();
  EXPECT_EQ(Contribute(&steps, MakeBatch({1, 3, 10}), 0, &model).difference, out.difference);
  EXPECT_EQ(model.calls[0].w, 0);
}

TEST(LocalSteps, OneStepIsAGradientTimesTheRate) {
  LocalSteps steps({1, 4, 0.125f, 0});
  Parabola model;
  // Of numbers that float32 has: (0 - mean) x rate x weight.
  EXPECT_EQ(Contribute(&steps, MakeBatch({1, 2, 3, 6}), 0, &model).difference, -3 * 0.125f * 4);
  EXPECT_THAT(model.calls, ElementsAre(Parabola::Call{7, 3, {1, 2, 3, 6}, 0}));
}

TEST(LocalSteps, NoWeightIsNoStep) {
  LocalSteps steps({2, 1, 0.5f, 0.5f});
  Parabola model;
  model.weightless = true;
  const Outcome out = Contribute(&steps, MakeBatch({1, 2}), 8, &model);
  EXPECT_EQ(out.result.weight, 0);
  EXPECT_EQ(out.difference, 0);
  EXPECT_EQ(model.calls[1].w, 8);
}

TEST(LocalSteps, StopsBetweenMiniBatchesWhenNobodyWantsIt) {
  LocalSteps steps({4, 1, 0.5f, 0});
  Parabola model;
  int asked = 0;
  Contribute(&steps, MakeBatch({1, 2, 3, 4}), 0, &model, [&] { return ++asked == 2; });
  EXPECT_EQ(model.calls.size(), 2u);
  // Nobody says so: to the end.
  model.calls.clear();
  Contribute(&steps, MakeBatch({1, 2, 3, 4}), 0, &model, [] { return false; });
  EXPECT_EQ(model.calls.size(), 4u);
}

TEST(LocalSteps, ACopyThatDivergesShows) {
  LocalSteps steps({100, 1, 1000, 0});
  Parabola model;
  const Outcome out = Contribute(&steps, MakeBatch(std::vector<float>(100, 1.0f)), 0, &model);
  EXPECT_FALSE(std::isfinite(out.difference));
}

TEST(LocalSteps, SparseRowsOfARealModel) {
  v1::ModelSpec spec;
  spec.mutable_logistic();
  ModelInput input;
  input.features = 5;
  input.sparse = true;
  const auto model = MakeModel<float>(spec, input, {}).value();
  Batch batch;
  batch.rows = 3;
  batch.features = 5;
  batch.sparse = true;
  batch.row_begin = {0, 2, 3, 5};
  batch.column = {0, 4, 2, 1, 4};
  batch.value = {1, 2, 1, 1, 1};
  batch.label = {1, 0, 1};
  AlignedFloats weights, bias, to_weights, to_bias;
  for (AlignedFloats* values : {&weights, &to_weights}) values->Resize(5);
  for (AlignedFloats* values : {&bias, &to_bias}) values->Resize(1);
  for (size_t i = 0; i < 5; ++i) weights[i] = 0;
  bias[0] = 0;
  const std::vector<const float*> from = {weights.data(), bias.data()};
  const std::vector<float*> to = {to_weights.data(), to_bias.data()};
  LocalSteps steps({3, 1, 1, 0});
  EXPECT_EQ(steps.Contribution(batch, from, model.get(), to).weight, 3);
  // By hand, in double.
  double w[5] = {}, b = 0;
  for (size_t r = 0; r < 3; ++r) {
    double z = b;
    for (uint32_t i = batch.row_begin[r]; i < batch.row_begin[r + 1]; ++i) z += w[batch.column[i]] * batch.value[i];
    const double d = 1 / (1 + std::exp(-z)) - batch.label[r];
    for (uint32_t i = batch.row_begin[r]; i < batch.row_begin[r + 1]; ++i) w[batch.column[i]] -= d * batch.value[i];
    b -= d;
  }
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(to_weights[i], -3 * w[i], 1e-5) << i;
  EXPECT_NEAR(to_bias[0], -3 * b, 1e-5);
}

TEST(LocalSteps, OfAJob) {
  v1::JobSpec job;
  job.set_batch_size(32);
  job.set_l2(0.5);
  EXPECT_FALSE(LocalStepsOf(job).has_value());
  job.mutable_local_training()->set_steps(4);
  job.mutable_local_training()->set_learning_rate(0.25);
  const auto options = LocalStepsOf(job);
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->steps, 4u);
  EXPECT_EQ(options->batch_size, 32u);
  EXPECT_EQ(options->rate, 0.25f);
  EXPECT_EQ(options->l2, 0.5f);
}

TEST(LocalSteps, NoCopyOfATable) {
  std::vector<TensorSpec> tensors = Parabola().tensors();
  EXPECT_TRUE(CheckLocalTensors(tensors).ok());
  tensors[0].sparse = true;
  const absl::Status refused = CheckLocalTensors(tensors);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.message(),
            "local_training: a rank trains a copy of the whole model, and of table 'w' a worker has some rows alone");
}

}  // namespace
}  // namespace descent
