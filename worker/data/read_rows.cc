#include "worker/data/read_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "common/base/check.h"

namespace descent {
namespace {

constexpr size_t kPrefetchAhead = 16;  // rows: in a shuffled order each lies in cache lines of its own

// Labels, row boundaries and values: what both sparse forms share. Returns the number of entries.
size_t BeginSparse(absl::Span<const RowAt> rows, Batch* batch) {
  batch->rows = rows.size();
  batch->sparse = true;
  batch->dense.Resize(0);
  batch->keys.clear();
  batch->label.resize(rows.size());
  batch->weight.clear();
  batch->row_begin.resize(rows.size() + 1);
  batch->row_begin[0] = 0;
  uint64_t entries = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kPrefetchAhead < rows.size()) {
      const auto [shard, row] = rows[i + kPrefetchAhead];
      __builtin_prefetch(shard->label().data() + row);
      __builtin_prefetch(shard->row_begin().data() + row);
    }
    const auto [shard, row] = rows[i];
    batch->label[i] = shard->label()[row];
    if (shard->wide()) {
      __builtin_prefetch(shard->wide_column().data() + shard->row_begin()[row]);
    } else {
      __builtin_prefetch(shard->column().data() + shard->row_begin()[row]);
    }
    entries += shard->row_begin()[row + 1] - shard->row_begin()[row];
    DESCENT_CHECK(entries <= UINT32_MAX);
    batch->row_begin[i + 1] = static_cast<uint32_t>(entries);
  }
  batch->column.resize(entries);
  batch->value.resize(entries);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [shard, row] = rows[i];
    float* to = batch->value.data() + batch->row_begin[i];
    const size_t n = batch->row_begin[i + 1] - batch->row_begin[i];
    if (shard->unit_values()) {
      std::fill_n(to, n, 1.0f);
    } else if (n > 0) {
      std::memcpy(to, shard->value() + shard->row_begin()[row], n * sizeof(float));
    }
  }
  return entries;
}

// Numbers keys in the order they are first met: open addressing with linear probing.
class KeyNumbers {
 public:
  explicit KeyNumbers(size_t most) : table_(std::bit_ceil(2 * most + 2), kEmpty), mask_(table_.size() - 1) {}

  uint32_t Number(uint64_t key) {
    for (size_t at = (key * 0x9e3779b97f4a7c15u) >> 17 & mask_;; at = (at + 1) & mask_) {
      if (table_[at] == kEmpty) {
        table_[at] = static_cast<uint32_t>(keys_.size());
        keys_.push_back(key);
        return table_[at];
      }
      if (keys_[table_[at]] == key) return table_[at];
    }
  }
  const std::vector<uint64_t>& keys() const { return keys_; }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  std::vector<uint32_t> table_;
  const size_t mask_;
  std::vector<uint64_t> keys_;
};

struct Placed {
  uint32_t slot;
  uint32_t number;
  uint64_t key;
};

// The keys in the order (slot, key), each with its number. Dealt out to the slots first, where these are not too many.
void PlaceKeys(const std::vector<uint64_t>& keys, const Geometry& geometry, std::vector<Placed>* placed) {
  placed->resize(keys.size());
  if (geometry.slots > 4 * keys.size()) {
    for (uint32_t k = 0; k < keys.size(); ++k) (*placed)[k] = {geometry.slot(keys[k]), k, keys[k]};
    std::sort(placed->begin(), placed->end(),
              [](const Placed& a, const Placed& b) { return std::tie(a.slot, a.key) < std::tie(b.slot, b.key); });
    return;
  }
  std::vector<uint32_t> slot(keys.size());
  std::vector<uint32_t> end(geometry.slots + 1);
  for (uint32_t k = 0; k < keys.size(); ++k) {
    slot[k] = geometry.slot(keys[k]);
    ++end[slot[k] + 1];
  }
  for (uint32_t s = 0; s < geometry.slots; ++s) end[s + 1] += end[s];
  // end[s] is where slot s begins, and grows to where it ends.
  for (uint32_t k = 0; k < keys.size(); ++k) (*placed)[end[slot[k]]++] = {slot[k], k, keys[k]};
  uint32_t begin = 0;
  for (uint32_t s = 0; s < geometry.slots; ++s) {
    std::sort(placed->begin() + begin, placed->begin() + end[s],
              [](const Placed& a, const Placed& b) { return a.key < b.key; });
    begin = end[s];
  }
}

// A row's entries by ascending column. Rows are short as a rule.
void SortRow(uint32_t* column, float* value, size_t n, std::vector<std::pair<uint32_t, float>>* scratch) {
  constexpr size_t kShort = 32;
  if (n <= kShort) {
    for (size_t i = 1; i < n; ++i) {
      const uint32_t c = column[i];
      const float v = value[i];
      size_t j = i;
      for (; j > 0 && column[j - 1] > c; --j) {
        column[j] = column[j - 1];
        value[j] = value[j - 1];
      }
      column[j] = c;
      value[j] = v;
    }
    return;
  }
  scratch->clear();
  for (size_t i = 0; i < n; ++i) scratch->emplace_back(column[i], value[i]);
  std::sort(scratch->begin(), scratch->end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < n; ++i) std::tie(column[i], value[i]) = (*scratch)[i];
}

}  // namespace

void AssembleDense(absl::Span<const RowAt> rows, uint64_t features, Batch* batch) {
  batch->rows = rows.size();
  batch->features = features;
  batch->sparse = false;
  batch->row_begin.clear();
  batch->column.clear();
  batch->value.clear();
  batch->keys.clear();
  batch->label.resize(rows.size());
  batch->weight.clear();
  batch->dense.Resize(rows.size() * features);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [shard, row] = rows[i];
    batch->label[i] = shard->label()[row];
    if (!shard->weight().empty()) batch->weight.push_back(shard->weight()[row]);
    float* to = batch->dense.data() + i * features;
    if (shard->kind() == ShardKind::kDense) {
      std::memcpy(to, shard->dense() + row * features, features * sizeof(float));
      continue;
    }
    const uint8_t* from = shard->byte_values() + row * features;
    const float scale = shard->scale();
    if (scale == 0) {
      for (size_t j = 0; j < features; ++j) to[j] = static_cast<float>(from[j]) / 255.0f;
    } else {
      for (size_t j = 0; j < features; ++j) to[j] = static_cast<float>(from[j]) * scale;
    }
  }
}

void AssembleSparse(absl::Span<const RowAt> rows, uint64_t features, Batch* batch) {
  BeginSparse(rows, batch);
  batch->features = features;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [shard, row] = rows[i];
    const uint32_t from = shard->row_begin()[row];
    uint32_t* to = batch->column.data() + batch->row_begin[i];
    const size_t n = batch->row_begin[i + 1] - batch->row_begin[i];
    DESCENT_CHECK(!shard->wide() || n == 0);
    if (n > 0) std::memcpy(to, shard->column().data() + from, n * sizeof(uint32_t));
  }
}

void AssembleKeyed(absl::Span<const RowAt> rows, const Geometry& geometry, Batch* batch) {
  const size_t entries = BeginSparse(rows, batch);
  batch->features = 0;
  KeyNumbers numbers(entries);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [shard, row] = rows[i];
    const uint32_t from = shard->row_begin()[row];
    uint32_t* to = batch->column.data() + batch->row_begin[i];
    const size_t n = batch->row_begin[i + 1] - batch->row_begin[i];
    if (shard->wide()) {
      const uint64_t* keys = shard->wide_column().data() + from;
      for (size_t j = 0; j < n; ++j) to[j] = numbers.Number(keys[j]);
    } else {
      const uint32_t* keys = shard->column().data() + from;
      for (size_t j = 0; j < n; ++j) to[j] = numbers.Number(keys[j]);
    }
  }

  std::vector<Placed> placed;
  PlaceKeys(numbers.keys(), geometry, &placed);
  const std::vector<uint64_t>& keys = numbers.keys();
  batch->keys.resize(keys.size());
  std::vector<uint32_t> place(keys.size());
  for (uint32_t k = 0; k < placed.size(); ++k) {
    batch->keys[k] = placed[k].key;
    place[placed[k].number] = k;
  }
  for (uint32_t& column : batch->column) column = place[column];
  std::vector<std::pair<uint32_t, float>> scratch;
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint32_t begin = batch->row_begin[i];
    SortRow(batch->column.data() + begin, batch->value.data() + begin, batch->row_begin[i + 1] - begin, &scratch);
  }
}

}  // namespace descent
