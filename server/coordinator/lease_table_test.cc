#include "server/coordinator/lease_table.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// "0 0 1 -": the holder of each rank.
std::string Holders(const LeaseTable& table) {
  std::string text;
  for (uint32_t r = 0; r < table.ranks(); ++r) {
    const std::optional<MemberId> holder = table.holder(Rank(r));
    absl::StrAppend(&text, r == 0 ? "" : " ", holder.has_value() ? absl::StrCat(holder->value) : "-");
  }
  return text;
}

TEST(LeaseTableTest, SpreadsEvenlyInRunsThatAreAlignedWhereNumbersDivide) {
  LeaseTable table(8);
  for (uint64_t id : {1, 2, 3, 4}) table.AddWorker(MemberId(id), 0);
  table.Spread();
  EXPECT_EQ(Holders(table), "1 1 2 2 3 3 4 4");

  LeaseTable uneven(8);
  for (uint64_t id : {1, 2, 3}) uneven.AddWorker(MemberId(id), 0);
  uneven.Spread();
  EXPECT_EQ(Holders(uneven), "1 1 1 2 2 2 3 3");
}

TEST(LeaseTableTest, CapacitiesAreRespectedAndLongerRunsComeFirst) {
  LeaseTable table(8);
  table.AddWorker(MemberId(1), 1);
  table.AddWorker(MemberId(2), 0);
  table.AddWorker(MemberId(3), 3);
  EXPECT_TRUE(table.CanHoldAll());
  table.Spread();
  EXPECT_EQ(Holders(table), "2 2 2 2 3 3 3 1");
}

TEST(LeaseTableTest, TooLittleCapacityIsSeenBeforeAndLeavesRanksWithoutHolder) {
  LeaseTable table(4);
  table.AddWorker(MemberId(1), 1);
  table.AddWorker(MemberId(2), 2);
  EXPECT_FALSE(table.CanHoldAll());
  table.Spread();
  EXPECT_EQ(Holders(table), "2 2 1 -");
  EXPECT_THAT(table.Fill(), IsEmpty());
  table.AddWorker(MemberId(3), 0);
  EXPECT_THAT(table.Fill().size(), 1);
  EXPECT_EQ(Holders(table), "2 2 1 3");
}

TEST(LeaseTableTest, MoreWorkersThanRanksLeaveStandbys) {
  LeaseTable table(2);
  for (uint64_t id : {1, 2, 3}) table.AddWorker(MemberId(id), 0);
  table.Spread();
  EXPECT_EQ(Holders(table), "1 2");
  EXPECT_THAT(table.RanksOf(MemberId(3)), IsEmpty());
}

TEST(LeaseTableTest, RanksOfTheDeadGoToStandbysFirstUnderNewNumbers) {
  LeaseTable table(4);
  table.AddWorker(MemberId(1), 0);
  table.AddWorker(MemberId(2), 0);
  table.Spread();
  EXPECT_EQ(table.number(Rank(0)), 1u);
  table.AddWorker(MemberId(3), 0);
  EXPECT_THAT(table.RemoveWorker(MemberId(1)), ElementsAre(Rank(0), Rank(1)));
  EXPECT_EQ(Holders(table), "- - 2 2");
  table.Fill();
  EXPECT_EQ(Holders(table), "3 3 2 2");
  EXPECT_EQ(table.number(Rank(0)), 2u);
  EXPECT_EQ(table.number(Rank(2)), 1u);
  table.RemoveWorker(MemberId(3));
  table.Fill();
  EXPECT_EQ(Holders(table), "2 2 2 2");
  EXPECT_EQ(table.number(Rank(0)), 3u);
}

TEST(LeaseTableTest, OrphansGoToTheLeastLoadedAndThenToTheNeighbour) {
  LeaseTable table(6);
  for (uint64_t id : {1, 2, 3}) table.AddWorker(MemberId(id), 0);
  table.Spread();
  EXPECT_EQ(Holders(table), "1 1 2 2 3 3");
  table.RemoveWorker(MemberId(3));
  table.Fill();
  EXPECT_EQ(Holders(table), "1 1 2 2 2 1");
}

TEST(LeaseTableTest, ResetBeginsNumbersAnew) {
  LeaseTable table(2);
  table.AddWorker(MemberId(1), 0);
  table.Spread();
  table.Reset();
  EXPECT_EQ(Holders(table), "- -");
  table.Spread();
  EXPECT_EQ(Holders(table), "1 1");
  EXPECT_EQ(table.number(Rank(1)), 1u);
}

}  // namespace
}  // namespace descent
