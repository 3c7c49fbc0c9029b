// What a job measures: defaults and ranges, and whether its model predicts what can be measured so.
#ifndef DESCENT_COMMON_JOB_EVALUATION_SPEC_H_
#define DESCENT_COMMON_JOB_EVALUATION_SPEC_H_

#include <optional>

#include "common/job/job_errors.h"
#include "common/metrics/metric_names.h"
#include "descent/v1/job.pb.h"

namespace descent {

// nullopt: the worker, which has the model, must say (a custom one).
std::optional<Prediction> PredictionOf(const v1::ModelSpec& model);

// Writes out the defaults of what is measured; when it is evaluated is not its business.
void ResolveEvaluationMetrics(v1::Evaluation* evaluation);

void CheckEvaluationMetrics(const v1::JobSpec& job, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_EVALUATION_SPEC_H_
