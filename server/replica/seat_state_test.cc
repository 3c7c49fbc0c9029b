// What a process is to do about a server's blocks that it holds.
#include "server/replica/seat_state.h"

#include "gtest/gtest.h"

namespace descent {
namespace {

class SeatStateTest : public testing::Test {
 protected:
  SeatStateTest() {
    news_.set_generation(1);
    news_.mutable_map();
    want_.set_primary(true);
    want_.set_view(1);
  }
  SeatState::Duty Tend(SeatState* seat) {
    seat->Hear(news_, want_);
    return seat->Tend(news_, want_, false);
  }
  void Place(SeatState* seat) {
    ASSERT_TRUE(Tend(seat).place);
    seat->Placed();
  }
  void WithBackup(uint64_t view) {
    want_.set_view(view);
    want_.set_await_backup(true);
    want_.set_backup_address("b");
  }

  SeatState seat_{ServerId(3), /*replicated=*/true};
  v1::HeartbeatReply news_;
  v1::Seat want_;
};

TEST_F(SeatStateTest, BlocksAreMadeAnewWithEveryGeneration) {
  EXPECT_FALSE(seat_.ready());
  Place(&seat_);
  EXPECT_TRUE(seat_.ready(1));
  EXPECT_FALSE(Tend(&seat_).place);
  news_.set_generation(2);
  seat_.Hear(news_, want_);
  EXPECT_FALSE(seat_.ready());
  EXPECT_FALSE(seat_.Tend(news_, want_, /*placing=*/true).place);
  Place(&seat_);
  EXPECT_TRUE(seat_.ready(2));
}

TEST_F(SeatStateTest, WhatIsCarriedGoesOn) {
  Place(&seat_);
  news_.set_generation(2);
  seat_.Carry(Generation(2));
  EXPECT_FALSE(Tend(&seat_).place);
  EXPECT_TRUE(seat_.ready(2));
}

TEST_F(SeatStateTest, ABackupIsBoundToItsView) {
  want_.set_primary(false);
  Place(&seat_);
  EXPECT_EQ(seat_.view(), 1u);
  want_.set_view(2);
  EXPECT_TRUE(Tend(&seat_).place);
}

TEST_F(SeatStateTest, APromotedBackupGoesOnWithWhatItHoldsAndAlone) {
  want_.set_primary(false);
  Place(&seat_);
  want_.set_primary(true);
  want_.set_view(2);
  const SeatState::Duty duty = Tend(&seat_);
  EXPECT_TRUE(duty.promote);
  EXPECT_FALSE(duty.place);
  EXPECT_EQ(duty.alone, 2u);
  EXPECT_FALSE(Tend(&seat_).promote);
}

TEST_F(SeatStateTest, APrimaryIsLinkedOnceItsBackupsAddressIsKnown) {
  Place(&seat_);
  WithBackup(1);
  EXPECT_TRUE(Tend(&seat_).backup);
  EXPECT_FALSE(Tend(&seat_).backup);
  WithBackup(2);
  want_.clear_backup_address();
  const SeatState::Duty waits = Tend(&seat_);
  EXPECT_FALSE(waits.backup);
  EXPECT_EQ(waits.alone, 1u);  // nobody waits for the one before, in its view
  EXPECT_FALSE(Tend(&seat_).alone.has_value());
  WithBackup(2);
  EXPECT_TRUE(Tend(&seat_).backup);
  EXPECT_EQ(seat_.view(), 2u);
}

TEST_F(SeatStateTest, ABackupThatIsTakenAwayIsGoneOnWithout) {
  Place(&seat_);
  WithBackup(1);
  Tend(&seat_);
  want_.set_view(2);
  want_.clear_await_backup();
  want_.clear_backup_address();
  EXPECT_EQ(Tend(&seat_).alone, 2u);
}

TEST_F(SeatStateTest, ItIsSyncedInTheViewThatIsToldAlone) {
  Place(&seat_);
  WithBackup(5);
  Tend(&seat_);
  SeatState::NodeView node;
  node.view = 5;
  node.synced = true;
  node.unconfirmed = 7;
  EXPECT_TRUE(seat_.Report("a", node).synced());
  EXPECT_EQ(seat_.Report("a", node).unconfirmed(), 7u);
  node.view = 4;
  EXPECT_FALSE(seat_.Report("a", node).synced());
  EXPECT_EQ(seat_.Report("a", node).unconfirmed(), 0u);
  EXPECT_EQ(seat_.Report("a", node).view(), 5u);
  EXPECT_EQ(seat_.Report("a", node).server(), 3u);
}

TEST_F(SeatStateTest, APrimaryOfThisGenerationTakesPartInCuts) {
  news_.mutable_cut();
  EXPECT_FALSE(seat_.CutWanted(news_));
  Place(&seat_);
  EXPECT_TRUE(seat_.CutWanted(news_));
  news_.set_generation(2);
  EXPECT_FALSE(seat_.CutWanted(news_));
  want_.set_primary(false);
  news_.set_generation(1);
  SeatState backup(ServerId(0), true);
  Place(&backup);
  EXPECT_FALSE(backup.CutWanted(news_));
}

TEST_F(SeatStateTest, WithoutReplicasViewsAreOfNoAccount) {
  SeatState alone(ServerId(0), /*replicated=*/false);
  Place(&alone);
  WithBackup(4);
  const SeatState::Duty duty = Tend(&alone);
  EXPECT_FALSE(duty.place || duty.promote || duty.backup || duty.alone.has_value());
}

}  // namespace
}  // namespace descent
