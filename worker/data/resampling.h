// How often each training row comes in an epoch that is resampled by class, so that the classes' sizes T_k in it are
// nearer to each other than in the data, where they are N_k:
//   kOver   T_k = max(N_k, ratio * max_j N_j): rows of rare classes come again
//   kUnder  T_k = min(N_k, min_j N_j / ratio): rows of the others are left out
// rounded to whole rows, over the classes that have any. Every row of class k comes floor(T_k / N_k) times, and a
// random choice of T_k mod N_k of them once more. The choice is of (seed, epoch): all subsets are equally likely
// (selection sampling, Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S). A pure function, the same in
// every process; its sizes do not depend on the epoch. Thread-safe.
#ifndef DESCENT_WORKER_DATA_RESAMPLING_H_
#define DESCENT_WORKER_DATA_RESAMPLING_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/row_classes.h"

namespace descent {

class Resampling {
 public:
  enum class Kind { kOver, kUnder };

  // `ratio` is above 0 and at most 1.
  Resampling(Kind kind, double ratio, uint64_t seed, std::shared_ptr<const RowClasses> classes);

  // Of any epoch.
  uint64_t epoch_rows() const { return epoch_rows_; }
  uint64_t rows_of(uint32_t class_index) const { return target_[class_index]; }
  // What a row comes at least, and at most one time more.
  uint64_t copies(uint64_t row) const {
    const uint32_t k = classes_->of_row[row];
    return target_[k] / classes_->rows[k];
  }
  // The most that any row comes.
  uint64_t most_copies() const { return most_copies_; }
  // The rows that come once more than copies(): a bit for each.
  std::vector<bool> Extra(uint64_t epoch) const;

 private:
  const uint64_t seed_;
  const std::shared_ptr<const RowClasses> classes_;
  std::vector<uint64_t> target_;
  uint64_t epoch_rows_ = 0, most_copies_ = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_RESAMPLING_H_
