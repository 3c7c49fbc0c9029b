// Statistics of columns that merge: count, mean, scatter (sum of squared distances from the mean), least, greatest, and
// a quantile sketch where one is wanted. Those of disjoint sets of rows merge into those of all rows: moments by Chan,
// Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979, equation 2.1.
// Merged in the same order they are the same bits, whoever computed them. Pure; thread-safe.
#ifndef DESCENT_COMMON_FEATURES_FEATURE_STATISTICS_H_
#define DESCENT_COMMON_FEATURES_FEATURE_STATISTICS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "descent/v1/features.pb.h"

namespace descent {

struct Moments {
  uint64_t count = 0;
  double mean = 0;
  double scatter = 0;
  double least = 0;  // of nothing: 0
  double greatest = 0;

  // Welford, 1962.
  void Add(double x);
  void Merge(const Moments& other);
  // With so many zeros more.
  Moments WithZeros(uint64_t zeros) const;
  double Deviation() const;  // of the population: sqrt(scatter / count)
  // The deviation is next to nothing beside the values: at most 2^-20 of the greatest magnitude, a dozen units in the
  // last place of a float. What is left of it is rounding, which scaling would blow up to size.
  bool Constant() const;
};

// Of entry `at` of the message's columns.
Moments MomentsAt(const v1::FeatureStatistics& statistics, int at);
void AppendMoments(const Moments& moments, v1::FeatureStatistics* statistics);

// INVALID_ARGUMENT says what does not fit.
absl::Status CheckStatistics(const v1::FeatureStatistics& statistics);
// `from` has been checked. INVALID_ARGUMENT: it is of other columns than `into`.
absl::Status MergeStatistics(const v1::FeatureStatistics& from, v1::FeatureStatistics* into);

}  // namespace descent

#endif  // DESCENT_COMMON_FEATURES_FEATURE_STATISTICS_H_
