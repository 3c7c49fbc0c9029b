// Prepares batches ahead on a thread of its own, so that one is computed while the next is read. Thread-safe. Memory of
// batches that nobody holds any more is used again.
#ifndef DESCENT_WORKER_DATA_PREFETCHER_H_
#define DESCENT_WORKER_DATA_PREFETCHER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "worker/data/batch.h"
#include "worker/data/batch_plan.h"
#include "worker/data/dataset.h"

namespace descent {

class Prefetcher {
 public:
  // At most `depth` batches lie prepared at a time, besides those that a Get waits for. `dataset` must outlive it.
  Prefetcher(const Dataset* dataset, std::unique_ptr<BatchPlan> plan, size_t depth = 16);
  // Ends the batch in work and drops the others. No Get may be waiting.
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // In the order of the requests; never blocks. Asking twice is asking once.
  void Request(Rank rank, Clock clock) ABSL_LOCKS_EXCLUDED(mu_);

  // Waits for the batch; one that was not asked for is prepared next. Given out once: it is forgotten afterwards.
  // Errors as Dataset::Read. CANCELLED: the rank was forgotten meanwhile.
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) ABSL_LOCKS_EXCLUDED(mu_);

  // Drops what was asked for this rank.
  void Forget(Rank rank) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Key = std::pair<Rank, Clock>;
  enum class State { kQueued, kInWork, kReady };
  struct Entry {
    State state = State::kQueued;
    uint64_t number = 0;  // of the request: one forgotten and made again is another
    absl::Status status;
    std::shared_ptr<const Batch> batch;
  };
  struct Pool;

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  bool NextToPrepare(Key* key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Dataset* const dataset_;
  const std::unique_ptr<BatchPlan> plan_;  // used by the thread alone
  const size_t depth_;
  const std::shared_ptr<Pool> pool_;  // shared with the batches given out

  Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t requests_ ABSL_GUARDED_BY(mu_) = 0;
  size_t ready_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<Key, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::deque<Key> queue_ ABSL_GUARDED_BY(mu_);  // may hold keys that are no longer queued
  std::deque<Key> urgent_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_PREFETCHER_H_
