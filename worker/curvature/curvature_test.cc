// The probe on objectives whose Hessian is known in closed form.
#include "worker/curvature/curvature.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "Eigen/Cholesky"
#include "Eigen/Core"
#include "Eigen/Eigenvalues"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/models/models_testing.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Rows of a batch, as data.
class BatchData final : public Dataset {
 public:
  explicit BatchData(const Batch& batch) : batch_(batch) {}
  uint64_t rows() const override { return batch_.rows; }
  uint64_t features() const override { return batch_.features; }
  bool sparse() const override { return false; }
  absl::Span<const DataFileInfo> files() const override { return {}; }
  uint32_t shards() const override { return 1; }
  uint64_t shard_begin(uint32_t shard) const override { return shard == 0 ? 0 : rows(); }
  absl::Status Read(absl::Span<const uint64_t> rows, Batch* out) const override {
    out->rows = rows.size();
    out->features = batch_.features;
    out->dense.Resize(rows.size() * batch_.features);
    out->label.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(batch_.dense.data() + rows[i] * batch_.features, batch_.features,
                  out->dense.data() + i * batch_.features);
      out->label.push_back(batch_.label[rows[i]]);
    }
    ++reads;
    return absl::OkStatus();
  }
  mutable int reads = 0;

 private:
  const Batch& batch_;
};

std::vector<uint64_t> AllRows(const Dataset& data) { return SpacedRows(data.rows(), 0); }

// What a job's parameters may be, by tensor.
struct Parameters {
  explicit Parameters(const Model<double>& model, double size = 0, uint64_t seed = 4) {
    const RandomStream stream(seed, Purpose::kTest, 7, 0);
    uint64_t draw = 0;
    for (const TensorSpec& spec : model.tensors()) {
      std::vector<float>& values = of.emplace_back(spec.elements());
      for (float& x : values) x = static_cast<float>(size * stream.Normal(draw++));
    }
  }
  std::vector<absl::Span<const float>> spans() const { return {of.begin(), of.end()}; }
  std::vector<std::vector<float>> of;
};

TEST(Curvature, AQuadraticHasTwoInEachDirection) {
  const auto model = Make<double>("quadratic { dim: 40 center: 1 start: 3 }", 0, false);
  for (double at : {1.0, 1.5}) {
    Parameters parameters(*model);
    std::fill(parameters.of[0].begin(), parameters.of[0].end(), static_cast<float>(at));
    const auto loss = MeanLoss::Create(model.get(), nullptr, {}, parameters.spans(), {}).value();
    EXPECT_EQ(loss->size(), 40u);
    const Curvature found = MeasureCurvature(loss.get(), {}).value();
    EXPECT_NEAR(found.hessian.least.value, 2, 1e-8);
    EXPECT_NEAR(found.hessian.greatest.value, 2, 1e-8);
    EXPECT_NEAR(found.gradient_norm, 2 * (at - 1) * std::sqrt(40.0), 1e-12);
    EXPECT_NEAR(found.mean_loss, 40 * (at - 1) * (at - 1), 1e-12);
    EXPECT_EQ(found.kind, at == 1 ? PointKind::kNearMinimum : PointKind::kNotStationary);
    EXPECT_LE(found.hessian.steps, 2u);
  }
}

// H = 1/N sum p (1 - p) x x' + l2 on what is decayed, with 1 behind x for the bias.
TEST(Curvature, LogisticRegressionByItsClosedForm) {
  constexpr size_t kFeatures = 6, kRows = 300;
  const auto model = Make<double>("logistic {}", kFeatures, false);
  const Batch batch = MakeBatch(BatchForm::kDense, kRows, kFeatures, 2);
  const BatchData data(batch);
  const Parameters parameters(*model, 0.7);
  MeanLossOptions options;
  options.l2 = 0.01;
  options.batch_rows = 77;
  const auto loss = MeanLoss::Create(model.get(), &data, AllRows(data), parameters.spans(), options).value();
  Eigen::MatrixXd hessian = Eigen::MatrixXd::Zero(kFeatures + 1, kFeatures + 1);
  Eigen::VectorXd gradient = Eigen::VectorXd::Zero(kFeatures + 1);
  double mean = 0;
  for (size_t r = 0; r < kRows; ++r) {
    Eigen::VectorXd x(kFeatures + 1);
    x[kFeatures] = 1;
    double z = parameters.of[1][0];
    for (size_t i = 0; i < kFeatures; ++i) {
      x[static_cast<Eigen::Index>(i)] = batch.dense[r * kFeatures + i];
      z += x[static_cast<Eigen::Index>(i)] * parameters.of[0][i];
    }
    const double p = 1 / (1 + std::exp(-z));
    hessian += p * (1 - p) / kRows * x * x.transpose();
    gradient += (p - batch.label[r]) / kRows * x;
    mean -= std::log(batch.label[r] > 0 ? p : 1 - p) / kRows;
  }
  for (size_t i = 0; i < kFeatures; ++i) {
    const auto k = static_cast<Eigen::Index>(i);
    hessian(k, k) += options.l2;
    gradient[k] += options.l2 * parameters.of[0][i];
  }
  const Eigen::VectorXd eigenvalues = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(hessian).eigenvalues();
  const Curvature found = MeasureCurvature(loss.get(), {}).value();
  EXPECT_NEAR(found.mean_loss, mean, 1e-9);
  EXPECT_NEAR(found.gradient_norm, gradient.norm(), 1e-9);
  EXPECT_NEAR(found.hessian.least.value, eigenvalues[0], 1e-8);
  EXPECT_NEAR(found.hessian.greatest.value, eigenvalues[kFeatures], 1e-8);
  EXPECT_TRUE(found.hessian.converged);
  EXPECT_EQ(found.kind, PointKind::kNotStationary);
  // A product by itself, with a vector of any length.
  std::vector<double> v(loss->size()), product(loss->size());
  std::iota(v.begin(), v.end(), -2.0);
  ASSERT_TRUE(loss->HessianProduct(loss->start(), v, absl::MakeSpan(product)).ok());
  const Eigen::VectorXd expected = hessian * Eigen::Map<const Eigen::VectorXd>(v.data(), kFeatures + 1);
  for (size_t i = 0; i < v.size(); ++i) EXPECT_NEAR(product[i], expected[static_cast<Eigen::Index>(i)], 1e-8);
  std::fill(v.begin(), v.end(), 0.0);
  ASSERT_TRUE(loss->HessianProduct(loss->start(), v, absl::MakeSpan(product)).ok());
  for (double x : product) EXPECT_EQ(x, 0);
}

TEST(Curvature, OfARegressionAtItsSolution) {
  constexpr size_t kFeatures = 3, kRows = 50;
  const auto model = Make<double>("linear { no_bias: true }", kFeatures, false);
  const Batch batch = MakeBatch(BatchForm::kDense, kRows, kFeatures, 0);
  const BatchData data(batch);
  Eigen::MatrixXd x(kRows, kFeatures);
  Eigen::VectorXd y(kRows);
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t i = 0; i < kFeatures; ++i) x(r, i) = batch.dense[r * kFeatures + i];
    y[static_cast<Eigen::Index>(r)] = batch.label[r];
  }
  const Eigen::MatrixXd hessian = x.transpose() * x / double{kRows};
  const Eigen::VectorXd slope = x.transpose() * y / double{kRows};
  const Eigen::VectorXd solution = hessian.ldlt().solve(slope);
  Parameters parameters(*model);
  for (size_t i = 0; i < kFeatures; ++i) {
    parameters.of[0][i] = static_cast<float>(solution[static_cast<Eigen::Index>(i)]);
  }
  const auto loss = MeanLoss::Create(model.get(), &data, AllRows(data), parameters.spans(), {}).value();
  const Curvature found = MeasureCurvature(loss.get(), {}).value();
  EXPECT_LT(found.gradient_norm, 1e-6);
  EXPECT_NEAR(found.hessian.least.value, Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(hessian).eigenvalues()[0],
              1e-8);
  EXPECT_EQ(found.kind, PointKind::kNearMinimum);
}

// Where all weights of a net are 0 no gradient leads away, and the loss curves both ways: with h = tanh(u x) and
// z = v h the loss has u v in it, whose Hessian has eigenvalues +-.
TEST(Curvature, ANetOfZerosIsASaddle) {
  const auto model = Make<double>("mlp { hidden: 4 activation: TANH classes: 2 }", 2, false);
  Batch batch = MakeBatch(BatchForm::kDense, 100, 2, 2);
  for (size_t r = 0; r < batch.rows; ++r) {
    batch.label[r] = static_cast<float>(r % 2);  // as many of each, or the output's biases would move
    batch.dense[2 * r] += r % 2 == 0 ? -1.0f : 1.0f;
  }
  const BatchData data(batch);
  const Parameters zeros(*model);
  const auto loss = MeanLoss::Create(model.get(), &data, AllRows(data), zeros.spans(), {}).value();
  const Curvature found = MeasureCurvature(loss.get(), {}).value();
  EXPECT_LT(found.gradient_norm, 1e-12);
  EXPECT_EQ(found.kind, PointKind::kSaddle) << KindText(found, {});
  EXPECT_LT(found.hessian.least.value, -0.1);
  EXPECT_THAT(KindText(found, {}), HasSubstr("a saddle: "));
}

// Of a net there is no closed form: the whole matrix, a column at a time, and its symmetry.
TEST(Curvature, OfANetTheEndsAreThoseOfTheWholeMatrix) {
  const auto model = Make<double>("mlp { hidden: 3 activation: TANH classes: 2 }", 2, false);
  const Batch batch = MakeBatch(BatchForm::kDense, 80, 2, 2);
  const BatchData data(batch);
  const Parameters parameters(*model, 1);
  MeanLossOptions options;
  options.l2 = 0.003;
  const auto loss = MeanLoss::Create(model.get(), &data, AllRows(data), parameters.spans(), options).value();
  const auto n = static_cast<Eigen::Index>(loss->size());
  ASSERT_EQ(n, 2 * 3 + 3 + 3 * 2 + 2);
  Eigen::MatrixXd hessian(n, n);
  std::vector<double> unit(loss->size(), 0), column(loss->size());
  for (Eigen::Index i = 0; i < n; ++i) {
    unit[static_cast<size_t>(i)] = 1;
    ASSERT_TRUE(loss->HessianProduct(loss->start(), unit, absl::MakeSpan(column)).ok());
    hessian.col(i) = Eigen::Map<const Eigen::VectorXd>(column.data(), n);
    unit[static_cast<size_t>(i)] = 0;
  }
  EXPECT_LT((hessian - hessian.transpose()).cwiseAbs().maxCoeff(), 1e-8);
  const Eigen::VectorXd eigenvalues = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(hessian).eigenvalues();
  EXPECT_LT(eigenvalues[0], 0) << "no test of a saddle";
  CurvatureOptions all;
  all.lanczos.tolerance = 0;
  const Curvature found = MeasureCurvature(loss.get(), all).value();
  EXPECT_NEAR(found.hessian.least.value, eigenvalues[0], 1e-7);
  EXPECT_NEAR(found.hessian.greatest.value, eigenvalues[n - 1], 1e-7);
}

TEST(Curvature, WhatIsFrozenHasNoPart) {
  ModelInput input;
  input.features = 2;
  input.frozen = {"layer1/weights", "layer1/bias"};
  const auto model = MakeModel<double>(ParseModel("mlp { hidden: 3 activation: TANH classes: 2 }"), input, {}).value();
  const Batch batch = MakeBatch(BatchForm::kDense, 60, 2, 2);
  const BatchData data(batch);
  const Parameters parameters(*model, 0.5);
  const auto loss = MeanLoss::Create(model.get(), &data, AllRows(data), parameters.spans(), {}).value();
  EXPECT_EQ(loss->size(), 3u * 2 + 2);
  // What is left is softmax regression on the hidden values, which is convex.
  const Curvature found = MeasureCurvature(loss.get(), {}).value();
  EXPECT_GE(found.hessian.least.value, -1e-8);
  EXPECT_GT(found.hessian.greatest.value, 0.01);
}

TEST(Curvature, RowsAreThoseAskedFor) {
  EXPECT_THAT(SpacedRows(4, 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(SpacedRows(4, 9), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(SpacedRows(10, 4), ElementsAre(0, 2, 5, 7));
  EXPECT_THAT(SpacedRows(uint64_t{1} << 63, 2), ElementsAre(0, uint64_t{1} << 62));
  const auto model = Make<double>("linear {}", 2, false);
  const Batch batch = MakeBatch(BatchForm::kDense, 40, 2, 0);
  const BatchData data(batch);
  const Parameters parameters(*model, 0.5);
  MeanLossOptions options;
  options.batch_rows = 4;
  const auto loss = MeanLoss::Create(model.get(), &data, SpacedRows(40, 10), parameters.spans(), options).value();
  EXPECT_EQ(loss->rows(), 10u);
  std::vector<double> gradient(loss->size());
  const double mean = loss->Gradient(loss->start(), absl::MakeSpan(gradient)).value();
  EXPECT_EQ(data.reads, 3);
  double by_hand = 0;
  for (size_t r = 0; r < 40; r += 4) {
    const double d = double{parameters.of[0][0]} * batch.dense[2 * r] +
                     double{parameters.of[0][1]} * batch.dense[2 * r + 1] + parameters.of[1][0] - batch.label[r];
    by_hand += d * d / 2 / 10;
  }
  EXPECT_NEAR(mean, by_hand, 1e-12);
}

TEST(Curvature, WhatHasNoVectorOfParametersIsRefused) {
  const auto model = Make<double>("logistic { sparse_table: true }", 0, true);
  const std::vector<absl::Span<const float>> none(model->tensors().size());
  EXPECT_THAT(MeanLoss::Create(model.get(), nullptr, {}, none, {}).status().message(),
              HasSubstr("table 'weights': its rows are made as they occur"));
  const auto line = Make<double>("linear {}", 1, false);
  const Batch batch = MakeBatch(BatchForm::kDense, 1, 1, 0);
  const BatchData data(batch);
  EXPECT_EQ(MeanLoss::Create(line.get(), &data, {}, Parameters(*line).spans(), {}).status().message(),
            "there are no rows to take the loss of");
}

TEST(Curvature, WhatIsNotFiniteIsNamed) {
  const auto model = Make<double>("linear {}", 1, false);
  Batch batch = MakeBatch(BatchForm::kDense, 3, 1, 0);
  const BatchData data(batch);
  Parameters parameters(*model);
  parameters.of[1][0] = std::numeric_limits<float>::infinity();
  const auto loss = MeanLoss::Create(model.get(), &data, AllRows(data), parameters.spans(), {}).value();
  EXPECT_EQ(MeasureCurvature(loss.get(), {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Curvature, TheVerdictFollowsItsRule) {
  const auto kind = [](double norm, RitzValue least, RitzValue greatest) {
    CurvatureOptions options;
    options.stationary = 0.1;
    options.flat = 0.01;
    return KindOf(norm, {least, greatest, 9, true}, options);
  };
  EXPECT_EQ(kind(0.2, {-5, 0}, {5, 0}), PointKind::kNotStationary);
  EXPECT_EQ(kind(0.1, {-5, 0}, {5, 0}), PointKind::kSaddle);
  EXPECT_EQ(kind(0, {-5, 9}, {5, 9}), PointKind::kSaddle) << "such directions are there, whatever the bounds";
  EXPECT_EQ(kind(0, {-0.04, 0}, {5, 0}), PointKind::kNearMinimum) << "within 0.05";
  EXPECT_EQ(kind(0, {-0.06, 0}, {5, 0}), PointKind::kSaddle);
  EXPECT_EQ(kind(0, {-0.04, 0.02}, {5, 0}), PointKind::kUndecided);
  EXPECT_EQ(kind(0, {2, 1}, {5, 9}), PointKind::kNearMinimum);
  EXPECT_EQ(kind(0, {2, 3}, {5, 9}), PointKind::kUndecided);
  EXPECT_EQ(kind(0, {-5, 0}, {-2, 0.5}), PointKind::kNearMaximum);
  EXPECT_EQ(kind(0, {-5, 0}, {0.04, 0.02}), PointKind::kUndecided);
  EXPECT_EQ(kind(0, {0, 0}, {0, 0}), PointKind::kNearMinimum) << "flat: nothing leads down";
  for (PointKind each : {PointKind::kNotStationary, PointKind::kSaddle, PointKind::kNearMinimum,
                         PointKind::kNearMaximum, PointKind::kUndecided}) {
    Curvature curvature;
    curvature.kind = each;
    EXPECT_THAT(KindText(curvature, {}), HasSubstr(KindName(each)));
  }
}

}  // namespace
}  // namespace descent
