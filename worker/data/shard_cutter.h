// Cuts a stream of rows into shards: where it cuts depends on the rows alone, so every host has the same shards.
// Use from one thread at a time.
#ifndef DESCENT_WORKER_DATA_SHARD_CUTTER_H_
#define DESCENT_WORKER_DATA_SHARD_CUTTER_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "worker/data/dataset.h"
#include "worker/data/shard.h"

namespace descent {

class ShardCutter {
 public:
  // Takes the shards in order; an error ends the parse.
  using Emit = std::function<absl::Status(uint32_t index, std::shared_ptr<const Shard>)>;

  ShardCutter(uint64_t dataset, uint32_t shard_rows, Emit emit)
      : dataset_(dataset), shard_rows_(shard_rows), emit_(std::move(emit)) {}

  // Before the first row.
  void Begin(const ShardShape& shape) {
    shape_ = shape;
    builder_.emplace(shape);
    if (shape.kind == ShardKind::kSparse) return;
    const uint64_t width = shape.kind == ShardKind::kDense ? sizeof(float) : 1;
    shard_rows_ = static_cast<uint32_t>(
        std::min<uint64_t>(shard_rows_, std::max<uint64_t>(1, kDenseBytes / (shape.features * width))));
  }
  ShardBuilder& builder() { return *builder_; }
  absl::Status EndRow(float label, float weight = 1) {
    builder_->EndRow(label, weight);
    ++rows_;
    if (builder_->rows() < shard_rows_ && builder_->entries() < kEntries) return absl::OkStatus();
    return Flush();
  }
  absl::Status End() { return builder_.has_value() && builder_->rows() > 0 ? Flush() : absl::OkStatus(); }

  std::vector<DataColumn>* columns() { return &columns_; }  // of CSV, for the parser to tell
  uint64_t rows() const { return rows_; }
  const ShardShape& shape() const { return shape_; }

 private:
  // Wide rows make for fewer rows in a shard, so that a shard stays small against any memory.
  static constexpr uint64_t kDenseBytes = uint64_t{256} << 20;
  static constexpr uint64_t kEntries = uint64_t{1} << 24;

  absl::Status Flush() {
    const uint32_t index = index_++;
    return emit_(index, builder_->Finish(dataset_, index));
  }

  const uint64_t dataset_;
  uint32_t shard_rows_;
  const Emit emit_;
  ShardShape shape_;
  std::optional<ShardBuilder> builder_;
  std::vector<DataColumn> columns_;
  uint32_t index_ = 0;
  uint64_t rows_ = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_SHARD_CUTTER_H_
