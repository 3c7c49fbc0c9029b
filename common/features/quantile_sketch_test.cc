#include "common/features/quantile_sketch.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

QuantileSketch Of(const std::vector<float>& values, uint64_t seed = 1) {
  QuantileSketch sketch(seed);
  for (const float value : values) sketch.Add(value);
  return sketch;
}

TEST(QuantileSketchTest, FewValuesGiveNumPysQuantiles) {
  // numpy 1.24.2: quantile([3, 1, 4, 1, 5, 9, 2, 6], q)
  const QuantileSketch sketch = Of({3, 1, 4, 1, 5, 9, 2, 6});
  EXPECT_DOUBLE_EQ(sketch.Quantile(0), 1);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.1), 1);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.25), 1.75);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.5), 3.5);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.75), 5.25);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.9), 6.8999999999999995);
  EXPECT_DOUBLE_EQ(sketch.Quantile(1), 9);
  EXPECT_EQ(sketch.RankError(1e-6), 0);
  // With three zeros more.
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.1, 3), 0);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.25, 3), 0.5);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.5, 3), 2);
  EXPECT_DOUBLE_EQ(sketch.Quantile(0.75, 3), 4.5);
}

// A permutation of 0 .. n - 1, so that a value is its rank.
std::vector<float> Permuted(uint64_t n, uint64_t step) {
  std::vector<float> values;
  for (uint64_t i = 0; i < n; ++i) values.push_back(static_cast<float>(i * step % n));
  return values;
}

double WorstRankError(const QuantileSketch& sketch, uint64_t n) {
  double worst = 0;
  for (int i = 0; i <= 1000; ++i) {
    const double q = i / 1000.0;
    worst = std::max(worst, std::fabs(sketch.Quantile(q) - q * static_cast<double>(n - 1)) / static_cast<double>(n));
  }
  return worst;
}

TEST(QuantileSketchTest, RanksAreWithinTheBound) {
  constexpr uint64_t kValues = 2'000'003;  // a prime
  for (const uint64_t step : {1u, 611'953u, 1'999'999u}) {
    const QuantileSketch sketch = Of(Permuted(kValues, step), step);
    EXPECT_EQ(sketch.count(), kValues);
    EXPECT_GT(sketch.RankError(1e-6), 0);
    EXPECT_LT(sketch.RankError(1e-6), 0.011);
    EXPECT_LT(WorstRankError(sketch, kValues), sketch.RankError(1e-6)) << step;
  }
}

TEST(QuantileSketchTest, MergedSketchesAreWithinTheSameBound) {
  constexpr uint64_t kValues = 1'000'003, kShards = 37;
  const std::vector<float> values = Permuted(kValues, 611'953);
  const auto merged = [&] {
    QuantileSketch all(0);
    for (uint64_t s = 0; s < kShards; ++s) {
      const size_t begin = values.size() * s / kShards, end = values.size() * (s + 1) / kShards;
      all.Merge(Of({values.begin() + static_cast<ptrdiff_t>(begin), values.begin() + static_cast<ptrdiff_t>(end)}, s));
    }
    return all;
  };
  const QuantileSketch sketch = merged();
  EXPECT_EQ(sketch.count(), kValues);
  EXPECT_LT(sketch.RankError(1e-6), 0.011);
  EXPECT_LT(WorstRankError(sketch, kValues), sketch.RankError(1e-6));
  EXPECT_EQ(sketch.ToMessage().SerializeAsString(), merged().ToMessage().SerializeAsString()) << "the same bits again";
  EXPECT_LT(sketch.ToMessage().ByteSizeLong(), 13'000u);
}

TEST(QuantileSketchTest, TheMessageIsAllOfIt) {
  QuantileSketch sketch = Of(Permuted(50'021, 7919));
  auto read = QuantileSketch::FromMessage(sketch.ToMessage());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->count(), sketch.count());
  EXPECT_EQ(read->RankError(0.01), sketch.RankError(0.01));
  for (const float value : Permuted(30'011, 17)) {
    sketch.Add(value);
    read->Add(value);
  }
  EXPECT_EQ(read->ToMessage().SerializeAsString(), sketch.ToMessage().SerializeAsString()) << "coins go on";
}

TEST(QuantileSketchTest, WhatIsNoSketchIsRefused) {
  v1::QuantileSketch message = Of({1, 2, 3}).ToMessage();
  message.set_level_size(0, 4);
  EXPECT_THAT(QuantileSketch::FromMessage(message).status().message(), HasSubstr("3 values, its levels have more"));
  message.set_level_size(0, 2);
  EXPECT_THAT(QuantileSketch::FromMessage(message).status().message(), HasSubstr("3 values, its levels have 2"));
}

}  // namespace
}  // namespace descent
