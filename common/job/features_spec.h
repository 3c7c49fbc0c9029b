// Features as a job asks for them: defaults and ranges.
#ifndef DESCENT_COMMON_JOB_FEATURES_SPEC_H_
#define DESCENT_COMMON_JOB_FEATURES_SPEC_H_

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Writes every default out.
void ResolveFeatures(v1::Features* features);

// The job's data.features against its data and its model.
void CheckFeatures(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_FEATURES_SPEC_H_
