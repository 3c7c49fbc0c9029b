#include "common/features/feature_statistics.h"

#include <vector>

#include "common/features/fitted_features.h"
#include "common/features/quantile_sketch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

Moments Of(const std::vector<double>& values) {
  Moments moments;
  for (const double x : values) moments.Add(x);
  return moments;
}

TEST(MomentsTest, AreNumPys) {
  // numpy 1.24.2 of [3, 1, 4, 1, 5, 9, 2, 6]: mean 3.875, std 2.5708704751503917; with three zeros more std
  // 2.790183500585965.
  const Moments moments = Of({3, 1, 4, 1, 5, 9, 2, 6});
  EXPECT_EQ(moments.count, 8u);
  EXPECT_DOUBLE_EQ(moments.mean, 3.875);
  EXPECT_DOUBLE_EQ(moments.scatter, 52.875);
  EXPECT_DOUBLE_EQ(moments.Deviation(), 2.5708704751503917);
  EXPECT_EQ(moments.least, 1);
  EXPECT_EQ(moments.greatest, 9);
  const Moments with_zeros = moments.WithZeros(3);
  EXPECT_EQ(with_zeros.count, 11u);
  EXPECT_DOUBLE_EQ(with_zeros.Deviation(), 2.790183500585965);
  EXPECT_EQ(with_zeros.least, 0);
}

TEST(MomentsTest, ThoseOfPartsMergeIntoThoseOfAll) {
  Moments merged = Of({3, 1, 4});
  merged.Merge(Of({}));
  merged.Merge(Of({1, 5}));
  merged.Merge(Of({9, 2, 6}));
  EXPECT_EQ(merged.count, 8u);
  EXPECT_DOUBLE_EQ(merged.mean, 3.875);
  EXPECT_DOUBLE_EQ(merged.scatter, 52.875);
  EXPECT_EQ(merged.least, 1);
  EXPECT_EQ(merged.greatest, 9);
  Moments none;
  none.Merge(Of({-2}));
  EXPECT_EQ(none.greatest, -2);
}

TEST(MomentsTest, SmallScattersAroundLargeMeansAreKept) {
  // The naive mean of squares less the square of the mean has no digit of it left.
  std::vector<double> left, right;
  for (int i = 0; i < 1000; ++i) (i % 2 == 0 ? left : right).push_back(1e9 + i % 4);
  Moments merged = Of(left);
  merged.Merge(Of(right));
  EXPECT_NEAR(merged.scatter, 1250, 1e-6);
}

TEST(MomentsTest, NextToNoVariance) {
  EXPECT_TRUE(Of({}).Constant());
  EXPECT_TRUE(Of({0, 0}).Constant());
  EXPECT_TRUE(Of({7, 7, 7}).Constant());
  EXPECT_TRUE(Of({1e6, 1e6 + 0.0625}).Constant()) << "one unit in the last place of a float";
  EXPECT_FALSE(Of({1e6, 1e6 + 10}).Constant());
  EXPECT_FALSE(Of({0, 1e-30}).Constant()) << "small is not constant";
}

v1::FeatureStatistics Sparse(const std::vector<std::pair<uint64_t, std::vector<double>>>& columns, uint64_t rows,
                             bool sketches) {
  v1::FeatureStatistics statistics;
  statistics.set_columns(10);
  statistics.set_rows(rows);
  for (const auto& [column, values] : columns) {
    statistics.add_column(column);
    AppendMoments(Of(values), &statistics);
    QuantileSketch sketch(column);
    for (const double x : values) sketch.Add(static_cast<float>(x));
    if (sketches) *statistics.add_sketch() = sketch.ToMessage();
  }
  return statistics;
}

TEST(FeatureStatisticsTest, SparseColumnsOfEither) {
  for (const bool sketches : {false, true}) {
    v1::FeatureStatistics all = Sparse({{1, {1}}, {4, {2, 3}}}, 5, sketches);
    const v1::FeatureStatistics more = Sparse({{0, {7}}, {4, {4}}, {9, {1, 1}}}, 6, sketches);
    ASSERT_TRUE(CheckStatistics(more).ok()) << CheckStatistics(more);
    ASSERT_TRUE(MergeStatistics(more, &all).ok());
    ASSERT_TRUE(CheckStatistics(all).ok()) << CheckStatistics(all);
    EXPECT_EQ(all.rows(), 11u);
    EXPECT_THAT(std::vector<uint64_t>(all.column().begin(), all.column().end()), ::testing::ElementsAre(0, 1, 4, 9));
    EXPECT_THAT(std::vector<uint64_t>(all.count().begin(), all.count().end()), ::testing::ElementsAre(1, 1, 3, 2));
    EXPECT_DOUBLE_EQ(all.mean(2), 3);
    EXPECT_DOUBLE_EQ(all.scatter(2), 2);
    EXPECT_EQ(all.sketch_size(), sketches ? 4 : 0);
    if (sketches) {
      EXPECT_EQ(QuantileSketch::FromMessage(all.sketch(2))->Quantile(0.5), 3);
    }
    // A shard without any entry.
    ASSERT_TRUE(MergeStatistics(Sparse({}, 4, false), &all).ok());
    EXPECT_EQ(all.rows(), 15u);
    EXPECT_EQ(all.column_size(), 4);
    v1::FeatureStatistics empty = Sparse({}, 4, false);
    ASSERT_TRUE(MergeStatistics(all, &empty).ok());
    EXPECT_EQ(empty.rows(), 19u);
    EXPECT_EQ(empty.column_size(), 4);
  }
}

TEST(FeatureStatisticsTest, WhatDoesNotFitIsRefused) {
  v1::FeatureStatistics dense;
  dense.set_columns(2);
  AppendMoments(Of({1}), &dense);
  AppendMoments(Of({2}), &dense);
  v1::FeatureStatistics other = dense;
  other.add_mean(3);
  EXPECT_THAT(CheckStatistics(other).message(), HasSubstr("of 2 columns have 3 means"));
  other = dense;
  other.set_columns(3);
  EXPECT_THAT(MergeStatistics(other, &dense).message(), HasSubstr("of 3 columns (2 in them)"));
  other = Sparse({{3, {1}}, {2, {1}}}, 1, false);
  EXPECT_THAT(CheckStatistics(other).message(), HasSubstr("name column 2 after 3"));
  other = Sparse({{10, {1}}}, 1, false);
  EXPECT_THAT(CheckStatistics(other).message(), HasSubstr("of 10 columns name column 10"));
}

TEST(FittedFeaturesTest, JsonHoldsEveryBit) {
  v1::FittedFeatures features;
  features.set_columns(3);
  features.add_name("w\xc3\xa4hrung");
  for (const double x : {0.1, 1.0 / 3, -2.5e-300, 1e22}) features.add_scale(x);
  features.add_one_hot()->add_category("a \"b\"");
  const std::string json = FeaturesToJson(features);
  const auto read = FeaturesFromJson(json, "features.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), features.SerializeAsString());
  EXPECT_THAT(FeaturesFromJson("{\"columns\": \"x\"}", "features.json").status().message(),
              HasSubstr("features.json: "));
}

TEST(FittedFeaturesTest, ConstantColumnsAreNamed) {
  v1::FittedFeatures features;
  EXPECT_EQ(ConstantColumnsText(features), "");
  features.add_name("a");
  features.add_name("b");
  features.add_constant(1);
  EXPECT_EQ(ConstantColumnsText(features),
            "a column has no or next to no variance in the training data, not scaled: 'b'");
  for (uint64_t c = 2; c < 14; ++c) features.add_constant(c);
  EXPECT_EQ(ConstantColumnsText(features),
            "13 columns have no or next to no variance in the training data, not scaled: 'b', 2, 3, 4, 5, 6, 7, 8, 9, "
            "10 and 3 more");
  v1::FittedFeatures libsvm;
  libsvm.add_constant(4);
  libsvm.set_first_column(1);
  EXPECT_EQ(ConstantColumnsText(libsvm), "a column has no or next to no variance in the training data, not scaled: 5")
      << "as the file counts";
}

}  // namespace
}  // namespace descent
