#include "worker/loop/gradient_sum.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;

std::vector<Rank> Ranks(std::vector<uint32_t> values) {
  std::vector<Rank> ranks;
  for (uint32_t v : values) ranks.push_back(Rank(v));
  return ranks;
}

TEST(AlignedSpans, LargestSubtreesThatAreThere) {
  EXPECT_THAT(AlignedSpans(Ranks({0, 1, 2, 3}), 4), ElementsAre(Span{Rank(0), 4}));
  EXPECT_THAT(AlignedSpans(Ranks({1, 2, 3}), 4), ElementsAre(Span{Rank(1), 1}, Span{Rank(2), 2}));
  EXPECT_THAT(AlignedSpans(Ranks({0, 1, 2}), 4), ElementsAre(Span{Rank(0), 2}, Span{Rank(2), 1}));
  // Of 6 ranks the subtree of 4..7 holds two.
  EXPECT_THAT(AlignedSpans(Ranks({4, 5}), 6), ElementsAre(Span{Rank(4), 4}));
  EXPECT_THAT(AlignedSpans(Ranks({0, 1, 2, 3, 4, 5}), 6), ElementsAre(Span{Rank(0), 8}));
  EXPECT_THAT(AlignedSpans(Ranks({0, 2}), 4), ElementsAre(Span{Rank(0), 1}, Span{Rank(2), 1}));
  EXPECT_THAT(AlignedSpans(Ranks({0}), 1), ElementsAre(Span{Rank(0), 1}));
}

TEST(Fold, AddsWhatBothHaveAndKeepsWhatOneHas) {
  std::vector<TensorSpec> tensors(2);
  tensors[0].name = "bias";
  tensors[0].shape = {3};
  tensors[1].name = "table";
  tensors[1].sparse = true;
  tensors[1].shape = {2};
  const Geometry geometry;
  auto make = [&](double weight, std::vector<uint64_t> keys, float value) {
    GradientSum sum;
    LayOut(tensors, &sum);
    sum.weight = {weight};
    sum.empty = false;
    std::fill_n(sum.dense[0], 3, value);
    std::sort(keys.begin(), keys.end(),
              [&](uint64_t a, uint64_t b) { return std::pair(geometry.slot(a), a) < std::pair(geometry.slot(b), b); });
    sum.keys = keys;
    sum.rows[1].Resize(keys.size() * 2);
    for (size_t i = 0; i < keys.size() * 2; ++i) sum.rows[1][i] = value * static_cast<float>(keys[i / 2]);
    return sum;
  };
  GradientSum left = make(2, {5, 7, 9}, 1), right = make(3, {7, 11}, 10), scratch;
  LayOut(tensors, &scratch);
  Fold(tensors, geometry, &left, right, &scratch);
  EXPECT_THAT(left.weight, ElementsAre(2, 3));
  EXPECT_EQ(left.dense[0][2], 11);
  ASSERT_EQ(left.keys.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const auto key = static_cast<float>(left.keys[i]);
    const float expected = left.keys[i] == 7 ? 77 : left.keys[i] == 11 ? 110 : key;
    EXPECT_EQ(left.rows[1][2 * i + 1], expected) << left.keys[i];
    if (i > 0) {
      EXPECT_LT(std::pair(geometry.slot(left.keys[i - 1]), left.keys[i - 1]),
                std::pair(geometry.slot(left.keys[i]), left.keys[i]));
    }
  }

  GradientSum none;
  LayOut(tensors, &none);
  none.weight = {0};
  Fold(tensors, geometry, &left, none, &scratch);  // an empty right child changes no value
  EXPECT_EQ(left.dense[0][0], 11);
  EXPECT_EQ(left.weight.size(), 3u);
  Fold(tensors, geometry, &none, left, &scratch);  // an empty left child takes the right one's
  EXPECT_FALSE(none.empty);
  EXPECT_EQ(none.keys, left.keys);
  EXPECT_EQ(none.dense[0][1], 11);
}

}  // namespace
}  // namespace descent
