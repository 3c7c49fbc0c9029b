// Contributions to one slot, summed key by key: keys ascending, one row of `dim` floats each. A key that only one side
// has passes unchanged. Values; thread-safe as such.
#ifndef DESCENT_SERVER_STORE_SPARSE_SUM_H_
#define DESCENT_SERVER_STORE_SPARSE_SUM_H_

#include <cstdint>
#include <vector>

#include "server/store/buffer_pool.h"

namespace descent {

struct SparseSum {
  std::vector<uint64_t> keys;
  FloatBuffer values;  // keys.size() x dim

  uint64_t bytes(size_t dim) const { return keys.size() * (sizeof(uint64_t) + dim * sizeof(float)); }
};

// The sum of two; by sorted merge. values is null if there is no memory.
SparseSum AddSparse(const SparseSum& a, const SparseSum& b, size_t dim, BufferPool* pool);

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_SPARSE_SUM_H_
