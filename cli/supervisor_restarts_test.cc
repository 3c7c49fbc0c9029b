#include "cli/supervisor_restarts.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

TEST(RestartBudget, PausesDoubleWhileAMemberKeepsDyingUntilTheRestartsAreUsedUp) {
  RestartBudget budget({9, absl::Milliseconds(100), absl::Milliseconds(1000), absl::Seconds(10)});
  RestartBudget::Life life, other;
  absl::Time now = absl::UnixEpoch();
  life.takes_part = other.takes_part = now;
  const auto dies_after = [&](absl::Duration lived) {
    now += lived;
    const auto pause = budget.Take(now, &life);
    if (pause.has_value()) life.takes_part = now += *pause;
    return pause.has_value() ? absl::ToInt64Milliseconds(*pause) : -1;
  };
  EXPECT_EQ(dies_after(absl::Milliseconds(1)), 100);
  EXPECT_EQ(dies_after(absl::Seconds(9)), 200);
  EXPECT_EQ(dies_after(absl::Seconds(1)), 400);
  EXPECT_EQ(budget.Take(now, &other), absl::Milliseconds(100)) << "another member's pauses are its own";
  EXPECT_EQ(dies_after(absl::Seconds(1)), 800);
  EXPECT_EQ(dies_after(absl::Seconds(1)), 1000);
  EXPECT_EQ(dies_after(absl::Seconds(10)), 100);
  EXPECT_EQ(dies_after(absl::ZeroDuration()), 200);
  EXPECT_EQ(budget.used(), 8u);
  EXPECT_EQ(dies_after(absl::Hours(1)), 100);
  EXPECT_EQ(dies_after(absl::Hours(1)), -1);
}

TEST(RestartBudget, WhoTookPartForTwoSecondsIsStartedAgainAtOnceUnlessSaidOtherwise) {
  RestartBudget budget{RestartBudget::Options()};
  RestartBudget::Life life;
  const absl::Time now = absl::UnixEpoch();
  const auto dies_after = [&](absl::Duration part) {
    life.takes_part = now;
    return budget.Take(now + part, &life);
  };
  EXPECT_EQ(dies_after(absl::Milliseconds(1)), absl::Milliseconds(100));
  EXPECT_EQ(dies_after(absl::Milliseconds(1999)), absl::Milliseconds(200));
  EXPECT_EQ(dies_after(absl::Seconds(2)), absl::Milliseconds(100));
}

TEST(RestartBudget, WhoLoadsForLongAndDiesEachTimeIsNotCalm) {
  RestartBudget budget{RestartBudget::Options()};
  RestartBudget::Life life;
  absl::Time now = absl::UnixEpoch();
  for (const int pause : {100, 200, 400, 800}) {
    now += absl::Seconds(30);  // without having taken part
    EXPECT_EQ(budget.Take(now, &life), absl::Milliseconds(pause));
  }
  life.takes_part = now;
  EXPECT_EQ(budget.Take(now + absl::Seconds(3), &life), absl::Milliseconds(100));
  EXPECT_EQ(budget.Take(now + absl::Seconds(30), &life), absl::Milliseconds(200)) << "the next life is another";
}

TEST(TakesPartTest, AMemberOfARunThatRunsWithAllThatItBacksUp) {
  v1::StatusReply status;
  status.set_phase(v1::PLACING);
  v1::MemberStatus* member = status.add_member();
  member->set_member(7);
  member->set_pid(42);
  EXPECT_FALSE(TakesPart(status, 42));
  status.set_phase(v1::RUNNING);
  EXPECT_TRUE(TakesPart(status, 42));
  EXPECT_FALSE(TakesPart(status, 43));
  v1::ServerStatus* other = status.add_server();
  other->set_primary(8);
  other->set_backup(7);
  EXPECT_FALSE(TakesPart(status, 42)) << "it is still being sent what it is to hold";
  other->set_synced(true);
  EXPECT_TRUE(TakesPart(status, 42));
  status.set_phase(v1::FAILED);
  EXPECT_FALSE(TakesPart(status, 42));
}

}  // namespace
}  // namespace descent
