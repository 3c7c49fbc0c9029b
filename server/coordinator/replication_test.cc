// What the table of replicas and the watch over backups mean together, for members that come and go.
#include "server/coordinator/replication.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kServers = 3;

class ReplicationTest : public testing::Test {
 protected:
  ReplicationTest() {
    for (uint32_t s = 0; s < kServers; ++s) servers_.push_back(Add(s));
  }
  MemberId Add(uint32_t server) {
    Member member;
    member.is_server = true;
    member.server = ServerId(server);
    member.host = absl::StrCat("h", server);
    member.address = absl::StrCat("h", server, ":1");
    member.heard = now_;
    return members_.Add(member).id;
  }
  static Replication::Options Options(bool enabled) { return {enabled, kServers, absl::Seconds(2)}; }

  // Everybody does what it is told, and says so; `unconfirmed`: what server 0's backup has not confirmed.
  void Beat(uint64_t unconfirmed = 0, bool running = true) {
    for (int beat = 0; beat < 2; ++beat) {
      for (const auto& [id, member] : members_) {
        for (const v1::Seat& seat : r_.SeatsOf(id)) {
          v1::SeatReport report;
          report.set_server(seat.server());
          report.set_primary(seat.primary());
          report.set_view(seat.view());
          report.set_address(absl::StrCat(member.host, ":", 10 + seat.server()));
          report.set_ready(true);
          report.set_synced(seat.primary() && !seat.backup_address().empty());
          if (seat.server() == 0 && seat.await_backup()) report.set_unconfirmed(unconfirmed);
          r_.Report(id, report, running, now_);
        }
      }
    }
  }
  void MakeLasting() {
    if (const auto wanted = r_.WantsLasting(); wanted.has_value()) r_.Lasting(wanted->change, wanted->news);
  }
  void Start() {
    r_.Place();
    Beat();
    ASSERT_TRUE(r_.CanRun());
    r_.Settle();
    MakeLasting();
  }
  bool Kill(MemberId id) {
    const Member gone = *members_.Remove(id);
    r_.Forget(id);
    return r_.GoesOnWithout(gone);
  }
  std::string Log() {
    for (const LogLine& line : log_.Drain()) absl::StrAppend(&text_, line.text, "\n");
    return text_;
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  MemberTable members_;
  RunLog log_;
  std::vector<MemberId> servers_;
  Replication r_{Options(true), &members_, &log_};
  std::string text_;
};

TEST_F(ReplicationTest, NotEnabledEveryServerIsItsMembers) {
  Replication none(Options(false), &members_, &log_);
  none.Place();
  EXPECT_FALSE(none.running());
  EXPECT_TRUE(none.CanRun());
  EXPECT_TRUE(none.MayBeTold());
  EXPECT_TRUE(none.Ready(servers_[1]));
  EXPECT_TRUE(none.Serves(*members_.Find(servers_[1]), ServerId(1)));
  EXPECT_FALSE(none.Serves(*members_.Find(servers_[1]), ServerId(2)));
  EXPECT_FALSE(none.WantsLasting().has_value());
  EXPECT_THAT(none.Addresses(), ElementsAre("h0:1", "h1:1", "h2:1"));
  const Member gone = *members_.Remove(servers_[1]);
  none.Joined(gone);
  EXPECT_FALSE(none.Covers(gone.id));
  EXPECT_FALSE(none.GoesOnWithout(gone));
}

TEST_F(ReplicationTest, APromotionIsToldOnceItLasts) {
  Start();
  EXPECT_TRUE(r_.Covers(servers_[1]));
  EXPECT_TRUE(r_.MayBeTold());
  EXPECT_TRUE(Kill(servers_[1]));
  EXPECT_EQ(r_.promotions(), 1u);
  EXPECT_FALSE(r_.MayBeTold());
  EXPECT_EQ(r_.moves(), 0u);
  EXPECT_EQ(r_.Addresses()[1], "h2:11") << "where its backup listens";
  EXPECT_TRUE(r_.Serves(*members_.Find(servers_[2]), ServerId(1)));
  const auto wanted = r_.WantsLasting();
  ASSERT_TRUE(wanted.has_value());
  r_.Lasting(wanted->change, wanted->news);
  EXPECT_TRUE(r_.MayBeTold());
  EXPECT_EQ(r_.moves(), 1u);
  EXPECT_FALSE(r_.WantsLasting().has_value());
  EXPECT_THAT(Log(), HasSubstr("server 1: its backup takes over, at h2:11 on server 2 on host h2"));
  EXPECT_THAT(Log(), HasSubstr("server 0 goes on without a backup"));
}

TEST_F(ReplicationTest, WhoComesBacksUpWhatLacksABackupAndTheNextDeathIsCovered) {
  Start();
  ASSERT_TRUE(Kill(servers_[1]));
  EXPECT_FALSE(r_.Covers(servers_[2])) << "it serves server 1 alone";
  r_.Joined(*members_.Find(Add(1)));
  MakeLasting();
  Beat();
  EXPECT_TRUE(r_.Covers(servers_[2]));
  EXPECT_TRUE(Kill(servers_[2]));
  EXPECT_EQ(r_.promotions(), 3u) << "of the two that it served";
  EXPECT_THAT(Log(), HasSubstr("server 1 becomes the backup of server 0"));
}

TEST_F(ReplicationTest, WithoutASyncedBackupAServerIsLost) {
  r_.Place();
  EXPECT_FALSE(r_.Covers(servers_[0]));
  EXPECT_FALSE(Kill(servers_[0]));
  EXPECT_THAT(Log(), HasSubstr("server 0 is lost with server 0 on host h0 (pid 0): it had no backup"));
  EXPECT_FALSE(r_.Halt()) << "it was not adopted";
  EXPECT_FALSE(r_.running());
}

TEST_F(ReplicationTest, ABackupThatHoldsItsPrimaryUpIsGivenUpAndComesAgain) {
  Start();
  for (int tenth = 0; tenth < 25; ++tenth) {
    now_ += absl::Milliseconds(100);
    Beat(7, /*running=*/false);
  }
  EXPECT_TRUE(r_.views()[0].backup.has_value()) << "nothing runs";
  now_ += absl::Milliseconds(100);
  Beat(7);
  EXPECT_FALSE(r_.views()[0].backup.has_value());
  EXPECT_FALSE(r_.MayBeTold()) << "the primary may answer without it once that lasts";
  MakeLasting();
  EXPECT_THAT(Log(), HasSubstr("server 0: its backup on server 1 on host h1 (pid 0) confirms nothing"));
  now_ += BackupWatch::kFirstPause / 2;
  r_.BringBack(now_);
  EXPECT_FALSE(r_.views()[0].backup.has_value());
  now_ += BackupWatch::kFirstPause;
  r_.BringBack(now_);
  EXPECT_FALSE(r_.views()[0].backup.has_value()) << "it was not heard of lately";
  members_.Find(servers_[1])->heard = now_;
  r_.BringBack(now_);
  EXPECT_EQ(r_.views()[0].backup, servers_[1]);
  EXPECT_THAT(Log(), HasSubstr("server 0: server 1 on host h1 (pid 0) becomes its backup again"));
}

TEST_F(ReplicationTest, AnotherCoordinatorGoesOnWithWhatMembersHold) {
  Start();
  v1::ReplicaViews lasting = r_.WantsLasting().value_or(Replication::LastingViews()).views;
  ASSERT_EQ(lasting.view_size(), 0) << "all lasts";
  Kill(servers_[1]);
  lasting = r_.WantsLasting()->views;
  lasting.set_generation(1);
  // Members as the next one sees them.
  MemberTable members;
  for (const MemberId id : {servers_[0], servers_[2]}) {
    Member member = *members_.Find(id);
    member.held_generation = 1;
    for (const v1::Seat& seat : r_.SeatsOf(id)) {
      v1::SeatReport& held = member.held.emplace_back();
      held.set_server(seat.server());
      held.set_primary(seat.primary());
      held.set_view(seat.view());
      held.set_ready(true);
      held.set_whole(true);
      held.set_address("x:1");
    }
    members.Add(member);
  }
  Replication next(Options(true), &members, &log_);
  v1::ReplicaViews fewer = lasting;
  fewer.mutable_view()->RemoveLast();
  fewer.mutable_synced()->RemoveLast();
  EXPECT_FALSE(next.Adopt(fewer)) << "of a run with other servers";
  EXPECT_FALSE(next.adopted());
  ASSERT_TRUE(next.Adopt(lasting));
  EXPECT_TRUE(next.adopted());
  next.Place();
  EXPECT_FALSE(next.MayBeTold());
  for (const ReplicaTable::View& view : next.views()) EXPECT_TRUE(view.carried) << "it begins with what is held";
  EXPECT_TRUE(next.Halt());
  EXPECT_FALSE(next.adopted());
}

}  // namespace
}  // namespace descent
