// Which rows rank r computes at clock c: a pure function of (seed, sampling, ranks, batch size, rows, shards), the same
// on every host and in every process. Pure; not thread-safe (it caches the order of the windows it is in).
//
// An epoch's order: the data shards permuted by (seed, epoch), then rows shuffled within windows of `window_shards`
// shards of that order. Rank r's share is the r-th of `ranks` consecutive runs of that order; runs differ by at most
// one row. Every rank has the same number of clocks per epoch: ceil(longest share / batch size); a shorter share ends
// in a smaller or an empty batch. Sequential, with `rotate`, rank r's share in epoch e is the ((r + e) mod ranks)-th.
//
// Balanced by class, each row of a batch is drawn with replacement: a class, each as likely as any other that has rows,
// then one of its rows. Resampled (resampling.h), an epoch's order has a row as often as the epoch has it, all in the
// window of its data shard; an epoch is as long as all of that.
#ifndef DESCENT_WORKER_DATA_BATCH_PLAN_H_
#define DESCENT_WORKER_DATA_BATCH_PLAN_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/ids.h"
#include "worker/data/resampling.h"
#include "worker/data/row_classes.h"

namespace descent {

enum class SamplingKind { kWithoutReplacement, kWithReplacement, kSequential, kClassBalanced };

struct BatchPlanOptions {
  uint64_t seed = 0;
  SamplingKind sampling = SamplingKind::kWithoutReplacement;
  uint32_t ranks = 1;
  uint32_t batch_size = 32;
  uint32_t window_shards = 4;
  bool rotate = false;  // of kSequential: for jobs whose rounds may leave a slow rank, and so its share, out
  std::vector<uint64_t> shard_begin;             // shards + 1 entries; the last is the number of rows
  std::shared_ptr<const RowClasses> classes;     // with kClassBalanced
  std::shared_ptr<const Resampling> resampling;  // of kWithoutReplacement; null: none
  // With `resampling`: what comes again are examples to be made, and not the row itself. They are named as smote.h
  // says.
  bool synthetic = false;
};

class BatchPlan {
 public:
  static std::unique_ptr<BatchPlan> Create(BatchPlanOptions options);
  virtual ~BatchPlan() = default;
  virtual uint64_t clocks_per_epoch() const = 0;
  virtual uint64_t epoch_rows() const = 0;
  // Appends nothing where the batch is empty.
  virtual void Rows(Rank rank, Clock clock, std::vector<uint64_t>* rows) = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_BATCH_PLAN_H_
