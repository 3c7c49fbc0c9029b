#include "worker/curvature/curvature.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

// Below this in size a curvature counts as none.
double Edge(const ExtremeEigenvalues& hessian, const CurvatureOptions& options) {
  return options.flat * std::max(std::fabs(hessian.least.value), std::fabs(hessian.greatest.value));
}

}  // namespace

PointKind KindOf(double gradient_norm, const ExtremeEigenvalues& hessian, const CurvatureOptions& options) {
  if (gradient_norm > options.stationary) return PointKind::kNotStationary;
  const double edge = Edge(hessian, options);
  if (hessian.least.value < -edge) {
    if (hessian.greatest.value > edge) return PointKind::kSaddle;
    return hessian.greatest.value + hessian.greatest.bound <= edge ? PointKind::kNearMaximum : PointKind::kUndecided;
  }
  return hessian.least.value - hessian.least.bound >= -edge ? PointKind::kNearMinimum : PointKind::kUndecided;
}

std::string KindName(PointKind kind) {
  switch (kind) {
    case PointKind::kNotStationary:
      return "not stationary";
    case PointKind::kSaddle:
      return "saddle";
    case PointKind::kNearMinimum:
      return "near a minimum";
    case PointKind::kNearMaximum:
      return "near a maximum";
    case PointKind::kUndecided:
      break;
  }
  return "undecided";
}

std::string KindText(const Curvature& curvature, const CurvatureOptions& options) {
  const ExtremeEigenvalues& hessian = curvature.hessian;
  const double edge = Edge(hessian, options);
  switch (curvature.kind) {
    case PointKind::kNotStationary:
      return absl::StrFormat("not stationary: the gradient's norm, %.6g, is above %.6g", curvature.gradient_norm,
                             options.stationary);
    case PointKind::kSaddle:
      return absl::StrFormat(
          "a saddle: the objective curves down, below %.3g, in one direction and up, above %.3g, in another", -edge,
          edge);
    case PointKind::kNearMinimum:
      return absl::StrFormat("near a minimum: no direction found curves down, below %.3g, by its bound", -edge);
    case PointKind::kNearMaximum:
      return absl::StrFormat("near a maximum: no direction found curves up, above %.3g, by its bound", edge);
    case PointKind::kUndecided:
      break;
  }
  const RitzValue& open = hessian.least.value < -edge ? hessian.greatest : hessian.least;
  return absl::StrFormat("undecided: %.6g is known to within %.3g, and what counts is %.3g: take more steps",
                         open.value, open.bound, edge);
}

absl::StatusOr<Curvature> MeasureCurvature(MeanLoss* loss, const CurvatureOptions& options) {
  Curvature out;
  const std::vector<double>& x = loss->start();
  std::vector<double> gradient(loss->size());
  DESCENT_ASSIGN_OR_RETURN(out.mean_loss, loss->Gradient(x, absl::MakeSpan(gradient)));
  double square = 0;
  for (double g : gradient) square += g * g;
  out.gradient_norm = std::sqrt(square);
  const auto multiply = [&](absl::Span<const double> in, absl::Span<double> product) {
    return loss->HessianProduct(x, in, product);
  };
  DESCENT_ASSIGN_OR_RETURN(out.hessian, Lanczos(loss->size(), multiply, options.lanczos));
  out.kind = KindOf(out.gradient_norm, out.hessian, options);
  return out;
}

}  // namespace descent
