#include "worker/data/prefetcher.h"

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace descent {
namespace {

// Rows of which the label is the number; counts reads, and can hold one back.
class FakeDataset final : public Dataset {
 public:
  explicit FakeDataset(uint64_t rows) : rows_(rows) {}
  uint64_t rows() const override { return rows_; }
  uint64_t features() const override { return 1; }
  bool sparse() const override { return false; }
  absl::Span<const DataFileInfo> files() const override { return {}; }
  uint32_t shards() const override { return 1; }
  uint64_t shard_begin(uint32_t shard) const override { return shard * rows_; }

  absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const override {
    MutexLock lock(&mu_);
    ++reads_;
    changed_.SignalAll();
    while (reads_ > allowed_) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
    for (const uint64_t row : rows) {
      if (row == bad_row_) return absl::DataLossError("row 13 is bad");
    }
    batch->rows = rows.size();
    batch->label.assign(rows.begin(), rows.end());
    return absl::OkStatus();
  }
  void Allow(uint64_t reads) const {
    MutexLock lock(&mu_);
    allowed_ = reads;
    changed_.SignalAll();
  }
  void WaitForRead(uint64_t read) const {
    MutexLock lock(&mu_);
    while (reads_ < read) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
  }
  uint64_t reads() const {
    MutexLock lock(&mu_);
    return reads_;
  }

 private:
  const uint64_t rows_;
  const uint64_t bad_row_ = 13;
  mutable Mutex mu_;
  mutable CondVar changed_;
  mutable uint64_t reads_ ABSL_GUARDED_BY(mu_) = 0;
  mutable uint64_t allowed_ ABSL_GUARDED_BY(mu_) = UINT64_MAX;
};

std::unique_ptr<BatchPlan> Plan(uint64_t rows, uint32_t ranks) {
  BatchPlanOptions options;
  options.sampling = SamplingKind::kSequential;
  options.ranks = ranks;
  options.batch_size = 2;
  options.shard_begin = {0, rows};
  return BatchPlan::Create(std::move(options));
}

TEST(Prefetcher, GivesTheBatchesOfThePlan) {
  FakeDataset data(12);
  Prefetcher prefetcher(&data, Plan(12, 2));
  for (uint64_t c = 0; c < 9; ++c) {
    prefetcher.Request(Rank(0), Clock(c));
    prefetcher.Request(Rank(0), Clock(c));
    prefetcher.Request(Rank(1), Clock(c));
    auto second = prefetcher.Get(Rank(1), Clock(c));
    auto first = prefetcher.Get(Rank(0), Clock(c));
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ((*first)->label, (std::vector<float>{c % 3 * 2.0f, c % 3 * 2.0f + 1}));
    EXPECT_EQ((*second)->label, (std::vector<float>{c % 3 * 2.0f + 6, c % 3 * 2.0f + 7}));
  }
  EXPECT_EQ(data.reads(), 18u);
}

TEST(Prefetcher, PreparesAheadButNotBeyondItsDepth) {
  FakeDataset data(12);
  Prefetcher prefetcher(&data, Plan(12, 1), 2);
  for (uint64_t c = 0; c < 5; ++c) prefetcher.Request(Rank(0), Clock(c));
  data.WaitForRead(2);
  // Prepared at once though two lie ready: somebody waits for it.
  auto last = prefetcher.Get(Rank(0), Clock(4));
  ASSERT_TRUE(last.ok());
  EXPECT_EQ((*last)->label[0], 8);
  EXPECT_LE(data.reads(), 3u);
  ASSERT_TRUE(prefetcher.Get(Rank(0), Clock(0)).ok());
  data.WaitForRead(4);  // room for one more
}

TEST(Prefetcher, UnaskedIsPrepared) {
  FakeDataset data(12);
  Prefetcher prefetcher(&data, Plan(12, 1), 0);
  EXPECT_TRUE(prefetcher.Get(Rank(0), Clock(3)).ok());
}

TEST(Prefetcher, ErrorsReachWhoGets) {
  FakeDataset data(20);
  Prefetcher prefetcher(&data, Plan(20, 1));
  EXPECT_EQ(prefetcher.Get(Rank(0), Clock(6)).status(), absl::DataLossError("row 13 is bad"));
  EXPECT_TRUE(prefetcher.Get(Rank(0), Clock(7)).ok());
}

TEST(Prefetcher, ForgetDropsWhatIsQueuedAndInWork) {
  FakeDataset data(12);
  data.Allow(0);
  Prefetcher prefetcher(&data, Plan(12, 2));
  for (uint64_t c = 0; c < 3; ++c) prefetcher.Request(Rank(0), Clock(c));
  data.WaitForRead(1);
  prefetcher.Forget(Rank(0));
  prefetcher.Request(Rank(0), Clock(0));  // another one than that in work
  data.Allow(UINT64_MAX);
  ASSERT_TRUE(prefetcher.Get(Rank(1), Clock(0)).ok());
  ASSERT_TRUE(prefetcher.Get(Rank(0), Clock(0)).ok());
  EXPECT_EQ(data.reads(), 3u);
}

TEST(Prefetcher, ForgetWakesWhoWaits) {
  FakeDataset data(12);
  data.Allow(0);
  Prefetcher prefetcher(&data, Plan(12, 1));
  absl::Status status;
  std::thread waiting([&] { status = prefetcher.Get(Rank(0), Clock(0)).status(); });
  data.WaitForRead(1);
  prefetcher.Forget(Rank(0));
  waiting.join();
  EXPECT_EQ(status, absl::CancelledError("rank 0 is no longer wanted"));
  data.Allow(UINT64_MAX);
}

TEST(Prefetcher, ABatchMayOutliveItAndMemoryIsUsedAgain) {
  FakeDataset data(12);
  std::shared_ptr<const Batch> kept;
  {
    Prefetcher prefetcher(&data, Plan(12, 1));
    auto first = prefetcher.Get(Rank(0), Clock(0));
    ASSERT_TRUE(first.ok());
    const Batch* address = first->get();
    first->reset();
    auto second = prefetcher.Get(Rank(0), Clock(1));
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(second->get(), address);
    kept = *second;
    prefetcher.Request(Rank(0), Clock(2));  // left behind
  }
  EXPECT_EQ(kept->label[0], 2);
}

TEST(Prefetcher, ManyThreads) {
  FakeDataset data(12);
  Prefetcher prefetcher(&data, Plan(12, 4), 3);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&prefetcher, rank] {
      for (uint64_t c = 0; c < 200; ++c) {
        prefetcher.Request(Rank(rank), Clock(c + 1));
        auto batch = prefetcher.Get(Rank(rank), Clock(c));
        EXPECT_TRUE(batch.ok());
        EXPECT_EQ((*batch)->label[0], rank * 3 + c % 2 * 2);
        if (c % 50 == 49) prefetcher.Forget(Rank(rank));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace descent
