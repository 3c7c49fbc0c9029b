// Batch normalisation as a job asks for it: which net has it, its default, and what it does not go with.
#ifndef DESCENT_COMMON_JOB_BATCH_NORM_SPEC_H_
#define DESCENT_COMMON_JOB_BATCH_NORM_SPEC_H_

#include <string>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Of running statistics, a round or a push: the model's, or where it says none (a custom model's, for instance) 0.99.
double StatisticDecayOf(const v1::ModelSpec& model);

void ResolveBatchNorm(v1::Mlp* mlp);
// What the fields of a resolved net at `path` say together.
void CheckBatchNormFields(const std::string& path, const v1::Mlp& mlp, JobErrors* errors);
// A resolved job whose model normalises by batch: the rest of the job.
void CheckBatchNorm(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_BATCH_NORM_SPEC_H_
