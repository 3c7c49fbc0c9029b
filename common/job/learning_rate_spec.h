// The learning rate as a job names it: defaults and ranges of its fields.
#ifndef DESCENT_COMMON_JOB_LEARNING_RATE_SPEC_H_
#define DESCENT_COMMON_JOB_LEARNING_RATE_SPEC_H_

#include <string>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Writes every default out, but for lengths that are the rest of the run.
void ResolveLearningRate(v1::LearningRate* rate);

// `epochs`: whether the job's model reads data, and so has epochs. `field`: where in the job it is.
void CheckLearningRate(const v1::LearningRate& rate, bool epochs, JobErrors* errors,
                       const std::string& field = "learning_rate");

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_LEARNING_RATE_SPEC_H_
