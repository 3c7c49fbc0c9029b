// Batches put together from rows of shards. Pure; thread-safe.
#ifndef DESCENT_WORKER_DATA_READ_ROWS_H_
#define DESCENT_WORKER_DATA_READ_ROWS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"
#include "worker/data/batch.h"
#include "worker/data/shard.h"

namespace descent {

struct RowAt {
  const Shard* shard;
  uint32_t row;  // in the shard
};

// Of kDense or kBytes shards with `features` columns.
void AssembleDense(absl::Span<const RowAt> rows, uint64_t features, Batch* batch);
// Of kSparse shards; columns are features.
void AssembleSparse(absl::Span<const RowAt> rows, uint64_t features, Batch* batch);
// Of kSparse shards; columns are indices into the batch's keys.
void AssembleKeyed(absl::Span<const RowAt> rows, const Geometry& geometry, Batch* batch);

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_READ_ROWS_H_
