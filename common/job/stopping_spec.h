// What ends a job before its length, what reduces its rate, and when it has diverged: defaults, ranges, and whether its
// evaluations give what is looked at.
#ifndef DESCENT_COMMON_JOB_STOPPING_SPEC_H_
#define DESCENT_COMMON_JOB_STOPPING_SPEC_H_

#include "absl/strings/string_view.h"
#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Evaluations may end the job, or say which model of it is kept.
bool StopsByEvaluations(const v1::Stopping& stopping);
// Cuts are taken at evaluations, to go back to.
bool CutsAtEvaluations(const v1::JobSpec& job);
// The run goes back to where it had not diverged.
bool RollsBack(const v1::JobSpec& job);
// Norms of the round before each evaluation are looked at.
bool LooksAtNorms(const v1::JobSpec& job);
// Of a metric that this evaluation gives; false for any other.
bool MoreIsBetter(const v1::Evaluation& evaluation, absl::string_view metric);

void ResolveStopping(v1::JobSpec* job);
void CheckStopping(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_STOPPING_SPEC_H_
