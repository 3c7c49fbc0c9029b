#include "server/coordinator/throughput.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

Throughput::Totals At(double seconds, uint64_t examples, uint64_t round, uint64_t bytes) {
  return {absl::FromUnixSeconds(1000) + absl::Seconds(seconds), examples, round, bytes};
}

TEST(ThroughputTest, RatesAreThoseOfTheLastTenSeconds) {
  Throughput recent;
  EXPECT_FALSE(recent.due(At(0, 0, 0, 0).time)) << "nothing runs";
  EXPECT_EQ(recent.Since(At(0, 9, 9, 9)).examples, 0);
  recent.Restart(At(0, 0, 0, 0));
  EXPECT_FALSE(recent.due(At(0.25, 0, 0, 0).time));
  EXPECT_TRUE(recent.due(At(0.5, 0, 0, 0).time));
  EXPECT_EQ(recent.Since(At(0, 9, 9, 9)).examples, 0) << "no time has passed";
  // Ten seconds at 100 examples per second, then twenty at 10.
  for (int half = 1; half <= 60; ++half) {
    const double t = half / 2.0;
    const auto examples = static_cast<uint64_t>(t <= 10 ? 100 * t : 1000 + 10 * (t - 10));
    recent.Add(At(t, examples, examples / 10, 4 * examples));
    if (half == 20) {
      EXPECT_EQ(recent.Since(At(10, 1000, 100, 4000)).examples, 100);
    }
  }
  const Throughput::Rates rates = recent.Since(At(30, 1200, 120, 4800));
  EXPECT_EQ(rates.examples, 10);
  EXPECT_EQ(rates.rounds, 1);
  EXPECT_EQ(rates.bytes, 40);
}

TEST(ThroughputTest, TotalsThatWentBackAreNone) {
  const Throughput::Rates rates = Throughput::Between(At(0, 10, 10, 100), At(2, 20, 4, 40));
  EXPECT_EQ(rates.examples, 5);
  EXPECT_EQ(rates.rounds, 0);
  EXPECT_EQ(rates.bytes, 0);
}

}  // namespace
}  // namespace descent
