// Matrix products by Eigen, fenced so that their bits are a function of shapes and values alone: one thread, fixed
// cache sizes (Eigen would detect them, and block the sums by them), memory aligned to 64 bytes. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_GEMM_H_
#define DESCENT_WORKER_MODELS_INTERNAL_GEMM_H_

#include <cstddef>

namespace descent::internal {

// All row-major and dense, none overlapping; every pointer aligned to 64 bytes. Thread-safe. T: float, double.

// c [m x n] += a [m x k] * b [k x n]
template <typename T>
void MultiplyAdd(const T* a, const T* b, T* c, size_t m, size_t k, size_t n);
// c [m x n] = a [k x m]^T * b [k x n]
template <typename T>
void MultiplyTransposedLeft(const T* a, const T* b, T* c, size_t m, size_t k, size_t n);
// c [m x n] += a [k x m]^T * b [k x n]
template <typename T>
void AddTransposedLeft(const T* a, const T* b, T* c, size_t m, size_t k, size_t n);
// c [m x n] = a [m x k] * b [n x k]^T
template <typename T>
void MultiplyTransposedRight(const T* a, const T* b, T* c, size_t m, size_t k, size_t n);

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_GEMM_H_
