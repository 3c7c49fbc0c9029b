#include "server/store/tensor_step.h"

#include <cmath>

namespace descent {
namespace {

// What keeps a norm within `most`; 0: any.
double Factor(double most, double norm) { return most > 0 && norm > most ? most / norm : 1; }

}  // namespace

std::vector<TensorStep> TensorSteps(const ClipBounds& clip, const ScalarTotals& totals, absl::Span<const Trust> trust,
                                    absl::Span<const float> l2) {
  const size_t tensors = totals.square.size();
  std::vector<double> factor(tensors);
  double square = 0;
  for (size_t t = 0; t < tensors; ++t) {
    factor[t] = Factor(clip.norm, std::sqrt(totals.square[t]));
    square += factor[t] * factor[t] * totals.square[t];
  }
  const double global = Factor(clip.global_norm, std::sqrt(square));
  std::vector<TensorStep> steps(tensors);
  for (size_t t = 0; t < tensors; ++t) {
    factor[t] *= global;
    steps[t].gradient = static_cast<float>(factor[t]);
    if (trust[t].of == Trust::Of::kNothing) continue;
    const double parameters = std::sqrt(totals.parameter_square[t]);
    const double gradient = factor[t] * std::sqrt(totals.square[t]);
    if (parameters == 0 || gradient == 0) continue;
    const double decayed = trust[t].of == Trust::Of::kGradient ? double{l2[t]} * parameters : 0;
    steps[t].rate = static_cast<float>(trust[t].coefficient * parameters / (gradient + decayed));
  }
  return steps;
}

}  // namespace descent
