// What a job says of a step beside rule and rate: clipping, noise, a schedule of momentum, averages. Defaults, ranges,
// and what can't go together.
#ifndef DESCENT_COMMON_JOB_STEP_SPEC_H_
#define DESCENT_COMMON_JOB_STEP_SPEC_H_

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

void ResolveSteps(v1::JobSpec* job);

// `epochs`: whether the job's model reads data, and so has epochs. `tables`: whether its weights are a sparse table.
void CheckSteps(const v1::JobSpec& job, bool epochs, bool tables, JobErrors* errors);

// Whether a step waits for sums over whole tensors: norms of gradients, of parameters, products.
bool NeedsScalars(const v1::JobSpec& job);

// Vectors of state that steps keep beside the rule's: the mean square of an adaptive delay compensation.
uint32_t StateBesideRule(const v1::JobSpec& job);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_STEP_SPEC_H_
