// A run of consecutive rows in the form they are kept in, on disk and in memory: one checksummed image, little-endian,
// whose sections are used where they lie. A finished shard is immutable, hence thread-safe.
#ifndef DESCENT_WORKER_DATA_SHARD_H_
#define DESCENT_WORKER_DATA_SHARD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace descent {

enum class ShardKind : uint32_t {
  kSparse = 1,  // compressed sparse rows; columns of 32 bits where they suffice, no values where all are 1
  kDense = 2,   // floats, row-major
  kBytes = 3,   // unsigned bytes, row-major, to be multiplied by `scale`; divided by 255 where that is 0
};

// What all shards of a data set have in common.
struct ShardShape {
  ShardKind kind = ShardKind::kSparse;
  uint64_t features = 0;  // kDense, kBytes: columns
  float scale = 1;        // kBytes
  bool weighted = false;  // rows have weights
};

class Shard {
 public:
  // `image` as bytes() of another. DATA_LOSS: not a shard, damaged, or not shard `index` of the data set `dataset`.
  static absl::StatusOr<std::shared_ptr<const Shard>> FromFile(const std::string& path, uint64_t dataset,
                                                               uint32_t index);

  absl::string_view bytes() const { return {image_.get(), size_}; }
  uint32_t crc32c() const;
  uint32_t rows() const;
  ShardKind kind() const;
  float scale() const;
  uint64_t features() const;

  absl::Span<const float> label() const;
  absl::Span<const float> weight() const;        // empty: rows have none
  absl::Span<const uint32_t> row_begin() const;  // kSparse: rows + 1
  bool wide() const;                             // kSparse: columns are in wide_column
  absl::Span<const uint32_t> column() const;
  absl::Span<const uint64_t> wide_column() const;
  bool unit_values() const;  // kSparse: every value is 1
  const float* value() const;
  const float* dense() const;
  const uint8_t* byte_values() const;

 private:
  friend class ShardBuilder;
  struct Free {
    void operator()(char* p) const;
  };
  static std::unique_ptr<char[], Free> Allocate(size_t bytes);
  Shard(std::unique_ptr<char[], Free> image, size_t size) : image_(std::move(image)), size_(size) {}

  const std::unique_ptr<char[], Free> image_;
  const size_t size_;
};

// Takes rows one by one. Use from one thread at a time.
class ShardBuilder {
 public:
  explicit ShardBuilder(const ShardShape& shape) : shape_(shape), row_begin_{0} {}

  // Of the row begun, kSparse: columns ascending.
  void AddEntry(uint64_t column, float value) {
    if (wide_) {
      wide_column_.push_back(column);
    } else if (column <= UINT32_MAX) {
      column_.push_back(static_cast<uint32_t>(column));
    } else {
      Widen();
      wide_column_.push_back(column);
    }
    value_.push_back(value);
    unit_ = unit_ && value == 1.0f;
  }
  // kDense: `features` floats of the row begun, uninitialised.
  float* AddDense() {
    dense_.resize(dense_.size() + shape_.features);
    return dense_.data() + dense_.size() - shape_.features;
  }
  // kBytes: likewise.
  uint8_t* AddBytes() {
    bytes_.resize(bytes_.size() + shape_.features);
    return bytes_.data() + bytes_.size() - shape_.features;
  }
  void EndRow(float label, float weight) {
    if (shape_.kind == ShardKind::kSparse) row_begin_.push_back(static_cast<uint32_t>(value_.size()));
    label_.push_back(label);
    if (shape_.weighted) weight_.push_back(weight);
  }
  uint32_t rows() const { return static_cast<uint32_t>(label_.size()); }
  uint64_t entries() const { return value_.size(); }

  // Shard `index` of the data set `dataset`; the builder is empty afterwards.
  std::shared_ptr<const Shard> Finish(uint64_t dataset, uint32_t index);

 private:
  void Widen();

  const ShardShape shape_;
  std::vector<float> label_;
  std::vector<float> weight_;
  std::vector<uint32_t> row_begin_;
  std::vector<uint32_t> column_;
  std::vector<uint64_t> wide_column_;
  std::vector<float> value_;
  std::vector<float> dense_;
  std::vector<uint8_t> bytes_;
  bool wide_ = false;
  bool unit_ = true;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_SHARD_H_
