// Each loss and model on a problem whose answer is known: trained on a single batch by gradient descent in double, with
// a rate that falls, until nothing moves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/tensor/initial_value.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/models_testing.h"

namespace descent {
namespace {

using internal::AlignedBuffer;

class Training {
 public:
  Training(std::unique_ptr<Model<double>> model, const Batch& batch) : model_(std::move(model)), batch_(batch) {
    for (uint32_t t = 0; t < model_->tensors().size(); ++t) {
      const TensorSpec& spec = model_->tensors()[t];
      std::vector<float> initial(spec.elements());
      InitialDense(3, TensorId(t), spec, 0, absl::MakeSpan(initial));
      for (AlignedBuffer<double>* buffer : {&values_.emplace_back(), &gradients_.emplace_back()}) {
        buffer->Resize(initial.size());
      }
      std::copy(initial.begin(), initial.end(), values_.back().data());
    }
    for (size_t t = 0; t < values_.size(); ++t) {
      parameters_.push_back(values_[t].data());
      slopes_.push_back(gradients_[t].data());
    }
  }

  // Steps of rate / (1 + 9 t / steps) along the mean gradient.
  Training& Descend(int steps, double rate) {
    for (int t = 0; t < steps; ++t) {
      model_->Gradient(batch_, parameters_, absl::MakeConstSpan(slopes_));
      const double step = rate / (1 + 9.0 * t / steps) / static_cast<double>(batch_.rows);
      for (size_t i = 0; i < values_.size(); ++i) {
        for (size_t j = 0; j < values_[i].size(); ++j) values_[i][j] -= step * gradients_[i][j];
      }
    }
    return *this;
  }

  double loss() { return model_->Evaluate(batch_, parameters_).loss / static_cast<double>(batch_.rows); }
  double accuracy() { return model_->Evaluate(batch_, parameters_).correct / static_cast<double>(batch_.rows); }
  double value(size_t tensor, size_t element) const { return values_[tensor][element]; }
  std::vector<double> predictions() {
    std::vector<double> out;
    model_->Predict(batch_, parameters_, &out);
    return out;
  }

 private:
  const std::unique_ptr<Model<double>> model_;
  const Batch& batch_;
  std::vector<AlignedBuffer<double>> values_, gradients_;
  std::vector<const double*> parameters_;
  std::vector<double*> slopes_;
};

// Rows of one feature that is 0: only the bias has a say.
Batch OfLabels(std::vector<float> labels) {
  Batch batch;
  batch.rows = labels.size();
  batch.features = 1;
  batch.dense.Resize(batch.rows);
  std::fill_n(batch.dense.data(), batch.rows, 0.0f);
  batch.label = std::move(labels);
  return batch;
}

double BiasOf(const std::string& model, const Batch& batch, std::vector<double> class_weights = {}) {
  ModelInput input;
  input.features = 1;
  input.class_weights = std::move(class_weights);
  auto made = MakeModel<double>(ParseModel(model), input, {});
  EXPECT_TRUE(made.ok()) << made.status();
  return Training(*std::move(made), batch).Descend(20000, 1).value(1, 0);
}

TEST(KnownAnswers, ABiasAloneIsTheStatisticThatTheLossIsOf) {
  const Batch batch = OfLabels({1, 2, 4, 7, 11, 16, 100});
  EXPECT_NEAR(BiasOf("linear {}", batch), 141.0 / 7, 1e-3);                         // the mean
  EXPECT_NEAR(BiasOf("linear { loss { absolute {} } }", batch), 7, 0.1);            // the median
  EXPECT_NEAR(BiasOf("linear { loss { quantile { tau: 0.2 } } }", batch), 2, 0.1);  // the quantile
  EXPECT_NEAR(BiasOf("linear { loss { quantile { tau: 0.8 } } }", batch), 16, 0.1);
  // Huber with delta 20: 1 to 16 pull as they would in the mean, 100 with 20: 6 b - 41 = 20.
  EXPECT_NEAR(BiasOf("linear { loss { huber { delta: 20 } } }", batch), 61.0 / 6, 1e-3);
  // Of the errors beyond 3 the least sum.
  const double b = BiasOf("linear { loss { epsilon_insensitive { epsilon: 3 } } }", batch);
  const auto excess = [&](double x) {
    double sum = 0;
    for (const float y : batch.label) sum += std::max(0.0, std::fabs(x - double{y}) - 3);
    return sum;
  };
  double least = excess(0);
  for (double x = 0; x < 20; x += 0.01) least = std::min(least, excess(x));
  EXPECT_NEAR(excess(b), least, 0.1);
}

TEST(KnownAnswers, CountsAreMetByTheirMean) {
  const Batch batch = OfLabels({0, 1, 1, 2, 6});
  EXPECT_NEAR(BiasOf("poisson {}", batch), std::log(2.0), 1e-6);
}

TEST(KnownAnswers, ClassWeightsShiftTheProbability) {
  // Of ten examples three are of class 1: sigmoid(b) = 3 w1 / (3 w1 + 7 w0).
  const Batch batch = OfLabels({1, 1, 1, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_NEAR(BiasOf("logistic {}", batch), std::log(3.0 / 7), 1e-6);
  EXPECT_NEAR(BiasOf("logistic {}", batch, {0.5, 4}), std::log(12 / 3.5), 1e-6);
  EXPECT_NEAR(BiasOf("logistic {}", batch, {10.0 / 14, 10.0 / 6}), 0, 1e-6);  // balanced
  Batch weighted = OfLabels({1, 1, 1, 0, 0, 0, 0, 0, 0, 0});
  weighted.weight = {4, 4, 4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5};
  EXPECT_NEAR(BiasOf("logistic {}", weighted), std::log(12 / 3.5), 1e-6);
}

// The formula as the paper has it, against ours, which avoids its cancellations.
TEST(KnownAnswers, FocalLossIsThatOfThePaper) {
  const Batch batch = MakeBatch(BatchForm::kDense, 40, 6, 2);
  for (const double gamma : {0.5, 2.0, 5.0}) {
    for (const bool softmax : {false, true}) {
      const std::string kind = softmax ? "softmax { classes: 2 " : "logistic { ";
      auto run = [&](double g) {
        Training training(Make<double>(absl::StrCat(kind, "focal_gamma: ", g, " }"), 6, false), batch);
        training.Descend(50, 0.5);
        return std::pair(training.predictions(), training.loss());
      };
      const auto [p, loss] = run(gamma);
      double expected = 0;
      for (size_t r = 0; r < batch.rows; ++r) {
        const bool one = batch.label[r] == 1;
        const double right = softmax ? p[2 * r + (one ? 1 : 0)] : (one ? p[r] : 1 - p[r]);
        expected -= std::pow(1 - right, gamma) * std::log(right);
      }
      EXPECT_NEAR(loss, expected / static_cast<double>(batch.rows), 1e-12) << kind << gamma;
      EXPECT_LT(loss, run(0).second);
    }
  }
}

TEST(KnownAnswers, TheWidestMargin) {
  // Classes at -1 and 3 on a line: hinge loss is 0 from the margin 1 on; with it the boundary lies at 1, w = 1/2.
  Batch batch;
  batch.rows = 4;
  batch.features = 1;
  batch.dense.Resize(4);
  const float x[] = {-2, -1, 3, 5};
  std::copy_n(x, 4, batch.dense.data());
  batch.label = {0, 0, 1, 1};
  Training svm(Make<double>("svm {}", 1, false), batch);
  svm.Descend(4000, 0.5);
  EXPECT_NEAR(svm.loss(), 0, 1e-6);
  EXPECT_EQ(svm.accuracy(), 1);
  Training squared(Make<double>("svm { squared_hinge: true }", 1, false), batch);
  squared.Descend(4000, 0.2);
  EXPECT_NEAR(squared.loss(), 0, 1e-6);
  // By hand: scores 0.5 x; margins 0, 0.5, 1.5, 2.5 of s z = 1, 0.5, 1.5, 2.5.
  auto model = Make<double>("svm { no_bias: true }", 1, false);
  AlignedBuffer<double> w(1), g(1);
  w[0] = 0.5;
  const double* parameters[] = {w.data()};
  double* gradients[] = {g.data()};
  const BatchResult result = model->Gradient(batch, parameters, gradients);
  EXPECT_DOUBLE_EQ(result.loss, 0.5);  // of -1 alone; -2 lies at the kink, whose subgradient is 0
  EXPECT_DOUBLE_EQ(g[0], -1);
  EXPECT_EQ(result.correct, 4);
  std::vector<double> out;
  model->Predict(batch, parameters, &out);
  EXPECT_LT(out[1], 0.5);
  EXPECT_GT(out[2], 0.5);
}

// y = 1 + 2 x0 - x1 + <v0, v1> x0 x1 + <v1, v2> x1 x2 + <v0, v2> x0 x2 with products 3, 1, -2.
TEST(KnownAnswers, FactorizationMachineFindsTheProducts) {
  Batch batch = MakeBatch(BatchForm::kDense, 60, 3, 0);
  for (size_t r = 0; r < batch.rows; ++r) {
    const float* x = batch.dense.data() + 3 * r;
    batch.label[r] = 1 + 2 * x[0] - x[1] + 3 * x[0] * x[1] + x[1] * x[2] - 2 * x[0] * x[2];
  }
  Training training(Make<double>("factorization_machine { dim: 3 deviation: 0.5 loss { squared {} } }", 3, false),
                    batch);
  training.Descend(20000, 0.05);
  EXPECT_NEAR(training.loss(), 0, 1e-6);
  EXPECT_NEAR(training.value(0, 0), 2, 1e-2);
  EXPECT_NEAR(training.value(0, 1), -1, 1e-2);
  EXPECT_NEAR(training.value(2, 0), 1, 1e-2);
  const auto product = [&](int a, int b) {
    double sum = 0;
    for (int f = 0; f < 3; ++f) sum += training.value(1, 3 * a + f) * training.value(1, 3 * b + f);
    return sum;
  };
  EXPECT_NEAR(product(0, 1), 3, 1e-2);
  EXPECT_NEAR(product(1, 2), 1, 1e-2);
  EXPECT_NEAR(product(0, 2), -2, 1e-2);
}

// Exclusive or: what no linear model tells apart.
TEST(KnownAnswers, ExclusiveOr) {
  Batch batch;
  batch.rows = 4;
  batch.features = 2;
  batch.dense.Resize(8);
  const float x[] = {-1, -1, -1, 1, 1, -1, 1, 1};
  std::copy_n(x, 8, batch.dense.data());
  batch.label = {0, 1, 1, 0};
  EXPECT_NEAR(Training(Make<double>("logistic {}", 2, false), batch).Descend(2000, 1).loss(), std::log(2.0), 1e-6);
  Training machine(Make<double>("factorization_machine { dim: 2 }", 2, false), batch);
  EXPECT_EQ(machine.Descend(5000, 1).accuracy(), 1);
  EXPECT_LT(machine.loss(), 0.05);
  for (const char* activation : {"RELU", "TANH", "SIGMOID", "LEAKY_RELU", "ELU", "GELU", "SOFTPLUS"}) {
    for (const char* rest : {"loss { logistic {} }", "classes: 2", "loss { squared_hinge {} }",
                             "classes: 2 layer_norm: true hidden: 8 residual: true"}) {
      Training net(Make<double>(absl::StrCat("mlp { hidden: 8 activation: ", activation, " ", rest, " }"), 2, false),
                   batch);
      net.Descend(4000, 0.5);
      EXPECT_EQ(net.accuracy(), 1) << activation << " " << rest;
      EXPECT_LT(net.loss(), 0.1) << activation << " " << rest;
    }
  }
}

// A net without activations is a product of matrices: what least squares gives, and with a narrow layer what the
// principal components give.
TEST(KnownAnswers, LinearNets) {
  Batch batch = MakeBatch(BatchForm::kDense, 50, 4, 0);
  const double best = Training(Make<double>("linear {}", 4, false), batch).Descend(4000, 0.5).loss();
  Training net(
      Make<double>("mlp { hidden: 5 activation: IDENTITY initialization: ORTHOGONAL loss { squared {} } }", 4, false),
      batch);
  EXPECT_NEAR(net.Descend(20000, 0.1).loss(), best, 1e-6);

  // Deviations 3, 2, 0.5, 0.25 along the axes, all products 0: two components leave half the variance of the rest.
  const float signs[8][4] = {{1, 1, 1, 1},  {-1, 1, -1, 1},  {1, -1, -1, 1},  {-1, -1, 1, 1},
                             {1, 1, 1, -1}, {-1, 1, -1, -1}, {1, -1, -1, -1}, {-1, -1, 1, -1}};
  const float deviation[] = {3, 2, 0.5, 0.25};
  batch.rows = 8;
  batch.dense.Resize(32);
  for (size_t r = 0; r < 8; ++r) {
    for (size_t k = 0; k < 4; ++k) batch.dense[4 * r + k] = signs[r][k] * deviation[k];
  }
  batch.label.assign(8, 0);
  Training coder(Make<double>("autoencoder { hidden: 2 activation: IDENTITY }", 4, false), batch);
  EXPECT_NEAR(coder.Descend(20000, 0.05).loss(), 0.5 * (0.25 + 0.0625), 1e-6);
  const std::vector<double> image = coder.predictions();
  ASSERT_EQ(image.size(), 32u);
  EXPECT_NEAR(image[0], 3, 1e-2);
  EXPECT_NEAR(image[1], 2, 1e-2);
  EXPECT_NEAR(image[2], 0, 1e-2);
}

// Lines of 8 pixels, a step up somewhere in class 1, a step down in class 0: a matter of a filter, not of the place.
TEST(KnownAnswers, ConvolutionFindsAPatternAnywhere) {
  for (const char* pool : {"MAX_POOL", "AVERAGE_POOL"}) {
    Batch batch;
    batch.rows = 14;
    batch.features = 8;
    batch.dense.Resize(14 * 8);
    for (size_t r = 0; r < 14; ++r) {
      for (size_t k = 0; k < 8; ++k) batch.dense[8 * r + k] = (k > r / 2) == (r % 2 == 1) ? 1.0f : -1.0f;
      batch.label.push_back(static_cast<float>(r % 2));
    }
    Training net(Make<double>(absl::StrCat("convolution { height: 1 width: 8 layer { filters: 2 kernel: 2 pool: ", pool,
                                           " pool_size: 7 } top { loss { logistic {} } } }"),
                              8, false),
                 batch);
    EXPECT_EQ(net.Descend(4000, 0.5).accuracy(), 1) << pool;
    EXPECT_LT(net.loss(), 0.05) << pool;
  }
}

// Whether a sequence of bits has an odd number of ones: nothing but its state tells a cell.
TEST(KnownAnswers, RecurrentNetsCountOnesModuloTwo) {
  Batch batch;
  batch.rows = 32;
  batch.features = 5;
  batch.dense.Resize(32 * 5);
  for (size_t r = 0; r < 32; ++r) {
    int ones = 0;
    for (size_t t = 0; t < 5; ++t) {
      const bool one = (r >> t & 1) != 0;
      batch.dense[5 * r + t] = one ? 1.0f : -1.0f;
      ones += one;
    }
    batch.label.push_back(static_cast<float>(ones % 2));
  }
  for (const char* cell : {"GRU", "LSTM"}) {
    Training net(
        Make<double>(absl::StrCat("recurrent { cell: ", cell, " steps: 5 units: 8 loss { logistic {} } }"), 5, false),
        batch);
    EXPECT_EQ(net.Descend(20000, 1).accuracy(), 1) << cell;
    EXPECT_LT(net.loss(), 0.05) << cell;
  }
}

// One step of each cell, by hand.
TEST(KnownAnswers, RecurrentCellsByHand) {
  Batch batch;
  batch.rows = 1;
  batch.features = 2;
  batch.dense.Resize(2);
  batch.dense[0] = 1;
  batch.dense[1] = -2;
  batch.label = {0};
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto predict = [&](const char* cell, std::vector<std::vector<double>> values) {
    auto model =
        Make<double>(absl::StrCat("recurrent { cell: ", cell, " steps: 2 units: 1 loss { squared {} } }"), 2, false);
    std::vector<AlignedBuffer<double>> memory(values.size());
    std::vector<const double*> parameters;
    EXPECT_EQ(model->tensors().size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(model->tensors()[i].elements(), values[i].size());
      memory[i].Resize(values[i].size());
      std::copy(values[i].begin(), values[i].end(), memory[i].data());
      parameters.push_back(memory[i].data());
    }
    std::vector<double> out;
    model->Predict(batch, parameters, &out);
    return out[0];
  };
  double h = 0, c = 0;
  for (const double x : {1.0, -2.0}) {
    const double i = sigmoid(0.1 * x + 0.5 * h + 0.9), f = sigmoid(0.2 * x + 0.6 * h + 1.0);
    const double g = std::tanh(0.3 * x + 0.7 * h + 1.1), o = sigmoid(0.4 * x + 0.8 * h + 1.2);
    c = f * c + i * g;
    h = o * std::tanh(c);
  }
  EXPECT_NEAR(predict("LSTM", {{0.1, 0.2, 0.3, 0.4}, {0.9, 1.0, 1.1, 1.2}, {0.5, 0.6, 0.7, 0.8}, {2}, {3}}), 2 * h + 3,
              1e-12);
  h = 0;
  for (const double x : {1.0, -2.0}) {
    const double r = sigmoid(0.1 * x + 0.7 + 0.4 * h + 1.0), z = sigmoid(0.2 * x + 0.8 + 0.5 * h + 1.1);
    const double n = std::tanh(0.3 * x + 0.9 + r * (0.6 * h + 1.2));
    h = (1 - z) * n + z * h;
  }
  EXPECT_NEAR(predict("GRU", {{0.1, 0.2, 0.3}, {0.7, 0.8, 0.9}, {0.4, 0.5, 0.6}, {1.0, 1.1, 1.2}, {2}, {3}}), 2 * h + 3,
              1e-12);
}

// By hand: an image of 3 x 3, a filter of 2 x 2, zeros around it.
TEST(KnownAnswers, ConvolutionByHand) {
  Batch batch;
  batch.rows = 1;
  batch.features = 9;
  batch.dense.Resize(9);
  std::iota(batch.dense.data(), batch.dense.data() + 9, 1.0f);
  batch.label = {0};
  auto model = Make<double>(
      "convolution { height: 3 width: 3 layer { filters: 1 kernel: 2 padding: 1 stride: 2 } "
      "top { activation: IDENTITY loss { squared {} } } }",
      9, false);
  // Filter 1, 10, 100, 1000 with bias 5; outputs weighted 1, 1e4, 1e8, 1e12 by the layer on top.
  AlignedBuffer<double> filter(4), bias(1), weights(4), top(1);
  for (int i = 0; i < 4; ++i) filter[i] = std::pow(10, i);
  for (int i = 0; i < 4; ++i) weights[i] = std::pow(10, 4 * i);
  bias[0] = 5;
  top[0] = 0;
  const double* parameters[] = {filter.data(), bias.data(), weights.data(), top.data()};
  std::vector<double> out;
  model->Predict(batch, parameters, &out);
  // Windows at (-1, -1): only 1; (-1, 1): 2, 3 below; (1, -1): 4 and 7 on the right; (1, 1): 5, 6, 8, 9.
  const double expected[] = {1000 * 1 + 5, 100 * 2 + 1000 * 3 + 5, 10 * 4 + 1000 * 7 + 5,
                             5 + 10 * 6 + 100 * 8 + 1000 * 9 + 5};
  double sum = 0;
  for (int i = 0; i < 4; ++i) sum += expected[i] * weights[i];
  EXPECT_DOUBLE_EQ(out[0], sum);
}

TEST(KnownAnswers, DropoutLeavesOutItsShareAndKeepsTheMean) {
  // One hidden layer of ones, summed by the output: what Gradient sees varies, and Evaluate does not.
  ModelInput input;
  input.features = 1;
  input.seed = 4;
  auto made = MakeModel<double>(
      ParseModel("mlp { hidden: 1000 activation: IDENTITY dropout: 0.25 initialization: CONSTANT initial_scale: 1 "
                 "loss { absolute {} } }"),
      input, {});
  ASSERT_TRUE(made.ok()) << made.status();
  Batch batch = OfLabels({0});
  batch.dense[0] = 1;
  AlignedBuffer<double> w1(1000), b1(1000), w2(1000), b2(1), g1(1000), h1(1000), g2(1000), h2(1);
  std::fill_n(w1.data(), 1000, 1.0);
  std::fill_n(b1.data(), 1000, 0.0);
  std::fill_n(w2.data(), 1000, 1.0);
  b2[0] = 0;
  const double* parameters[] = {w1.data(), b1.data(), w2.data(), b2.data()};
  double* gradients[] = {g1.data(), h1.data(), g2.data(), h2.data()};
  EXPECT_DOUBLE_EQ((*made)->Evaluate(batch, parameters).loss, 1000);
  double sum = 0;
  std::vector<double> seen;
  for (uint64_t clock = 0; clock < 100; ++clock) {
    batch.clock = clock;
    seen.push_back((*made)->Gradient(batch, parameters, gradients).loss);
    sum += seen.back();
    size_t dropped = 0;
    for (int i = 0; i < 1000; ++i) dropped += g1[i] == 0;
    EXPECT_NEAR(seen.back(), static_cast<double>(1000 - dropped) / 0.75, 1e-9);
    EXPECT_NEAR(static_cast<double>(dropped), 250, 70);
  }
  EXPECT_NEAR(sum / 100, 1000, 10);
  EXPECT_NE(seen[0], seen[1]);
  batch.clock = 0;
  EXPECT_EQ((*made)->Gradient(batch, parameters, gradients).loss, seen[0]);
  batch.rank = 1;
  EXPECT_NE((*made)->Gradient(batch, parameters, gradients).loss, seen[0]);
}

TEST(KnownAnswers, FrozenTensorsHaveNoGradient) {
  ModelInput input;
  input.features = 4;
  input.frozen = {"layer1/weights", "layer2/bias"};
  const v1::ModelSpec spec = ParseModel("mlp { hidden: 3 classes: 2 activation: TANH }");
  auto made = MakeModel<double>(spec, input, {});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)->tensors()[0].role, TensorRole::kFrozen);
  EXPECT_EQ((*made)->tensors()[1].role, TensorRole::kTrainable);
  const Batch batch = MakeBatch(BatchForm::kDense, 30, 4, 2);
  Training frozen(*std::move(made), batch),
      before(Make<double>("mlp { hidden: 3 classes: 2 activation: TANH }", 4, false), batch);
  frozen.Descend(100, 0.5);
  for (size_t j = 0; j < 12; ++j) EXPECT_EQ(frozen.value(0, j), before.value(0, j));
  EXPECT_EQ(frozen.value(3, 0), 0);
  EXPECT_NE(frozen.value(2, 0), before.value(2, 0));
  input.frozen = {"layer7/weights"};
  EXPECT_EQ(MakeModel<double>(spec, input, {}).status().message(),
            "frozen: the model has no tensor \"layer7/weights\"; it has layer1/weights, layer1/bias, layer2/weights, "
            "layer2/bias");
}

}  // namespace
}  // namespace descent
