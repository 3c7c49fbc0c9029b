#include "common/metrics/score_curve.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/base/check.h"

namespace descent {
namespace {

constexpr uint32_t kShift = 23 - 6;  // 64 bins to an exponent
constexpr uint32_t kFirst = std::bit_cast<uint32_t>(0x1p-32f) >> kShift;
constexpr uint32_t kHalf = kScoreBins / 2;

// Of a distance from the nearer end, at most 1/2.
uint32_t HalfBin(float distance) {
  const uint32_t at = std::bit_cast<uint32_t>(distance) >> kShift;
  return at < kFirst ? 0 : std::min(at - kFirst + 1, kHalf - 1);
}

struct Totals {
  uint64_t positive = 0, negative = 0;
};
Totals Count(absl::Span<const ScoreGroup> groups) {
  Totals totals;
  for (const ScoreGroup& group : groups) {
    totals.positive += group.positive;
    totals.negative += group.negative;
  }
  return totals;
}

}  // namespace

uint32_t ScoreBin(float probability) {
  if (!(probability > 0)) return 0;
  if (probability >= 1) return kScoreBins - 1;
  // 1 - p is exact from 1/2 on.
  return probability < 0.5f ? HalfBin(probability) : kScoreBins - 1 - HalfBin(1.0f - probability);
}

float ScoreBinBegin(uint32_t bin) {
  DESCENT_CHECK(bin < kScoreBins);
  if (bin == 0) return 0;
  if (bin < kHalf) return std::bit_cast<float>((bin - 1 + kFirst) << kShift);
  // The upper half mirrors the lower: a bin begins above where its mirror image ends.
  const uint32_t mirror = kScoreBins - 1 - bin;
  if (mirror == 0) return 1;
  if (mirror == kHalf - 1) return 0.5f;
  const float end = std::bit_cast<float>((mirror + kFirst) << kShift);
  const float begin = 1.0f - end;
  return 1.0f - begin < end ? begin : std::nextafter(begin, 1.0f);
}

std::vector<ScoreGroup> GroupsOfScores(absl::Span<const float> positive, absl::Span<const float> negative) {
  std::vector<ScoreGroup> groups;
  size_t p = positive.size(), n = negative.size();
  while (p > 0 || n > 0) {
    ScoreGroup group;
    group.least = n == 0 || (p > 0 && positive[p - 1] > negative[n - 1]) ? positive[p - 1] : negative[n - 1];
    for (; p > 0 && positive[p - 1] == group.least; --p) ++group.positive;
    for (; n > 0 && negative[n - 1] == group.least; --n) ++group.negative;
    groups.push_back(group);
  }
  return groups;
}

std::vector<ScoreGroup> GroupsOfBins(absl::Span<const uint64_t> positive, absl::Span<const uint64_t> negative) {
  DESCENT_CHECK(positive.size() == negative.size());
  std::vector<ScoreGroup> groups;
  for (size_t bin = positive.size(); bin-- > 0;) {
    if (positive[bin] == 0 && negative[bin] == 0) continue;
    groups.push_back({ScoreBinBegin(static_cast<uint32_t>(bin)), positive[bin], negative[bin]});
  }
  return groups;
}

std::optional<Area> RocArea(absl::Span<const ScoreGroup> groups, bool equal) {
  const Totals all = Count(groups);
  if (all.positive == 0 || all.negative == 0) return std::nullopt;
  double won = 0, tied = 0;
  uint64_t below = all.negative;
  for (const ScoreGroup& group : groups) {
    below -= group.negative;
    won += static_cast<double>(group.positive) * static_cast<double>(below);
    tied += static_cast<double>(group.positive) * static_cast<double>(group.negative);
  }
  const double pairs = static_cast<double>(all.positive) * static_cast<double>(all.negative);
  return Area{(won + 0.5 * tied) / pairs, equal ? 0 : 0.5 * tied / pairs};
}

std::optional<Area> PrArea(absl::Span<const ScoreGroup> groups, bool equal) {
  const double all = static_cast<double>(Count(groups).positive);
  if (all == 0) return std::nullopt;
  double value = 0, least = 0, most = 0;
  double hits = 0, misses = 0;  // above the group
  for (const ScoreGroup& group : groups) {
    const double positive = static_cast<double>(group.positive), negative = static_cast<double>(group.negative);
    if (group.positive > 0) {
      value += positive / all * (hits + positive) / (hits + positive + misses + negative);
      // Each positive example has the precision of a threshold in the group: at most that of all positive ones and no
      // negative one; at least, for the i-th from above, that of i positive and all negative ones. Counted in portions,
      // each as its first example.
      most += positive / all * (hits + positive) / (hits + positive + misses);
      const uint64_t portion = group.positive / 1024 + 1;
      for (uint64_t i = 0; i < group.positive; i += portion) {
        const double share = static_cast<double>(std::min(portion, group.positive - i)) / all;
        const double first = hits + static_cast<double>(i + 1);
        least += share * (first) / (first + misses + negative);
      }
    }
    hits += positive;
    misses += negative;
  }
  return Area{value, equal ? 0 : std::max(most - value, value - least)};
}

std::optional<Threshold> BestThreshold(absl::Span<const ScoreGroup> groups) {
  const double all = static_cast<double>(Count(groups).positive);
  if (all == 0) return std::nullopt;
  Threshold best;
  double hits = 0, predicted = 0;
  for (const ScoreGroup& group : groups) {
    hits += static_cast<double>(group.positive);
    predicted += static_cast<double>(group.positive + group.negative);
    const double f1 = 2 * hits / (predicted + all);
    if (f1 > best.f1) best = {group.least, f1};
  }
  return best;
}

}  // namespace descent
