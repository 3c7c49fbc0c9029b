#include "worker/features/fit_features.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/features/feature_statistics.h"
#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "worker/features/features_test_util.h"

namespace descent {
namespace {

class FitFeaturesTest : public FeaturesTest {
 protected:
  // Columns of very different size; one value in 20 is missing.
  void WriteTable(int rows) {
    const RandomStream stream(7, Purpose::kTest, 0, 0);
    std::string text = "small,large,heavy,y\n";
    for (int r = 0; r < rows; ++r) {
      const auto i = static_cast<uint64_t>(r) * 4;
      const double heavy = std::exp(3 * stream.Normal(i + 2));
      values_.push_back({1e-3 * stream.Normal(i), 1e6 + 100 * stream.Normal(i + 1), heavy});
      absl::StrAppend(&text, values_.back()[0], ",");
      absl::StrAppend(&text, stream.Below(i + 3, 20) == 0 ? "" : absl::StrCat(values_.back()[1]), ",", heavy, ",0\n");
    }
    Write("t.csv", text);
  }
  const std::string csv_ = "csv { path: 't.csv' header: true }";
  std::vector<std::vector<double>> values_;
};

TEST_F(FitFeaturesTest, AgreesWithAPlainProgramOverAllRows) {
  WriteTable(5000);
  options_.shard_rows = 700;
  const v1::Features features = Features("standardize {} missing {}");
  const auto fitted = Fit(features, csv_);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  const Batch batch = ReadAll(*Raw(features, csv_));
  for (uint64_t c = 0; c < 3; ++c) {
    std::vector<double> there;
    for (size_t r = 0; r < batch.rows; ++r) {
      if (!std::isnan(batch.dense[r * 3 + c])) there.push_back(batch.dense[r * 3 + c]);
    }
    EXPECT_EQ(there.size() == batch.rows, c != 1);
    double mean = 0, scatter = 0;
    for (const double x : there) mean += x / static_cast<double>(there.size());
    for (const double x : there) scatter += (x - mean) * (x - mean);
    const double deviation = std::sqrt(scatter / static_cast<double>(there.size()));
    const int i = static_cast<int>(c);
    EXPECT_NEAR(fitted->shift(i), mean, 1e-12 * (std::fabs(mean) + deviation)) << c;
    EXPECT_NEAR(fitted->scale(i) * deviation, 1, 1e-12) << c;
    EXPECT_EQ(fitted->fill(i), fitted->shift(i));
  }
  EXPECT_EQ(fitted->constant_size(), 0);
  EXPECT_THAT(std::vector<std::string>(fitted->name().begin(), fitted->name().end()),
              ::testing::ElementsAre("small", "large", "heavy"));
}

TEST_F(FitFeaturesTest, QuantilesOverManyShardsAreWithinTheSketchsBound) {
  WriteTable(30000);
  options_.shard_rows = 1000;
  const auto fitted = Fit(Features("robust { lower: 0.25 upper: 0.75 } missing { fill: FILL_MEDIAN }"), csv_);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  std::vector<double> heavy;
  for (const std::vector<double>& row : values_) heavy.push_back(row[2]);
  std::sort(heavy.begin(), heavy.end());
  const auto rank = [&](double x) {
    return static_cast<double>(std::lower_bound(heavy.begin(), heavy.end(), x) - heavy.begin()) /
           static_cast<double>(heavy.size());
  };
  EXPECT_NEAR(rank(fitted->shift(2)), 0.5, 0.011);
  EXPECT_EQ(fitted->fill(2), fitted->shift(2));
  const double spread = 1 / fitted->scale(2);
  const auto quantile = [&](double q) { return heavy[static_cast<size_t>(q * static_cast<double>(heavy.size()))]; };
  EXPECT_GT(spread, quantile(0.739) - quantile(0.261));
  EXPECT_LT(spread, quantile(0.761) - quantile(0.239));
}

TEST_F(FitFeaturesTest, APassHasAsManyColumnsAsAMessageHolds) {
  // 600 columns with sketches take more than one message.
  std::string text;
  for (int r = 0; r < 20; ++r) {
    for (int c = 0; c < 600; ++c) absl::StrAppend(&text, r * (c + 1), ",");
    absl::StrAppend(&text, "0\n");
  }
  Write("w.csv", text);
  options_.shard_rows = 6;
  const v1::Features features = Features("robust { lower: 0 upper: 1 }");
  const std::unique_ptr<Dataset> data = Raw(features, "csv { path: 'w.csv' }");
  const auto columns = FeatureColumns::Create(features, Format("csv { path: 'w.csv' }"), *data);
  ASSERT_TRUE(columns.ok()) << columns.status();
  std::vector<uint32_t> passes;
  const auto fitted = FitFeatures(features, *data, *columns, [&](const StatisticsPass& pass) {
    passes.push_back(pass.number);
    EXPECT_EQ(pass.units, 4u);
    auto total = StatisticsAlone(pass);
    EXPECT_LT(total->ByteSizeLong(), size_t{4} << 20);
    return total;
  });
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  EXPECT_THAT(passes, ::testing::ElementsAre(0, 1, 2));
  ASSERT_EQ(fitted->scale_size(), 600);
  for (int c = 0; c < 600; ++c) {
    EXPECT_DOUBLE_EQ(fitted->scale(c) * 19 * (c + 1), 1);
    EXPECT_DOUBLE_EQ(fitted->shift(c), 9.5 * (c + 1));
  }
}

TEST_F(FitFeaturesTest, WhatDoesNotFitIsRefusedBeforeAnyPass) {
  Write("wide.svm", "0 1:1\n1 2:1\n");
  const std::string format = "libsvm { path: 'wide.svm' features: 1000000 }";
  const v1::Features features = Features("standardize {}");
  const std::unique_ptr<Dataset> data = Raw(features, format);
  const auto columns = FeatureColumns::Create(features, Format(format), *data);
  ASSERT_TRUE(columns.ok()) << columns.status();
  const auto fitted = FitFeatures(features, *data, *columns, [](const StatisticsPass& pass) {
    ADD_FAILURE() << "a pass over all data";
    return StatisticsAlone(pass);
  });
  EXPECT_EQ(fitted.status().message(),
            "features: what is fitted to 1000000 columns takes 8000000 bytes; at most 3145728 go into a worker's "
            "registration");
}

TEST_F(FitFeaturesTest, TheDataAreOfOneFingerprint) {
  WriteTable(100);
  const v1::Features features = Features("standardize {} missing {}");
  const uint64_t print = DataFingerprint(*Raw(features, csv_));
  EXPECT_EQ(DataFingerprint(*Raw(features, csv_)), print);
  options_.shard_rows = 50;
  EXPECT_NE(DataFingerprint(*Raw(features, csv_)), print) << "other shards, another order of merging";
  options_.shard_rows = 65536;
  WriteTable(101);
  EXPECT_NE(DataFingerprint(*Raw(features, csv_)), print);
}

}  // namespace
}  // namespace descent
