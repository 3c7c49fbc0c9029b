// The model as a job names it: defaults, ranges, and what it asks of the data.
#ifndef DESCENT_COMMON_JOB_MODEL_SPEC_H_
#define DESCENT_COMMON_JOB_MODEL_SPEC_H_

#include <cstdint>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

bool ReadsData(const v1::ModelSpec& model);
bool HasTable(const v1::ModelSpec& model);    // weights are rows of a table
v1::Loss LossOf(const v1::ModelSpec& model);  // not set: none that Loss could name
uint32_t ClassesOf(
    const v1::ModelSpec& model);  // that labels name; 0: labels are numbers, or the custom model's affair

// Features of the data of a resolved model whose first tensor is dense and has so many rows: of a layer that reads a
// patch or a step at a time these are fewer.
uint64_t FeaturesOf(const v1::ModelSpec& model, uint64_t first_rows);

// Writes every default out.
void ResolveModel(v1::ModelSpec* model);

// A resolved model's fields.
void CheckModel(const v1::ModelSpec& model, JobErrors* errors);
// `weights` against the model's classes.
void CheckClassWeights(const v1::ClassWeights& weights, const v1::ModelSpec& model, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_MODEL_SPEC_H_
