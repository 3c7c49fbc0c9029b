// What ends a job before its length, and what reduces its rate: defaults, ranges, and whether its evaluations give what
// is looked at.
#ifndef DESCENT_COMMON_JOB_STOPPING_SPEC_H_
#define DESCENT_COMMON_JOB_STOPPING_SPEC_H_

#include "absl/strings/string_view.h"
#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Evaluations may end the job, or say which model of it is kept.
bool StopsByEvaluations(const v1::Stopping& stopping);
// Of a metric that this evaluation gives; false for any other.
bool MoreIsBetter(const v1::Evaluation& evaluation, absl::string_view metric);

void ResolveStopping(v1::JobSpec* job);
void CheckStopping(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_STOPPING_SPEC_H_
