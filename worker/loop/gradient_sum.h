// A rank's gradient, or the sum of an aligned span of ranks along the reduction tree (server/store/block_store.h): node
// = left + right, element by element; a child without a contribution is skipped. Buffers are reused.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_LOOP_GRADIENT_SUM_H_
#define DESCENT_WORKER_LOOP_GRADIENT_SUM_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"
#include "worker/data/batch.h"

namespace descent {

struct GradientSum {
  std::vector<double> weight;       // per rank of the span
  bool empty = true;                // no rank had an example: no values below
  AlignedFloats values;             // all dense tensors, each at a multiple of 16 floats
  std::vector<float*> dense;        // per tensor; null for tables
  std::vector<uint64_t> keys;       // of every table, in the order (slot, key)
  std::vector<AlignedFloats> rows;  // per tensor; of tables keys.size() x dim
};

// Makes room for the dense tensors.
void LayOut(const std::vector<TensorSpec>& tensors, GradientSum* sum);

// left += right. `scratch` lends its buffers to the merge of sparse rows.
void Fold(const std::vector<TensorSpec>& tensors, const Geometry& geometry, GradientSum* left, const GradientSum& right,
          GradientSum* scratch);

// Keys of several lists in the order (slot, key), each once.
std::vector<uint64_t> MergeKeys(const Geometry& geometry, const std::vector<const std::vector<uint64_t>*>& lists);

// The maximal aligned spans that `ranks` (ascending) fill, of a job of `total` ranks; a span may reach past the last.
struct Span {
  Rank first;
  uint32_t size;
  bool operator==(const Span&) const = default;
};
std::vector<Span> AlignedSpans(const std::vector<Rank>& ranks, uint32_t total);

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_GRADIENT_SUM_H_
