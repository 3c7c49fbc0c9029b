#include "server/coordinator/rank_table.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);

TEST(RankTableTest, WhatGoesBackCountsNothing) {
  RankTable ranks(2, 0);
  EXPECT_TRUE(ranks.Report(Rank(0), 5, 50, false, kNow));
  EXPECT_FALSE(ranks.Report(Rank(0), 4, 40, false, kNow + absl::Seconds(1)));
  EXPECT_FALSE(ranks.Report(Rank(0), 5, 60, false, kNow + absl::Seconds(1))) << "examples alone are no progress";
  EXPECT_EQ(ranks[0].clock, 5u);
  EXPECT_EQ(ranks[0].examples, 60u);
  EXPECT_EQ(ranks[0].advanced, kNow);
  EXPECT_TRUE(ranks.Report(Rank(0), 5, 60, true, kNow + absl::Seconds(2)));
  EXPECT_FALSE(ranks.Report(Rank(0), 5, 60, true, kNow + absl::Seconds(3)));
  EXPECT_FALSE(ranks.Report(Rank(0), 5, 60, false, kNow + absl::Seconds(3)));
  EXPECT_TRUE(ranks[0].done) << "for good";
  EXPECT_TRUE(ranks.AnyDone());
  EXPECT_EQ(ranks.Round(0), 0u);
  EXPECT_EQ(ranks.Furthest(), 5u);
}

TEST(RankTableTest, ExamplesOfEarlierLeasesCount) {
  RankTable ranks(2, 0);
  ranks.Report(Rank(0), 5, 50, false, kNow);
  ranks.EndLease(Rank(0));
  EXPECT_EQ(ranks.Examples(), 50u);
  ranks.Report(Rank(0), 6, 10, false, kNow);
  ranks.Report(Rank(1), 6, 7, false, kNow);
  EXPECT_EQ(ranks.Examples(), 67u);
  ranks.Restore({3}, kNow + absl::Seconds(1));
  EXPECT_EQ(ranks.Examples(), 67u) << "they were seen, though their clocks are rolled back";
  EXPECT_EQ(ranks[0].clock, 3u);
  EXPECT_EQ(ranks[1].clock, 0u) << "the cut knows nothing of it";
  EXPECT_EQ(ranks[1].advanced, kNow + absl::Seconds(1));
  ranks.Report(Rank(0), 4, 10, false, kNow);
  EXPECT_EQ(ranks.Examples(), 77u);
}

TEST(RankTableTest, WithBackupRanksTheRoundIsNotThatOfTheSlowest) {
  RankTable all(4, 0), one(4, 1), two(4, 2), too_many(4, 4);
  for (RankTable* ranks : {&all, &one, &two, &too_many}) {
    const uint64_t clocks[] = {9, 2, 7, 8};
    for (uint32_t r = 0; r < 4; ++r) ranks->Report(Rank(r), clocks[r], 0, false, kNow);
  }
  EXPECT_EQ(all.Round(0), 2u);
  EXPECT_EQ(one.Round(0), 7u);
  EXPECT_EQ(two.Round(0), 8u);
  EXPECT_EQ(too_many.Round(0), 2u);
  // A round at which the model is evaluated waits for all: rank 1 is needed for 4, and for 3.
  EXPECT_EQ(one.Round(4), 4u);
  EXPECT_EQ(one.Round(3), 3u);
  EXPECT_EQ(one.Round(10), 7u);
  EXPECT_EQ(all.Round(4), 2u);
  one.Report(Rank(1), 5, 0, false, kNow);
  EXPECT_EQ(one.Round(4), 7u);
}

TEST(RankTableTest, ARankSettlesWithAClockThatItsWorkerBeganKnowingWhoServes) {
  RankTable ranks(2, 0);
  EXPECT_TRUE(ranks.settled(Rank(0)));
  ranks.Report(Rank(0), 5, 0, false, kNow);
  ranks.UnsettleAll();
  ranks.Report(Rank(0), 6, 0, false, kNow);
  EXPECT_FALSE(ranks.settled(Rank(0))) << "its worker has not heard";
  ranks.BeginSettling(Rank(0));
  ranks.BeginSettling(Rank(0));
  EXPECT_FALSE(ranks.settled(Rank(0))) << "what was under way may be on some";
  ranks.Report(Rank(0), 7, 0, false, kNow);
  ranks.BeginSettling(Rank(0));
  EXPECT_TRUE(ranks.settled(Rank(0)));
  EXPECT_FALSE(ranks.settled(Rank(1)));
  ranks.Report(Rank(1), 0, 0, true, kNow);
  EXPECT_TRUE(ranks.settled(Rank(1))) << "it is done";
  ranks.UnsettleAll();
  ranks.Restore({1, 1}, kNow);
  EXPECT_TRUE(ranks.settled(Rank(0))) << "a cut is of one moment";
  EXPECT_FALSE(ranks[1].done);
}

TEST(RankTableTest, AbsenceIsExcused) {
  RankTable ranks(2, 0);
  ranks.TouchAll(kNow - absl::Seconds(5));
  ranks.Touch(Rank(1), kNow - absl::Seconds(1));
  ranks.Excuse(absl::Seconds(3), kNow);
  EXPECT_EQ(ranks[0].advanced, kNow - absl::Seconds(2));
  EXPECT_EQ(ranks[1].advanced, kNow);
}

TEST(RankTableTest, AFloorIsNotARollback) {
  RankTable ranks(2, 0);
  ranks.SetFloor({4, 5, 6});
  EXPECT_EQ(ranks.Round(0), 4u);
  EXPECT_FALSE(ranks.Report(Rank(0), 3, 0, false, kNow));
}

}  // namespace
}  // namespace descent
