#include "server/store/row_table.h"

#include <algorithm>
#include <cstring>

namespace descent {

RowTable::~RowTable() {
  arena_->Return(entries_, capacity_ * sizeof(Entry));
  arena_->Return(rows_, rows_bytes_);
}

void RowTable::Place(const Entry& entry) {
  const size_t mask = capacity_ - 1;
  size_t i = entry.bucket & mask;
  while (entries_[i].row != kAbsent) i = (i + 1) & mask;
  entries_[i] = entry;
}

bool RowTable::GrowEntries() {
  const size_t capacity = capacity_ == 0 ? SlabArena::SlabSize(0) / sizeof(Entry) : capacity_ * 2;
  auto* entries = static_cast<Entry*>(arena_->Take(capacity * sizeof(Entry)));
  if (entries == nullptr) return false;
  std::fill_n(entries, capacity, Entry{0, kAbsent, 0});
  Entry* const old = std::exchange(entries_, entries);
  const size_t old_capacity = std::exchange(capacity_, capacity);
  for (size_t i = 0; i < old_capacity; ++i) {
    if (old[i].row != kAbsent) Place(old[i]);
  }
  arena_->Return(old, old_capacity * sizeof(Entry));
  return true;
}

bool RowTable::GrowRows() {
  const size_t row_bytes = stride_ * sizeof(float);
  const size_t bytes = SlabArena::SlabSize(std::max(row_bytes, 2 * rows_bytes_));
  auto* rows = static_cast<float*>(arena_->Take(bytes));
  if (rows == nullptr) return false;
  if (size_ > 0) std::memcpy(rows, rows_, size_ * row_bytes);
  arena_->Return(rows_, rows_bytes_);
  rows_ = rows;
  rows_bytes_ = bytes;
  row_capacity_ = bytes / row_bytes;
  return true;
}

RowTable::Row RowTable::Insert(uint32_t bucket, uint64_t key) {
  // At most five eighths full: an absent key is known after four probes on average (Knuth, 6.4, linear probing).
  if ((size_ + 1) * 8 > capacity_ * 5 && !GrowEntries()) return kAbsent;
  if (size_ == row_capacity_ && !GrowRows()) return kAbsent;
  const Row row = static_cast<Row>(size_);
  if (row == kAbsent) return kAbsent;
  Place(Entry{key, row, bucket});
  ++size_;
  return row;
}

std::vector<std::pair<uint64_t, RowTable::Row>> RowTable::Sorted() const {
  std::vector<std::pair<uint64_t, Row>> out;
  out.reserve(size_);
  for (size_t i = 0; i < capacity_; ++i) {
    if (entries_[i].row != kAbsent) out.emplace_back(entries_[i].key, entries_[i].row);
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace descent
