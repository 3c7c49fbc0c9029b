// Batch normalisation by hand: what training and prediction make of a batch, and what is said of it to the servers.
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/models/known_answers_testing.h"

namespace descent {
namespace {

using internal::AlignedBuffer;

// A model at given parameters.
class At {
 public:
  At(std::unique_ptr<Model<double>> model, const std::vector<std::vector<double>>& values) : model_(std::move(model)) {
    EXPECT_EQ(model_->tensors().size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(model_->tensors()[i].elements(), values[i].size()) << model_->tensors()[i].name;
      values_.emplace_back(values[i].size());
      std::copy(values[i].begin(), values[i].end(), values_.back().data());
      gradients_.emplace_back(values[i].size());
    }
    for (size_t i = 0; i < values.size(); ++i) {
      parameters_.push_back(values_[i].data());
      slopes_.push_back(gradients_[i].data());
    }
  }

  BatchResult Gradient(const Batch& batch) {
    return model_->Gradient(batch, parameters_, absl::MakeConstSpan(slopes_));
  }
  double Evaluate(const Batch& batch) { return model_->Evaluate(batch, parameters_).loss; }
  std::vector<double> Predict(const Batch& batch) {
    std::vector<double> out;
    model_->Predict(batch, parameters_, &out);
    return out;
  }
  double gradient(size_t tensor) const { return gradients_[tensor][0]; }

 private:
  const std::unique_ptr<Model<double>> model_;
  std::vector<AlignedBuffer<double>> values_, gradients_;
  std::vector<const double*> parameters_;
  std::vector<double*> slopes_;
};

// 1, 3, 5, 7, which a weight of 2 makes 2, 6, 10, 14: their mean is 8, their squared distances from it add up to 80.
Batch Numbers(size_t rows) {
  Batch batch;
  batch.rows = rows;
  batch.features = 4 / rows;
  batch.dense.Resize(4);
  for (size_t i = 0; i < 4; ++i) batch.dense[i] = static_cast<float>(1 + 2 * i);
  batch.label.assign(rows, 0.0f);
  return batch;
}

const char* const kNet = "mlp { hidden: 1 activation: IDENTITY batch_norm: true loss { squared {} } }";
std::vector<std::vector<double>> Values(double mean, double variance) {
  return {{2}, {3}, {1}, {mean}, {variance}, {1}, {0}};  // weights, scale, shift, statistics, output
}

TEST(BatchNormAnswers, TrainingGoesByTheBatchAndPredictionByWhatRan) {
  const Batch batch = Numbers(4);
  const auto score = [](double x, double mean, double variance) {
    return 3 * (x - mean) / std::sqrt(variance + 1e-5) + 1;
  };
  double own = 0, running = 0;
  for (const double x : {2, 6, 10, 14}) {
    own += std::pow(score(x, 8, 20), 2) / 2;
    running += std::pow(score(x, 5, 4), 2) / 2;
  }
  At net(Make<double>(kNet, 1, false), Values(5, 4));
  const BatchResult result = net.Gradient(batch);
  EXPECT_NEAR(result.loss, own, 1e-12);
  EXPECT_EQ(result.weight, 4);
  // Four examples' worth of the mean, and of the unbiased variance 80 / 3.
  EXPECT_DOUBLE_EQ(net.gradient(3), 4 * 8.0);
  EXPECT_DOUBLE_EQ(net.gradient(4), 4 * 80.0 / 3);
  EXPECT_NEAR(net.Evaluate(batch), running, 1e-12);
  const std::vector<double> scores = net.Predict(batch);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(scores[i], score(2.0 + 4.0 * static_cast<double>(i), 5, 4), 1e-12);
}

TEST(BatchNormAnswers, OneNumberIsNormalisedByWhatRanAndMovesNothing) {
  Batch one = Numbers(4);
  one.rows = 1;
  one.label.resize(1);
  At net(Make<double>(kNet, 1, false), Values(5, 4));
  EXPECT_DOUBLE_EQ(net.Gradient(one).loss, net.Evaluate(one));
  EXPECT_EQ(net.gradient(3), 5);
  EXPECT_EQ(net.gradient(4), 4);
}

TEST(BatchNormAnswers, AFilterIsNormalisedOverAllPlaces) {
  // Two lines of two pixels, a filter of one pixel: the same four numbers, of two examples.
  const Batch lines = Numbers(2);
  At net(Make<double>("convolution { height: 1 width: 2 layer { filters: 1 kernel: 1 } "
                      "top { activation: IDENTITY batch_norm: true loss { squared {} } } }",
                      2, false),
         {{2}, {3}, {1}, {5}, {4}, {1, 0}, {0}});
  double loss = 0;
  for (const double x : {2, 10}) loss += std::pow(3 * (x - 8) / std::sqrt(20 + 1e-5) + 1, 2) / 2;
  EXPECT_NEAR(net.Gradient(lines).loss, loss, 1e-12);
  EXPECT_DOUBLE_EQ(net.gradient(3), 2 * 8.0);
  EXPECT_DOUBLE_EQ(net.gradient(4), 2 * 80.0 / 3);
  EXPECT_NEAR(net.Predict(lines)[0], 3 * (2 - 5) / std::sqrt(4 + 1e-5) + 1, 1e-12);
}

// What Gradient writes at parameters that lie `shift` x 64 bytes into fresh memory.
std::vector<float> BitsAt(Model<float>* model, const Batch& batch, size_t shift) {
  std::vector<AlignedBuffer<float>> memory;
  std::vector<const float*> parameters;
  std::vector<float*> gradients;
  for (uint32_t t = 0; t < model->tensors().size(); ++t) {
    const TensorSpec& spec = model->tensors()[t];
    memory.emplace_back(spec.elements() + 16 * shift);
    float* values = memory.back().data() + 16 * shift;
    InitialDense(3, TensorId(t), spec, 0, absl::MakeSpan(values, spec.elements()));
    parameters.push_back(values);
    memory.emplace_back(spec.elements() + 16 * shift);
    gradients.push_back(memory.back().data() + 16 * shift);
  }
  std::vector<float> bits = {static_cast<float>(model->Gradient(batch, parameters, absl::MakeSpan(gradients)).loss)};
  for (size_t t = 0; t < gradients.size(); ++t) {
    bits.insert(bits.end(), gradients[t], gradients[t] + model->tensors()[t].elements());
  }
  std::vector<float> predicted;
  model->Predict(batch, parameters, &predicted);
  bits.insert(bits.end(), predicted.begin(), predicted.end());
  return bits;
}

TEST(BatchNormAnswers, BitsAreAFunctionOfBatchAndParameters) {
  for (const char* text : {"mlp { hidden: 35 hidden: 35 classes: 3 batch_norm: true residual: true }",
                           "convolution { height: 1 width: 131 layer { filters: 5 kernel: 7 } "
                           "top { hidden: 9 classes: 3 batch_norm: true } }"}) {
    for (const size_t rows : {0, 1, 2, 7, 64}) {
      const Batch batch = MakeBatch(BatchForm::kDense, rows, 131, 3);
      auto model = Make<float>(text, 131, false), other = Make<float>(text, 131, false);
      const std::vector<float> bits = BitsAt(model.get(), batch, 0);
      BitsAt(other.get(), MakeBatch(BatchForm::kDense, 99, 131, 3, 9), 2);  // leaves scratch memory behind
      EXPECT_EQ(BitsAt(other.get(), batch, 1), bits) << text << ", " << rows << " rows";
      for (const float x : bits) ASSERT_TRUE(std::isfinite(x)) << text << ", " << rows << " rows";
    }
  }
}

TEST(BatchNormAnswers, TensorsSayWhatTheyAre) {
  auto net = Make<float>("mlp { hidden: 5 classes: 2 batch_norm: true }", 3, false);
  const std::vector<TensorSpec>& t = net->tensors();
  std::vector<std::string> names;
  for (const TensorSpec& spec : t) names.push_back(spec.name);
  // No bias below the normalisation, which would take it away.
  EXPECT_EQ(names,
            (std::vector<std::string>{"layer1/weights", "layer1/norm/scale", "layer1/norm/shift", "layer1/norm/mean",
                                      "layer1/norm/variance", "layer2/weights", "layer2/bias"}));
  for (size_t i = 1; i < 5; ++i) {
    EXPECT_FALSE(t[i].decay);
    EXPECT_EQ(t[i].shape, (std::vector<uint64_t>{5}));
    EXPECT_EQ(t[i].role, i < 3 ? TensorRole::kTrainable : TensorRole::kStatistic);
    EXPECT_EQ(t[i].initializer, i == 1 || i == 4 ? (Initializer{Initializer::Kind::kConstant, 1}) : Initializer{});
  }
}

TEST(BatchNormAnswers, StatisticsAreNotFrozen) {
  ModelInput input;
  input.features = 3;
  input.frozen = {"layer1/weights", "layer1/norm/scale"};
  const v1::ModelSpec spec = ParseModel("mlp { hidden: 5 classes: 2 batch_norm: true }");
  auto made = MakeModel<float>(spec, input, {});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)->tensors()[1].role, TensorRole::kFrozen);
  EXPECT_EQ((*made)->tensors()[3].role, TensorRole::kStatistic);
  input.frozen = {"layer1/norm/mean"};
  EXPECT_EQ(MakeModel<float>(spec, input, {}).status().message(),
            "frozen: \"layer1/norm/mean\" is a running statistic of the batches, which training counts and does not "
            "learn");
}

TEST(BatchNormAnswers, ExclusiveOr) {
  Batch batch;
  batch.rows = 4;
  batch.features = 2;
  batch.dense.Resize(8);
  const float x[] = {-1, -1, -1, 1, 1, -1, 1, 1};
  std::copy_n(x, 8, batch.dense.data());
  batch.label = {0, 1, 1, 0};
  for (const char* activation : {"TANH", "GELU"}) {
    for (const char* rest : {"", "hidden: 16 residual: true"}) {
      Training net(Make<double>(absl::StrCat("mlp { hidden: 16 activation: ", activation, " batch_norm: true ", rest,
                                             " classes: 2 }"),
                                2, false),
                   batch);
      net.Descend(4000, 0.5);
      EXPECT_EQ(net.accuracy(), 1) << activation << " " << rest;  // by the running statistics
      EXPECT_LT(net.loss(), 0.1) << activation << " " << rest;
    }
  }
}

}  // namespace
}  // namespace descent
