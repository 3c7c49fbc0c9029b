// The curves of a score that separates two classes: the areas under ROC and precision-recall, and the threshold with
// the greatest F1. Pure functions of how many examples of either class have which score.
//
// ROC AUC is the share of pairs (positive, negative) in which the positive has the greater score, equal scores counting
// half (Hanley and McNeil, 1982). PR AUC is average precision, the sum over thresholds of (recall gained) x precision,
// without interpolation (as scikit-learn's average_precision_score).
//
// Binned scores: within a bin nothing is known of the order, so the area is told as if all of it were equal, with the
// most by which that can be wrong.
#ifndef DESCENT_COMMON_METRICS_SCORE_CURVE_H_
#define DESCENT_COMMON_METRICS_SCORE_CURVE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace descent {

// Bins of a probability. They narrow towards 0 and 1 as floats do: 64 to each halving of the distance from the nearer
// end, down to 2^-32.
constexpr uint32_t kScoreBins = 3970;
uint32_t ScoreBin(float probability);  // ascending with it; below 0 and NaN: 0, above 1: the last
float ScoreBinBegin(uint32_t bin);     // the least probability in it

// Examples with a score in [least, ...), of either class.
struct ScoreGroup {
  float least = 0;
  uint64_t positive = 0;
  uint64_t negative = 0;
};
// Both ascending. The groups come in descending order, one for each distinct score.
std::vector<ScoreGroup> GroupsOfScores(absl::Span<const float> positive, absl::Span<const float> negative);
// Counts by bin. Empty bins give no group.
std::vector<ScoreGroup> GroupsOfBins(absl::Span<const uint64_t> positive, absl::Span<const uint64_t> negative);

struct Area {
  double value = 0;
  double error = 0;  // at most; 0: exact
};
// nullopt where a class has no example (PR: no positive one). `equal`: the scores of a group are equal, not just near.
std::optional<Area> RocArea(absl::Span<const ScoreGroup> groups, bool equal);
std::optional<Area> PrArea(absl::Span<const ScoreGroup> groups, bool equal);

struct Threshold {
  float value = 0;  // predict class 1 at and above it
  double f1 = 0;
};
// Of equally good ones the greatest; nullopt where there is no positive example.
std::optional<Threshold> BestThreshold(absl::Span<const ScoreGroup> groups);

}  // namespace descent

#endif  // DESCENT_COMMON_METRICS_SCORE_CURVE_H_
