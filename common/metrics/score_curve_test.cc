#include "common/metrics/score_curve.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace descent {
namespace {

using Scores = std::vector<float>;

std::vector<ScoreGroup> Groups(Scores positive, Scores negative) {
  std::sort(positive.begin(), positive.end());
  std::sort(negative.begin(), negative.end());
  return GroupsOfScores(positive, negative);
}

std::vector<ScoreGroup> Binned(const Scores& positive, const Scores& negative) {
  std::vector<uint64_t> p(kScoreBins), n(kScoreBins);
  for (const float s : positive) ++p[ScoreBin(s)];
  for (const float s : negative) ++n[ScoreBin(s)];
  return GroupsOfBins(p, n);
}

// By definition: all pairs.
double PairsWon(const Scores& positive, const Scores& negative) {
  double won = 0;
  for (const float p : positive) {
    for (const float n : negative) won += p > n ? 1 : p == n ? 0.5 : 0;
  }
  return won / static_cast<double>(positive.size() * negative.size());
}

// By definition: for each positive example the precision of all that score at least as much.
double MeanPrecision(const Scores& positive, const Scores& negative) {
  double sum = 0;
  for (const float s : positive) {
    const auto reaches = [s](float other) { return other >= s; };
    const auto hits = std::count_if(positive.begin(), positive.end(), reaches);
    const auto misses = std::count_if(negative.begin(), negative.end(), reaches);
    sum += static_cast<double>(hits) / static_cast<double>(hits + misses);
  }
  return sum / static_cast<double>(positive.size());
}

TEST(ScoreCurveTest, AreasByHand) {
  const auto groups = Groups({0.9f, 0.7f, 0.4f}, {0.8f, 0.4f});
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(groups[3].least, 0.4f);
  EXPECT_EQ(groups[3].positive, 1u);
  EXPECT_EQ(groups[3].negative, 1u);
  // Pairs: 0.9 wins 2; 0.7 wins 1; 0.4 ties 1.
  EXPECT_DOUBLE_EQ(RocArea(groups, true)->value, 3.5 / 6);
  EXPECT_DOUBLE_EQ(PrArea(groups, true)->value, (1.0 + 2.0 / 3 + 3.0 / 5) / 3);
  EXPECT_EQ(RocArea(groups, true)->error, 0);
  // Thresholds 0.9, 0.8, 0.7, 0.4: F1 of 2/4, 2/5, 4/6, 6/8.
  EXPECT_EQ(BestThreshold(groups)->value, 0.4f);
  EXPECT_DOUBLE_EQ(BestThreshold(groups)->f1, 0.75);
}

TEST(ScoreCurveTest, WithoutAClassThereIsNoArea) {
  EXPECT_FALSE(RocArea(Groups({0.5f}, {}), true).has_value());
  EXPECT_FALSE(RocArea(Groups({}, {0.5f}), true).has_value());
  EXPECT_FALSE(PrArea(Groups({}, {0.5f}), true).has_value());
  EXPECT_EQ(PrArea(Groups({0.5f}, {}), true)->value, 1);
  EXPECT_FALSE(BestThreshold({}).has_value());
}

TEST(ScoreCurveTest, BinsAscendAndBeginWhereTheySay) {
  uint32_t last = 0;
  for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(1.0f); bits += 997) {
    const float p = std::bit_cast<float>(bits);
    const uint32_t bin = ScoreBin(p);
    ASSERT_GE(bin, last) << p;
    ASSERT_LT(bin, kScoreBins);
    last = bin;
    ASSERT_GE(p, ScoreBinBegin(bin));
    if (bin + 1 < kScoreBins) {
      ASSERT_LT(p, ScoreBinBegin(bin + 1));
    }
  }
  EXPECT_EQ(ScoreBin(0), 0u);
  EXPECT_EQ(ScoreBin(-1), 0u);
  EXPECT_EQ(ScoreBin(std::nanf("")), 0u);
  EXPECT_EQ(ScoreBin(1), kScoreBins - 1);
  EXPECT_EQ(ScoreBin(INFINITY), kScoreBins - 1);
  EXPECT_NE(ScoreBin(0.5f), ScoreBin(std::nextafter(0.5f, 0.0f)));
  EXPECT_NE(ScoreBin(1.0f), ScoreBin(std::nextafter(1.0f, 0.0f)));
}

TEST(ScoreCurveTest, AgreesWithTheDefinitionsAndBinsAreWithinTheirBound) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    Scores positive, negative;
    // Ever coarser scores: more and more ties.
    const uint32_t steps = 3 + (1u << (round % 20));
    for (int i = 0; i < 40 + round; ++i) {
      const float z = static_cast<float>(random() % steps) / static_cast<float>(steps) * 6.0f - 3.0f;
      const bool label = random() % 100 < 30 + 10 * (z > 0);
      (label ? positive : negative).push_back(1.0f / (1.0f + std::exp(-z)));
    }
    if (positive.empty() || negative.empty()) continue;
    const auto exact = Groups(positive, negative), binned = Binned(positive, negative);
    const double roc = PairsWon(positive, negative), pr = MeanPrecision(positive, negative);
    EXPECT_NEAR(RocArea(exact, true)->value, roc, 1e-14);
    EXPECT_NEAR(PrArea(exact, true)->value, pr, 1e-14);
    const Area roc_binned = *RocArea(binned, false), pr_binned = *PrArea(binned, false);
    EXPECT_LE(std::fabs(roc_binned.value - roc), roc_binned.error + 1e-14);
    EXPECT_LE(std::fabs(pr_binned.value - pr), pr_binned.error + 1e-14);
    if (steps > 1u << 16) {
      EXPECT_LT(roc_binned.error, 0.02) << "of scores that differ";
    }
  }
}

TEST(ScoreCurveTest, TheBoundHoldsWhateverTheOrderWithinABin) {
  // All in one bin: the areas may be anything between these.
  const Scores low = {0.300001f, 0.300002f, 0.300003f}, high = {0.300011f, 0.300012f};
  for (const auto& [positive, negative] : {std::pair(low, high), std::pair(high, low)}) {
    const auto binned = Binned(positive, negative);
    ASSERT_EQ(binned.size(), 1u);
    const Area roc = *RocArea(binned, false), pr = *PrArea(binned, false);
    EXPECT_EQ(roc.value, 0.5);
    EXPECT_EQ(roc.error, 0.5);
    const double difference = std::fabs(pr.value - MeanPrecision(positive, negative));
    EXPECT_GT(difference, 0.05);
    EXPECT_LE(difference, pr.error);
  }
}

}  // namespace
}  // namespace descent
