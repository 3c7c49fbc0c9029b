#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/internal/elementwise.h"
#include "worker/models/models_testing.h"

namespace descent {
namespace {

using internal::AlignedBuffer;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Bits {
  std::vector<std::vector<float>> gradient;
  std::vector<float> predictions;
  BatchResult result;
  bool operator==(const Bits& o) const {
    return gradient == o.gradient && predictions == o.predictions && result.loss == o.result.loss &&
           result.correct == o.result.correct;
  }
};

// Runs a model on copies of batch and parameters that lie `shift` x 64 bytes into fresh memory.
Bits RunAt(Model<float>* model, const Batch& batch, size_t shift) {
  const auto& specs = model->tensors();
  std::vector<AlignedBuffer<float>> memory;
  std::vector<const float*> parameters;
  std::vector<float*> gradients;
  std::vector<size_t> sizes;
  for (uint32_t i = 0; i < specs.size(); ++i) {
    sizes.push_back(specs[i].sparse ? batch.keys.size() * specs[i].dim() : specs[i].elements());
    const RandomStream stream(5, Purpose::kTest, 2, i);
    memory.emplace_back(sizes[i] + 16 * shift);
    float* p = memory.back().data() + 16 * shift;
    for (size_t j = 0; j < sizes[i]; ++j) p[j] = static_cast<float>(0.3 * stream.Normal(j));
    parameters.push_back(p);
    memory.emplace_back(sizes[i] + 16 * shift);
    gradients.push_back(memory.back().data() + 16 * shift);
  }
  Batch copy;
  copy.rows = batch.rows;
  copy.features = batch.features;
  copy.sparse = batch.sparse;
  copy.dense.Resize(batch.dense.size());
  std::copy_n(batch.dense.data(), batch.dense.size(), copy.dense.data());
  copy.row_begin = batch.row_begin;
  copy.column = batch.column;
  copy.value = batch.value;
  copy.keys = batch.keys;
  copy.label = batch.label;
  Bits bits;
  bits.result = model->Gradient(copy, parameters, gradients);
  for (size_t i = 0; i < specs.size(); ++i) bits.gradient.emplace_back(gradients[i], gradients[i] + sizes[i]);
  const BatchResult again = model->Evaluate(copy, parameters);
  EXPECT_EQ(again.loss, bits.result.loss);
  EXPECT_EQ(again.correct, bits.result.correct);
  EXPECT_EQ(again.weight, static_cast<double>(batch.rows));
  model->Predict(copy, parameters, &bits.predictions);
  EXPECT_EQ(bits.predictions.size(), batch.rows * model->outputs());
  return bits;
}

struct Case {
  const char* name;
  const char* model;
  BatchForm form;
  uint32_t classes;
};
class ModelBits : public ::testing::TestWithParam<Case> {};

TEST_P(ModelBits, AreAFunctionOfBatchAndParameters) {
  const Case& c = GetParam();
  constexpr uint64_t kFeatures = 131;
  for (size_t rows : {0, 1, 2, 7, 64, 129}) {
    const Batch batch = MakeBatch(c.form, rows, kFeatures, c.classes);
    const bool sparse = c.form != BatchForm::kDense;
    auto first_model = Make<float>(c.model, kFeatures, sparse);
    const Bits first = RunAt(first_model.get(), batch, 0);
    // A model that has scratch of other batches, other addresses, other threads.
    RunAt(first_model.get(), MakeBatch(c.form, 200, kFeatures, c.classes, 9), 3);
    EXPECT_EQ(RunAt(first_model.get(), batch, 1), first) << rows;
    std::vector<Bits> others(4);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < others.size(); ++t) {
      threads.emplace_back([&, t] {
        auto model = Make<float>(c.model, kFeatures, sparse);
        for (int i = 0; i < 3; ++i) others[t] = RunAt(model.get(), batch, t + 1);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Bits& other : others) EXPECT_EQ(other, first) << rows;
    if (rows == 0) {
      for (const auto& gradient : first.gradient) {
        for (float g : gradient) EXPECT_EQ(g, 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelBits,
    ::testing::Values(
        Case{"Linear", "linear {}", BatchForm::kDense, 0}, Case{"LogisticDense", "logistic {}", BatchForm::kDense, 2},
        Case{"LogisticTable", "logistic { sparse_table: true }", BatchForm::kTable, 2},
        Case{"Softmax", "softmax { classes: 10 }", BatchForm::kDense, 10},
        Case{"SoftmaxSparse", "softmax { classes: 10 }", BatchForm::kSparse, 10},
        Case{"MlpRelu", "mlp { hidden: 67 hidden: 30 classes: 10 }", BatchForm::kDense, 10},
        Case{"MlpTanh", "mlp { hidden: 67 classes: 10 activation: TANH }", BatchForm::kDense, 10},
        Case{"MlpSparse", "mlp { hidden: 40 classes: 10 activation: SIGMOID }", BatchForm::kSparse, 10},
        Case{"Huber", "linear { loss { huber {} } }", BatchForm::kDense, 0},
        Case{"PoissonTable", "poisson { sparse_table: true }", BatchForm::kTable, 5},
        Case{"Svm", "svm {}", BatchForm::kSparse, 2},
        Case{"Focal", "softmax { classes: 10 focal_gamma: 2 }", BatchForm::kDense, 10},
        Case{"FocalLogistic", "logistic { focal_gamma: 2 }", BatchForm::kDense, 2},
        Case{"MachineDense", "factorization_machine { dim: 5 }", BatchForm::kDense, 2},
        Case{"MachineTable", "factorization_machine { dim: 5 sparse_table: true }", BatchForm::kTable, 2},
        Case{"MlpOneOutput", "mlp { hidden: 67 activation: GELU loss { logistic {} } }", BatchForm::kDense, 2},
        Case{"MlpElu", "mlp { hidden: 33 hidden: 33 classes: 3 activation: ELU residual: true }", BatchForm::kDense, 3},
        Case{"MlpNorm", "mlp { hidden: 35 activation: SOFTPLUS layer_norm: true loss { squared {} } }",
             BatchForm::kSparse, 0},
        Case{"Autoencoder", "autoencoder { hidden: 9 activation: LEAKY_RELU }", BatchForm::kDense, 0},
        Case{"Gru", "recurrent { steps: 131 units: 9 classes: 3 }", BatchForm::kDense, 3},
        Case{"Lstm", "recurrent { cell: LSTM steps: 1 units: 9 classes: 3 }", BatchForm::kSparse, 3},
        Case{"WideDeep", "wide_deep { embedding: 7 deep { hidden: 11 } }", BatchForm::kTable, 2},
        Case{"Convolution",
             "convolution { height: 1 width: 131 layer { filters: 5 kernel: 7 pool: MAX_POOL } "
             "layer { filters: 3 kernel: 3 padding: 1 } top { hidden: 9 classes: 4 } }",
             BatchForm::kDense, 4}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ModelsTest, FormsOfOneInputAgree) {
  // The same numbers as dense rows, as compressed rows, and as a table: equal up to the order of additions.
  const Batch table = MakeBatch(BatchForm::kTable, 20, 40, 3);
  Batch sparse = MakeBatch(BatchForm::kSparse, 20, 40, 3);
  Batch dense;
  dense.rows = 20;
  dense.features = 40;
  dense.label = sparse.label;
  dense.dense.Resize(20 * 40);
  std::fill_n(dense.dense.data(), 20 * 40, 0.0f);
  for (size_t r = 0; r < 20; ++r) {
    for (uint32_t i = sparse.row_begin[r]; i < sparse.row_begin[r + 1]; ++i) {
      dense.dense[r * 40 + sparse.column[i]] = sparse.value[i];
    }
  }
  auto dense_model = Make<float>("softmax { classes: 3 }", 40, false);
  auto sparse_model = Make<float>("softmax { classes: 3 }", 40, true);
  auto table_model = Make<float>("softmax { classes: 3 sparse_table: true }", 0, true);
  const Bits a = RunAt(dense_model.get(), dense, 0);
  const Bits b = RunAt(sparse_model.get(), sparse, 0);
  const Bits c = RunAt(table_model.get(), table, 0);
  EXPECT_EQ(b, c);
  EXPECT_NEAR(a.result.loss, b.result.loss, 1e-5 * b.result.loss);
  for (size_t j = 0; j < a.gradient[0].size(); ++j) EXPECT_NEAR(a.gradient[0][j], b.gradient[0][j], 1e-5);
}

TEST(ModelsTest, LogisticByHand) {
  auto model = Make<double>("logistic {}", 1, false);
  Batch batch;
  batch.rows = 3;
  batch.features = 1;
  batch.dense.Resize(3);
  batch.dense[0] = 2;
  batch.dense[1] = -1000;
  batch.dense[2] = 1000;
  batch.label = {1, 1, 1};
  AlignedBuffer<double> w(1), b(1), gw(1), gb(1);
  w[0] = 1;
  b[0] = -1;
  const double* parameters[] = {w.data(), b.data()};
  double* gradients[] = {gw.data(), gb.data()};
  const BatchResult result = model->Gradient(batch, parameters, gradients);
  const double s = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(result.loss, -std::log(s) + 1001, 1e-9);  // stable where exp would overflow
  EXPECT_EQ(result.correct, 2);
  EXPECT_NEAR(gw[0], 2 * (s - 1) + 1000, 1e-9);
  EXPECT_NEAR(gb[0], (s - 1) - 1, 1e-12);
}

TEST(ModelsTest, QuadraticByHand) {
  auto model = Make<float>("quadratic { center: 3 start: 10 }", 0, false);
  ASSERT_EQ(model->tensors().size(), 1u);
  EXPECT_EQ(model->tensors()[0].initializer, (Initializer{Initializer::Kind::kConstant, 10}));
  Batch batch;
  batch.rows = 1;
  AlignedBuffer<float> x(1), g(1);
  x[0] = 10;
  const float* parameters[] = {x.data()};
  float* gradients[] = {g.data()};
  EXPECT_EQ(model->Gradient(batch, parameters, gradients).loss, 49);
  EXPECT_EQ(g[0], 14);
}

TEST(ModelsTest, NanInTheParametersShowsInTheGradient) {
  for (const char* text :
       {"mlp { hidden: 8 classes: 3 activation: RELU }",
        "mlp { hidden: 8 classes: 3 activation: TANH }",
        "mlp { hidden: 8 classes: 3 activation: SIGMOID }",
        "mlp { hidden: 8 classes: 3 activation: LEAKY_RELU }",
        "mlp { hidden: 8 classes: 3 activation: ELU }",
        "mlp { hidden: 8 classes: 3 activation: GELU }",
        "mlp { hidden: 8 classes: 3 activation: SOFTPLUS layer_norm: true }",
        "mlp { hidden: 8 classes: 3 batch_norm: true }",
        "softmax { classes: 3 }",
        "softmax { classes: 3 focal_gamma: 2 }",
        "logistic {}",
        "logistic { focal_gamma: 2 }",
        "svm {}",
        "svm { squared_hinge: true }",
        "poisson {}",
        "linear {}",
        "linear { loss { absolute {} } }",
        "linear { loss { quantile { tau: 0.3 } } }",
        "linear { loss { huber {} } }",
        "linear { loss { epsilon_insensitive {} } }",
        "factorization_machine { dim: 2 }",
        "autoencoder { hidden: 3 }",
        "convolution { height: 4 width: 5 layer { filters: 2 kernel: 2 pool: MAX_POOL } top { classes: 3 } }",
        "recurrent { steps: 5 units: 3 classes: 3 }",
        "recurrent { cell: LSTM steps: 5 units: 3 classes: 3 }"}) {
    const uint32_t classes = std::string(text).find("classes: 3") == std::string::npos ? 2 : 3;
    const Batch batch = MakeBatch(BatchForm::kDense, 9, 20, classes);
    auto model = Make<float>(text, 20, false);
    std::vector<AlignedBuffer<float>> memory;
    std::vector<const float*> parameters;
    std::vector<float*> gradients;
    for (const TensorSpec& spec : model->tensors()) {
      for (int twice = 0; twice < 2; ++twice) {
        memory.emplace_back(spec.elements());
        std::fill_n(memory.back().data(), spec.elements(), 0.1f);
      }
      parameters.push_back(memory[memory.size() - 2].data());
      gradients.push_back(memory.back().data());
    }
    memory[0][3] = std::numeric_limits<float>::quiet_NaN();
    const BatchResult result = model->Gradient(batch, parameters, gradients);
    bool seen = !std::isfinite(result.loss);
    for (size_t i = 0; i < gradients.size(); ++i) {
      for (size_t j = 0; j < model->tensors()[i].elements(); ++j) seen |= !std::isfinite(gradients[i][j]);
    }
    EXPECT_TRUE(seen) << text;
  }
}

TEST(ModelsTest, SpecsAreThoseOfTheJob) {
  auto model = Make<float>("mlp { hidden: 256 hidden: 128 classes: 10 }", 784, false);
  const auto& t = model->tensors();
  ASSERT_EQ(t.size(), 6u);
  EXPECT_EQ(t[0].name, "layer1/weights");
  EXPECT_EQ(t[0].shape, (std::vector<uint64_t>{784, 256}));
  EXPECT_TRUE(t[0].decay);
  EXPECT_EQ(t[0].initializer, (Initializer{Initializer::Kind::kNormal, std::sqrt(2.0 / 784)}));
  EXPECT_EQ(t[5].name, "layer3/bias");
  EXPECT_FALSE(t[5].decay);
  model = Make<float>("mlp { hidden: 6 classes: 2 activation: TANH }", 4, false);
  EXPECT_EQ(model->tensors()[0].initializer, (Initializer{Initializer::Kind::kUniform, std::sqrt(0.6)}));
  model = Make<float>("softmax { classes: 7 sparse_table: true }", 0, true);
  EXPECT_TRUE(model->tensors()[0].sparse);
  EXPECT_EQ(model->tensors()[0].dim(), 7u);
  EXPECT_EQ(model->tensors()[1].shape, (std::vector<uint64_t>{7}));
}

TEST(ModelsTest, WhatCannotBeMadeIsRefused) {
  auto why = [](const std::string& text, uint64_t features, bool sparse) {
    ModelInput input;
    input.features = features;
    input.sparse = sparse;
    const CustomModels custom = {{"mine", nullptr}, {"yours", nullptr}};
    auto model = MakeModel<float>(ParseModel(text), input, custom);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(model.status().message());
  };
  EXPECT_THAT(why("softmax { classes: 1 }", 3, false), HasSubstr("model.softmax.classes"));
  EXPECT_THAT(why("mlp { classes: 3 hidden: 4 hidden: 0 }", 3, false), HasSubstr("model.mlp.hidden[1]"));
  EXPECT_THAT(why("logistic { sparse_table: true }", 3, false), HasSubstr("needs sparse data"));
  EXPECT_THAT(why("linear {}", 0, true), HasSubstr("number of features"));
  EXPECT_THAT(why("", 3, false), HasSubstr("model: missing"));
  EXPECT_THAT(why("custom { name: \"ours\" }", 3, false), AllOf(HasSubstr("\"ours\""), HasSubstr("mine, yours")));
}

uint32_t UlpDistance(float a, float b) {
  const auto order = [](float x) {
    const int32_t bits = std::bit_cast<int32_t>(x);
    return bits < 0 ? std::numeric_limits<int32_t>::min() - int64_t{bits} : int64_t{bits};
  };
  return static_cast<uint32_t>(std::llabs(order(a) - order(b)));
}

TEST(ElementwiseTest, AccurateToTwoUlp) {
  uint32_t worst_exp = 0, worst_tanh = 0;
  double worst_log = 0, worst_log1p = 0;
  for (int i = 0; i <= 2000000; ++i) {
    const float x = -87.0f + static_cast<float>(i) * (175.0f / 2000000);
    worst_exp = std::max(worst_exp, UlpDistance(internal::Exp(x), static_cast<float>(std::exp(double{x}))));
    const float t = -10.0f + static_cast<float>(i) * (20.0f / 2000000);
    worst_tanh = std::max(worst_tanh, UlpDistance(internal::Tanh(t), static_cast<float>(std::tanh(double{t}))));
    if (i % 20 == 0 && i > 0) {
      const double u = i / 2000000.0;
      worst_log1p = std::max(worst_log1p, std::fabs(internal::LogOnePlus(u) / std::log1p(u) - 1));
      const double v = 1 + i * 0.01;
      worst_log = std::max(worst_log, std::fabs(internal::Log(v) - std::log(v)) / std::max(1e-3, std::log(v)));
    }
  }
  EXPECT_LE(worst_exp, 2u);
  EXPECT_LE(worst_tanh, 2u);
  EXPECT_LE(worst_log, 1e-15);
  EXPECT_LE(worst_log1p, 1e-15);
  EXPECT_EQ(internal::Exp(0.0f), 1.0f);
  EXPECT_EQ(internal::Log(1.0), 0.0);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(internal::Exp(nan)));
  EXPECT_TRUE(std::isnan(internal::Tanh(nan)));
  EXPECT_TRUE(std::isnan(internal::Sigmoid(nan)));
  EXPECT_TRUE(std::isnan(internal::Log(double{nan})));
  EXPECT_EQ(internal::Sigmoid(0.0f), 0.5f);
  EXPECT_EQ(internal::Tanh(-100.0f), -1.0f);
}

}  // namespace
}  // namespace descent
