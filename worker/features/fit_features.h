// Fits a job's features to the training data: statistics of every data shard, merged in the order of the shards, and
// what the transformation takes from them. The numbers are a function of the data and the job, whoever computed which
// shard. Thread-safe as far as `data` and the exchange are.
#ifndef DESCENT_WORKER_FEATURES_FIT_FEATURES_H_
#define DESCENT_WORKER_FEATURES_FIT_FEATURES_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "descent/v1/features.pb.h"
#include "descent/v1/job.pb.h"
#include "worker/data/dataset.h"
#include "worker/features/feature_columns.h"

namespace descent {

// One pass over the training data.
struct StatisticsPass {
  uint32_t number = 0;
  uint32_t units = 0;   // that it is made of: data shards, or ranks' shares
  bool labels = false;  // it is over labels, to be compared
  uint64_t data = 0;    // a fingerprint of the training data and of their shards
  std::function<absl::StatusOr<v1::FeatureStatistics>(uint32_t unit)> compute;
};
inline constexpr uint32_t kLabelPass = 4000, kComponentPass = 4001;  // numbers; those of columns begin at 0
// Gives what all units come to, merged in their order.
using StatisticsExchange = std::function<absl::StatusOr<v1::FeatureStatistics>(const StatisticsPass& pass)>;

// Without other workers: computes every unit.
absl::StatusOr<v1::FeatureStatistics> StatisticsAlone(const StatisticsPass& pass);

// The statistics of columns [first, last) in shard `shard`, with quantile sketches if wanted. Values that are missing
// take no part.
absl::StatusOr<v1::FeatureStatistics> ShardStatistics(const Dataset& data, const FeatureColumns& columns,
                                                      uint32_t shard, uint64_t first, uint64_t last, bool sketches);

// Every worker of a run calls this alike. RESOURCE_EXHAUSTED: there are more columns than a registration can carry.
// INVALID_ARGUMENT: fewer features than principal components, or more than their covariance can be of.
absl::StatusOr<v1::FittedFeatures> FitFeatures(const v1::Features& features, const Dataset& data,
                                               const FeatureColumns& columns, const StatisticsExchange& exchange);

// Of files and shards, as every host that has the same data computes it.
uint64_t DataFingerprint(const Dataset& data);

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_FIT_FEATURES_H_
