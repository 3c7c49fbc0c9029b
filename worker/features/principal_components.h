// Principal components of the training data: the eigenvectors of the covariance of the transformed features that have
// the greatest eigenvalues (Pearson, 1901; Hotelling, 1933). Covariances of shards merge, so it takes one distributed
// pass. Pure; thread-safe.
#ifndef DESCENT_WORKER_FEATURES_PRINCIPAL_COMPONENTS_H_
#define DESCENT_WORKER_FEATURES_PRINCIPAL_COMPONENTS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "descent/v1/features.pb.h"
#include "worker/data/dataset.h"
#include "worker/features/feature_transformation.h"

namespace descent {

// So many features have a covariance that fits into a message.
inline constexpr uint64_t kMostCovariance = 880;

// Moments of each feature in shard `shard`, and the sums of products of features about their means.
absl::StatusOr<v1::FeatureStatistics> ProductStatistics(const Dataset& data,
                                                        const FeatureTransformation& transformation, uint32_t shard);

// Sets centre and components, of length 1, the first with the greatest variance; of an eigenvector and its opposite the
// one whose greatest element is positive.
absl::Status TakeComponents(const v1::FeatureStatistics& total, uint32_t components, v1::FittedFeatures* fitted);

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_PRINCIPAL_COMPONENTS_H_
