// Local training: a clock of a rank is several mini-batches, and what the servers average are copies of the model. What
// goes with it, and what a clock then is.
#ifndef DESCENT_COMMON_JOB_LOCAL_TRAINING_SPEC_H_
#define DESCENT_COMMON_JOB_LOCAL_TRAINING_SPEC_H_

#include <cstdint>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Examples of a rank and clock: the job's batch_size, or with local training as many for each step.
uint64_t RowsPerClock(const v1::JobSpec& job);

// Of a resolved job; one without local training has nothing wrong with it.
void CheckLocalTraining(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_LOCAL_TRAINING_SPEC_H_
