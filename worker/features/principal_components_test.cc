#include "worker/features/principal_components.h"

#include <cmath>
#include <vector>

#include "common/features/feature_statistics.h"
#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "worker/features/features_test_util.h"

namespace descent {
namespace {

class PrincipalComponentsTest : public FeaturesTest {
 protected:
  void SetUp() override {
    FeaturesTest::SetUp();
    Write("x.csv", "1,2,0,9\n3,3,1,9\n5,7,1,9\n7,8,5,9\n9,1,2,9\n");
  }
  const std::string csv_ = "csv { path: 'x.csv' }";
};

TEST_F(PrincipalComponentsTest, AreNumPys) {
  // numpy 1.24.2: eigh(cov(x.T, bias=True)), x - x.mean(0) in the first two eigenvectors.
  const std::string expected =
      "9: -4.77787 1.03048; 9: -2.4026 0.440293; 9: 1.2968 2.09118; 9: 5.04339 1.48998; 9: "
      "0.840281 -5.05193";
  EXPECT_EQ(Transformed("pca: 2", csv_), expected);
  options_.shard_rows = 2;
  EXPECT_EQ(Transformed("pca: 2", csv_), expected) << "merged";
  const auto fitted = Fit(Features("pca: 2"), csv_);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  EXPECT_THAT(std::vector<double>(fitted->centre().begin(), fitted->centre().end()),
              ::testing::Pointwise(::testing::DoubleNear(1e-12), {5.0, 4.2, 1.8}));
  EXPECT_THAT(std::vector<double>(fitted->component().begin(), fitted->component().end()),
              ::testing::Pointwise(::testing::DoubleNear(1e-8),
                                   {0.66221043, 0.59374441, 0.45710495, -0.66615875, 0.74580094, -0.00367063}));
}

TEST_F(PrincipalComponentsTest, SparseRowsGiveWhatDenseOnesDo) {
  Write("x.svm", "9 1:1 2:2\n9 1:3 2:3 3:1\n9 1:5 2:7 3:1\n9 1:7 2:8 3:5\n9 1:9 2:1 3:2\n");
  EXPECT_EQ(Transformed("pca: 3", "libsvm { path: 'x.svm' features: 3 }"), Transformed("pca: 3", csv_));
}

TEST_F(PrincipalComponentsTest, ManyFeaturesFromManyShards) {
  // What a few directions make, and noise.
  const RandomStream stream(3, Purpose::kTest, 0, 0);
  constexpr int kRows = 400, kColumns = 30, kDirections = 3;
  std::string text;
  uint64_t drawn = 100000;
  for (int r = 0; r < kRows; ++r) {
    double strength[kDirections];
    for (double& s : strength) s = 5 * stream.Normal(drawn++);
    for (int c = 0; c < kColumns; ++c) {
      double x = 100 + 0.1 * stream.Normal(drawn++);
      for (int d = 0; d < kDirections; ++d)
        x += strength[d] * stream.Normal(static_cast<uint64_t>(c * kDirections + d));
      absl::StrAppend(&text, x, ",");
    }
    absl::StrAppend(&text, "0\n");
  }
  Write("m.csv", text);
  const v1::Features features = Features("pca: 3");
  const std::string csv = "csv { path: 'm.csv' }";
  const auto whole = Fit(features, csv);
  options_.shard_rows = 33;
  const auto merged = Fit(features, csv);
  ASSERT_TRUE(whole.ok() && merged.ok());
  for (int i = 0; i < kDirections; ++i) {
    for (int j = 0; j < kDirections; ++j) {
      double dot = 0;
      for (int c = 0; c < kColumns; ++c)
        dot += merged->component(i * kColumns + c) * merged->component(j * kColumns + c);
      EXPECT_NEAR(dot, i == j, 1e-12);
    }
  }
  for (int i = 0; i < whole->component_size(); ++i) EXPECT_NEAR(whole->component(i), merged->component(i), 1e-9);

  // Nearly all variance is in three coordinates, which do not correlate.
  auto data = TransformDataset(features, Format(csv), *merged, Raw(features, csv));
  ASSERT_TRUE(data.ok()) << data.status();
  const Batch projected = ReadAll(**data), raw = ReadAll(*Raw(features, csv));
  double of_raw = 0, of_projected = 0, correlation = 0;
  for (int c = 0; c < kColumns; ++c) {
    Moments moments;
    for (int r = 0; r < kRows; ++r) moments.Add(raw.dense[static_cast<size_t>(r * kColumns + c)]);
    of_raw += moments.scatter;
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t k = 0; k < 3; ++k) of_projected += std::pow(projected.dense[r * 3 + k], 2);
    correlation += static_cast<double>(projected.dense[r * 3]) * projected.dense[r * 3 + 1];
  }
  EXPECT_GT(of_projected / of_raw, 0.99);
  EXPECT_LT(of_projected / of_raw, 1);
  EXPECT_NEAR(correlation / of_projected, 0, 1e-5);
}

TEST_F(PrincipalComponentsTest, MoreThanThereAreFeaturesAreRefused) {
  EXPECT_EQ(Fit(Features("pca: 4"), csv_).status().message(),
            "features.pca: 4 components of 3 features; expected no more than these, and at most 880 features");
}

}  // namespace
}  // namespace descent
