// Passes over runs of floats for the reduction: vectorised, elementwise, and so independent of where a run is cut.
// Inputs called `x` may lie at any address. Stateless; thread-safe.
#ifndef DESCENT_SERVER_STORE_KERNELS_H_
#define DESCENT_SERVER_STORE_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace descent {

// A float that may lie at any address.
typedef float UnalignedFloat __attribute__((aligned(1)));

#if defined(__clang__)
#define DESCENT_INDEPENDENT_ITERATIONS _Pragma("clang loop vectorize(assume_safety)")
#define DESCENT_ONE_VECTOR _Pragma("clang loop vectorize(assume_safety) unroll(disable)")
#else
#define DESCENT_INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
// Before a loop of eight iterations: g++ unrolls it into scalars before it looks for vectors, unless forbidden.
#define DESCENT_ONE_VECTOR _Pragma("GCC ivdep") _Pragma("GCC unroll 1")
#endif

// Neither NaN nor Inf among x[0, n).
bool AllFinite(size_t n, const float* x);
// sum[i] += x[i].
void AddTo(size_t n, const float* x, float* sum);
// The finite test rides on the pass that moves the values: whether every out[i] is finite.
bool CopyFinite(size_t n, const float* x, float* out);                 // out[i] = x[i]
bool AddFinite(size_t n, const float* x, const float* y, float* out);  // out[i] = y[i] + x[i]; out may be y

// The sum of squares of the elements of a block, in an order fixed by an element's index in the block: eight partial
// sums in double by index modulo 8, added pairwise at the end. Runs are given front to back.
class SquareSum {
 public:
  // Adds (scale * x)^2, the product rounded to float, of elements [begin, begin + n).
  void Add(size_t begin, size_t n, const float* x, float scale);
  double sum() const;

 private:
  double lanes_[8] = {};
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_KERNELS_H_
