// The job file: read, overridden, resolved, checked as a whole; then handed around as a value. Pure but for
// ReadJobFile.
#ifndef DESCENT_COMMON_JOB_JOB_H_
#define DESCENT_COMMON_JOB_JOB_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/staleness.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/half.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Protobuf text format. INVALID_ARGUMENT: every error found, a line each, as "FILE:LINE:COLUMN: what"; an unknown field
// comes with the nearest known name of that message.
absl::StatusOr<v1::JobSpec> ParseJob(absl::string_view text, absl::string_view file);
// NOT_FOUND or PERMISSION_DENIED names the file.
absl::StatusOr<v1::JobSpec> ReadJobFile(const std::string& path);

// "data.root=/x", "optimizer.adam.beta1=0.8", "model.mlp.hidden=256,128" (a repeated field is replaced; [i] names one
// element). Setting a field of one oneof member clears the others. INVALID_ARGUMENT names the path and the nearest
// name.
absl::Status OverrideJob(absl::string_view assignment, v1::JobSpec* job);

// Fills in every default that depends on nothing but the job and the numbers of processes; those of a resolved job stay
// as they are. `servers`, `workers`: 0 takes what the job says, else 1. `job_dir`: folder of the job file, absolute,
// where a relative data.root starts. INVALID_ARGUMENT: more than 65,536 of either.
absl::Status ResolveJob(uint32_t servers, uint32_t workers, const std::string& job_dir, v1::JobSpec* job);

// A resolved job as a whole: INVALID_ARGUMENT lists everything wrong with it, a line each, by field path.
absl::Status ValidateJob(const v1::JobSpec& job);

// Text of a resolved job: ParseJob of it gives the same job. Stable.
std::string JobText(const v1::JobSpec& job);
// Of what decides a result: the resolved job without cluster, limits, data.root and the cache fields.
uint64_t JobFingerprint(const v1::JobSpec& job);

// The two switches that mode, staleness and apply name.
struct Consistency {
  uint64_t staleness = 0;  // kUnbounded: no bound; the largest where it changes
  bool apply_push = false;
  bool reduce_sum = false;
  uint32_t backup_ranks = 0;                  // a round closes without so many
  std::vector<StalenessChange> changes = {};  // of the bound; the first is of clock 0; empty: none
  bool staleness_aware_rate = false;          // PUSH
  double compensation = 0;                    // PUSH: lambda of delay compensation; 0: none
  double mean_square_decay = 0;               // of the mean square that lambda is divided by the root of; 0: by nothing
  // PUSH: each push says what it was computed from.
  bool tells_reads() const { return apply_push && (staleness_aware_rate || compensation > 0); }
  bool finish_late = false;  // a rank whose round has closed computes its batch to the end all the same
  bool operator==(const Consistency&) const = default;
};
Consistency ConsistencyOf(const v1::JobSpec& job);
// The length of a job in clocks, and an epoch's, for data of `rows` examples; both at least 1.
uint64_t ClocksPerEpoch(const v1::JobSpec& job, uint64_t rows);
uint64_t ClocksOf(const v1::JobSpec& job, uint64_t clocks_per_epoch);
// Epochs in whole rounds, at least 1.
uint64_t RoundsOf(double epochs, uint64_t clocks_per_epoch);
// Evaluations take place at clocks divisible by this, beside that at the end; 0: none do.
uint64_t EvaluateEvery(const v1::Evaluation& evaluation, uint64_t clocks_per_epoch);
Geometry GeometryOf(const v1::JobSpec& job);
WireEncoding EncodingOf(const v1::JobSpec& job);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_JOB_H_
