// The data that `descent predict` is given, as a Dataset: read as the model's job reads its own, from files, or from
// standard input, with labels or without.
#ifndef DESCENT_CLI_PREDICT_DATA_H_
#define DESCENT_CLI_PREDICT_DATA_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/saved_model/saved_model.h"
#include "descent/v1/job.pb.h"
#include "worker/data/dataset.h"

namespace descent {

struct PredictDataOptions {
  std::vector<std::string> files;  // "-" is standard input
  std::string labels;              // of IDX data
  std::string format;              // "idx", "libsvm", "csv"; "": that of the job's data
  bool no_labels = false;          // the data have none
};

// A folder that lasts as long as this: for standard input, for data that get labels made up, for the shards.
class TemporaryFolder {
 public:
  static absl::StatusOr<std::unique_ptr<TemporaryFolder>> Make();
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// `folder` outlives the dataset. INVALID_ARGUMENT: options that contradict each other or the model; a dataset's errors.
absl::StatusOr<std::unique_ptr<Dataset>> OpenPredictData(const SavedModel& model, const PredictDataOptions& options,
                                                         const TemporaryFolder& folder);

// The same data with labels made up: a prefix on each line of LIBSVM, a last column of CSV, a file of zeros for IDX.
// Changes `spec` to read it.
absl::Status MakeUpLabels(const std::string& folder, LabelKind labels, v1::Dataset* spec);

}  // namespace descent

#endif  // DESCENT_CLI_PREDICT_DATA_H_
