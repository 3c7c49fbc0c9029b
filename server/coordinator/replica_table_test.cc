#include "server/coordinator/replica_table.h"

#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace descent {
namespace {

const MemberId kA(1), kB(2), kC(3), kD(4);

class ReplicaTableTest : public testing::Test {
 protected:
  ReplicaTableTest() { table_.Begin({kA, kB, kC}, {"a:1", "b:1", "c:1"}); }

  // Every member that is not in `silent` does as it is told.
  void Obey(const std::vector<MemberId>& members) {
    for (int beat = 0; beat < 2; ++beat) {
      for (MemberId member : members) {
        for (const v1::Seat& seat : table_.SeatsOf(member)) {
          v1::SeatReport report;
          report.set_server(seat.server());
          report.set_primary(seat.primary());
          report.set_view(seat.view());
          report.set_address("m" + std::to_string(member.value) + ":" + std::to_string(seat.server()));
          report.set_ready(true);
          report.set_synced(seat.primary() && !seat.backup_address().empty());
          table_.Report(member, report);
        }
      }
    }
  }

  v1::ReplicaViews Lasting() const {
    v1::ReplicaViews lasting = table_.Lasting();
    lasting.set_generation(1);
    return lasting;
  }

  ReplicaTable table_;
};

TEST_F(ReplicaTableTest, BeginsWithEachServersBackupOnTheNextProcess) {
  EXPECT_FALSE(table_.CanRun());
  const std::vector<v1::Seat> seats = table_.SeatsOf(kA);
  ASSERT_EQ(seats.size(), 2u);
  EXPECT_TRUE(seats[0].primary());
  EXPECT_TRUE(seats[0].await_backup());
  EXPECT_TRUE(seats[0].backup_address().empty());  // B has not said where it listens
  EXPECT_FALSE(seats[1].primary());
  EXPECT_EQ(seats[1].server(), 2u);
  EXPECT_TRUE(seats[1].fresh());
  Obey({kA, kB, kC});
  EXPECT_TRUE(table_.CanRun());
  EXPECT_EQ(table_.SeatsOf(kA)[0].backup_address(), "m2:0");
}

TEST_F(ReplicaTableTest, AServerWithoutASyncedBackupIsLost) {
  EXPECT_FALSE(table_.Covers(kB));
  const ReplicaTable::Loss loss = table_.Lost(kB);
  ASSERT_EQ(loss.lost.size(), 1u);
  EXPECT_EQ(loss.lost[0], ServerId(1));
}

TEST_F(ReplicaTableTest, PromotesAndGoesOnAlone) {
  Obey({kA, kB, kC});
  ASSERT_TRUE(table_.Covers(kB));
  const uint64_t before = table_.views()[1].number;
  const ReplicaTable::Loss loss = table_.Lost(kB);
  EXPECT_TRUE(loss.lost.empty());
  ASSERT_EQ(loss.promoted.size(), 1u);
  EXPECT_EQ(loss.promoted[0], ServerId(1));
  ASSERT_EQ(loss.alone.size(), 1u);
  EXPECT_EQ(loss.alone[0], ServerId(0));
  EXPECT_EQ(table_.views()[1].primary, kC);
  EXPECT_EQ(table_.views()[1].primary_address, "m3:1");
  EXPECT_GT(table_.views()[1].number, before);
  EXPECT_EQ(table_.moves(), 1u);
  EXPECT_FALSE(table_.SeatsOf(kC)[0].await_backup());

  // What is said of the view that is over does not count.
  v1::SeatReport late;
  late.set_server(1);
  late.set_primary(true);
  late.set_view(before);
  late.set_synced(true);
  table_.Report(kC, late);
  EXPECT_FALSE(table_.views()[1].synced);
  // Whoever has no backup can't be spared, who is one can.
  EXPECT_FALSE(table_.Covers(kC));
  EXPECT_FALSE(table_.Covers(kA));
}

TEST_F(ReplicaTableTest, AnotherProcessBecomesTheBackupOfWhoeverLacksOne) {
  Obey({kA, kB, kC});
  table_.Lost(kB);
  const std::vector<ServerId> taken = table_.Joined(kD);
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_FALSE(table_.SeatsOf(kD)[0].fresh());
  EXPECT_FALSE(table_.Covers(kA));  // until it is synced
  Obey({kA, kC, kD});
  EXPECT_TRUE(table_.CanRun());
  // Now the next one can go, who serves two.
  const ReplicaTable::Loss loss = table_.Lost(kC);
  EXPECT_TRUE(loss.lost.empty());
  EXPECT_EQ(loss.promoted.size(), 2u);
  EXPECT_TRUE(table_.IsPrimary(kD, ServerId(1)));
  EXPECT_TRUE(table_.IsPrimary(kA, ServerId(2)));
  EXPECT_EQ(table_.moves(), 3u);
}

TEST_F(ReplicaTableTest, PrimaryAndBackupTogetherAreLost) {
  Obey({kA, kB, kC});
  EXPECT_TRUE(table_.Lost(kA).lost.empty());   // B serves 0 and 1 now
  EXPECT_EQ(table_.Lost(kB).lost.size(), 1u);  // 1 is on C, 0 is nowhere
}

// What A, B and C hold, as they would say it to another coordinator.
std::vector<ReplicaTable::Held> Held(const ReplicaTable& table, const std::vector<MemberId>& members,
                                     uint64_t generation = 1) {
  std::vector<ReplicaTable::Held> held;
  for (MemberId member : members) {
    for (const v1::Seat& seat : table.SeatsOf(member)) {
      v1::SeatReport report;
      report.set_server(seat.server());
      report.set_primary(seat.primary());
      report.set_view(seat.view());
      report.set_address("m" + std::to_string(member.value) + ":" + std::to_string(seat.server()));
      report.set_ready(true);
      report.set_whole(!seat.primary());
      held.push_back({member, report, generation});
    }
  }
  return held;
}

TEST_F(ReplicaTableTest, AnotherCoordinatorGoesOnWithWhatTheSurvivorsHold) {
  Obey({kA, kB, kC});
  ReplicaTable next;
  // A went with the coordinator: B holds 1 and the backup of 0, C holds 2; D has come in A's place.
  ASSERT_TRUE(next.Adopt(Lasting(), Held(table_, {kB, kC}), {kB, kC, kD}));
  EXPECT_TRUE(next.IsPrimary(kB, ServerId(0)));
  EXPECT_TRUE(next.IsPrimary(kB, ServerId(1)));
  EXPECT_TRUE(next.IsPrimary(kC, ServerId(2)));
  for (const v1::Seat& seat : next.SeatsOf(kB)) {
    if (!seat.primary()) continue;
    EXPECT_TRUE(seat.carried());
    EXPECT_GT(seat.view(), 3u) << "above every view of the coordinator before";
    EXPECT_TRUE(seat.await_backup());
  }
  EXPECT_FALSE(next.SeatsOf(kD).empty());
}

TEST_F(ReplicaTableTest, ABackupThatWasGivenUpIsNotBelieved) {
  Obey({kA, kB, kC});
  const std::vector<ReplicaTable::Held> stale = Held(table_, {kB});
  table_.Lost(kB);  // A goes on alone with 0
  ReplicaTable next;
  // A dies with the coordinator, and B, which was cut off only, comes back.
  std::vector<ReplicaTable::Held> held = Held(table_, {kC});
  held.insert(held.end(), stale.begin(), stale.end());
  EXPECT_FALSE(next.Adopt(Lasting(), held, {kB, kC, kD}));
  // With A there is no doubt.
  held = Held(table_, {kA, kC});
  held.insert(held.end(), stale.begin(), stale.end());
  EXPECT_TRUE(next.Adopt(Lasting(), held, {kA, kB, kC}));
  EXPECT_TRUE(next.IsPrimary(kA, ServerId(0)));
  EXPECT_TRUE(next.IsPrimary(kC, ServerId(1)));
}

TEST_F(ReplicaTableTest, ABackupThatWasNotSyncedIsNotBelieved) {
  ReplicaTable next;
  EXPECT_FALSE(next.Adopt(Lasting(), Held(table_, {kB, kC}), {kB, kC, kD}));
}

TEST_F(ReplicaTableTest, ABackupThatWasGivenUpIsNotBelievedAndMayJoinAgain) {
  Obey({kA, kB, kC});
  const std::vector<ReplicaTable::Held> stale = Held(table_, {kB});
  const uint64_t changes = table_.changes(), view = table_.views()[0].number;
  EXPECT_EQ(table_.GiveUpBackup(ServerId(0)), kB);
  EXPECT_GT(table_.changes(), changes);
  EXPECT_GT(table_.views()[0].number, view);
  EXPECT_FALSE(table_.SeatsOf(kA)[0].await_backup());
  EXPECT_FALSE(table_.Covers(kA));
  EXPECT_TRUE(table_.Covers(kB));
  EXPECT_EQ(table_.GiveUpBackup(ServerId(0)), std::nullopt);

  ReplicaTable next;
  std::vector<ReplicaTable::Held> held = Held(table_, {kC});
  held.insert(held.end(), stale.begin(), stale.end());
  EXPECT_FALSE(next.Adopt(Lasting(), held, {kB, kC, kD}));

  EXPECT_FALSE(table_.Join(ServerId(0), kA)) << "it is the primary";
  EXPECT_FALSE(table_.Join(ServerId(1), kA)) << "it has a backup";
  EXPECT_TRUE(table_.Join(ServerId(0), kB));
  EXPECT_FALSE(table_.Covers(kA));
  Obey({kA, kB, kC});
  EXPECT_TRUE(table_.Covers(kA));
}

TEST_F(ReplicaTableTest, SeatsOfTheGenerationBeforeAreBelievedUntilTheNewOneIsSettled) {
  Obey({kA, kB, kC});
  const std::vector<ReplicaTable::Held> first = Held(table_, {kB, kC});
  ReplicaTable next;
  ASSERT_TRUE(next.Adopt(Lasting(), first, {kB, kC, kD}));
  v1::ReplicaViews lasting = next.Lasting();
  lasting.set_generation(2);
  // B has heard of the second generation, C has not.
  std::vector<ReplicaTable::Held> held = Held(next, {kB}, 2);
  const std::vector<ReplicaTable::Held> of_c = Held(table_, {kC}, 1);
  held.insert(held.end(), of_c.begin(), of_c.end());
  ReplicaTable third;
  ASSERT_TRUE(third.Adopt(lasting, held, {kB, kC, kD}));
  EXPECT_TRUE(third.IsPrimary(kB, ServerId(0)));
  EXPECT_TRUE(third.IsPrimary(kC, ServerId(2)));
  EXPECT_EQ(third.Lasting().before_size(), 2);
  EXPECT_GT(third.views()[0].number, next.views()[2].number);

  const uint64_t changes = next.changes();
  next.Settle();
  EXPECT_GT(next.changes(), changes);
  lasting = next.Lasting();
  lasting.set_generation(2);
  EXPECT_EQ(lasting.before_size(), 0);
  EXPECT_FALSE(ReplicaTable().Adopt(lasting, held, {kB, kC, kD}));
  next.Settle();
  EXPECT_EQ(next.changes(), changes + 1) << "once";
}

TEST_F(ReplicaTableTest, AProcessIsNotTheBackupOfItself) {
  Obey({kA, kB, kC});
  table_.Lost(kB);
  for (ServerId server : table_.Joined(kC)) EXPECT_NE(server, ServerId(1));
}

}  // namespace
}  // namespace descent
