#include "server/coordinator/cut_schedule.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Stage = CutSchedule::Stage;

class CutScheduleTest : public ::testing::Test {
 protected:
  static CutSchedule::Options Every(uint64_t rounds, uint32_t servers = 2) {
    CutSchedule::Options options;
    options.every_rounds = rounds;
    options.servers = servers;
    return options;
  }
  // Of the order that is in force.
  static v1::CutReport Part(const CutSchedule& cuts, uint64_t number) {
    v1::CutReport report;
    report.set_number(number);
    report.set_attempt(cuts.attempt());
    return report;
  }
  absl::Time now = absl::FromUnixSeconds(1000);
};

TEST_F(CutScheduleTest, ACutGoesThroughItsStages) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  cuts.Advance(3, 1000, now);
  ASSERT_EQ(cuts.stage(), Stage::kPreparing);
  EXPECT_EQ(cuts.number(), 100u);
  cuts.Prepared(absl::OkStatus(), now);
  EXPECT_EQ(cuts.stage(), Stage::kOrdered);
  cuts.Report(ServerId(0), Part(cuts, 100), now);
  cuts.Report(ServerId(0), Part(cuts, 100), now);  // sent again
  EXPECT_EQ(cuts.stage(), Stage::kOrdered);
  cuts.Report(ServerId(1), Part(cuts, 99), now);  // of another
  EXPECT_EQ(cuts.stage(), Stage::kOrdered);
  cuts.Report(ServerId(1), Part(cuts, 100), now);
  ASSERT_EQ(cuts.stage(), Stage::kCommitting);
  EXPECT_THAT(cuts.RestartClocks(2), ElementsAre(100, 100));
  cuts.Committed(absl::OkStatus(), now);
  EXPECT_EQ(cuts.last(), 100u);
  cuts.Advance(101, 1000, now);
  EXPECT_EQ(cuts.number(), 200u);
  EXPECT_TRUE(cuts.DrainTroubles().empty());
}

TEST_F(CutScheduleTest, FastRoundsAreOrderedAhead) {
  CutSchedule cuts(Every(10));
  cuts.Start(0, now);
  cuts.Advance(0, 1000000, now);
  cuts.Prepared(absl::OkStatus(), now);
  // 5,000 rounds a second: the order for clock 10 comes too late.
  for (int i = 0; i < 20; ++i) cuts.Advance(250 * i, 1000000, now += absl::Milliseconds(50));
  v1::CutReport late = Part(cuts, 10);
  late.set_failure("the round is at 4000, past 10");
  late.set_past(true);
  cuts.Report(ServerId(1), late, now);
  EXPECT_THAT(cuts.DrainTroubles(), ElementsAre(HasSubstr("server 1: the round is at 4000")));
  cuts.Advance(4750, 1000000, now);
  ASSERT_EQ(cuts.stage(), Stage::kPreparing);
  // Twice what goes by while an order travels, rounded up.
  EXPECT_GT(cuts.number(), 4750u + 2 * 1400);
  EXPECT_LT(cuts.number(), 4750u + 2 * 1600);
  EXPECT_EQ(cuts.number() % 10, 0u);
}

TEST_F(CutScheduleTest, NoCutAtTheEndNorBeyond) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  cuts.Advance(99, 100, now);
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
}

TEST_F(CutScheduleTest, ByTime) {
  CutSchedule::Options options;
  options.every = absl::Seconds(10);
  options.servers = 1;
  CutSchedule cuts(options);
  cuts.Start(7, now);
  cuts.Advance(20, 1000, now + absl::Seconds(9));
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
  cuts.Advance(20, 1000, now + absl::Seconds(10));
  ASSERT_EQ(cuts.stage(), Stage::kPreparing);
  EXPECT_GT(cuts.number(), 20u);
}

TEST_F(CutScheduleTest, PushesAreCutAtOnceAndGoOnFromTheLeastMark) {
  CutSchedule::Options options = Every(100);
  options.apply_push = true;
  CutSchedule cuts(options);
  cuts.Start(4, now);
  cuts.Advance(99, 1000, now);
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
  cuts.Advance(100, 1000, now);
  ASSERT_EQ(cuts.stage(), Stage::kPreparing);
  EXPECT_EQ(cuts.number(), 5u);
  EXPECT_EQ(cuts.at(), 0u);
  cuts.Prepared(absl::OkStatus(), now);
  v1::CutReport a = Part(cuts, 5), b = Part(cuts, 5);
  for (uint64_t mark : {100, 103}) a.add_least_mark(mark);
  for (uint64_t mark : {101, 102}) b.add_least_mark(mark);
  cuts.Report(ServerId(0), a, now);
  cuts.Report(ServerId(1), b, now);
  EXPECT_THAT(cuts.RestartClocks(2), ElementsAre(100, 102));
}

TEST_F(CutScheduleTest, OneThatTakesTooLongOrFailsIsGivenUp) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  cuts.Advance(1, 1000, now);
  cuts.Prepared(absl::ResourceExhaustedError("disk full"), now);
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
  EXPECT_THAT(cuts.DrainTroubles(), ElementsAre(HasSubstr("disk full")));
  cuts.Advance(1, 1000, now + absl::Milliseconds(500));
  EXPECT_EQ(cuts.stage(), Stage::kIdle);  // not at once again
  now += absl::Seconds(2);
  cuts.Advance(1, 1000, now);
  ASSERT_EQ(cuts.number(), 200u);
  cuts.Prepared(absl::OkStatus(), now);
  now += absl::Hours(1);
  cuts.Advance(150, 1000, now);  // its clock has not come: nobody is late
  EXPECT_EQ(cuts.stage(), Stage::kOrdered);
  cuts.Advance(200, 1000, now);
  cuts.Advance(201, 1000, now + absl::Minutes(3));
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
  EXPECT_THAT(cuts.DrainTroubles(), ElementsAre(HasSubstr("0 of 2 parts came")));
}

TEST_F(CutScheduleTest, ADemandIsMetOrGivenUp) {
  CutSchedule cuts(Every(100, 1));
  cuts.Start(0, now);
  cuts.Advance(1, 1000, now);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Demand(57, now);
  EXPECT_FALSE(cuts.demand_met());
  EXPECT_THAT(cuts.DrainTroubles(), ElementsAre(HasSubstr("the run stops at clock 57")));
  cuts.Advance(57, 1000, now);
  ASSERT_EQ(cuts.number(), 57u);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Report(ServerId(0), Part(cuts, 57), now);
  cuts.Committed(absl::OkStatus(), now);
  EXPECT_TRUE(cuts.demand_met());
  cuts.Demand(57, now);  // there is one
  cuts.Advance(57, 1000, now);
  EXPECT_TRUE(cuts.demand_met());
  cuts.Demand(60, now);
  cuts.Advance(60, 1000, now);
  cuts.Prepared(absl::ResourceExhaustedError("disk full"), now);
  EXPECT_TRUE(cuts.demand_met());
}

// Nobody was left to tell of the rounds that servers closed last.
TEST_F(CutScheduleTest, ADemandFollowsServersToWhereTheyStand) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  cuts.Advance(21, 1000, now);
  cuts.DemandWhereServersStand(21, now);
  cuts.Advance(21, 1000, now, 21);
  ASSERT_EQ(cuts.number(), 21u);
  cuts.Prepared(absl::OkStatus(), now);
  v1::CutReport past = Part(cuts, 21);
  past.set_failure("the round is 25");
  past.set_past(true);
  cuts.Report(ServerId(0), past, now);
  EXPECT_FALSE(cuts.demand_met());
  cuts.Advance(25, 1000, now, 21);
  ASSERT_EQ(cuts.number(), 25u);
  cuts.Prepared(absl::OkStatus(), now);
  for (const uint32_t server : {0, 1}) cuts.Report(ServerId(server), Part(cuts, 25), now);
  cuts.Committed(absl::OkStatus(), now);
  EXPECT_TRUE(cuts.demand_met());
  EXPECT_EQ(cuts.last(), 25u);
  cuts.DemandWhereServersStand(21, now);  // there is one
  cuts.Advance(25, 1000, now, 25);
  EXPECT_TRUE(cuts.demand_met());
}

TEST_F(CutScheduleTest, OneThatFollowsIsGivenUpWhereServersDoNotStandAtOneClock) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  cuts.DemandWhereServersStand(21, now);
  cuts.Advance(25, 1000, now, 24);
  ASSERT_EQ(cuts.number(), 25u);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Report(ServerId(0), Part(cuts, 25), now);
  cuts.Advance(25, 1000, now += absl::Seconds(4), 24);
  EXPECT_FALSE(cuts.demand_met());
  cuts.Advance(25, 1000, now += absl::Seconds(2), 24);
  EXPECT_TRUE(cuts.demand_met());
  EXPECT_THAT(cuts.DrainTroubles(), ElementsAre(HasSubstr("clocks 24 and 25")));

  // Or go on and on.
  now += absl::Seconds(2);
  cuts.DemandWhereServersStand(25, now);
  int orders = 0;
  for (uint64_t round = 26; !cuts.demand_met() && orders < 100; ++round) {
    cuts.Advance(round, 1000, now, round);
    cuts.Prepared(absl::OkStatus(), now);
    v1::CutReport past = Part(cuts, cuts.number());
    past.set_failure("too late");
    past.set_past(true);
    cuts.Report(ServerId(0), past, now);
    ++orders;
  }
  EXPECT_TRUE(cuts.demand_met());
  EXPECT_LE(orders, 10);
}

// One that began before is not of the moment that was asked for.
TEST_F(CutScheduleTest, ADemandIsNotMetByACutUnderWay) {
  CutSchedule::Options options = Every(10, 1);
  options.apply_push = true;
  options.at_end = true;
  CutSchedule cuts(options);
  cuts.Start(0, now);
  cuts.Advance(10, 1000, now);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Demand(12, now);
  cuts.Report(ServerId(0), Part(cuts, 1), now);
  cuts.Committed(absl::OkStatus(), now);
  EXPECT_FALSE(cuts.demand_met());
  cuts.Advance(12, 1000, now);
  ASSERT_EQ(cuts.stage(), Stage::kPreparing);
  EXPECT_EQ(cuts.number(), 2u);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Report(ServerId(0), Part(cuts, 2), now);
  cuts.Committed(absl::OkStatus(), now);
  EXPECT_TRUE(cuts.demand_met());

  // Nor is it given up with it.
  cuts.Advance(30, 1000, now);
  ASSERT_EQ(cuts.number(), 3u);
  cuts.Demand(31, now);
  cuts.Prepared(absl::ResourceExhaustedError("disk full"), now);
  EXPECT_FALSE(cuts.demand_met());
  cuts.Advance(31, 1000, now + absl::Seconds(2));
  EXPECT_EQ(cuts.number(), 4u);
}

// Its part went with the folder of the first order.
TEST_F(CutScheduleTest, AReportOfAnEarlierOrderOfTheSameCutDoesNotCount) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  cuts.Demand(57, now);
  cuts.Advance(57, 1000, now);
  cuts.Prepared(absl::OkStatus(), now);
  const v1::CutReport first = Part(cuts, 57);
  cuts.Report(ServerId(0), first, now);
  cuts.Disturbed("server 1 is gone", now);
  cuts.Advance(57, 1000, now);
  ASSERT_EQ(cuts.number(), 57u);
  cuts.Report(ServerId(0), first, now);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Report(ServerId(0), first, now);
  cuts.Report(ServerId(1), Part(cuts, 57), now);
  EXPECT_EQ(cuts.stage(), Stage::kOrdered);
  v1::CutReport late = first;
  late.set_failure("no space is left");
  cuts.Report(ServerId(0), late, now);
  EXPECT_EQ(cuts.stage(), Stage::kOrdered);
  cuts.Report(ServerId(0), Part(cuts, 57), now);
  EXPECT_EQ(cuts.stage(), Stage::kCommitting);
}

TEST_F(CutScheduleTest, OneAtTheEndAlone) {
  for (bool push : {false, true}) {
    CutSchedule::Options options = Every(0, 1);
    options.at_end = true;
    options.apply_push = push;
    CutSchedule cuts(options);
    EXPECT_TRUE(cuts.enabled());
    cuts.Start(0, now);
    for (uint64_t round = 0; round <= 1000; round += 100) cuts.Advance(round, 1000, now += absl::Hours(1));
    EXPECT_EQ(cuts.stage(), Stage::kIdle);
    cuts.Demand(1000, now);
    cuts.Advance(1000, 1000, now);
    EXPECT_EQ(cuts.stage(), Stage::kPreparing);
    EXPECT_EQ(cuts.number(), push ? 1u : 1000u);
  }
}

TEST_F(CutScheduleTest, NothingIsUnderWayBetweenGenerations) {
  CutSchedule cuts(Every(100, 1));
  cuts.Start(0, now);
  cuts.Advance(1, 1000, now);
  cuts.Prepared(absl::OkStatus(), now);
  cuts.Halt();
  cuts.Report(ServerId(0), Part(cuts, 100), now);
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
  cuts.Advance(500, 1000, now);
  EXPECT_EQ(cuts.stage(), Stage::kIdle);
}

TEST_F(CutScheduleTest, TheLastTroubleIsKnownUntilACutIsThere) {
  CutSchedule cuts(Every(100));
  cuts.Start(0, now);
  EXPECT_EQ(cuts.last_trouble(), "");
  cuts.Advance(3, 1000, now);
  cuts.Prepared(absl::ResourceExhaustedError("no space"), now);
  EXPECT_EQ(cuts.last_trouble(), "its folder could not be made: no space");
  cuts.Advance(3, 1000, now += absl::Seconds(2));
  cuts.Prepared(absl::OkStatus(), now);
  v1::CutReport late = Part(cuts, cuts.number());
  late.set_failure("it is past");
  late.set_past(true);
  cuts.Report(ServerId(1), late, now);
  EXPECT_EQ(cuts.failures(), 1u) << "one that comes too late is no trouble";
  cuts.Demand(150, now);
  cuts.Advance(3, 1000, now);
  cuts.Prepared(absl::OkStatus(), now);
  v1::CutReport failed = Part(cuts, 150);
  failed.set_failure("No space left on device");
  cuts.Report(ServerId(1), failed, now);
  EXPECT_EQ(cuts.last_trouble(), "server 1: No space left on device");
  EXPECT_EQ(cuts.failures(), 2u);
  cuts.Demand(150, now);
  cuts.Advance(3, 1000, now += absl::Seconds(2));
  cuts.Prepared(absl::OkStatus(), now);
  for (uint32_t s : {0, 1}) cuts.Report(ServerId(s), Part(cuts, 150), now);
  cuts.Committed(absl::OkStatus(), now);
  EXPECT_EQ(cuts.last_trouble(), "");
  EXPECT_EQ(cuts.failures(), 0u);
}

}  // namespace
}  // namespace descent
