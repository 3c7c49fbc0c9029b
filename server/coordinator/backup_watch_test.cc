#include "server/coordinator/backup_watch.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(2);
const ServerId kServer(0);
const MemberId kBackup(7);

class BackupWatchTest : public testing::Test {
 protected:
  // The same report, every 100 ms; whether the backup is to be given up in the end.
  bool Same(absl::Duration duration, uint64_t view, uint64_t unconfirmed) {
    bool held_up = false;
    for (const absl::Time end = now_ + duration; now_ < end;) {
      now_ += absl::Milliseconds(100);
      held_up = watch_.HoldsUp(kServer, view, unconfirmed, now_);
    }
    return held_up;
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  BackupWatch watch_{kPatience};
};

TEST_F(BackupWatchTest, OneThatConfirmsNothingForLongHoldsItsPrimaryUp) {
  EXPECT_FALSE(Same(absl::Seconds(2), 1, 5));
  EXPECT_TRUE(Same(absl::Milliseconds(200), 1, 5));
}

TEST_F(BackupWatchTest, OneThatConfirmsSlowlyDoesNot) {
  for (uint64_t sequence = 5; sequence < 10; ++sequence) EXPECT_FALSE(Same(absl::Milliseconds(1900), 1, sequence));
  EXPECT_FALSE(Same(absl::Minutes(1), 1, 0)) << "nothing is to be confirmed";
  EXPECT_FALSE(Same(absl::Seconds(1), 2, 10));
  EXPECT_FALSE(Same(absl::Milliseconds(1900), 3, 10)) << "of another view";
}

TEST_F(BackupWatchTest, WhoeverWasStoppedBlamesNobody) {
  EXPECT_FALSE(Same(absl::Seconds(1), 1, 5));
  now_ += absl::Minutes(1);  // the primary, or the coordinator
  EXPECT_FALSE(Same(absl::Seconds(2), 1, 5));
  EXPECT_TRUE(Same(absl::Milliseconds(200), 1, 5));
}

TEST_F(BackupWatchTest, ThePauseGrowsUntilItStays) {
  const auto due = [&] { return !watch_.Due(now_).empty(); };
  for (absl::Duration pause : {absl::Seconds(10), absl::Seconds(20), absl::Seconds(40)}) {
    EXPECT_EQ(watch_.GaveUp(kServer, kBackup, now_), pause);
    EXPECT_FALSE(due());
    now_ += pause - absl::Milliseconds(1);
    EXPECT_FALSE(due());
    now_ += absl::Milliseconds(1);
    ASSERT_TRUE(due());
    watch_.Back(kServer, kBackup, now_);
    EXPECT_FALSE(due());
    now_ += absl::Seconds(3);
  }
  for (int i = 0; i < 20; ++i) watch_.GaveUp(kServer, kBackup, now_);
  EXPECT_EQ(watch_.GaveUp(kServer, kBackup, now_), BackupWatch::kLongestPause);
  EXPECT_EQ(watch_.GaveUp(ServerId(1), kBackup, now_), BackupWatch::kFirstPause) << "another server's";
  watch_.Back(kServer, kBackup, now_);
  now_ += BackupWatch::kLongestPause + absl::Seconds(1);
  EXPECT_EQ(watch_.GaveUp(kServer, kBackup, now_), BackupWatch::kFirstPause);
}

TEST_F(BackupWatchTest, OneThatIsGoneIsForgotten) {
  watch_.GaveUp(kServer, kBackup, now_);
  watch_.GaveUp(ServerId(1), MemberId(8), now_);
  watch_.Forget(kBackup);
  now_ += absl::Hours(1);
  ASSERT_EQ(watch_.Due(now_).size(), 1u);
  EXPECT_EQ(watch_.Due(now_)[0].second, MemberId(8));
}

}  // namespace
}  // namespace descent
