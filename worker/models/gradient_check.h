// Tests a model's gradient against differences of its loss. For every coordinate checked, central differences at steps
// h, h/2, h/4, ... are extrapolated to h = 0 (Ridders 1982, "Accurate computation of F'(x) and F'(x)F''(x)"; Press et
// al., Numerical Recipes, section 5.7) and the estimate whose neighbours agree best is taken; a model in double then
// agrees to about 1e-9.
//
// At a kink (a ReLU's 0 within the steps) a loss has no derivative, and differences from the left and from the right
// disagree however small the step: such coordinates are skipped and counted. A wrong gradient of a smooth loss is not
// skipped, since the two sides agree with each other there.
//
// Tensors of role kStatistic are passed over: what a model says of them is no derivative.
//
// Thread-safe for different models.
#ifndef DESCENT_WORKER_MODELS_GRADIENT_CHECK_H_
#define DESCENT_WORKER_MODELS_GRADIENT_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "worker/data/batch.h"
#include "worker/models/model.h"

namespace descent {

struct GradientCheckOptions {
  // Greatest |analytic - numeric| relative to the greater of the two. 0: 1e-6 in double, 2e-2 in float, whose losses
  // are rounded to about 1e-7 of themselves.
  double tolerance = 0;
  // The relative error's denominator is at least this share of the gradient's greatest element, so that elements which
  // are 0 up to rounding don't fail. 0: 1e-3 in double, 5e-2 in float.
  double floor = 0;
  double step = 0;              // first h, relative to max(1, |x|); 0: 1e-3 in double, 1e-2 in float
  uint64_t coordinates = 2000;  // of each tensor at most, spread evenly
  double most_skipped = 0.05;   // a greater share of kinks fails the check: it would show nothing
  // Differences are taken of the loss that Gradient returns: of a model with random masks, that of Evaluate is another.
  bool loss_of_gradient = false;
};

struct GradientCheckReport {
  bool ok = false;
  uint64_t checked = 0;
  uint64_t skipped = 0;  // kinks
  double worst = 0;      // greatest relative error among those checked
  std::string message;   // what failed, by tensor and element; empty if ok
};

// `parameters` as in Model::Gradient: one array per tensor, of its shape's elements (a table: the rows of batch.keys).
// Also checked: Gradient and Evaluate agree on the loss.
template <typename T>
GradientCheckReport CheckGradient(Model<T>* model, const Batch& batch, absl::Span<const std::vector<T>> parameters,
                                  const GradientCheckOptions& options = {});

// The same at parameters drawn from the tensors' initializers, moved by a normal number of deviation `spread`, so that
// tensors which begin at 0 are no special case.
template <typename T>
GradientCheckReport CheckGradientAtRandom(Model<T>* model, const Batch& batch, uint64_t seed, double spread = 0.1,
                                          const GradientCheckOptions& options = {});

}  // namespace descent

#endif  // DESCENT_WORKER_MODELS_GRADIENT_CHECK_H_
