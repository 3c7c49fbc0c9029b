// The output end of the models: from scores to losses, probabilities and the loss's derivative. Losses are added in
// double in the order of the rows. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_LOSSES_H_
#define DESCENT_WORKER_MODELS_INTERNAL_LOSSES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "common/base/check.h"
#include "worker/data/batch.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/internal/elementwise.h"
#include "worker/models/internal/vector_kernels.h"
#include "worker/models/model.h"

namespace descent::internal {

// 1/2 (z - y)^2; with `delta`, z becomes z - y.
template <typename T>
inline BatchResult SquaredLoss(const Batch& batch, T* z, bool delta) {
  BatchResult result;
  result.weight = static_cast<double>(batch.rows);
  for (size_t r = 0; r < batch.rows; ++r) {
    const T d = z[r] - T(batch.label[r]);
    result.loss += 0.5 * (static_cast<double>(d) * static_cast<double>(d));
    if (delta) z[r] = d;
  }
  return result;
}

// log(1 + exp(z)) - y z, as max(z, 0) - y z + log(1 + exp(-|z|)); with `delta`, z becomes sigmoid(z) - y.
template <typename T>
inline BatchResult LogisticLoss(const Batch& batch, T* z, bool delta, AlignedBuffer<double>* loss) {
  BatchResult result;
  result.weight = static_cast<double>(batch.rows);
  const size_t rows = batch.rows;
  loss->Resize(rows);
  double* out = loss->data();
  const float* label = batch.label.data();
  size_t correct = 0;
  for (size_t r = 0; r < rows; ++r) {
    const T positive = z[r] < T(0) ? T(0) : z[r];
    out[r] =
        static_cast<double>(positive - T(label[r]) * z[r]) + LogOnePlus(static_cast<double>(Exp(-std::fabs(z[r]))));
    correct += (z[r] > T(0)) == (label[r] > 0.5f);
  }
  for (size_t r = 0; r < rows; ++r) result.loss += out[r];
  result.correct = static_cast<double>(correct);
  if (delta) {
    for (size_t r = 0; r < rows; ++r) z[r] = Sigmoid(z[r]) - T(label[r]);
  }
  return result;
}

// z [rows x classes] becomes exp(z - the row's greatest); the row's scale is left in sum[row].
template <typename T>
inline void ShiftedExp(T* z, size_t rows, size_t classes) {
  for (size_t r = 0; r < rows; ++r) {
    T* row = z + r * classes;
    T most = row[0];
    for (size_t k = 1; k < classes; ++k) most = row[k] > most ? row[k] : most;
    for (size_t k = 0; k < classes; ++k) row[k] -= most;
  }
  // Over all rows at once: few classes would leave a vector loop nothing but a tail.
  const size_t n = rows * classes;
  for (size_t i = 0; i < n; ++i) z[i] = Exp(z[i]);
}

template <typename T>
inline void Probabilities(T* z, size_t rows, size_t classes) {
  ShiftedExp(z, rows, classes);
  for (size_t r = 0; r < rows; ++r) {
    T* row = z + r * classes;
    const T inverse = T(1) / Sum(row, classes);
    for (size_t k = 0; k < classes; ++k) row[k] *= inverse;
  }
}

// Softmax and cross-entropy: log(sum_k exp(z_k)) - z_y; with `delta`, z becomes the probabilities less the one-hot
// label, without, it is undefined. Of equally likely classes the first counts as predicted.
template <typename T>
inline BatchResult SoftmaxLoss(const Batch& batch, size_t classes, T* z, bool delta, AlignedBuffer<double>* score) {
  BatchResult result;
  const size_t rows = batch.rows;
  result.weight = static_cast<double>(rows);
  score->Resize(rows);
  size_t correct = 0;
  for (size_t r = 0; r < rows; ++r) {
    const T* row = z + r * classes;
    const size_t y = static_cast<size_t>(batch.label[r]);
    DESCENT_CHECK(y < classes);
    size_t best = 0;
    T most = row[0];
    for (size_t k = 1; k < classes; ++k) {
      if (row[k] > most) {
        most = row[k];
        best = k;
      }
    }
    (*score)[r] = static_cast<double>(row[y] - most);
    correct += best == y;
  }
  ShiftedExp(z, rows, classes);
  for (size_t r = 0; r < rows; ++r) {
    T* row = z + r * classes;
    const T sum = Sum(row, classes);
    result.loss += Log(static_cast<double>(sum)) - (*score)[r];
    if (delta) {
      const T inverse = T(1) / sum;
      for (size_t k = 0; k < classes; ++k) row[k] *= inverse;
      row[static_cast<size_t>(batch.label[r])] -= T(1);
    }
  }
  result.correct = static_cast<double>(correct);
  return result;
}

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_LOSSES_H_
