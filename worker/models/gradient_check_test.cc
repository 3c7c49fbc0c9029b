#include "worker/models/gradient_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/models/models_testing.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

struct Case {
  const char* name;
  const char* model;
  BatchForm form;
  uint32_t classes;
};

constexpr uint64_t kFeatures = 11;

class BuiltInModels : public ::testing::TestWithParam<Case> {};

TEST_P(BuiltInModels, GradientIsThatOfTheLoss) {
  const Case& c = GetParam();
  for (size_t rows : {1, 2, 17}) {
    const bool quadratic = std::string(c.model).find("quadratic") != std::string::npos;
    Batch batch = MakeBatch(c.form, rows, kFeatures, c.classes);
    if (quadratic) {
      batch = Batch();
      batch.rows = rows;
    }
    auto model = Make<double>(c.model, kFeatures, c.form != BatchForm::kDense);
    ASSERT_NE(model, nullptr);
    const GradientCheckReport report = CheckGradientAtRandom<double>(model.get(), batch, 3);
    EXPECT_TRUE(report.ok) << rows << " rows: " << report.message;
    EXPECT_GT(report.checked, 0u);
    EXPECT_LE(report.worst, 1e-6);
    // Where a derivative jumps, or its own derivative does, differences may tell little.
    bool smooth = true;
    for (const char* kinked : {"RELU", "ELU", "MAX_POOL", "absolute", "quantile", "huber", "epsilon", "hinge", "svm"}) {
      smooth &= std::string(c.model).find(kinked) == std::string::npos;
    }
    if (smooth) {
      EXPECT_EQ(report.skipped, 0u);
    }
    std::printf("%zu rows: checked %zu, skipped %zu, worst %.3g\n", rows, static_cast<size_t>(report.checked),
                static_cast<size_t>(report.skipped), report.worst);

    auto single = Make<float>(c.model, kFeatures, c.form != BatchForm::kDense);
    const GradientCheckReport loose = CheckGradientAtRandom<float>(single.get(), batch, 3, 0.1, {.most_skipped = 0.3});
    EXPECT_TRUE(loose.ok) << rows << " rows in float: " << loose.message;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BuiltInModels,
    ::testing::Values(
        Case{"LinearDense", "linear {}", BatchForm::kDense, 0},
        Case{"LinearSparse", "linear {}", BatchForm::kSparse, 0},
        Case{"LinearTable", "linear { sparse_table: true }", BatchForm::kTable, 0},
        Case{"LinearNoBias", "linear { no_bias: true }", BatchForm::kDense, 0},
        Case{"LogisticDense", "logistic {}", BatchForm::kDense, 2},
        Case{"LogisticSparse", "logistic {}", BatchForm::kSparse, 2},
        Case{"LogisticTable", "logistic { sparse_table: true }", BatchForm::kTable, 2},
        Case{"SoftmaxDense", "softmax { classes: 5 }", BatchForm::kDense, 5},
        Case{"SoftmaxSparse", "softmax { classes: 5 }", BatchForm::kSparse, 5},
        Case{"SoftmaxTable", "softmax { classes: 5 sparse_table: true }", BatchForm::kTable, 5},
        Case{"SoftmaxManyClasses", "softmax { classes: 70 no_bias: true }", BatchForm::kDense, 70},
        Case{"MlpRelu", "mlp { hidden: 9 classes: 3 activation: RELU }", BatchForm::kDense, 3},
        Case{"MlpReluDeep", "mlp { hidden: 9 hidden: 8 hidden: 7 hidden: 6 classes: 3 activation: RELU }",
             BatchForm::kDense, 3},
        Case{"MlpTanhDeep", "mlp { hidden: 9 hidden: 8 hidden: 7 classes: 3 activation: TANH }", BatchForm::kDense, 3},
        Case{"MlpSigmoid", "mlp { hidden: 9 hidden: 33 classes: 3 activation: SIGMOID initialization: HE }",
             BatchForm::kDense, 3},
        Case{"MlpSparse", "mlp { hidden: 9 hidden: 5 classes: 3 activation: TANH }", BatchForm::kSparse, 3},
        Case{"Quadratic", "quadratic { center: 3 start: 10 dim: 5 }", BatchForm::kDense, 0}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Losses, BuiltInModels,
    ::testing::Values(
        Case{"Absolute", "linear { loss { absolute {} } }", BatchForm::kDense, 0},
        Case{"AbsoluteTable", "linear { sparse_table: true loss { absolute {} } }", BatchForm::kTable, 0},
        Case{"Quantile", "linear { loss { quantile { tau: 0.9 } } }", BatchForm::kDense, 0},
        Case{"QuantileSparse", "linear { loss { quantile { tau: 0.1 } } }", BatchForm::kSparse, 0},
        Case{"Huber", "linear { loss { huber { delta: 0.7 } } }", BatchForm::kDense, 0},
        Case{"HuberTable", "linear { sparse_table: true loss { huber {} } }", BatchForm::kTable, 0},
        Case{"EpsilonInsensitive", "linear { loss { epsilon_insensitive { epsilon: 0.3 } } }", BatchForm::kDense, 0},
        Case{"Poisson", "poisson {}", BatchForm::kDense, 6},
        Case{"PoissonTable", "poisson { sparse_table: true no_bias: true }", BatchForm::kTable, 6},
        Case{"Svm", "svm {}", BatchForm::kDense, 2},
        Case{"SvmTable", "svm { sparse_table: true }", BatchForm::kTable, 2},
        Case{"SvmSquared", "svm { squared_hinge: true }", BatchForm::kDense, 2},
        Case{"SvmSquaredSparse", "svm { squared_hinge: true }", BatchForm::kSparse, 2},
        Case{"LogisticFocal", "logistic { focal_gamma: 2 }", BatchForm::kDense, 2},
        Case{"LogisticFocalTable", "logistic { focal_gamma: 0.5 sparse_table: true }", BatchForm::kTable, 2},
        Case{"SoftmaxFocal", "softmax { classes: 4 focal_gamma: 2 }", BatchForm::kDense, 4},
        Case{"SoftmaxFocalTable", "softmax { classes: 4 focal_gamma: 0.5 sparse_table: true }", BatchForm::kTable, 4}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Nets, BuiltInModels,
    ::testing::Values(
        Case{"LeakyRelu", "mlp { hidden: 9 hidden: 8 classes: 3 activation: LEAKY_RELU }", BatchForm::kDense, 3},
        Case{"Elu", "mlp { hidden: 9 hidden: 8 classes: 3 activation: ELU activation_alpha: 0.8 }", BatchForm::kDense,
             3},
        Case{"Gelu", "mlp { hidden: 9 hidden: 8 classes: 3 activation: GELU }", BatchForm::kDense, 3},
        Case{"Softplus", "mlp { hidden: 9 hidden: 8 classes: 3 activation: SOFTPLUS }", BatchForm::kDense, 3},
        Case{"Identity", "mlp { hidden: 9 hidden: 8 classes: 3 activation: IDENTITY }", BatchForm::kDense, 3},
        Case{"Regression", "mlp { hidden: 9 activation: TANH loss { squared {} } }", BatchForm::kDense, 0},
        Case{"RegressionHuber", "mlp { hidden: 9 activation: TANH loss { huber {} } }", BatchForm::kSparse, 0},
        Case{"RegressionPoisson", "mlp { hidden: 9 activation: TANH loss { poisson {} } }", BatchForm::kDense, 5},
        Case{"Binary", "mlp { hidden: 9 activation: TANH loss { logistic {} } }", BatchForm::kDense, 2},
        Case{"BinaryFocal", "mlp { hidden: 9 activation: TANH loss { logistic { focal_gamma: 1.5 } } }",
             BatchForm::kDense, 2},
        Case{"BinaryHinge", "mlp { hidden: 9 activation: TANH loss { squared_hinge {} } }", BatchForm::kDense, 2},
        Case{"FocalNet", "mlp { hidden: 9 activation: TANH classes: 4 loss { softmax { focal_gamma: 2 } } }",
             BatchForm::kDense, 4},
        Case{"Orthogonal", "mlp { hidden: 9 classes: 3 activation: TANH initialization: ORTHOGONAL }",
             BatchForm::kDense, 3},
        Case{"LayerNorm", "mlp { hidden: 9 hidden: 8 classes: 3 activation: TANH layer_norm: true }", BatchForm::kDense,
             3},
        Case{"LayerNormGelu", "mlp { hidden: 9 hidden: 8 classes: 3 activation: GELU layer_norm: true }",
             BatchForm::kSparse, 3},
        Case{"Residual", "mlp { hidden: 9 hidden: 9 hidden: 9 hidden: 5 classes: 3 activation: TANH residual: true }",
             BatchForm::kDense, 3},
        Case{"ResidualNorm",
             "mlp { hidden: 9 hidden: 9 hidden: 9 classes: 3 activation: GELU residual: true layer_norm: true }",
             BatchForm::kDense, 3},
        Case{"Autoencoder", "autoencoder { hidden: 5 hidden: 3 hidden: 5 activation: TANH }", BatchForm::kDense, 0},
        Case{"AutoencoderSparse", "autoencoder { hidden: 4 activation: SOFTPLUS }", BatchForm::kSparse, 0},
        Case{"AutoencoderAbsolute", "autoencoder { hidden: 4 activation: TANH loss { absolute {} } }",
             BatchForm::kDense, 0}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    FactorizationMachines, BuiltInModels,
    ::testing::Values(
        Case{"Dense", "factorization_machine { dim: 3 deviation: 0.3 }", BatchForm::kDense, 2},
        Case{"Sparse", "factorization_machine { dim: 3 deviation: 0.3 }", BatchForm::kSparse, 2},
        Case{"Table", "factorization_machine { dim: 3 deviation: 0.3 sparse_table: true }", BatchForm::kTable, 2},
        Case{"Regression", "factorization_machine { dim: 2 no_bias: true loss { squared {} } }", BatchForm::kDense, 0},
        Case{"RegressionTable", "factorization_machine { dim: 2 sparse_table: true loss { huber { delta: 0.5 } } }",
             BatchForm::kTable, 0}),
    [](const auto& info) { return std::string(info.param.name); });

// Eleven features: a line of eleven pixels.
INSTANTIATE_TEST_SUITE_P(
    Lines, BuiltInModels,
    ::testing::Values(
        Case{"Plain",
             "convolution { height: 1 width: 11 layer { filters: 3 kernel: 3 } top { classes: 3 activation: TANH } }",
             BatchForm::kDense, 3},
        Case{"Strided",
             "convolution { height: 1 width: 11 layer { filters: 3 kernel: 4 stride: 2 padding: 2 } "
             "layer { filters: 2 kernel: 3 padding: 1 } top { hidden: 4 loss { squared {} } activation: TANH } }",
             BatchForm::kDense, 0},
        Case{"AveragePool",
             "convolution { height: 1 width: 11 layer { filters: 3 kernel: 3 padding: 1 pool: AVERAGE_POOL } "
             "top { classes: 3 activation: GELU } }",
             BatchForm::kSparse, 3},
        Case{"MaxPool",
             "convolution { height: 1 width: 11 layer { filters: 3 kernel: 3 pool: MAX_POOL pool_size: 3 } "
             "top { loss { logistic {} } activation: TANH } }",
             BatchForm::kDense, 2}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Sequences, BuiltInModels,
    ::testing::Values(Case{"Gru", "recurrent { steps: 11 units: 4 classes: 3 }", BatchForm::kDense, 3},
                      Case{"Lstm", "recurrent { cell: LSTM steps: 11 units: 4 classes: 3 }", BatchForm::kDense, 3},
                      Case{"GruOneStep", "recurrent { steps: 1 units: 5 loss { squared {} } }", BatchForm::kSparse, 0},
                      Case{"LstmOneStep", "recurrent { cell: LSTM steps: 1 units: 5 loss { logistic {} } }",
                           BatchForm::kDense, 2}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    WideAndDeep, BuiltInModels,
    ::testing::Values(
        Case{"Binary", "wide_deep { embedding: 4 deep { hidden: 5 activation: TANH } }", BatchForm::kTable, 2},
        Case{"Softmax", "wide_deep { embedding: 4 deep { hidden: 5 activation: GELU classes: 3 loss { softmax {} } } }",
             BatchForm::kTable, 3},
        Case{"Regression",
             "wide_deep { embedding: 3 deep { hidden: 4 hidden: 4 activation: TANH residual: true "
             "loss { squared {} } } }",
             BatchForm::kTable, 0}),
    [](const auto& info) { return std::string(info.param.name); });

// Of an image, which has more features than the other cases.
TEST(GradientCheckTest, Convolution) {
  for (const char* layers : {
           "layer { filters: 3 kernel: 3 padding: 1 pool: AVERAGE_POOL } layer { filters: 2 kernel: 2 }",
           "layer { filters: 4 kernel: 3 stride: 2 padding: 2 }",
           "layer { filters: 2 kernel: 2 pool: MAX_POOL }",
       }) {
    for (const size_t rows : {1, 3}) {
      const Batch batch = MakeBatch(BatchForm::kDense, rows, 6 * 5 * 2, 3);
      const std::string text = absl::StrCat("convolution { height: 6 width: 5 channels: 2 ", layers,
                                            " top { hidden: 4 classes: 3 activation: TANH } }");
      auto model = Make<double>(text, batch.features, false);
      const GradientCheckReport report = CheckGradientAtRandom<double>(model.get(), batch, 3);
      EXPECT_TRUE(report.ok) << layers << ", " << rows << " rows: " << report.message;
      EXPECT_LE(report.skipped * 20, report.checked);
    }
  }
}

// Masks are functions of (seed, rank, clock): the loss that Gradient returns is one function of the parameters.
TEST(GradientCheckTest, Dropout) {
  for (const BatchForm form : {BatchForm::kDense, BatchForm::kSparse}) {
    Batch batch = MakeBatch(form, 17, kFeatures, 3);
    batch.rank = 2;
    batch.clock = 7;
    auto model = Make<double>(
        "mlp { hidden: 9 hidden: 9 classes: 3 activation: TANH dropout: 0.4 input_dropout: 0.2 residual: true }",
        kFeatures, form != BatchForm::kDense);
    const GradientCheckReport report =
        CheckGradientAtRandom<double>(model.get(), batch, 3, 0.1, {.loss_of_gradient = true});
    EXPECT_TRUE(report.ok) << report.message;
    EXPECT_EQ(report.skipped, 0u);
  }
}

TEST(GradientCheckTest, Weights) {
  for (const char* text : {"logistic {}", "svm { squared_hinge: true }", "logistic { focal_gamma: 2 }",
                           "mlp { hidden: 5 classes: 2 activation: TANH }", "softmax { classes: 2 focal_gamma: 1 }"}) {
    Batch batch = MakeBatch(BatchForm::kDense, 17, kFeatures, 2);
    for (size_t r = 0; r < batch.rows; ++r) batch.weight.push_back(0.25f * static_cast<float>(r % 7));
    ModelInput input;
    input.features = kFeatures;
    input.class_weights = {0.5, 3};
    auto model = MakeModel<double>(ParseModel(text), input, {});
    ASSERT_TRUE(model.ok()) << model.status();
    const GradientCheckReport report = CheckGradientAtRandom<double>(model->get(), batch, 3);
    EXPECT_TRUE(report.ok) << text << ": " << report.message;
  }
}

// A model whose gradient is changed on its way out.
class Tampered final : public Model<double> {
 public:
  using Tamper = void (*)(absl::Span<double* const> gradient);
  Tampered(std::unique_ptr<Model<double>> model, Tamper tamper) : model_(std::move(model)), tamper_(tamper) {}
  const std::vector<TensorSpec>& tensors() const override { return model_->tensors(); }
  bool classifier() const override { return model_->classifier(); }
  size_t outputs() const override { return model_->outputs(); }
  BatchResult Gradient(const Batch& batch, absl::Span<const double* const> parameters,
                       absl::Span<double* const> gradient) override {
    const BatchResult result = model_->Gradient(batch, parameters, gradient);
    tamper_(gradient);
    return result;
  }
  BatchResult Evaluate(const Batch& batch, absl::Span<const double* const> parameters) override {
    return model_->Evaluate(batch, parameters);
  }
  void Predict(const Batch& batch, absl::Span<const double* const> parameters, std::vector<double>* out) override {
    model_->Predict(batch, parameters, out);
  }

 private:
  const std::unique_ptr<Model<double>> model_;
  const Tamper tamper_;
};

TEST(GradientCheckTest, AWrongBackwardFails) {
  const Batch batch = MakeBatch(BatchForm::kDense, 17, kFeatures, 3);
  const char* relu = "mlp { hidden: 9 hidden: 8 classes: 3 activation: RELU }";
  const char* tanh = "mlp { hidden: 9 hidden: 8 classes: 3 activation: TANH }";
  for (const char* spec : {relu, tanh}) {
    const Tampered::Tamper tampers[] = {
        [](absl::Span<double* const> g) { g[0][7] = -g[0][7] + 0.01; },    // a sign
        [](absl::Span<double* const> g) { g[2][3] *= 1 + 1e-4; },          // a little
        [](absl::Span<double* const> g) { g[5][1] += 0.3; },               // a bias
        [](absl::Span<double* const> g) { std::swap(g[4][0], g[4][5]); },  // a place
        [](absl::Span<double* const> g) { std::fill_n(g[1], 9, 0.0); },    // forgotten
        [](absl::Span<double* const> g) { g[3][0] = std::nan(""); },
    };
    for (size_t i = 0; i < std::size(tampers); ++i) {
      Tampered model(Make<double>(spec, kFeatures, false), tampers[i]);
      const GradientCheckReport report = CheckGradientAtRandom<double>(&model, batch, 3);
      EXPECT_FALSE(report.ok) << spec << " change " << i << " passed";
      EXPECT_THAT(report.message, HasSubstr("gradient is"));
    }
    Tampered untouched(Make<double>(spec, kFeatures, false), [](absl::Span<double* const>) {});
    EXPECT_TRUE(CheckGradientAtRandom<double>(&untouched, batch, 3).ok);
  }
}

// |x0| + x1^2: x0 has a kink at 0.
class Kinked final : public Model<double> {
 public:
  Kinked() {
    tensors_.resize(1);
    tensors_[0].name = "x";
    tensors_[0].shape = {2};
  }
  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }
  BatchResult Gradient(const Batch& batch, absl::Span<const double* const> p, absl::Span<double* const> g) override {
    g[0][0] = p[0][0] > 0 ? 1 : 0;  // what a ReLU-like subgradient might say at 0
    g[0][1] = 2 * p[0][1];
    return Evaluate(batch, p);
  }
  BatchResult Evaluate(const Batch& batch, absl::Span<const double* const> p) override {
    BatchResult result;
    result.loss = std::fabs(p[0][0]) + p[0][1] * p[0][1];
    return result;
  }
  void Predict(const Batch&, absl::Span<const double* const>, std::vector<double>*) override {}

 private:
  std::vector<TensorSpec> tensors_;
};

TEST(GradientCheckTest, KinksAreSkippedAndCounted) {
  Kinked model;
  for (double x : {0.0, 1e-9, 1e-8}) {
    const std::vector<std::vector<double>> parameters = {{x, 2}};
    const GradientCheckReport report = CheckGradient<double>(&model, Batch(), parameters, {.most_skipped = 0.5});
    EXPECT_TRUE(report.ok) << x << ": " << report.message;
    EXPECT_EQ(report.skipped, 1u) << x;
    EXPECT_EQ(report.checked, 1u) << x;
    EXPECT_THAT(CheckGradient<double>(&model, Batch(), parameters).message, HasSubstr("kink"));
  }
  // Beside a kink, smaller steps find the derivative; at a minimum nothing looks like a kink.
  const std::vector<std::vector<double>> beside = {{1e-4, 0}};
  const GradientCheckReport report = CheckGradient<double>(&model, Batch(), beside);
  EXPECT_TRUE(report.ok) << report.message;
  EXPECT_EQ(report.skipped, 0u);
}

}  // namespace
}  // namespace descent
