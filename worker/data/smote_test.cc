#include "worker/data/smote.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "worker/data/data_test_util.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kFeatures = 21;

class SmoteTest : public DataTest {
 protected:
  // 200 rows of two classes in shards of 80: row j is of class 1 if j is divisible by 4. Dense, or with many zeros.
  void Make(bool sparse, bool keys = false) {
    const RandomStream random(11, Purpose::kTest, 0, 0);
    std::string text;
    values_.assign(200, std::vector<double>(kFeatures));
    for (uint64_t row = 0; row < 200; ++row) {
      if (sparse) absl::StrAppend(&text, row % 4 == 0 ? "1" : "0");
      for (uint32_t i = 0; i < kFeatures; ++i) {
        const uint64_t draw = random.Below(row * kFeatures + i, 1000);
        if (sparse && draw % 3 != 0) continue;
        const double value = static_cast<double>(draw) / 8;  // the text and a float hold it
        values_[row][i] = value;
        absl::StrAppend(&text, sparse ? absl::StrCat(" ", i + 1, ":") : "", value, sparse ? "" : ",");
      }
      absl::StrAppend(&text, sparse ? "\n" : row % 4 == 0 ? "1\n" : "0\n");
    }
    Write("data", text);
    options_.shard_rows = 80;
    options_.labels = LabelKind::kBinary;
    options_.keys = keys;
    auto opened = Open(sparse ? absl::StrCat("libsvm { path: 'data' features: ", keys ? 0 : kFeatures, " }")
                              : "csv { path: 'data' delimiter: ',' }");
    ASSERT_TRUE(opened.ok()) << opened.status();
    data_ = *std::move(opened);
    absl::StatusOr<RowClasses> classes = ReadClasses(*data_, 2);
    ASSERT_TRUE(classes.ok()) << classes.status();
    ASSERT_THAT(classes->rows, ElementsAre(150, 50));
    classes_ = std::make_shared<const RowClasses>(*std::move(classes));
  }

  // By definition, in double.
  std::vector<uint64_t> Nearest(uint64_t row, size_t k) const {
    std::vector<std::pair<double, uint64_t>> all;
    for (uint64_t other = row / 80 * 80; other < std::min<uint64_t>(200, (row / 80 + 1) * 80); ++other) {
      if (other == row || (other % 4 == 0) != (row % 4 == 0)) continue;
      double sum = 0;
      for (uint32_t i = 0; i < kFeatures; ++i) sum += std::pow(values_[row][i] - values_[other][i], 2);
      all.emplace_back(sum, other);
    }
    std::sort(all.begin(), all.end());
    std::vector<uint64_t> rows;
    for (size_t i = 0; i < std::min(k, all.size()); ++i) rows.push_back(all[i].second);
    return rows;
  }

  // The features of example `at` of a batch.
  static std::vector<double> FeaturesOf(const Batch& batch, size_t at) {
    std::vector<double> out(kFeatures);
    if (!batch.sparse) {
      std::copy_n(batch.dense.data() + at * kFeatures, kFeatures, out.begin());
      return out;
    }
    for (uint32_t e = batch.row_begin[at]; e < batch.row_begin[at + 1]; ++e) {
      out[batch.keys.empty() ? batch.column[e] : batch.keys[batch.column[e]]] = batch.value[e];
      EXPECT_TRUE(e == batch.row_begin[at] || batch.column[e - 1] < batch.column[e]);
    }
    return out;
  }

  // Examples are made between their row and one of its neighbours, all features at one place.
  void CheckMade() {
    const SmoteRows smote(data_.get(), classes_, 3, 5);
    std::map<uint64_t, std::set<uint64_t>> used;
    double sum = 0;
    size_t made = 0;
    for (uint64_t draw = 1; draw <= 40; ++draw) {
      const std::vector<uint64_t> rows = {7, 4 + 200 * draw, 196 + 200 * draw, 4};
      Batch batch;
      ASSERT_TRUE(smote.Read(rows, &batch).ok());
      ASSERT_EQ(batch.rows, 4u);
      EXPECT_THAT(batch.label, ElementsAre(0, 1, 1, 1));
      EXPECT_EQ(FeaturesOf(batch, 0), values_[7]);
      EXPECT_EQ(FeaturesOf(batch, 3), values_[4]);
      for (const size_t at : {1u, 2u}) {
        const std::vector<double> x = FeaturesOf(batch, at), &from = values_[rows[at] % 200];
        // Of the neighbours the one on whose line it lies, by least squares.
        double least = INFINITY, share = 0;
        uint64_t to = 0;
        for (const uint64_t other : Nearest(rows[at] % 200, 5)) {
          double dot = 0, square = 0, off = 0;
          for (uint32_t i = 0; i < kFeatures; ++i) {
            dot += (x[i] - from[i]) * (values_[other][i] - from[i]);
            square += std::pow(values_[other][i] - from[i], 2);
          }
          for (uint32_t i = 0; i < kFeatures; ++i) {
            off = std::max(off, std::fabs(x[i] - from[i] - dot / square * (values_[other][i] - from[i])));
          }
          if (off < least) std::tie(least, share, to) = std::tuple(off, dot / square, other);
        }
        EXPECT_LT(least, 1e-4) << "row " << rows[at];
        EXPECT_GE(share, -1e-6);
        EXPECT_LT(share, 1);
        used[rows[at] % 200].insert(to);
        sum += share;
        ++made;
      }
    }
    EXPECT_EQ(used[4].size(), 5u) << "every neighbour has its turn";
    EXPECT_EQ(used[196].size(), 5u);
    EXPECT_NEAR(sum / static_cast<double>(made), 0.5, 5 * std::sqrt(1.0 / 12 / static_cast<double>(made)));
  }

  std::vector<std::vector<double>> values_;
  std::unique_ptr<Dataset> data_;
  std::shared_ptr<const RowClasses> classes_;
};

TEST_F(SmoteTest, NeighboursAreTheNearestOfClassAndShard) {
  for (const bool sparse : {false, true}) {
    ASSERT_NO_FATAL_FAILURE(Make(sparse));
    const SmoteRows smote(data_.get(), classes_, 3, 5);
    for (uint64_t row = 0; row < 200; ++row) {
      std::vector<uint64_t> nearest;
      ASSERT_TRUE(smote.Neighbours(row, &nearest).ok());
      EXPECT_EQ(nearest, Nearest(row, 5)) << row;
    }
  }
}

TEST_F(SmoteTest, MadeExamplesLieBetweenNeighboursDense) {
  ASSERT_NO_FATAL_FAILURE(Make(false));
  CheckMade();
}
TEST_F(SmoteTest, MadeExamplesLieBetweenNeighboursSparse) {
  ASSERT_NO_FATAL_FAILURE(Make(true));
  CheckMade();
}
TEST_F(SmoteTest, MadeExamplesLieBetweenNeighboursKeyed) {
  ASSERT_NO_FATAL_FAILURE(Make(true, /*keys=*/true));
  CheckMade();
}

TEST_F(SmoteTest, AFunctionOfSeedRowAndDraw) {
  ASSERT_NO_FATAL_FAILURE(Make(false));
  const SmoteRows smote(data_.get(), classes_, 3, 5), again(data_.get(), classes_, 3, 5),
      other(data_.get(), classes_, 4, 5);
  Batch alone, among, others;
  // What else is in the batch, and what was read before, makes no difference.
  ASSERT_TRUE(smote.Read({8 + 600}, &alone).ok());
  ASSERT_TRUE(again.Read({44 + 200, 9, 8 + 600, 8 + 800}, &among).ok());
  ASSERT_TRUE(other.Read({8 + 600}, &others).ok());
  EXPECT_EQ(FeaturesOf(alone, 0), FeaturesOf(among, 2));
  EXPECT_NE(FeaturesOf(alone, 0), FeaturesOf(among, 3));
  EXPECT_NE(FeaturesOf(alone, 0), FeaturesOf(others, 0));
}

TEST_F(SmoteTest, FewOfAClass) {
  Write("data", "0,0,0\n3,4,1\n6,8,1\n1,1,0\n9,9,2\n");
  options_.labels = LabelKind::kClass;
  options_.classes = 3;
  auto opened = Open("csv { path: 'data' delimiter: ',' }");
  ASSERT_TRUE(opened.ok()) << opened.status();
  absl::StatusOr<RowClasses> classes = ReadClasses(**opened, 3);
  ASSERT_TRUE(classes.ok());
  const SmoteRows smote(opened->get(), std::make_shared<const RowClasses>(*classes), 1, 5);
  std::vector<uint64_t> nearest;
  ASSERT_TRUE(smote.Neighbours(1, &nearest).ok());
  EXPECT_THAT(nearest, ElementsAre(2));
  ASSERT_TRUE(smote.Neighbours(4, &nearest).ok());
  EXPECT_THAT(nearest, IsEmpty());
  Batch batch;
  ASSERT_TRUE(smote.Read({1 + 5, 4 + 5}, &batch).ok());
  // Between (3, 4) and (6, 8), and alone.
  EXPECT_NEAR(batch.dense[1] / batch.dense[0], 4.0 / 3, 1e-6);
  EXPECT_GE(batch.dense[0], 3);
  EXPECT_LT(batch.dense[0], 6);
  EXPECT_EQ(batch.dense[2], 9);
  EXPECT_THAT(batch.label, ElementsAre(1, 2));
}

}  // namespace
}  // namespace descent
