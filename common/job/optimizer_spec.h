// The update rule as a job names it: defaults and ranges of its fields, in one table.
#ifndef DESCENT_COMMON_JOB_OPTIMIZER_SPEC_H_
#define DESCENT_COMMON_JOB_OPTIMIZER_SPEC_H_

#include <cstdint>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Writes every default out; no rule is sgd.
void ResolveOptimizer(v1::Optimizer* optimizer);

// Ranges of a resolved rule's fields, and whether it goes with its proximal step.
void CheckOptimizer(const v1::Optimizer& optimizer, JobErrors* errors);

// Vectors of state that a resolved rule keeps, each as large as the parameters.
uint32_t StateSlots(const v1::Optimizer& optimizer);

// What a job adds to the mean loss, over all parameters that are decayed: l1 |w| + l2/2 w^2, and group times the norm
// of each row (all that one index of a tensor's first dimension has; a row of a table). Not in it: the decay of adamw,
// which is of no objective, and the penalties of ftrl, which are of the sum of losses and weigh less with time.
struct Penalty {
  double l1 = 0;
  double l2 = 0;
  double group = 0;
};
Penalty PenaltyOf(const v1::JobSpec& job);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_OPTIMIZER_SPEC_H_
