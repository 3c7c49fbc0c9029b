// A slot as an image, and rows out of images.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "server/store/float_runs.h"
#include "server/store/sparse_slot.h"

namespace descent {

absl::StatusOr<Payload> SparseSlot::Image(bool with_state, uint64_t steps) {
  const TensorContext& context = *table_->context;
  const std::vector<std::pair<uint64_t, RowTable::Row>> sorted = rows_.Sorted();
  const size_t count = sorted.size(), dim = table_->dim;
  std::vector<uint64_t> keys;
  keys.reserve(count);
  table_->rows.clear();
  for (const auto& [key, row] : sorted) {
    keys.push_back(key);
    table_->rows.push_back(row);
  }
  Batch batch{static_cast<uint32_t>(count), reinterpret_cast<const std::byte*>(keys.data()), nullptr};
  CopyRows(batch, steps);
  const size_t vectors = 1 + (with_state ? table_->states : 0);
  const size_t floats = count * (sizeof(uint64_t) / sizeof(float) + vectors * dim);
  FloatBuffer out = context.pool->Take(floats);
  if (out == nullptr) return NoMemory(context, floats);
  if (count > 0) std::memcpy(out.get(), keys.data(), count * sizeof(uint64_t));
  float* to = out.get() + count * (sizeof(uint64_t) / sizeof(float));
  for (size_t v = 0; v < vectors; ++v) {
    for (size_t i = 0; i < count; ++i, to += dim) {
      std::memcpy(to, table_->copies.data() + i * table_->stride + v * dim, dim * sizeof(float));
    }
  }
  Payload payload;
  payload.Append(out.get(), floats * sizeof(float), out);
  return payload;
}

std::vector<uint32_t> SparseSlot::Ahead(uint64_t steps) const {
  std::vector<uint32_t> ahead;
  if (!table_->context->catch_up || !table_->context->apply_push) return ahead;
  for (size_t i = 0; i < table_->rows.size(); ++i) {
    const uint64_t last = LastOf(table_->copies.data() + i * table_->stride);
    if (last <= steps) continue;
    ahead.resize(table_->rows.size());
    ahead[i] = static_cast<uint32_t>(last - steps);
  }
  return ahead;
}

absl::Status SparseSlot::Install(const BlockExport& image) {
  const TensorContext& context = *table_->context;
  const auto refuse = [&](auto... why) {
    return absl::InvalidArgumentError(
        absl::StrCat("image of table '", context.spec.name, "', slot ", index_, ": expected ", why...));
  };
  const size_t row = table_->dim * sizeof(float), vectors = 1 + table_->states;
  const uint64_t key_bytes = uint64_t{image.keys} * sizeof(uint64_t);
  const uint64_t bytes = key_bytes + image.keys * vectors * row;
  if (image.state_slots != table_->states || image.payload.size() != bytes) {
    return refuse(table_->states, " state vectors and ", bytes, " bytes for ", image.keys, " keys, got ",
                  image.state_slots, " state vectors, ", image.payload.size(), " bytes");
  }
  if (!image.ahead.empty() && image.ahead.size() != image.keys) {
    return refuse("steps ahead of ", image.keys, " rows, got them of ", image.ahead.size());
  }
  if (!context.apply_push && image.steps != image.version) {
    return refuse("as many steps as its version ", image.version, ", got ", image.steps);
  }
  if (installed_.has_value() && *installed_ != std::pair(image.version, image.steps)) {
    return refuse("version ", installed_->first, " and ", installed_->second, " steps as with its first rows, got ",
                  image.version, " and ", image.steps);
  }
  DESCENT_CHECK(undo_.empty() && !pinned() && (installed_.has_value() || rows_.size() == 0));
  Batch batch;
  batch.count = image.keys;
  batch.keys = Flat(image.payload, 0, key_bytes, &table_->bytes);
  if (absl::Status status = CheckKeys(batch); !status.ok()) return status;
  const std::byte* values = Flat(image.payload, key_bytes, bytes - key_bytes, &table_->value_bytes);
  installed_ = {image.version, image.steps};
  version_ = image.version;
  table_->steps = std::max(table_->steps, image.steps);
  for (uint64_t clock : image.skipped) table_->missed.Skip(clock);
  for (size_t i = 0; i < batch.count; ++i) {
    const uint64_t key = batch.key(i);
    if (rows_.Find(table_->buckets[i], key) != RowTable::kAbsent) return refuse("each key once, got ", key, " again");
    const RowTable::Row at = rows_.Insert(table_->buckets[i], key);
    if (at == RowTable::kAbsent) return NoMemory(context, table_->stride);
    for (size_t v = 0; v < vectors; ++v) {
      std::memcpy(rows_.row(at) + v * table_->dim, values + (v * image.keys + i) * row, row);
    }
    if (context.catch_up) SetLast(rows_.row(at), image.steps + (image.ahead.empty() ? 0 : image.ahead[i]));
  }
  return absl::OkStatus();
}

absl::Status SparseSlot::Start(const std::vector<std::pair<uint64_t, const float*>>& rows) {
  const TensorContext& context = *table_->context;
  std::vector<uint64_t> keys;
  for (const auto& [key, values] : rows) keys.push_back(key);
  const Batch batch{static_cast<uint32_t>(keys.size()), reinterpret_cast<const std::byte*>(keys.data()), nullptr};
  DESCENT_RETURN_IF_ERROR(CheckKeys(batch));
  for (size_t i = 0; i < rows.size(); ++i) {
    const RowTable::Row row = rows_.Insert(table_->buckets[i], keys[i]);
    if (row == RowTable::kAbsent) return NoMemory(context, table_->stride);
    InitialRowTo(keys[i], rows_.row(row));
    std::memcpy(rows_.row(row), rows[i].second, table_->dim * sizeof(float));
    if (context.catch_up) SetLast(rows_.row(row), 0);
  }
  return absl::OkStatus();
}

void SparseSlot::Reinstall() {
  if (!table_->context->catch_up) return;
  table_->rows.clear();
  for (const auto& [key, row] : rows_.Sorted()) table_->rows.push_back(row);
  CatchUpRead(table_->rows.size(), now());
  for (const RowTable::Row row : table_->rows) SetLast(rows_.row(row), now());
}

}  // namespace descent
