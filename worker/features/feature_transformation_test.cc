#include "worker/features/feature_transformation.h"

#include <cmath>

#include "gmock/gmock.h"
#include "worker/features/features_test_util.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

class FeatureTransformationTest : public FeaturesTest {
 protected:
  void SetUp() override {
    FeaturesTest::SetUp();
    Write("x.csv", "a,b,y\n1,7,0\n2,7,1\n3,7,2\n4,7,3\n");
    Write("x.svm", "0 2:1\n1 1:2 2:1\n0 2:1\n1 1:4 2:1\n0 2:1\n");
  }
  const std::string csv_ = "csv { path: 'x.csv' header: true }";
  const std::string svm_ = "libsvm { path: 'x.svm' features: 3 }";
};

TEST_F(FeatureTransformationTest, Scalings) {
  // numpy 1.24.2: (a - a.mean()) / a.std()
  EXPECT_EQ(Transformed("standardize {}", csv_), "0: -1.34164 7; 1: -0.447214 7; 2: 0.447214 7; 3: 1.34164 7")
      << "b is constant";
  EXPECT_EQ(Transformed("min_max { low: 0 high: 1 }", csv_), "0: 0 7; 1: 0.333333 7; 2: 0.666667 7; 3: 1 7");
  EXPECT_EQ(Transformed("min_max { low: -1 high: 3 }", csv_), "0: -1 7; 1: 0.333333 7; 2: 1.66667 7; 3: 3 7");
  EXPECT_EQ(Transformed("max_abs {}", csv_), "0: 0.25 7; 1: 0.5 7; 2: 0.75 7; 3: 1 7");
  Write("r.csv", "0,9\n1,9\n2,9\n10,9\n100,9\n");
  // numpy 1.24.2: (x - 2) / (10 - 1)
  EXPECT_EQ(Transformed("robust { lower: 0.25 upper: 0.75 }", "csv { path: 'r.csv' }"),
            "9: -0.222222; 9: -0.111111; 9: 0; 9: 0.888889; 9: 10.8889");
  EXPECT_EQ(Transformed("standardize {} unscaled: 'a'", csv_), "0: 1 7; 1: 2 7; 2: 3 7; 3: 4 7");
}

TEST_F(FeatureTransformationTest, SparseDataAreNotCentred) {
  // numpy 1.24.2: std of [0, 2, 0, 4, 0] is 1.6; columns 2 (all 1) and 3 (never there) have no variance.
  EXPECT_EQ(Transformed("standardize {}", svm_), "0: 1=1; 1: 0=1.25 1=1; 0: 1=1; 1: 0=2.5 1=1; 0: 1=1");
  EXPECT_EQ(Transformed("max_abs {}", svm_), "0: 1=1; 1: 0=0.5 1=1; 0: 1=1; 1: 0=1 1=1; 0: 1=1");
  // Quantiles count the zeros: 0 and 2.
  EXPECT_EQ(Transformed("robust { lower: 0.25 upper: 0.75 }", svm_), "0: 1=1; 1: 0=1 1=1; 0: 1=1; 1: 0=2 1=1; 0: 1=1");
  const auto fitted = Fit(Features("standardize {}"), svm_);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  EXPECT_EQ(fitted->shift_size(), 0);
  EXPECT_THAT(std::vector<uint64_t>(fitted->constant().begin(), fitted->constant().end()),
              ::testing::ElementsAre(1, 2));
}

TEST_F(FeatureTransformationTest, RowNorms) {
  Write("n.csv", "3,-4,9\n0,0,9\n");
  const std::string csv = "csv { path: 'n.csv' }";
  EXPECT_EQ(Transformed("row_norm: ROW_L1", csv), "9: 0.428571 -0.571429; 9: 0 0");
  EXPECT_EQ(Transformed("row_norm: ROW_L2", csv), "9: 0.6 -0.8; 9: 0 0");
  EXPECT_EQ(Transformed("row_norm: ROW_MAX", csv), "9: 0.75 -1; 9: 0 0");
  Write("n.svm", "1 1:3 3:-4\n0\n");
  EXPECT_EQ(Transformed("row_norm: ROW_L2", "libsvm { path: 'n.svm' features: 3 }"), "1: 0=0.6 2=-0.8; 0:");
}

TEST_F(FeatureTransformationTest, MissingValues) {
  Write("m.csv", "1,10,0\n,20,1\n3,?,2\n8,30,3\n");
  const std::string csv = "csv { path: 'm.csv' }";
  EXPECT_EQ(Transformed("missing { marker: '?' }", csv), "0: 1 10; 1: 4 20; 2: 3 20; 3: 8 30") << "means";
  EXPECT_EQ(Transformed("missing { marker: '?' fill: FILL_MEDIAN }", csv), "0: 1 10; 1: 3 20; 2: 3 20; 3: 8 30");
  EXPECT_EQ(Transformed("missing { marker: '?' fill: FILL_CONSTANT constant: -1 indicator: true }", csv),
            "0: 1 10 0 0; 1: -1 20 1 0; 2: 3 -1 0 1; 3: 8 30 0 0");
  // Statistics are of the values that are there: mean 4, deviation sqrt(26 / 3).
  EXPECT_EQ(Transformed("missing { marker: '?' } standardize {} unscaled: '1'", csv),
            "0: -1.01905 10; 1: 0 20; 2: -0.339683 20; 3: 1.35873 30");
  // The mean of logarithms; the logarithm of a constant.
  EXPECT_EQ(Transformed("missing { marker: '?' fill: FILL_CONSTANT constant: 2 } log: '0'", csv),
            "0: 0.693147 10; 1: 1.09861 20; 2: 1.38629 2; 3: 2.19722 30");
  EXPECT_THAT(Transformed("missing {} one_hot: '1' max_categories: 9", csv),
              "0: 1 1 0 0 0; 1: 4 0 1 0 0; 2: 3 0 0 0 1; 3: 8 0 0 1 0")
      << "'?' is then a category";
}

TEST_F(FeatureTransformationTest, CategoriesAreThoseOfTheTrainingData) {
  Write("train.csv", "k,n,c,y\nu,1,red,0\nv,2,blue,1\nu,3,green,0\n");
  Write("other.csv", "k,n,c,y\nw,5,grey,1\nv,6,red,0\nu,7,,1\n");
  const std::string train = "csv { path: 'train.csv' header: true }", other = "csv { path: 'other.csv' header: true }";
  const v1::Features features = Features("one_hot: 'c' one_hot: 'k' max_categories: 9 missing {}");
  // k: u v; n; c: blue green red.
  EXPECT_EQ(Transformed(features, train, train), "0: 1 0 1 0 0 1; 1: 0 1 2 1 0 0; 0: 1 0 3 0 1 0");
  EXPECT_EQ(Transformed(features, train, other), "1: 0 0 5 0 0 0; 0: 0 1 6 0 0 1; 1: 1 0 7 0 0 0");
  auto data = TransformDataset(features, Format(other), *Fit(features, train), Raw(features, other));
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT((*data)->Notes(), ::testing::Contains(HasSubstr("'w' of column 'k', 'grey' of column 'c'")));
  EXPECT_EQ(
      Transformed(Features("one_hot: 'c' one_hot: 'k' max_categories: 9 missing {} standardize {}"), train, train),
      "0: 1 0 -1.22474 0 0 1; 1: 0 1 0 1 0 0; 0: 1 0 1.22474 0 1 0")
      << "categories are not scaled";
}

// Such data leave out the zeros that the training data had.
TEST_F(FeatureTransformationTest, SparseDataWhoseZerosWouldMoveAreRefused) {
  Write("train.csv", "1,2,0\n3,5,1\n4,0,2\n");
  Write("same.svm", "0 1:1 2:2\n1 1:3 2:5\n2 1:4\n");
  options_.labels = LabelKind::kNumber;
  const std::string train = "csv { path: 'train.csv' }", sparse = "libsvm { path: 'same.svm' features: 2 }";
  for (const char* features : {"standardize {}", "min_max { low: -1 high: 1 }", "robust {}", "missing {}"}) {
    EXPECT_THAT(Transformed(Features(features), train, sparse),
                HasSubstr("changes zeros too, which these data leave out"))
        << features;
  }
  EXPECT_EQ(Transformed(Features("max_abs {}"), train, sparse), "0: 0=0.25 1=0.4; 1: 0=0.75 1=1; 2: 0=1")
      << "zeros stay";
}

TEST_F(FeatureTransformationTest, HashedColumnsShareBuckets) {
  Write("h.csv", "1,p,q,5\n2,p,p,6\n3,,q,7\n");
  const v1::Features features = Features("hashed: '1' hashed: '2' hash_buckets: 2 missing { indicator: true }");
  const auto data = TransformDataset(features, Format("csv { path: 'h.csv' }"), *Fit(features, "csv { path: 'h.csv' }"),
                                     Raw(features, "csv { path: 'h.csv' }"));
  ASSERT_TRUE(data.ok()) << data.status();
  ASSERT_EQ((*data)->features(), 3u);
  const Batch batch = ReadAll(**data);
  const auto bucket = [&](size_t r, size_t b) { return batch.dense[r * 3 + 1 + b]; };
  EXPECT_EQ(batch.dense[3], 2);
  // Rows 0 and 2 differ by what column 1 adds, one bucket by one.
  EXPECT_EQ(std::fabs(bucket(0, 0) - bucket(2, 0)) + std::fabs(bucket(0, 1) - bucket(2, 1)), 1);
  EXPECT_EQ(std::fabs(bucket(2, 0)) + std::fabs(bucket(2, 1)), 1);
}

TEST_F(FeatureTransformationTest, OtherColumnsThanThoseOfTheTrainingDataAreRefused) {
  const v1::Features features = Features("standardize {}");
  Write("renamed.csv", "a,c,y\n1,7,0\n");
  EXPECT_EQ(Transformed(features, csv_, "csv { path: 'renamed.csv' header: true }"),
            "features: column 1 of the data is 'c', of the training data 'b'");
  Write("wide.csv", "a,b,c,y\n1,7,0,0\n");
  EXPECT_EQ(Transformed(features, csv_, "csv { path: 'wide.csv' header: true }"),
            "features: the data have 3 columns, but what was fitted is of 2");
}

}  // namespace
}  // namespace descent
