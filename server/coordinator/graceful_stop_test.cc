#include "server/coordinator/graceful_stop.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);

TEST(GracefulStopTest, IsToldAtOnceWhereRanksAreSettledAndIsOverAfterItsGrace) {
  GracefulStop stop(absl::Seconds(5));
  stop.Advance(true, kNow);
  EXPECT_FALSE(stop.told()) << "nobody has asked";
  stop.NoteSignal(0);
  EXPECT_TRUE(stop.Ask(kNow));
  stop.NoteSignal(15);
  stop.NoteSignal(2);
  EXPECT_EQ(stop.signal(), 15);
  EXPECT_FALSE(stop.Ask(kNow + absl::Seconds(1)));
  EXPECT_TRUE(stop.asked());
  EXPECT_FALSE(stop.told());
  stop.Advance(true, kNow + absl::Seconds(1));
  EXPECT_TRUE(stop.told());
  stop.Advance(true, kNow + absl::Seconds(3));
  EXPECT_FALSE(stop.Over(kNow + absl::Milliseconds(5999)));
  EXPECT_TRUE(stop.Over(kNow + absl::Seconds(6))) << "since it was told first";
}

TEST(GracefulStopTest, RanksThatDoNotSettleHaveAGraceOfTheirOwn) {
  GracefulStop stop(absl::Seconds(5));
  stop.Ask(kNow);
  stop.Ask(kNow + absl::Seconds(4));
  stop.Advance(false, kNow + absl::Milliseconds(4999));
  EXPECT_FALSE(stop.told());
  EXPECT_FALSE(stop.Over(kNow + absl::Hours(1)));
  stop.Advance(false, kNow + absl::Seconds(5));
  EXPECT_TRUE(stop.told());
  EXPECT_TRUE(stop.Over(kNow + absl::Seconds(10)));
}

}  // namespace
}  // namespace descent
