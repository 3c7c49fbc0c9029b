#include "worker/data/batch_plan.h"

#include <algorithm>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

BatchPlanOptions Options(uint32_t ranks, uint32_t batch_size, std::vector<uint64_t> shard_begin,
                         SamplingKind sampling = SamplingKind::kWithoutReplacement) {
  BatchPlanOptions options;
  options.seed = 7;
  options.sampling = sampling;
  options.ranks = ranks;
  options.batch_size = batch_size;
  options.window_shards = 2;
  options.shard_begin = std::move(shard_begin);
  return options;
}

std::vector<uint64_t> RowsOf(BatchPlan* plan, uint32_t rank, uint64_t clock) {
  std::vector<uint64_t> rows;
  plan->Rows(Rank(rank), Clock(clock), &rows);
  return rows;
}

std::vector<uint64_t> ShareOf(BatchPlan* plan, uint32_t rank, uint64_t epoch) {
  std::vector<uint64_t> rows;
  for (uint64_t c = 0; c < plan->clocks_per_epoch(); ++c) {
    plan->Rows(Rank(rank), Clock(epoch * plan->clocks_per_epoch() + c), &rows);
  }
  return rows;
}

// Local steps take a clock of several mini-batches for one batch of as many rows.
TEST(BatchPlan, ALongBatchIsShortOnesBehindEachOther) {
  for (const SamplingKind sampling : {SamplingKind::kWithoutReplacement, SamplingKind::kSequential}) {
    // Shares of 24 and 25 rows.
    auto one = BatchPlan::Create(Options(2, 4, {0, 30, 49}, sampling));
    auto three = BatchPlan::Create(Options(2, 12, {0, 30, 49}, sampling));
    ASSERT_EQ(one->clocks_per_epoch(), 7u);
    ASSERT_EQ(three->clocks_per_epoch(), 3u);
    for (const uint64_t epoch : {0, 1}) {
      for (uint32_t rank = 0; rank < 2; ++rank) {
        for (uint64_t clock = 0; clock < 2; ++clock) {
          std::vector<uint64_t> expected;
          for (uint64_t k = 0; k < 3; ++k) one->Rows(Rank(rank), Clock(7 * epoch + 3 * clock + k), &expected);
          EXPECT_EQ(expected.size(), 12u);
          EXPECT_EQ(RowsOf(three.get(), rank, 3 * epoch + clock), expected);
        }
        EXPECT_EQ(RowsOf(three.get(), rank, 3 * epoch + 2), RowsOf(one.get(), rank, 7 * epoch + 6));
      }
    }
  }
}

TEST(BatchPlan, EveryExampleOnceAnEpoch) {
  for (const SamplingKind sampling : {SamplingKind::kWithoutReplacement, SamplingKind::kSequential}) {
    for (const uint32_t ranks : {1u, 3u, 4u, 7u, 40u}) {
      for (const std::vector<uint64_t>& shards : {std::vector<uint64_t>{0, 10, 20, 30, 33}, std::vector<uint64_t>{0, 1},
                                                  std::vector<uint64_t>{0, 5, 5, 101}}) {
        auto plan = BatchPlan::Create(Options(ranks, 4, shards, sampling));
        const uint64_t rows = shards.back();
        for (const uint64_t epoch : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40}) {
          std::multiset<uint64_t> seen;
          size_t least = rows, most = 0;
          for (uint32_t rank = 0; rank < ranks; ++rank) {
            const std::vector<uint64_t> share = ShareOf(plan.get(), rank, epoch);
            seen.insert(share.begin(), share.end());
            least = std::min(least, share.size());
            most = std::max(most, share.size());
          }
          EXPECT_LE(most - least, 1u);
          ASSERT_EQ(seen.size(), rows);
          EXPECT_EQ(std::set<uint64_t>(seen.begin(), seen.end()).size(), rows);
          EXPECT_EQ(*seen.rbegin(), rows - 1);
        }
      }
    }
  }
}

TEST(BatchPlan, ClocksAreThoseOfTheLongestShare) {
  EXPECT_EQ(BatchPlan::Create(Options(4, 8, {0, 33}))->clocks_per_epoch(), 2u);  // 9, 8, 8, 8
  EXPECT_EQ(BatchPlan::Create(Options(4, 8, {0, 32}))->clocks_per_epoch(), 1u);
  EXPECT_EQ(BatchPlan::Create(Options(4, 8, {0}))->clocks_per_epoch(), 0u);
  auto plan = BatchPlan::Create(Options(4, 8, {0, 33}));
  EXPECT_EQ(RowsOf(plan.get(), 0, 1).size(), 1u);
  EXPECT_THAT(RowsOf(plan.get(), 1, 1), IsEmpty());
}

TEST(BatchPlan, FewerExamplesThanRanks) {
  auto plan = BatchPlan::Create(Options(5, 2, {0, 3}, SamplingKind::kSequential));
  EXPECT_EQ(plan->clocks_per_epoch(), 1u);
  EXPECT_THAT(RowsOf(plan.get(), 2, 0), ElementsAre(2));
  EXPECT_THAT(RowsOf(plan.get(), 3, 0), IsEmpty());
  EXPECT_THAT(RowsOf(plan.get(), 4, 9), IsEmpty());
}

TEST(BatchPlan, NoRowsNoClocks) {
  auto plan = BatchPlan::Create(Options(2, 2, {0}));
  EXPECT_THAT(RowsOf(plan.get(), 1, 5), IsEmpty());
}

TEST(BatchPlan, OrderIsPinned) {
  auto plan = BatchPlan::Create(Options(2, 5, {0, 4, 8, 12, 15}));
  EXPECT_THAT(ShareOf(plan.get(), 0, 0), ElementsAre(8, 10, 13, 14, 11, 12, 9, 5));
  EXPECT_THAT(ShareOf(plan.get(), 1, 0), ElementsAre(3, 7, 4, 1, 6, 2, 0));
  EXPECT_THAT(ShareOf(plan.get(), 0, 1), ElementsAre(10, 4, 7, 6, 5, 9, 11, 8));
}

TEST(BatchPlan, RowsStayInTheirWindow) {
  auto plan = BatchPlan::Create(Options(1, 100, {0, 10, 20, 30, 40}));
  const std::vector<uint64_t> order = RowsOf(plan.get(), 0, 0);
  for (size_t begin : {size_t{0}, size_t{20}}) {
    std::set<uint64_t> shards;
    for (size_t i = begin; i < begin + 20; ++i) shards.insert(order[i] / 10);
    EXPECT_EQ(shards.size(), 2u);
  }
}

TEST(BatchPlan, EpochsSeedsAndAskingOrder) {
  const std::vector<uint64_t> shards = {0, 50, 100, 150, 170};
  auto plan = BatchPlan::Create(Options(2, 8, shards));
  const std::vector<uint64_t> first = ShareOf(plan.get(), 0, 0);
  EXPECT_NE(first, ShareOf(plan.get(), 0, 1));
  BatchPlanOptions other = Options(2, 8, shards);
  other.seed = 8;
  EXPECT_NE(first, ShareOf(BatchPlan::Create(other).get(), 0, 0));
  // What was asked before makes no difference, also past the number of orders kept.
  for (uint64_t epoch = 10; epoch > 0; --epoch) ShareOf(plan.get(), 1, epoch);
  EXPECT_EQ(ShareOf(plan.get(), 0, 0), first);
  EXPECT_EQ(ShareOf(BatchPlan::Create(Options(2, 8, shards)).get(), 0, 7), ShareOf(plan.get(), 0, 7));
}

TEST(BatchPlan, Sequential) {
  auto plan = BatchPlan::Create(Options(2, 3, {0, 4, 9}, SamplingKind::kSequential));
  EXPECT_THAT(RowsOf(plan.get(), 0, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(RowsOf(plan.get(), 0, 1), ElementsAre(3, 4));
  EXPECT_THAT(RowsOf(plan.get(), 1, 0), ElementsAre(5, 6, 7));
  EXPECT_THAT(RowsOf(plan.get(), 1, 1), ElementsAre(8));
  EXPECT_THAT(RowsOf(plan.get(), 1, 2), ElementsAre(5, 6, 7));
}

TEST(BatchPlan, WithReplacement) {
  auto plan = BatchPlan::Create(Options(2, 6, {0, 400, 1000}, SamplingKind::kWithReplacement));
  EXPECT_THAT(RowsOf(plan.get(), 1, 3), ElementsAre(324, 983, 709, 882, 425, 37));
  std::set<uint64_t> seen;
  size_t drawn = 0;
  for (uint32_t rank : {0u, 1u}) {
    const std::vector<uint64_t> share = ShareOf(plan.get(), rank, 0);
    drawn += share.size();
    seen.insert(share.begin(), share.end());
  }
  EXPECT_EQ(drawn, 1000u);
  EXPECT_LT(*seen.rbegin(), 1000u);
  // 1 - 1/e of them in the mean, with a standard deviation of about 1 %.
  EXPECT_GT(seen.size(), 580u);
  EXPECT_LT(seen.size(), 690u);
}

TEST(BatchPlan, SharesThatRotateReachEveryRowThoughARankIsAlwaysLeftOut) {
  constexpr uint32_t kRanks = 5;
  for (const uint32_t left_out : {0u, 3u, 4u}) {
    for (const bool rotate : {false, true}) {
      BatchPlanOptions options = Options(kRanks, 4, {0, 10, 40, 47}, SamplingKind::kSequential);
      options.rotate = rotate;
      auto plan = BatchPlan::Create(options);
      std::set<uint64_t> seen;
      std::vector<std::set<std::vector<uint64_t>>> shares(kRanks);
      for (uint64_t epoch = 0; epoch < kRanks; ++epoch) {
        std::multiset<uint64_t> all;
        for (uint32_t rank = 0; rank < kRanks; ++rank) {
          const std::vector<uint64_t> share = ShareOf(plan.get(), rank, epoch);
          shares[rank].insert(share);
          all.insert(share.begin(), share.end());
          if (rank != left_out) seen.insert(share.begin(), share.end());
        }
        EXPECT_EQ(all.size(), 47u) << "every epoch is whole";
      }
      EXPECT_EQ(seen.size() == 47, rotate);
      // Every rank has every share once.
      for (const auto& of_rank : shares) EXPECT_EQ(of_rank.size(), rotate ? kRanks : 1);
    }
  }
}

}  // namespace
}  // namespace descent
