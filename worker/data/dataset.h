// Data to train on or to evaluate with: opened once, then read by row. Formats: LIBSVM, CSV, IDX, each plain or gzip.
//
// gzip has no random access and a rank may move to any host, so on first use the files are cut into binary,
// checksummed data shards (at most 65,536 rows) in a cache folder with a byte budget, once per host; shards in use are
// kept in memory up to a budget.
#ifndef DESCENT_WORKER_DATA_DATASET_H_
#define DESCENT_WORKER_DATA_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"
#include "worker/data/batch.h"

namespace descent::v1 {
class DataSpec;
class Dataset;
}  // namespace descent::v1

namespace descent {

enum class LabelKind {
  kNumber,  // any finite number
  kBinary,  // -1/+1 or 0/1, stored as 0/1
  kClass,   // 0 .. classes - 1
  kCount,   // a finite number from 0
};

// How CSV columns are read that are not all numbers; columns as in csv.label.
struct CsvColumns {
  std::vector<std::string> categories;  // stored as the number of the category, in the order of their appearance
  uint32_t most_categories = 1000;      // of one column
  std::vector<std::string> hashed;      // stored as +-(1 + bucket), from a hash of column and text
  uint32_t buckets = 0;
  bool missing = false;              // a field may have no value, which is stored as NaN: the empty field, and
  std::vector<std::string> markers;  // these
};

// A feature's column in CSV data.
struct DataColumn {
  enum class Kind { kNumber, kCategory, kHashed };
  std::string name;  // from the header; without one, the column's number
  Kind kind = Kind::kNumber;
  std::vector<std::string> categories;  // of kCategory
};

struct DatasetOptions {
  std::string root;  // what relative paths start at
  std::string cache_dir;
  uint64_t cache_bytes = uint64_t{8} << 30;
  uint64_t memory_bytes = uint64_t{1} << 30;
  uint32_t shard_rows = 65536;
  LabelKind labels = LabelKind::kNumber;
  uint32_t classes = 0;  // with kClass
  bool keys = false;     // batches carry keys (sparse table)
  Geometry geometry;     // for their order
  CsvColumns csv;
};

struct DataFileInfo {
  std::string name;  // as the job names it
  uint64_t bytes = 0;
  uint64_t rows = 0;
  uint32_t crc32c = 0;  // of the file as it lies on disk
};

// Thread-safe once opened.
class Dataset {
 public:
  // Errors name file, line or record, what was expected and what came: NOT_FOUND (no such file), INVALID_ARGUMENT
  // (malformed), DATA_LOSS (truncated, checksum).
  static absl::StatusOr<std::unique_ptr<Dataset>> Open(const v1::Dataset& spec, const DatasetOptions& options);
  virtual ~Dataset() = default;

  virtual uint64_t rows() const = 0;
  virtual uint64_t features() const = 0;  // columns of dense input, or the job's `features`; 0 with keys
  virtual bool sparse() const = 0;
  virtual absl::Span<const DataFileInfo> files() const = 0;
  virtual absl::Span<const DataColumn> columns() const { return {}; }  // of CSV: one for each feature; else none
  virtual uint32_t shards() const = 0;
  virtual uint64_t shard_begin(uint32_t shard) const = 0;  // first row; shard_begin(shards()) is rows()

  // What went wrong without stopping the work, for a log: a cache folder that can't be written, a damaged shard that
  // was made again. Grows.
  virtual std::vector<std::string> Notes() const { return {}; }

  // Fills `batch` with the rows asked for, in that order. DATA_LOSS: a shard is damaged and can't be made again.
  virtual absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_DATASET_H_
