#include "common/features/label_shares.h"

#include <vector>

#include "common/features/feature_statistics.h"
#include "common/random/philox.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

v1::FeatureStatistics Classes(const std::vector<uint64_t>& counts) {
  v1::FeatureStatistics share;
  uint64_t n = 0;
  for (const uint64_t count : counts) n += count;
  for (const uint64_t count : counts) {
    const double p = static_cast<double>(count) / static_cast<double>(n);
    AppendMoments({n, p, static_cast<double>(n) * p * (1 - p), 0, 1}, &share);
  }
  return share;
}

TEST(LabelSharesTest, SortedClassesAreTold) {
  EXPECT_EQ(
      LabelSharesText({Classes({100, 0, 0}), Classes({0, 100, 0}), Classes({0, 0, 100}), Classes({33, 33, 34})}),
      "the labels of 3 of 4 ranks' shares differ from those of all by more than chance; most those of rank 0: 100 % "
      "of them are of class 0, of all 33.2 %");
}

TEST(LabelSharesTest, ChanceIsNotTold) {
  // 16 shares of 500 examples, 1 % of them of class 1, drawn at random, many times over.
  for (uint32_t run = 0; run < 200; ++run) {
    const RandomStream stream(run, Purpose::kTest, 0, 0);
    std::vector<v1::FeatureStatistics> shares;
    for (uint64_t r = 0; r < 16; ++r) {
      uint64_t ones = 0;
      for (uint64_t i = 0; i < 500; ++i) ones += stream.Below(500 * r + i, 100) == 0;
      shares.push_back(Classes({500 - ones, ones}));
    }
    EXPECT_EQ(LabelSharesText(shares), "") << run;
  }
}

TEST(LabelSharesTest, MeansOfNumbers) {
  const auto share = [](double from, double to) {
    Moments moments;
    for (int i = 0; i < 100; ++i) moments.Add(from + (to - from) * i / 99);
    v1::FeatureStatistics statistics;
    AppendMoments(moments, &statistics);
    return statistics;
  };
  EXPECT_EQ(LabelSharesText({share(0, 10), share(1, 10)}), "");
  EXPECT_EQ(
      LabelSharesText({share(0, 10), share(45, 55), share(20, 30)}),
      "the labels of 2 of 3 ranks' shares differ from those of all by more than chance; most those of rank 1: their "
      "mean is 50, of all 26.6667");
  EXPECT_EQ(LabelSharesText({share(3, 3), share(3, 3)}), "") << "labels that are all the same";
}

}  // namespace
}  // namespace descent
