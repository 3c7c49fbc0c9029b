#include "worker/data/prefetcher.h"

#include "absl/strings/str_cat.h"

namespace descent {

// Batches to use again. Outlives the prefetcher while a batch is out.
struct Prefetcher::Pool {
  Mutex mu;
  std::vector<std::unique_ptr<Batch>> free ABSL_GUARDED_BY(mu);
  size_t most = 0;

  std::unique_ptr<Batch> Take() ABSL_LOCKS_EXCLUDED(mu) {
    MutexLock lock(&mu);
    if (free.empty()) return std::make_unique<Batch>();
    std::unique_ptr<Batch> batch = std::move(free.back());
    free.pop_back();
    return batch;
  }
  void Give(std::unique_ptr<Batch> batch) ABSL_LOCKS_EXCLUDED(mu) {
    MutexLock lock(&mu);
    if (free.size() < most) free.push_back(std::move(batch));
  }
};

Prefetcher::Prefetcher(const Dataset* dataset, std::unique_ptr<BatchPlan> plan, size_t depth)
    : dataset_(dataset), plan_(std::move(plan)), depth_(depth), pool_(std::make_shared<Pool>()) {
  pool_->most = depth + 2;
  thread_ = std::thread([this] { Run(); });
}

Prefetcher::~Prefetcher() {
  {
    MutexLock lock(&mu_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void Prefetcher::Request(Rank rank, Clock clock) {
  MutexLock lock(&mu_);
  const auto [it, added] = entries_.try_emplace({rank, clock});
  if (!added) return;
  it->second.number = ++requests_;
  queue_.push_back(it->first);
  changed_.SignalAll();
}

absl::StatusOr<std::shared_ptr<const Batch>> Prefetcher::Get(Rank rank, Clock clock) {
  const Key key(rank, clock);
  MutexLock lock(&mu_);
  const auto [added_at, added] = entries_.try_emplace(key);
  if (added) added_at->second.number = ++requests_;
  const uint64_t number = added_at->second.number;
  if (added_at->second.state == State::kQueued) {
    urgent_.push_back(key);
    changed_.SignalAll();
  }
  while (true) {
    const auto it = entries_.find(key);
    if (it == entries_.end() || it->second.number != number) {
      return absl::CancelledError(absl::StrCat("rank ", rank.value, " is no longer wanted"));
    }
    if (it->second.state == State::kReady) {
      Entry entry = std::move(it->second);
      entries_.erase(it);
      --ready_;
      changed_.SignalAll();
      if (!entry.status.ok()) return entry.status;
      return std::move(entry.batch);
    }
    changed_.WaitUntil(&mu_, absl::InfiniteFuture());
  }
}

void Prefetcher::Forget(Rank rank) {
  MutexLock lock(&mu_);
  const auto begin = entries_.lower_bound({rank, Clock(0)});
  auto end = begin;
  for (; end != entries_.end() && end->first.first == rank; ++end) {
    if (end->second.state == State::kReady) --ready_;
  }
  entries_.erase(begin, end);
  changed_.SignalAll();
}

bool Prefetcher::NextToPrepare(Key* key) {
  for (std::deque<Key>* queue : {&urgent_, &queue_}) {
    while (!queue->empty()) {
      if (queue == &queue_ && ready_ >= depth_) return false;
      *key = queue->front();
      queue->pop_front();
      const auto it = entries_.find(*key);
      if (it != entries_.end() && it->second.state == State::kQueued) return true;
    }
  }
  return false;
}

void Prefetcher::Run() {
  std::vector<uint64_t> rows;
  mu_.Lock();
  while (!stop_) {
    Key key;
    if (!NextToPrepare(&key)) {
      changed_.WaitUntil(&mu_, absl::InfiniteFuture());
      continue;
    }
    entries_[key].state = State::kInWork;
    const uint64_t number = entries_[key].number;
    mu_.Unlock();

    rows.clear();
    plan_->Rows(key.first, key.second, &rows);
    std::unique_ptr<Batch> fresh = pool_->Take();
    absl::Status status = dataset_->Read(rows, fresh.get());
    fresh->rank = key.first.value;
    fresh->clock = key.second.value;
    std::shared_ptr<const Batch> batch(
        fresh.release(), [pool = pool_](const Batch* b) { pool->Give(std::unique_ptr<Batch>(const_cast<Batch*>(b))); });

    mu_.Lock();
    const auto it = entries_.find(key);
    if (it != entries_.end() && it->second.number == number) {
      it->second.state = State::kReady;
      it->second.status = std::move(status);
      it->second.batch = std::move(batch);
      ++ready_;
      changed_.SignalAll();
    }
    // A batch forgotten meanwhile goes back to the pool here, whose lock is taken inside ours and never the other way.
  }
  mu_.Unlock();
}

}  // namespace descent
