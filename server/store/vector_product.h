// Inner products of blocks, summed in double in an order fixed by the elements' indices: eight partial sums by index
// modulo 8, added pairwise. Stateless.
#ifndef DESCENT_SERVER_STORE_VECTOR_PRODUCT_H_
#define DESCENT_SERVER_STORE_VECTOR_PRODUCT_H_

#include <cstddef>

namespace descent {

// Sum of f(i) over i < n.
template <typename F>
inline double SumInOrder(size_t n, F&& f) {
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t k = 0; k < 8; ++k) lanes[k] += f(i + k);
  }
  for (size_t k = 0; i < n; ++i, ++k) lanes[k] += f(i);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <typename X, typename Y>
inline double Product(size_t n, const X* x, const Y* y) {
  return SumInOrder(n, [&](size_t i) { return static_cast<double>(x[i]) * static_cast<double>(y[i]); });
}

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_VECTOR_PRODUCT_H_
