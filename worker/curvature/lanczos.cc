#include "worker/curvature/lanczos.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "Eigen/Core"
#include "Eigen/Eigenvalues"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/random/philox.h"

namespace descent {
namespace {

using Vector = std::vector<double>;

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void Subtract(double times, const Vector& b, Vector* a) {
  for (size_t i = 0; i < b.size(); ++i) (*a)[i] -= times * b[i];
}

void Divide(double by, Vector* a) {
  for (double& x : *a) x /= by;
}

// The ends of T's eigenvalues; `beta.back()` is that of the residuals.
ExtremeEigenvalues EndsOf(const Vector& alpha, const Vector& beta, double tolerance) {
  const auto m = static_cast<Eigen::Index>(alpha.size());
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver;
  solver.computeFromTridiagonal(Eigen::Map<const Eigen::VectorXd>(alpha.data(), m),
                                Eigen::Map<const Eigen::VectorXd>(beta.data(), m - 1));
  const Eigen::VectorXd& theta = solver.eigenvalues();  // ascending
  const auto ritz = [&](Eigen::Index i) {
    return RitzValue{theta[i], beta.back() * std::fabs(solver.eigenvectors()(m - 1, i))};
  };
  ExtremeEigenvalues ends{ritz(0), ritz(m - 1), alpha.size(), false};
  const double size = std::max(std::fabs(ends.least.value), std::fabs(ends.greatest.value));
  ends.converged =
      solver.info() == Eigen::Success && std::max(ends.least.bound, ends.greatest.bound) <= tolerance * size;
  return ends;
}

}  // namespace

absl::StatusOr<ExtremeEigenvalues> Lanczos(size_t n, const SymmetricOperator& multiply, const LanczosOptions& options) {
  DESCENT_CHECK(n > 0 && options.steps > 0);
  const RandomStream random(options.seed, Purpose::kCurvature, 0, 0);
  Vector first(n);
  for (size_t i = 0; i < n; ++i) first[i] = random.Normal(i);
  Divide(std::sqrt(Dot(first, first)), &first);
  std::vector<Vector> q = {std::move(first)};
  Vector alpha, beta;
  const size_t steps = std::min(options.steps, n);
  while (true) {
    Vector next(n);
    DESCENT_RETURN_IF_ERROR(multiply(q.back(), absl::MakeSpan(next)));
    alpha.push_back(Dot(q.back(), next));
    if (!std::isfinite(alpha.back())) {
      return absl::FailedPreconditionError(
          absl::StrCat("product ", alpha.size(), " of the operator is not finite: ", alpha.back()));
    }
    for (int pass = 0; pass < 2; ++pass) {
      for (const Vector& before : q) Subtract(Dot(before, next), before, &next);
    }
    beta.push_back(std::sqrt(Dot(next, next)));
    // Where beta is 0, what q spans is all that the operator makes of it: the bounds are 0.
    const bool last = alpha.size() == steps || beta.back() == 0;
    if (last || alpha.size() <= 20 || alpha.size() % 10 == 0) {
      const ExtremeEigenvalues ends = EndsOf(alpha, beta, options.tolerance);
      if (last || ends.converged) return ends;
    }
    Divide(beta.back(), &next);
    q.push_back(std::move(next));
  }
}

}  // namespace descent
