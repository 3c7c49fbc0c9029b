// Examples made between examples of one class: Chawla, Bowyer, Hall and Kegelmeyer, "SMOTE: Synthetic Minority
// Over-sampling Technique", Journal of Artificial Intelligence Research 16, 2002, section 4.2. With x the features of a
// row and x' those of one of its k nearest neighbours, a made example has x + u (x' - x), u uniform in [0, 1), for
// every feature alike, and the row's label and weight.
//
// A data set of N rows seen through this one has rows beyond N: row j + N d, d > 0, is the d-th example made from row
// j, a function of (seed, j, d) and the data alone. Neighbours are looked for within j's data shard, by Euclid's
// distance of the features as they are; of equals the first row is the nearer. Where a shard has fewer rows of the
// class all of them are neighbours, and a row that is alone in it is made again as it is.
//
// What it costs: for each row, when it is first needed, its distance to all rows of its class and shard, after which
// its k neighbours stay in memory.
#ifndef DESCENT_WORKER_DATA_SMOTE_H_
#define DESCENT_WORKER_DATA_SMOTE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/mutex.h"
#include "worker/data/dataset.h"
#include "worker/data/row_classes.h"

namespace descent {

// Thread-safe.
class SmoteRows final : public Dataset {
 public:
  // `data` must outlive it; `classes` are of its rows. `neighbours` is k, at least 1.
  SmoteRows(const Dataset* data, std::shared_ptr<const RowClasses> classes, uint64_t seed, uint32_t neighbours);

  // Those of `data`.
  uint64_t rows() const override { return data_->rows(); }
  uint64_t features() const override { return data_->features(); }
  bool sparse() const override { return data_->sparse(); }
  absl::Span<const DataFileInfo> files() const override { return data_->files(); }
  absl::Span<const DataColumn> columns() const override { return data_->columns(); }
  uint32_t shards() const override { return data_->shards(); }
  uint64_t shard_begin(uint32_t shard) const override { return data_->shard_begin(shard); }
  std::vector<std::string> Notes() const override { return data_->Notes(); }

  // Rows below rows(), and made ones. A keyed batch has the keys of both rows that an example was made of.
  absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const override ABSL_LOCKS_EXCLUDED(mu_);

  // The k nearest, the nearest first.
  absl::Status Neighbours(uint64_t row, std::vector<uint64_t>* nearest) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Makes the neighbours of all these rows known.
  absl::Status Find(absl::Span<const uint64_t> rows) const ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Search(uint32_t shard, const std::vector<uint64_t>& queries) const ABSL_LOCKS_EXCLUDED(mu_);

  const Dataset* const data_;
  const std::shared_ptr<const RowClasses> classes_;
  const uint64_t seed_;
  const uint32_t k_;
  mutable Mutex mu_;
  // By row; each as its place in the shard.
  mutable absl::flat_hash_map<uint64_t, std::vector<uint32_t>> nearest_ ABSL_GUARDED_BY(mu_);
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_SMOTE_H_
