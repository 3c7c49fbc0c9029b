// Workers and the coordinator's table agree on statistics: the same bits for any number of workers, through lost
// answers, a worker that dies with a shard in hand, and a coordinator that begins anew.
#include "worker/loop/statistics_exchange.h"

#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/features/feature_statistics.h"
#include "common/features/quantile_sketch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/statistics_table.h"

namespace descent {
namespace {

constexpr uint32_t kShards = 12;

v1::FeatureStatistics Shard(uint32_t shard) {
  Moments moments;
  QuantileSketch sketch(shard);
  for (uint32_t i = 0; i < 3000; ++i) {
    const float x = 1.0f / static_cast<float>(1 + i * 7919 % 3001 + shard);
    moments.Add(x);
    sketch.Add(x);
  }
  v1::FeatureStatistics statistics;
  statistics.set_columns(1);
  statistics.set_rows(3000);
  AppendMoments(moments, &statistics);
  *statistics.add_sketch() = sketch.ToMessage();
  return statistics;
}

StatisticsPass Pass() {
  StatisticsPass pass;
  pass.units = kShards;
  pass.data = 5;
  pass.compute = [](uint32_t shard) { return Shard(shard); };
  return pass;
}

class StatisticsExchangeTest : public ::testing::Test {
 protected:
  // What `disturb` gives, if anything, is the answer in place of the table's.
  using Disturb = std::function<std::optional<absl::Status>(uint64_t call)>;

  absl::StatusOr<v1::FeatureStatistics> Exchange(absl::Duration patience = absl::Minutes(1)) {
    StatisticsCalls calls;
    calls.share = [this](const v1::ShareStatisticsRequest& request) -> absl::StatusOr<v1::ShareStatisticsReply> {
      MutexLock lock(&mu_);
      now_ += call_takes_;
      v1::ShareStatisticsReply reply = table_.Share(request, now_);
      const std::optional<absl::Status> disturbed = disturb_ ? disturb_(++calls_) : std::nullopt;
      if (disturbed.has_value()) return *disturbed;
      if (!reply.mismatch().empty()) return absl::FailedPreconditionError(reply.mismatch());
      return reply;
    };
    // Time passes while a worker waits.
    calls.pause = [this](absl::Duration pause) {
      MutexLock lock(&mu_);
      now_ += pause;
    };
    calls.now = [this] {
      MutexLock lock(&mu_);
      return now_;
    };
    calls.tell = [this](const std::string& text) {
      MutexLock lock(&mu_);
      told_.push_back(text);
    };
    return StatisticsWithOthers(calls, v1::ShareStatisticsRequest(), patience)(Pass());
  }

  Mutex mu_;
  StatisticsTable table_ ABSL_GUARDED_BY(mu_);
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::UnixEpoch();
  uint64_t calls_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Duration call_takes_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
  std::vector<std::string> told_ ABSL_GUARDED_BY(mu_);
  Disturb disturb_;
};

TEST_F(StatisticsExchangeTest, TheSameBitsForAnyNumberOfWorkers) {
  const std::string expected = StatisticsAlone(Pass())->SerializeAsString();
  for (const size_t workers : {1u, 2u, 5u}) {
    {
      MutexLock lock(&mu_);
      table_ = StatisticsTable();
    }
    std::vector<std::string> found(workers);
    std::vector<std::thread> threads;
    for (std::string& one : found) {
      threads.emplace_back([this, &one] { one = Exchange()->SerializeAsString(); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& one : found) EXPECT_EQ(one, expected) << workers;
  }
}

TEST_F(StatisticsExchangeTest, LostAnswersChangeNothing) {
  disturb_ = [](uint64_t call) { return call % 3 == 0 ? std::optional(absl::UnavailableError("lost")) : std::nullopt; };
  const auto total = Exchange();
  ASSERT_TRUE(total.ok()) << total.status();
  EXPECT_EQ(total->SerializeAsString(), StatisticsAlone(Pass())->SerializeAsString());
}

TEST_F(StatisticsExchangeTest, AnotherCoordinatorAndADeadWorkerChangeNothing) {
  {
    MutexLock lock(&mu_);
    v1::ShareStatisticsRequest dead;
    dead.set_data(5);
    dead.set_units(kShards);
    EXPECT_EQ(table_.Share(dead, now_).unit(), 0u);
  }
  disturb_ = [this](uint64_t call) ABSL_NO_THREAD_SAFETY_ANALYSIS {  // under Exchange's lock
    if (call == 6) table_ = StatisticsTable();
    return call == 6 ? std::optional(absl::UnavailableError("killed")) : std::nullopt;
  };
  const auto total = Exchange();
  ASSERT_TRUE(total.ok()) << total.status();
  EXPECT_EQ(total->SerializeAsString(), StatisticsAlone(Pass())->SerializeAsString());
}

TEST_F(StatisticsExchangeTest, ItGivesUpAfterItsPatience) {
  disturb_ = [](uint64_t) { return std::optional(absl::UnavailableError("nobody there")); };
  EXPECT_EQ(Exchange(absl::Seconds(2)).status().message(), "nobody there");
  {
    MutexLock lock(&mu_);
    EXPECT_EQ(calls_, 11u) << "every 200 ms";
    calls_ = 0;
    call_takes_ = absl::Seconds(5);  // until a call itself gives up
  }
  EXPECT_EQ(Exchange(absl::Seconds(60)).status().message(), "nobody there");
  MutexLock lock(&mu_);
  EXPECT_LE(calls_, 13u);
  ASSERT_GE(told_.size(), 4u);
  EXPECT_EQ(told_[0],
            "statistics of the training data: the coordinator has not answered for 10s of at most 1m: nobody there");
}

}  // namespace
}  // namespace descent
