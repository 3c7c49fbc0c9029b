#include "worker/loop/gradient_sum.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "common/base/copy_bytes.h"

namespace descent {
namespace {

constexpr uint64_t kAlignment = 16;  // floats in 64 bytes

// Orders keys as the wire and the batches do.
bool Before(const Geometry& geometry, uint64_t a, uint64_t b) {
  const uint32_t slot_a = geometry.slot(a), slot_b = geometry.slot(b);
  return slot_a != slot_b ? slot_a < slot_b : a < b;
}

void AddTo(float* to, const float* from, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace

void LayOut(const std::vector<TensorSpec>& tensors, GradientSum* sum) {
  if (sum->dense.size() == tensors.size()) return;
  sum->dense.assign(tensors.size(), nullptr);
  sum->rows.resize(tensors.size());
  uint64_t total = 0;
  for (const TensorSpec& t : tensors) {
    if (!t.sparse) total += (t.elements() + kAlignment - 1) / kAlignment * kAlignment;
  }
  sum->values.Resize(total);
  uint64_t at = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].sparse) continue;
    sum->dense[i] = sum->values.data() + at;
    at += (tensors[i].elements() + kAlignment - 1) / kAlignment * kAlignment;
  }
}

void Fold(const std::vector<TensorSpec>& tensors, const Geometry& geometry, GradientSum* left, const GradientSum& right,
          GradientSum* scratch) {
  left->weight.insert(left->weight.end(), right.weight.begin(), right.weight.end());
  if (right.empty) return;
  if (left->empty) {
    // The sum is the right child; its buffers are about to be reused, so its values move over.
    left->empty = false;
    left->keys = right.keys;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].sparse) {
        left->rows[i].Resize(right.rows[i].size());
        CopyBytes(left->rows[i].data(), right.rows[i].data(), right.rows[i].size() * sizeof(float));
      } else {
        CopyBytes(left->dense[i], right.dense[i], tensors[i].elements() * sizeof(float));
      }
    }
    return;
  }
  bool tables = false;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].sparse) {
      tables = true;
    } else {
      AddTo(left->dense[i], right.dense[i], tensors[i].elements());
    }
  }
  if (!tables) return;

  // Merge of the two key lists: where each merged key comes from.
  constexpr uint32_t kAbsent = ~0u;
  std::vector<std::pair<uint32_t, uint32_t>> from;
  from.reserve(left->keys.size() + right.keys.size());
  scratch->keys.clear();
  size_t l = 0, r = 0;
  while (l < left->keys.size() || r < right.keys.size()) {
    const bool has_l = l < left->keys.size(), has_r = r < right.keys.size();
    if (has_l && has_r && left->keys[l] == right.keys[r]) {
      scratch->keys.push_back(left->keys[l]);
      from.emplace_back(l++, r++);
    } else if (has_l && (!has_r || Before(geometry, left->keys[l], right.keys[r]))) {
      scratch->keys.push_back(left->keys[l]);
      from.emplace_back(l++, kAbsent);
    } else {
      scratch->keys.push_back(right.keys[r]);
      from.emplace_back(kAbsent, r++);
    }
  }
  scratch->rows.resize(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].sparse) continue;
    const size_t dim = tensors[i].dim();
    AlignedFloats& out = scratch->rows[i];
    out.Resize(from.size() * dim);
    for (size_t k = 0; k < from.size(); ++k) {
      const auto [a, b] = from[k];
      const float* first = a != kAbsent ? left->rows[i].data() + a * dim : right.rows[i].data() + b * dim;
      std::memcpy(out.data() + k * dim, first, dim * sizeof(float));
      if (a != kAbsent && b != kAbsent) AddTo(out.data() + k * dim, right.rows[i].data() + b * dim, dim);
    }
    std::swap(left->rows[i], out);
  }
  std::swap(left->keys, scratch->keys);
}

std::vector<uint64_t> MergeKeys(const Geometry& geometry, const std::vector<const std::vector<uint64_t>*>& lists) {
  std::vector<uint64_t> merged, next;
  for (const auto* list : lists) {
    next.clear();
    next.reserve(merged.size() + list->size());
    std::set_union(merged.begin(), merged.end(), list->begin(), list->end(), std::back_inserter(next),
                   [&](uint64_t a, uint64_t b) { return Before(geometry, a, b); });
    std::swap(merged, next);
  }
  return merged;
}

std::vector<Span> AlignedSpans(const std::vector<Rank>& ranks, uint32_t total) {
  std::vector<Span> spans;
  for (size_t i = 0; i < ranks.size();) {
    const uint32_t first = ranks[i].value;
    uint32_t size = 1, covered = 1;
    // Double while the doubled span is aligned, new, and every rank of it that exists is here.
    while (size < total && first % (2 * size) == 0) {
      const uint32_t end = std::min(first + 2 * size, total);
      const uint32_t wanted = end - first;
      if (i + wanted > ranks.size() || ranks[i + wanted - 1].value != end - 1) break;
      size *= 2;
      covered = wanted;
    }
    spans.push_back({ranks[i], size});
    i += covered;
  }
  return spans;
}

}  // namespace descent
