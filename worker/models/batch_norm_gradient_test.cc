// Batch normalisation's gradient, against differences of the loss that training sees: a batch's own statistics are
// functions of the parameters, too.
#include <gtest/gtest.h>

#include <string>

#include "worker/models/gradient_check.h"
#include "worker/models/models_testing.h"

namespace descent {
namespace {

struct Case {
  const char* name;
  const char* model;
  BatchForm form;
  uint32_t classes;
};

constexpr uint64_t kFeatures = 12;

class BatchNormGradient : public ::testing::TestWithParam<Case> {};

TEST_P(BatchNormGradient, IsThatOfTheLossInTraining) {
  const Case& c = GetParam();
  // One row has running statistics, or in a convolution those of its places.
  for (const size_t rows : {1, 3, 17}) {
    const Batch batch = MakeBatch(c.form, rows, kFeatures, c.classes);
    auto model = Make<double>(c.model, kFeatures, c.form != BatchForm::kDense);
    ASSERT_NE(model, nullptr);
    const GradientCheckReport report =
        CheckGradientAtRandom<double>(model.get(), batch, 3, 0.1, {.loss_of_gradient = true});
    EXPECT_TRUE(report.ok) << rows << " rows: " << report.message;
    EXPECT_GT(report.checked, 0u);
    EXPECT_LE(report.worst, 1e-6);
    if (rows == 17) {
      EXPECT_EQ(report.skipped, 0u);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BatchNormGradient,
    ::testing::Values(
        Case{"OneLayer", "mlp { hidden: 9 classes: 3 activation: TANH batch_norm: true }", BatchForm::kDense, 3},
        Case{"Deep", "mlp { hidden: 9 hidden: 8 hidden: 7 classes: 3 activation: GELU batch_norm: true }",
             BatchForm::kDense, 3},
        Case{"Sparse", "mlp { hidden: 9 hidden: 5 activation: SOFTPLUS batch_norm: true loss { squared {} } }",
             BatchForm::kSparse, 0},
        Case{"ResidualDropout",
             "mlp { hidden: 9 hidden: 9 classes: 3 activation: TANH batch_norm: true residual: true dropout: 0.3 }",
             BatchForm::kDense, 3},
        Case{"Autoencoder", "autoencoder { hidden: 5 activation: TANH batch_norm: true }", BatchForm::kDense, 0},
        Case{
            "Convolution",
            "convolution { height: 3 width: 2 channels: 2 layer { filters: 3 kernel: 2 padding: 1 pool: AVERAGE_POOL } "
            "top { hidden: 4 classes: 3 activation: TANH batch_norm: true } }",
            BatchForm::kDense, 3},
        Case{"WideDeep", "wide_deep { embedding: 4 deep { hidden: 5 activation: TANH batch_norm: true } }",
             BatchForm::kTable, 2}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(BatchNormGradientTest, EvaluationHasAnotherLoss) {
  const Batch batch = MakeBatch(BatchForm::kDense, 17, kFeatures, 3);
  auto model = Make<double>("mlp { hidden: 9 classes: 3 activation: TANH batch_norm: true }", kFeatures, false);
  const GradientCheckReport report = CheckGradientAtRandom<double>(model.get(), batch, 3);
  EXPECT_FALSE(report.ok);
  EXPECT_NE(report.message.find("Evaluate says"), std::string::npos) << report.message;
}

}  // namespace
}  // namespace descent
