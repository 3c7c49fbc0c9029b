#include "worker/features/feature_columns.h"

#include <cmath>
#include <map>

#include "gmock/gmock.h"
#include "worker/features/features_test_util.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

TEST(SignedLogTest, IsNumPysLog1p) {
  // numpy 1.24.2: float32(sign(x) * log1p(abs(float64(x))))
  EXPECT_EQ(SignedLog(0.1f), 0x1.8663f8p-4f);
  EXPECT_EQ(SignedLog(-1.0f), -0x1.62e43p-1f);
  EXPECT_EQ(SignedLog(3.5f), 0x1.810b38p+0f);
  EXPECT_EQ(SignedLog(1e-10f), 0x1.b7cdfep-34f);
  EXPECT_EQ(SignedLog(1e6f), 0x1.ba18acp+3f);
  EXPECT_EQ(SignedLog(-123.456f), -0x1.34bba2p+2f);
  EXPECT_EQ(SignedLog(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(SignedLog(NAN)));
}

class FeatureColumnsTest : public FeaturesTest {
 protected:
  std::string Failure(const std::string& features, const std::string& format) {
    const auto data = Raw(Features(features), format);
    return std::string(FeatureColumns::Create(Features(features), Format(format), *data).status().message());
  }
};

TEST_F(FeatureColumnsTest, ColumnsThatAreNotThereAreNamed) {
  Write("x.csv", "a,b,y\n1,red,0\n");
  const std::string csv = "csv { path: 'x.csv' header: true }";
  EXPECT_EQ(Failure("one_hot: 'b' log: 'c'", csv), "features.log: the data have no feature column 'c'");
  EXPECT_EQ(Failure("one_hot: 'b' log: 'y'", csv), "features.log: the data have no feature column 'y'");
  EXPECT_EQ(Failure("one_hot: 'b' unscaled: 'b'", csv),
            "features.unscaled: column 'b' is of categories, not of numbers");
  EXPECT_EQ(Failure("one_hot: 'b' log: 'a'", csv), "");
  Write("x.svm", "1 1:1 3:1\n");
  EXPECT_EQ(Failure("log: '4'", "libsvm { path: 'x.svm' features: 3 }"),
            "features.log: '4' is no column: the data have 1 to 3");
  EXPECT_EQ(Failure("log: '3'", "libsvm { path: 'x.svm' features: 3 }"), "");
  EXPECT_EQ(Failure("log: '8' hash_buckets: 8", "libsvm { path: 'x.svm' features: 3 }"),
            "features.log: '8' is no column: the data have 0 to 7");
}

TEST_F(FeatureColumnsTest, LogarithmsOfSomeColumnsOrOfAll) {
  Write("x.csv", "0,-1,9\n1e6,3.5,9\n");
  const std::string csv = "csv { path: 'x.csv' }";
  EXPECT_EQ(Transformed("log: '0'", csv), "9: 0 -1; 9: 13.8155 3.5");
  EXPECT_EQ(Transformed("log: '*'", csv), "9: 0 -0.693147; 9: 13.8155 1.50408");
  Write("x.svm", "1 1:3.5 3:-1\n0 3:1e6\n");
  const std::string svm = "libsvm { path: 'x.svm' features: 3 }";
  EXPECT_EQ(Transformed("log: '3'", svm), "1: 0=3.5 2=-0.693147; 0: 2=13.8155");
  EXPECT_EQ(Transformed("log: '*'", svm), "1: 0=1.50408 2=-0.693147; 0: 2=13.8155");
}

TEST_F(FeatureColumnsTest, HashedIndicesFallIntoAllBucketsAndMeetWithSigns) {
  std::string lines;
  for (int column = 1; column <= 4000; ++column) absl::StrAppend(&lines, "0 ", column, ":1\n");
  // Every column at once, and twice over: what meets in a bucket is added.
  absl::StrAppend(&lines, "1");
  for (int column = 1; column <= 4000; ++column) absl::StrAppend(&lines, " ", column, ":1");
  Write("x.svm", lines + "\n");
  const v1::Features features = Features("hash_buckets: 16");
  const std::string svm = "libsvm { path: 'x.svm' features: 4000000000 }";
  auto data = TransformDataset(features, Format(svm), *Fit(features, svm), Raw(features, svm));
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->features(), 16u);
  const Batch batch = ReadAll(**data);
  std::map<uint32_t, float> sum;
  std::map<uint32_t, int> count;
  int minus = 0;
  for (size_t r = 0; r < 4000; ++r) {
    ASSERT_EQ(batch.row_begin[r + 1] - batch.row_begin[r], 1u);
    const float value = batch.value[batch.row_begin[r]];
    ASSERT_EQ(std::fabs(value), 1.0f);
    sum[batch.column[batch.row_begin[r]]] += value;
    ++count[batch.column[batch.row_begin[r]]];
    minus += value < 0;
  }
  ASSERT_EQ(count.size(), 16u);
  for (const auto& [bucket, n] : count) EXPECT_NEAR(n, 250, 80) << bucket;  // five standard deviations
  EXPECT_NEAR(minus, 2000, 160);
  for (uint32_t e = batch.row_begin[4000]; e < batch.row_begin[4001]; ++e) {
    EXPECT_EQ(batch.column[e], e - batch.row_begin[4000]) << "ascending, each once";
    EXPECT_EQ(batch.value[e], sum[batch.column[e]]);
  }
}

TEST_F(FeatureColumnsTest, CellsThatAreNotNumbers) {
  Write("x.csv", "n,c,h,y\n1, red ,p,0\n,blue,q,1\nNA,,p,0\n2,red,?,1\n");
  const std::string csv = "csv { path: 'x.csv' header: true }";
  const v1::Features features =
      Features("one_hot: 'c' hashed: 'h' hash_buckets: 4 missing { marker: 'NA' marker: '?' }");
  const auto data = Raw(features, csv);
  ASSERT_EQ(data->columns().size(), 3u);
  EXPECT_EQ(data->columns()[0].kind, DataColumn::Kind::kNumber);
  EXPECT_EQ(data->columns()[1].kind, DataColumn::Kind::kCategory);
  EXPECT_THAT(data->columns()[1].categories, ::testing::ElementsAre("red", "blue"));
  EXPECT_EQ(data->columns()[2].name, "h");
  const Batch batch = ReadAll(*data);
  EXPECT_TRUE(std::isnan(batch.dense[3]) && std::isnan(batch.dense[6]));
  EXPECT_EQ(batch.dense[1], 0);
  EXPECT_EQ(batch.dense[4], 1);
  EXPECT_TRUE(std::isnan(batch.dense[7]));
  EXPECT_EQ(batch.dense[2], batch.dense[8]) << "the same text, the same hash";
  EXPECT_GE(std::fabs(batch.dense[2]), 1);
  EXPECT_LE(std::fabs(batch.dense[2]), 4);
  EXPECT_TRUE(std::isnan(batch.dense[11]));

  // Again, from the cache.
  const auto again = Raw(features, csv);
  EXPECT_THAT(again->columns()[1].categories, ::testing::ElementsAre("red", "blue"));
  EXPECT_EQ(again->columns()[0].name, "n");
}

TEST_F(FeatureColumnsTest, WhatCellsMayNotBe) {
  Write("x.csv", "n,c,y\n1,a,0\n2,b,1\n");
  const auto failure = [&](const std::string& text) {
    const v1::Features features = Features(text);
    options_.csv = CsvColumnsOf(features);
    return DataTest::Failure("csv { path: 'x.csv' header: true }");
  };
  EXPECT_THAT(failure("one_hot: 'c' max_categories: 1"),
              HasSubstr("x.csv:3: column 'c': more than 1 categories (features.max_categories)"));
  EXPECT_THAT(failure("one_hot: 'd' max_categories: 5"), HasSubstr("features.one_hot: x.csv has no column 'd'"));
  EXPECT_THAT(failure("hashed: 'y' hash_buckets: 5"), HasSubstr("features.hashed: column 'y' is no feature"));
}

}  // namespace
}  // namespace descent
