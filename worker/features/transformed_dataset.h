// A data set whose features are transformed as it is read: the shards keep the data as they are, so that jobs with
// other features share them. Thread-safe as the data set below.
#ifndef DESCENT_WORKER_FEATURES_TRANSFORMED_DATASET_H_
#define DESCENT_WORKER_FEATURES_TRANSFORMED_DATASET_H_

#include <memory>

#include "absl/status/statusor.h"
#include "descent/v1/features.pb.h"
#include "descent/v1/job.pb.h"
#include "worker/data/dataset.h"

namespace descent {

// `format` is what `data` were opened with. INVALID_ARGUMENT: the features were fitted to data with other columns.
absl::StatusOr<std::unique_ptr<Dataset>> TransformDataset(const v1::Features& features, const v1::Dataset& format,
                                                          const v1::FittedFeatures& fitted,
                                                          std::unique_ptr<Dataset> data);

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_TRANSFORMED_DATASET_H_
