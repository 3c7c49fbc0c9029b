// Each loss and model on a problem whose answer is known: trained on a single batch with a rate that falls, until
// nothing moves.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/models/known_answers_testing.h"

namespace descent {
namespace {

using internal::AlignedBuffer;

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

// After a step that is far too long: a line search can come back from there.
TEST(KnownAnswers, MeansBeyondAllCountsHaveFiniteGradients) {
  ModelInput input;
  input.features = 1;
  auto made = MakeModel<float>(ParseModel("poisson {}"), input, {});
  ASSERT_TRUE(made.ok()) << made.status();
  Batch batch = OfLabels({0, 3});
  for (size_t r = 0; r < batch.rows; ++r) batch.dense.data()[r] = 100;
  AlignedBuffer<float> weight, bias, weight_gradient, bias_gradient;
  for (AlignedBuffer<float>* buffer : {&weight, &bias, &weight_gradient, &bias_gradient}) buffer->Resize(1);
  weight.data()[0] = 10;  // z is 1,000
  bias.data()[0] = 0;
  const std::vector<const float*> parameters = {weight.data(), bias.data()};
  const std::vector<float*> gradients = {weight_gradient.data(), bias_gradient.data()};
  const BatchResult result = (*made)->Gradient(batch, parameters, absl::MakeConstSpan(gradients));
  EXPECT_NEAR(weight_gradient.data()[0] / (2 * 100 * std::exp(50.0)), 1, 1e-4);
  EXPECT_NEAR(result.loss / (2 * std::exp(50.0) * 951), 1, 1e-4) << "along the tangent";
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

}  // namespace
}  // namespace descent
