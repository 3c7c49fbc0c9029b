// Where a job starts from: tensors of a saved model (JobSpec.start_from), a folder that ModelWriter wrote or an .npz,
// ours or numpy's. Its contents, and not its place, are part of what the job is: the SHA-256 of the .npz stands in the
// resolved job, and whoever reads the file compares. Thread-safe: no state.
#ifndef DESCENT_COMMON_SAVED_MODEL_START_FROM_H_
#define DESCENT_COMMON_SAVED_MODEL_START_FROM_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensor/start_values.h"

namespace descent::v1 {
class JobSpec;
}  // namespace descent::v1

namespace descent {

// Writes into a resolved job the absolute path (a relative one starts at `folder`) and the hash. FAILED_PRECONDITION:
// the job has another hash already. Errors as files'. Nothing, where the job starts from no model.
absl::Status ResolveStartFrom(const std::string& folder, v1::JobSpec* job);

// The values of tensors by name, each read when it is asked for. `note` hears of tensors that begin as their
// initializer says (only with start_from_partial). FAILED_PRECONDITION: the file is not the one that the job was
// resolved with. The values' errors: FAILED_PRECONDITION: the model has no such tensor, or with another shape;
// DATA_LOSS: damaged. All name file, tensor, what was expected and what came.
absl::StatusOr<StartValues> OpenStart(const v1::JobSpec& job, std::function<void(const std::string&)> note);

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_START_FROM_H_
