// Methods that take the gradient of all data at each round: optimizer.lbfgs and newton_cg. Defaults, ranges, and what
// goes with them: full batches, convex models, rounds of all ranks.
#ifndef DESCENT_COMMON_JOB_FULL_GRADIENT_SPEC_H_
#define DESCENT_COMMON_JOB_FULL_GRADIENT_SPEC_H_

#include <cstdint>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// A rank's batch is its whole share, of at most so many rows.
inline constexpr uint32_t kWholeShare = uint32_t{1} << 24;

bool TakesFullGradient(const v1::Optimizer& optimizer);

// Vectors of optimizer state.
uint32_t FullGradientSlots(const v1::Optimizer& optimizer);

// Rounds in a row after which what is evaluated has moved, or never will again.
uint64_t MostRoundsAtOnePoint(const v1::Optimizer& optimizer);

// Whether what is evaluated and saved stands beside the parameters that gradients are taken at: averages, or the best
// point of such a method.
bool EvaluatesAverages(const v1::JobSpec& job);

// Defaults and ranges of the rule's own fields.
void ResolveFullGradientRule(v1::Optimizer* optimizer);
void CheckFullGradientRule(const v1::Optimizer& optimizer, JobErrors* errors);

// Of the job around it. The first comes before other defaults: it leaves nothing of this to them.
void ResolveFullGradient(v1::JobSpec* job);
void CheckFullGradient(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_FULL_GRADIENT_SPEC_H_
