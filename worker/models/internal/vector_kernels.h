// Sums and scaled additions in a fixed order: which element goes to which partial sum depends on its index alone, never
// on an address, so that the bits are those of the values. Compile with -O3: the lanes then become vector registers.
// Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_VECTOR_KERNELS_H_
#define DESCENT_WORKER_MODELS_INTERNAL_VECTOR_KERNELS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "worker/data/batch.h"

namespace descent::internal {

inline constexpr size_t kLanes = 32;

template <typename T>
inline T FoldLanes(T* lane) {
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

template <typename T>
inline T Sum(const T* __restrict a, size_t n) {
  if (n < kLanes) {
    T sum = 0;
    for (size_t i = 0; i < n; ++i) sum += a[i];
    return sum;
  }
  T lane[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lane[j] += a[i + j];
  }
  for (size_t j = 0; i < n; ++i, ++j) lane[j] += a[i];
  return FoldLanes(lane);
}

template <typename T>
inline T Dot(const T* __restrict a, const T* __restrict b, size_t n) {
  T lane[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lane[j] += a[i + j] * b[i + j];
  }
  for (size_t j = 0; i < n; ++i, ++j) lane[j] += a[i] * b[i];
  return FoldLanes(lane);
}

// y += c * x
template <typename T>
inline void Axpy(T c, const T* __restrict x, T* __restrict y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] += c * x[i];
}

// out[k] = sum over rows of a[row][k], rows ascending.
template <typename T>
inline void ColumnSums(const T* __restrict a, size_t rows, size_t columns, T* __restrict out) {
  std::fill_n(out, columns, T(0));
  for (size_t r = 0; r < rows; ++r) {
    const T* row = a + r * columns;
    for (size_t k = 0; k < columns; ++k) out[k] += row[k];
  }
}

// out[k] = sum over rows of c[row] * x[row][k]: rows in groups of four, so that `out` is passed once per group.
template <typename T>
inline void WeightedRowSum(const T* __restrict x, const T* __restrict c, size_t rows, size_t columns,
                           T* __restrict out) {
  std::fill_n(out, columns, T(0));
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T* x0 = x + r * columns;
    const T* x1 = x0 + columns;
    const T* x2 = x1 + columns;
    const T* x3 = x2 + columns;
    const T c0 = c[r], c1 = c[r + 1], c2 = c[r + 2], c3 = c[r + 3];
    for (size_t k = 0; k < columns; ++k) out[k] += (c0 * x0[k] + c1 * x1[k]) + (c2 * x2[k] + c3 * x3[k]);
  }
  for (; r < rows; ++r) Axpy(c[r], x + r * columns, out, columns);
}

// z[row] = bias + sum over k of x[row][k] * w[k]; no bias where it is null.
template <typename T>
inline void DenseForward(const T* x, const T* w, size_t rows, size_t columns, const T* bias, T* z) {
  const T b = bias != nullptr ? *bias : T(0);
  for (size_t r = 0; r < rows; ++r) z[r] = Dot(x + r * columns, w, columns) + b;
}

// z[row][k] = bias[k] + sum over the row's entries of value * w[column][k]; no bias where it is null.
template <typename T>
inline void SparseForward(const Batch& batch, const T* __restrict w, size_t outputs, const T* bias, T* __restrict z) {
  const uint32_t* column = batch.column.data();
  const float* value = batch.value.data();
  for (size_t r = 0; r < batch.rows; ++r) {
    const size_t begin = batch.row_begin[r], end = batch.row_begin[r + 1];
    if (outputs == 1) {
      // Four sums, or each addition waits for the one before.
      T s[4] = {};
      size_t i = begin;
      for (; i + 4 <= end; i += 4) {
        for (size_t j = 0; j < 4; ++j) s[j] += T(value[i + j]) * w[column[i + j]];
      }
      for (size_t j = 0; i < end; ++i, ++j) s[j] += T(value[i]) * w[column[i]];
      z[r] = ((s[0] + s[1]) + (s[2] + s[3])) + (bias != nullptr ? bias[0] : T(0));
      continue;
    }
    T* out = z + r * outputs;
    if (bias != nullptr) {
      std::copy_n(bias, outputs, out);
    } else {
      std::fill_n(out, outputs, T(0));
    }
    for (size_t i = begin; i < end; ++i) Axpy(T(value[i]), w + size_t{column[i]} * outputs, out, outputs);
  }
}

// gradient[column][k] = sum over entries of value * delta[row][k], rows ascending; `features` rows of it are set.
template <typename T>
inline void SparseBackward(const Batch& batch, const T* __restrict delta, size_t features, size_t outputs,
                           T* __restrict gradient) {
  const uint32_t* column = batch.column.data();
  const float* value = batch.value.data();
  std::fill_n(gradient, features * outputs, T(0));
  for (size_t r = 0; r < batch.rows; ++r) {
    const size_t begin = batch.row_begin[r], end = batch.row_begin[r + 1];
    if (outputs == 1) {
      const T d = delta[r];
      for (size_t i = begin; i < end; ++i) gradient[column[i]] += T(value[i]) * d;
    } else {
      const T* d = delta + r * outputs;
      for (size_t i = begin; i < end; ++i) {
        Axpy(T(value[i]), d, gradient + size_t{column[i]} * outputs, outputs);
      }
    }
  }
}

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_VECTOR_KERNELS_H_
