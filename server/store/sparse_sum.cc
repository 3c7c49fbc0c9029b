#include "server/store/sparse_sum.h"

#include <cstring>

#include "server/store/kernels.h"

namespace descent {

SparseSum AddSparse(const SparseSum& a, const SparseSum& b, size_t dim, BufferPool* pool) {
  SparseSum sum;
  const size_t na = a.keys.size(), nb = b.keys.size();
  size_t both = 0;
  for (size_t i = 0, j = 0; i < na && j < nb;) {
    const uint64_t x = a.keys[i], y = b.keys[j];
    both += x == y;
    i += x <= y;
    j += y <= x;
  }
  sum.keys.resize(na + nb - both);
  sum.values = pool->Take(sum.keys.size() * dim);
  if (sum.values == nullptr) return sum;
  const float* from_a = a.values.get();
  const float* from_b = b.values.get();
  float* out = sum.values.get();
  size_t i = 0, j = 0;
  for (uint64_t& key : sum.keys) {
    const bool take_a = i < na && (j == nb || a.keys[i] <= b.keys[j]);
    const bool take_b = j < nb && (i == na || b.keys[j] <= a.keys[i]);
    key = take_a ? a.keys[i] : b.keys[j];
    std::memcpy(out, take_a ? from_a : from_b, dim * sizeof(float));
    if (take_a && take_b) AddTo(dim, from_b, out);
    i += take_a;
    j += take_b;
    from_a += take_a ? dim : 0;
    from_b += take_b ? dim : 0;
    out += dim;
  }
  return sum;
}

}  // namespace descent
