// The labels of each rank's share of the first epoch, counted: what the coordinator compares (label_shares.h).
#ifndef DESCENT_WORKER_FEATURES_LABEL_PASS_H_
#define DESCENT_WORKER_FEATURES_LABEL_PASS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "descent/v1/features.pb.h"
#include "worker/data/batch_plan.h"
#include "worker/data/dataset.h"

namespace descent {

// Of `classes` one column each, 1 for an example of the class and else 0; 0: labels are numbers, one column. Reads the
// rows that `plan` gives `rank` in the first epoch.
absl::StatusOr<v1::FeatureStatistics> LabelStatistics(const Dataset& data, BatchPlan* plan, Rank rank,
                                                      uint32_t classes);

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_LABEL_PASS_H_
