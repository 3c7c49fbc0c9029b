// A batch's input as a dense matrix of T. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_DENSE_INPUT_H_
#define DESCENT_WORKER_MODELS_INTERNAL_DENSE_INPUT_H_

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "worker/data/batch.h"
#include "worker/models/internal/aligned_buffer.h"

namespace descent::internal {

template <typename T>
class DenseInput {
 public:
  // [batch.rows x batch.features], valid until the next call: the batch's own memory where that will do.
  const T* Of(const Batch& batch) {
    const size_t n = batch.rows * batch.features;
    if constexpr (std::is_same_v<T, float>) {
      if (!batch.sparse) return batch.dense.data();
    }
    copy_.Resize(n);
    if (!batch.sparse) {
      std::copy_n(batch.dense.data(), n, copy_.data());
      return copy_.data();
    }
    std::fill_n(copy_.data(), n, T(0));
    for (size_t r = 0; r < batch.rows; ++r) {
      for (size_t i = batch.row_begin[r]; i < batch.row_begin[r + 1]; ++i) {
        copy_[r * batch.features + batch.column[i]] = T(batch.value[i]);
      }
    }
    return copy_.data();
  }

 private:
  AlignedBuffer<T> copy_;
};

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_DENSE_INPUT_H_
