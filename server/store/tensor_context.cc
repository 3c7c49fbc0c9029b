#include "server/store/tensor_context.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/store/float_runs.h"
#include "server/store/kernels.h"

namespace descent {

absl::Status TensorContext::Scale(double total_weight, float* scale) const {
  if (!(total_weight >= 0) || !std::isfinite(total_weight)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", spec.name, "': expected a weight from 0 up, got ", total_weight));
  }
  *scale = reduce_sum ? 1.0f : static_cast<float>(1 / total_weight);
  if (total_weight > 0 && !std::isfinite(*scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", spec.name, "': the weight ", total_weight, " is too small to divide by"));
  }
  return absl::OkStatus();
}

Step TensorContext::StepOf(Clock clock, float scale, uint64_t staleness) const {
  float step_rate = rate(clock) * agreed.rate;
  if (staleness_aware_rate && staleness > 1) step_rate /= static_cast<float>(staleness);
  return {clock.value + 1, step_rate, scale, l2,
          momentum == nullptr ? std::nullopt : std::optional<float>(momentum(clock))};
}

absl::Status CheckFinite(const TensorContext& context, uint64_t begin, const Payload& payload) {
  absl::Status status;
  ForEachRun(payload, [&](const float* run, size_t at, size_t n) {
    if (!status.ok() || AllFinite(n, run)) return;
    const UnalignedFloat* x = run;
    for (size_t i = 0; i < n; ++i) {
      const float value = x[i];
      if (std::isfinite(value)) continue;
      status = absl::InvalidArgumentError(absl::StrCat("tensor '", context.spec.name, "', element ", begin + at + i,
                                                       ": expected a finite number, got ", value));
      return;
    }
  });
  return status;
}

absl::Status NoMemory(const TensorContext& context, uint64_t floats) {
  return absl::ResourceExhaustedError(
      absl::StrCat("tensor '", context.spec.name, "': no memory for ", floats * sizeof(float), " bytes more"));
}

}  // namespace descent
