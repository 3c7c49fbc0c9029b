// The probe of curvature on functions whose Hessian is known everywhere.
#include "worker/curvature/curvature.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/experiments/models/models.h"

namespace descent {
namespace {

// Numbers a and their negatives, so that their mean is 0.
class Pulls final : public Dataset {
 public:
  uint64_t rows() const override { return 10; }
  uint64_t features() const override { return 1; }
  bool sparse() const override { return false; }
  absl::Span<const DataFileInfo> files() const override { return {}; }
  uint32_t shards() const override { return 1; }
  uint64_t shard_begin(uint32_t shard) const override { return shard == 0 ? 0 : rows(); }
  absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const override {
    batch->rows = rows.size();
    batch->features = 1;
    batch->dense.Resize(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const float size = 0.25f * static_cast<float>(1 + rows[i] / 2);
      batch->dense[i] = rows[i] % 2 == 0 ? size : -size;
    }
    batch->label.assign(rows.size(), 0);
    return absl::OkStatus();
  }
};

Curvature At(Model<double>* model, const Dataset* data, const std::vector<std::vector<float>>& parameters) {
  const std::vector<absl::Span<const float>> spans(parameters.begin(), parameters.end());
  std::vector<uint64_t> rows = data == nullptr ? std::vector<uint64_t>() : SpacedRows(data->rows(), 0);
  auto loss = MeanLoss::Create(model, data, std::move(rows), spans, {});
  EXPECT_TRUE(loss.ok()) << loss.status();
  absl::StatusOr<Curvature> found = MeasureCurvature(loss->get(), {});
  EXPECT_TRUE(found.ok()) << found.status();
  return *std::move(found);
}

TEST(CurvatureOfExperiments, AQuadraticHasItsCurvaturesEverywhere) {
  const auto model = MakeCurvedQuadratic<double>({0.5, 3, 100, 7, 0.25}, 1);
  const Curvature off = At(model.get(), nullptr, {{1, 1, 1, 1, 1}});
  EXPECT_EQ(off.kind, PointKind::kNotStationary);
  const Curvature at = At(model.get(), nullptr, {{0, 0, 0, 0, 0}});
  EXPECT_EQ(at.kind, PointKind::kNearMinimum) << KindText(at, {});
  for (const Curvature& found : {off, at}) {
    EXPECT_NEAR(found.hessian.least.value, 0.25, 1e-6);
    EXPECT_NEAR(found.hessian.greatest.value, 100, 1e-6);
    EXPECT_TRUE(found.hessian.converged);
  }
  const auto bent = MakeCurvedQuadratic<double>({2, -0.5}, 1);
  EXPECT_EQ(At(bent.get(), nullptr, {{0, 0}}).kind, PointKind::kSaddle);
  const auto dome = MakeCurvedQuadratic<double>({-2, -0.5}, 1);
  EXPECT_EQ(At(dome.get(), nullptr, {{0, 0}}).kind, PointKind::kNearMaximum);
}

// Where the full batch of the experiment ends there is no gradient, and no minimum.
TEST(CurvatureOfExperiments, TheSaddleIsFoundToBeOne) {
  const auto model = MakeSaddle<double>(1);
  const Pulls data;
  const Curvature held = At(model.get(), &data, {{1e-9f}, {0}});
  EXPECT_LT(held.gradient_norm, 1e-8);
  EXPECT_EQ(held.kind, PointKind::kSaddle) << KindText(held, {});
  EXPECT_NEAR(held.hessian.least.value, -1, 1e-6);
  EXPECT_NEAR(held.hessian.greatest.value, 1, 1e-6);
  // 3 y^2 - 1 beside 1.
  for (float y : {-1.0f, 1.0f}) {
    const Curvature minimum = At(model.get(), &data, {{0}, {y}});
    EXPECT_EQ(minimum.kind, PointKind::kNearMinimum) << KindText(minimum, {});
    EXPECT_NEAR(minimum.mean_loss, -0.25, 1e-12);
    EXPECT_NEAR(minimum.hessian.least.value, 1, 1e-6);
    EXPECT_NEAR(minimum.hessian.greatest.value, 2, 1e-6);
  }
  EXPECT_EQ(At(model.get(), &data, {{0.5f}, {0}}).kind, PointKind::kNotStationary);
}

}  // namespace
}  // namespace descent
