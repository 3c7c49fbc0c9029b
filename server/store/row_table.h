// The rows of one slot: 64-bit key -> row of floats. Open addressing with linear probing over 16-byte entries, rows in
// a slab beside it, both doubling when full. Rows are never removed, and are numbered in order of creation.
//
// The hash is HashKey; buckets use its upper half, because all keys of a slot agree in low bits.
// Thread-safety: none. Row pointers are valid until the next Insert.
#ifndef DESCENT_SERVER_STORE_ROW_TABLE_H_
#define DESCENT_SERVER_STORE_ROW_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "server/store/slab_arena.h"

namespace descent {

class RowTable {
 public:
  using Row = uint32_t;
  static constexpr Row kAbsent = std::numeric_limits<Row>::max();

  // Rows of `stride` floats.
  RowTable(SlabArena* arena, size_t stride) : arena_(arena), stride_(stride) {}
  RowTable(const RowTable&) = delete;
  RowTable& operator=(const RowTable&) = delete;
  ~RowTable();

  static uint32_t Bucket(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

  // Inlined by force: g++ takes a function that only prefetches for one without effect, and drops calls of it.
  [[gnu::always_inline]] void Prefetch(uint32_t bucket) const {
    if (capacity_ != 0) __builtin_prefetch(entries_ + (bucket & (capacity_ - 1)));
  }
  Row Find(uint32_t bucket, uint64_t key) const {
    if (capacity_ == 0) return kAbsent;
    const size_t mask = capacity_ - 1;
    for (size_t i = bucket & mask;; i = (i + 1) & mask) {
      const Entry& entry = entries_[i];
      if (entry.row == kAbsent) return kAbsent;
      if (entry.key == key) return entry.row;
    }
  }
  // A new row, holding garbage, for a key that is absent. kAbsent: no memory, nothing has changed.
  Row Insert(uint32_t bucket, uint64_t key);

  float* row(Row row) const { return rows_ + row * stride_; }
  [[gnu::always_inline]] void PrefetchRow(Row row) const {
    const float* begin = rows_ + row * stride_;
    for (size_t i = 0; i < stride_ && i < 128; i += 16) __builtin_prefetch(begin + i, 1);
    if (stride_ > 1) __builtin_prefetch(begin + stride_ - 1, 1);
  }

  size_t size() const { return size_; }
  // Keys and their rows, by key.
  std::vector<std::pair<uint64_t, Row>> Sorted() const;

 private:
  struct Entry {
    uint64_t key;
    Row row;  // kAbsent: empty
    uint32_t bucket;
  };
  static_assert(sizeof(Entry) == 16);
  bool GrowEntries();
  bool GrowRows();
  void Place(const Entry& entry);

  SlabArena* const arena_;
  const size_t stride_;
  size_t size_ = 0;
  size_t capacity_ = 0;  // entries; a power of two
  Entry* entries_ = nullptr;
  float* rows_ = nullptr;
  size_t row_capacity_ = 0;
  size_t rows_bytes_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_ROW_TABLE_H_
