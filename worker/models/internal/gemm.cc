#include "worker/models/internal/gemm.h"

#include <algorithm>
#include <cstdint>

#include "Eigen/Core"
#include "common/base/check.h"
#include "common/numerics/fingerprint.h"

#ifndef EIGEN_DONT_PARALLELIZE
#error "EIGEN_DONT_PARALLELIZE belongs to the numeric profile"
#endif

namespace descent::internal {
namespace {

template <typename T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <typename T>
using In = Eigen::Map<const RowMajor<T>, Eigen::Aligned64>;
template <typename T>
using Out = Eigen::Map<RowMajor<T>, Eigen::Aligned64>;

void Prepare(const void* a, const void* b, const void* c) {
  // Once per process, before the first product; a local static's initialisation is ordered between threads.
  static const bool fixed = [] {
    FixEigenCacheSizes();
    return true;
  }();
  DESCENT_CHECK(fixed);
  const auto bits = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | reinterpret_cast<uintptr_t>(c);
  DESCENT_CHECK(bits % 64 == 0);
}

}  // namespace

template <typename T>
void MultiplyAdd(const T* a, const T* b, T* c, size_t m, size_t k, size_t n) {
  Prepare(a, b, c);
  if (m == 0) return;
  Out<T>(c, m, n).noalias() += In<T>(a, m, k) * In<T>(b, k, n);
}

template <typename T>
void MultiplyTransposedLeft(const T* a, const T* b, T* c, size_t m, size_t k, size_t n) {
  Prepare(a, b, c);
  if (k == 0) {
    std::fill_n(c, m * n, T(0));
    return;
  }
  Out<T>(c, m, n).noalias() = In<T>(a, k, m).transpose() * In<T>(b, k, n);
}

template <typename T>
void AddTransposedLeft(const T* a, const T* b, T* c, size_t m, size_t k, size_t n) {
  Prepare(a, b, c);
  if (k == 0) return;
  Out<T>(c, m, n).noalias() += In<T>(a, k, m).transpose() * In<T>(b, k, n);
}

template <typename T>
void MultiplyTransposedRight(const T* a, const T* b, T* c, size_t m, size_t k, size_t n) {
  Prepare(a, b, c);
  if (m == 0) return;
  Out<T>(c, m, n).noalias() = In<T>(a, m, k) * In<T>(b, n, k).transpose();
}

template void MultiplyAdd(const float*, const float*, float*, size_t, size_t, size_t);
template void MultiplyAdd(const double*, const double*, double*, size_t, size_t, size_t);
template void MultiplyTransposedLeft(const float*, const float*, float*, size_t, size_t, size_t);
template void MultiplyTransposedLeft(const double*, const double*, double*, size_t, size_t, size_t);
template void AddTransposedLeft(const float*, const float*, float*, size_t, size_t, size_t);
template void AddTransposedLeft(const double*, const double*, double*, size_t, size_t, size_t);
template void MultiplyTransposedRight(const float*, const float*, float*, size_t, size_t, size_t);
template void MultiplyTransposedRight(const double*, const double*, double*, size_t, size_t, size_t);

}  // namespace descent::internal
