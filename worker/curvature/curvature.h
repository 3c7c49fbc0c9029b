// What kind of point a model is at: a small gradient is not a minimum. The norm of the objective's gradient there, the
// ends of the eigenvalues of its Hessian, and the verdict.
//
// Pure but for the data that the loss reads; thread-safe.
#ifndef DESCENT_WORKER_CURVATURE_CURVATURE_H_
#define DESCENT_WORKER_CURVATURE_CURVATURE_H_

#include <string>

#include "absl/status/statusor.h"
#include "worker/curvature/lanczos.h"
#include "worker/curvature/mean_loss.h"

namespace descent {

struct CurvatureOptions {
  LanczosOptions lanczos;
  double stationary = 1e-3;  // a point is stationary where the norm of the gradient is at most this
  double flat = 1e-4;        // a curvature within so much of the greatest in size counts as none
};

enum class PointKind { kNotStationary, kSaddle, kNearMinimum, kNearMaximum, kUndecided };

struct Curvature {
  double mean_loss = 0;      // without l2
  double gradient_norm = 0;  // of the objective
  ExtremeEigenvalues hessian;
  PointKind kind = PointKind::kUndecided;
};

// The gradient, then, with c = flat * max(|least|, |greatest|), for the first that holds
//
//   gradient norm > stationary            not stationary
//   least < -c and greatest > c           a saddle: both are curvatures in some direction, whatever the bounds
//   least < -c and greatest + bound <= c  near a maximum
//   least - bound >= -c                   near a minimum
//   else                                  undecided: more steps are needed
PointKind KindOf(double gradient_norm, const ExtremeEigenvalues& hessian, const CurvatureOptions& options);
// "a saddle: ..." with the numbers of the rule that held.
std::string KindText(const Curvature& curvature, const CurvatureOptions& options);
// "saddle", for programs.
std::string KindName(PointKind kind);

// At loss->start(). Errors of MeanLoss.
absl::StatusOr<Curvature> MeasureCurvature(MeanLoss* loss, const CurvatureOptions& options);

}  // namespace descent

#endif  // DESCENT_WORKER_CURVATURE_CURVATURE_H_
