// How a job samples its training data by class: defaults and ranges, and whether its labels are classes.
#ifndef DESCENT_COMMON_JOB_RESAMPLING_SPEC_H_
#define DESCENT_COMMON_JOB_RESAMPLING_SPEC_H_

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

void ResolveResampling(v1::DataSpec* data);
void CheckResampling(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_RESAMPLING_SPEC_H_
