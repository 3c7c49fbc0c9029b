#include "cli/supervisor_restarts.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

TEST(RestartBudget, PausesDoubleWhileAMemberKeepsDyingUntilTheRestartsAreUsedUp) {
  RestartBudget budget({9, absl::Milliseconds(100), absl::Milliseconds(1000), absl::Seconds(10)});
  RestartBudget::Life life, other;
  absl::Time now = absl::UnixEpoch();
  life.started = other.started = now;
  const auto dies_after = [&](absl::Duration lived) {
    now += lived;
    const auto pause = budget.Take(now, &life);
    if (pause.has_value()) life.started = now += *pause;
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

TEST(RestartBudget, WhoLivedForTwoSecondsIsStartedAgainAtOnceUnlessSaidOtherwise) {
  RestartBudget budget{RestartBudget::Options()};
  RestartBudget::Life life;
  life.started = absl::UnixEpoch();
  EXPECT_EQ(budget.Take(life.started + absl::Milliseconds(1), &life), absl::Milliseconds(100));
  EXPECT_EQ(budget.Take(life.started + absl::Milliseconds(1999), &life), absl::Milliseconds(200));
  EXPECT_EQ(budget.Take(life.started + absl::Seconds(2), &life), absl::Milliseconds(100));
}

}  // namespace
}  // namespace descent
