// The parts of nets on problems whose answer is known, and by hand.
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/models/known_answers_testing.h"

namespace descent {
namespace {

using internal::AlignedBuffer;

// Lines of 8 pixels, a step up somewhere in class 1, a step down in class 0: a matter of a filter, not of the place.
TEST(NetAnswers, ConvolutionFindsAPatternAnywhere) {
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
TEST(NetAnswers, RecurrentNetsCountOnesModuloTwo) {
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
TEST(NetAnswers, RecurrentCellsByHand) {
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
TEST(NetAnswers, ConvolutionByHand) {
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

TEST(NetAnswers, DropoutLeavesOutItsShareAndKeepsTheMean) {
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

TEST(NetAnswers, FrozenTensorsHaveNoGradient) {
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
