// The final model: every block and slot read from the servers that hold them, in canonical order, hashed and written.
#ifndef DESCENT_SERVER_PROCESS_MODEL_SAVER_H_
#define DESCENT_SERVER_PROCESS_MODEL_SAVER_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/frame.h"
#include "descent/v1/features.pb.h"
#include "descent/v1/job.pb.h"

namespace descent {

struct SaveModelRequest {
  Envelope envelope;
  v1::JobSpec job;
  std::vector<TensorSpec> tensors;
  v1::FittedFeatures features;
  PartitionMap map;
  std::vector<std::string> addresses;              // of server i
  std::string directory;                           // appears whole or not at all
  uint64_t clock = 0;                              // updates of clocks below are in it; UNAVAILABLE until they are
  std::optional<double> threshold = std::nullopt;  // as the last evaluation has tuned it
};

struct SavedModelInfo {
  std::string parameters_sha256;
  std::string state_sha256;
  double decayed_square = 0;    // sum of squares of the parameters that are decayed
  double decayed_absolute = 0;  // and of their magnitudes
  double decayed_rows = 0;      // and of the norms of rows
};

// Streams, so that a model larger than memory can be saved. UNAVAILABLE: a server could not be read, named.
absl::StatusOr<SavedModelInfo> SaveModel(const SaveModelRequest& request);

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_MODEL_SAVER_H_
