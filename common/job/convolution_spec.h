// The sizes that a job's convolutions work out to.
#ifndef DESCENT_COMMON_JOB_CONVOLUTION_SPEC_H_
#define DESCENT_COMMON_JOB_CONVOLUTION_SPEC_H_

#include <cstdint>
#include <vector>

#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

struct ImageExtent {
  uint64_t height = 0, width = 0, channels = 0;
  uint64_t size() const { return height * width * channels; }
};

// One of the job's layers.
struct ConvolutionStage {
  ImageExtent in;
  uint64_t kernel_height = 0, kernel_width = 0, stride = 0, padding_height = 0, padding_width = 0;
  ImageExtent convolved;
  uint64_t pool_height = 0, pool_width = 0;  // 0: no pool
  ImageExtent out;
};

// Of a resolved spec; in `errors`, unless it is null, what is wrong with its fields. Stops at the first layer that does
// not fit.
std::vector<ConvolutionStage> StagesOf(const v1::Convolution& spec, JobErrors* errors);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_CONVOLUTION_SPEC_H_
