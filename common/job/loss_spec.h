// A loss as a job names it: defaults, ranges, and which labels it is of.
#ifndef DESCENT_COMMON_JOB_LOSS_SPEC_H_
#define DESCENT_COMMON_JOB_LOSS_SPEC_H_

#include <string>

#include "absl/strings/string_view.h"
#include "common/job/job_errors.h"
#include "descent/v1/job.pb.h"

namespace descent {

enum class LossLabel { kNumber, kCount, kBinary, kClass };
LossLabel LabelOf(const v1::Loss& loss);  // of one that is set

// Writes every default out; a loss that is not set becomes `otherwise`.
void ResolveLoss(v1::Loss::KindCase otherwise, v1::Loss* loss);

// Ranges of a resolved loss's fields.
void CheckLoss(const std::string& path, const v1::Loss& loss, JobErrors* errors);
// gamma of focal loss.
void CheckFocal(absl::string_view path, double gamma, JobErrors* errors);

// Its field's name in Loss.
std::string LossName(const v1::Loss& loss);

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_LOSS_SPEC_H_
