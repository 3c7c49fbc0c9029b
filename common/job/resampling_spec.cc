#include "common/job/resampling_spec.h"

#include "common/job/model_spec.h"

namespace descent {

void ResolveResampling(v1::DataSpec* data) {
  if (!data->has_resampling()) return;
  v1::Resampling* resampling = data->mutable_resampling();
  if (!resampling->has_ratio()) resampling->set_ratio(1);
  if (resampling->kind() == v1::SMOTE && resampling->neighbours() == 0) resampling->set_neighbours(5);
}

void CheckResampling(const v1::JobSpec& job, JobErrors* errors) {
  const v1::DataSpec& data = job.data();
  const bool classes = ClassesOf(job.model()) > 0;
  if (data.sampling() == v1::CLASS_BALANCED && !classes) {
    errors->Error("data.sampling", "CLASS_BALANCED, but the model's labels are not classes");
  }
  if (!data.has_resampling()) return;
  const v1::Resampling& resampling = data.resampling();
  if (!classes) errors->Error("data.resampling", "the model's labels are not classes");
  if (data.sampling() != v1::WITHOUT_REPLACEMENT && v1::Sampling_IsValid(data.sampling())) {
    errors->Error("data.resampling", "is for sampling WITHOUT_REPLACEMENT, not ", v1::Sampling_Name(data.sampling()));
  }
  if (!(resampling.ratio() > 0 && resampling.ratio() <= 1)) {
    errors->Error("data.resampling.ratio", resampling.ratio(), " is not above 0 and at most 1");
  }
  if (resampling.kind() == v1::SMOTE) {
    errors->Range<uint64_t>("data.resampling.neighbours", resampling.neighbours(), 1, 1000);
  } else if (resampling.neighbours() != 0) {
    errors->Error("data.resampling.neighbours", "is for SMOTE");
  }
}

}  // namespace descent
