#include "tests/experiments/models/models.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/random/philox.h"
#include "worker/models/gradient_check.h"

namespace descent {
namespace {

Batch Examples(size_t rows, size_t features) {
  Batch batch;
  batch.rows = rows;
  batch.features = features;
  batch.dense.Resize(rows * features);
  for (size_t i = 0; i < rows * features; ++i) batch.dense[i] = std::sin(1.7f * static_cast<float>(i));
  for (size_t i = 0; i < rows; ++i) batch.label.push_back(std::cos(static_cast<float>(i)));
  return batch;
}

TEST(ExperimentModels, GradientsAreThoseOfTheirLosses) {
  const std::unique_ptr<Model<double>> models[] = {MakeCurvedQuadratic<double>({1, 100}, 1), MakeSaddle<double>(1),
                                                   MakeElman<double>(/*steps=*/5, /*width=*/2, /*units=*/7, 1.2)};
  const size_t features[] = {0, 1, 10};
  for (int i = 0; i < 3; ++i) {
    const GradientCheckReport report = CheckGradientAtRandom(models[i].get(), Examples(4, features[i]), /*seed=*/3);
    EXPECT_TRUE(report.ok) << i << ": " << report.message;
  }
}

TEST(ExperimentModels, QuadraticByHand) {
  const auto model = MakeCurvedQuadratic<float>({2, 50}, 3);
  EXPECT_EQ(model->tensors()[0].initializer.scale, 3);
  alignas(64) float x[] = {3, -1}, g[2];
  const float* const parameters[] = {x};
  float* const gradient[] = {g};
  const BatchResult result = model->Gradient(Examples(2, 0), parameters, gradient);
  EXPECT_EQ(g[0], 2 * 3 * 2);
  EXPECT_EQ(g[1], -50 * 2);
  EXPECT_EQ(result.loss, 2 * (9 + 25));
  EXPECT_EQ(result.weight, 2);
}

TEST(ExperimentModels, TheSaddleHoldsWhatAddsUpToNothing) {
  const auto model = MakeSaddle<float>(1);
  Batch batch = Examples(2, 1);
  batch.dense[0] = 0.5f;
  batch.dense[1] = -0.5f;
  alignas(64) float x[] = {0}, y[] = {0}, gx[1], gy[1];
  const float* const parameters[] = {x, y};
  float* const gradient[] = {gx, gy};
  EXPECT_EQ(model->Gradient(batch, parameters, gradient).loss, 0);
  EXPECT_EQ(gx[0], 0);
  EXPECT_EQ(gy[0], 0);
  y[0] = -1;
  EXPECT_EQ(model->Gradient(batch, parameters, gradient).loss, 2 * -0.25);
  EXPECT_EQ(gy[0], 0);
}

TEST(ExperimentModels, BadOptionsAreNamed) {
  const CustomModels models = ExperimentModels();
  ModelInput input;
  EXPECT_EQ(models.at("curved_quadratic")(input).status().message(),
            "model 'curved_quadratic': option curvatures is missing");
  input.options = {{"curvatures", "1,x"}, {"start", "1"}};
  EXPECT_EQ(models.at("curved_quadratic")(input).status().message(),
            "model 'curved_quadratic': option curvatures: expected a number, got 'x'");
  input.options = {{"steps", "4"}, {"units", "3"}, {"gain", "1"}};
  input.features = 10;
  EXPECT_EQ(models.at("elman")(input).status().message(),
            "model 'elman': expected 4 steps of equally many dense features, got 10");
}

}  // namespace
}  // namespace descent
