// The least and the greatest eigenvalue of a symmetric operator of which nothing is known but its products with
// vectors, by the method of Lanczos with full reorthogonalisation (Golub & Van Loan, "Matrix Computations", chapter
// 10):
//
//   A Q_m = Q_m T_m + beta_m q_(m+1) e_m',   Q_m orthonormal, T_m tridiagonal, q_1 random
//
// An eigenvalue theta of T_m with eigenvector s is y'Ay for y = Q_m s, and ||Ay - theta y|| = beta_m |s_m|, so that A
// has an eigenvalue within that of theta. Of the two ends it is as a rule the end that is found; what is sure is that
// A's least eigenvalue is not above the least theta, and its greatest not below the greatest.
//
// Each new vector is made orthogonal to all before it, twice: without that, rounding brings copies of eigenvalues that
// have converged. m vectors of the operator's size are held.
//
// The bits are a function of (operator, options). Pure; thread-safe.
#ifndef DESCENT_WORKER_CURVATURE_LANCZOS_H_
#define DESCENT_WORKER_CURVATURE_LANCZOS_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace descent {

struct LanczosOptions {
  size_t steps = 60;        // products at most
  double tolerance = 1e-6;  // fewer, once both bounds are so small beside the greater of the two in size
  uint64_t seed = 1;        // of q_1
};

struct RitzValue {
  double value = 0;
  double bound = 0;  // an eigenvalue lies within this
};

struct ExtremeEigenvalues {
  RitzValue least, greatest;
  size_t steps = 0;        // products taken
  bool converged = false;  // both bounds are within the tolerance
};

// out = A in; both of size n.
using SymmetricOperator = std::function<absl::Status(absl::Span<const double> in, absl::Span<double> out)>;

// n >= 1. Errors of the operator; FAILED_PRECONDITION: a product is not finite.
absl::StatusOr<ExtremeEigenvalues> Lanczos(size_t n, const SymmetricOperator& multiply, const LanczosOptions& options);

}  // namespace descent

#endif  // DESCENT_WORKER_CURVATURE_LANCZOS_H_
