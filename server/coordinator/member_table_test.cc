#include "server/coordinator/member_table.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class MemberTableTest : public testing::Test {
 protected:
  MemberId AddServer(uint32_t server, const std::string& address, uint64_t nonce = 0) {
    Member member;
    member.is_server = true;
    member.server = ServerId(server);
    member.host = "s";
    member.address = address;
    member.pid = 100 + server;
    member.nonce = nonce;
    member.heard = now_;
    return table_.Add(member).id;
  }
  MemberId AddWorker(uint64_t pid, uint64_t nonce = 0) {
    Member member;
    member.host = "w";
    member.pid = pid;
    member.nonce = nonce;
    member.heard = now_;
    return table_.Add(member).id;
  }

  const absl::Time now_ = absl::FromUnixSeconds(1000);
  MemberTable table_;
};

TEST_F(MemberTableTest, IdsAreNeverUsedTwiceAndServerIdsAre) {
  const MemberId a = AddServer(0, "s:1"), b = AddServer(1, "s:2"), w = AddWorker(7);
  EXPECT_EQ(table_.servers(), 2u);
  EXPECT_EQ(table_.workers(), 1u);
  EXPECT_EQ(NameOf(*table_.Find(b)), "server 1 on host s (pid 101)");
  EXPECT_EQ(NameOf(*table_.Find(w)), "worker 3 on host w (pid 7)");
  EXPECT_EQ(table_.FreeServer(), ServerId(2));
  const std::optional<Member> gone = table_.Remove(a);
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->address, "s:1");
  EXPECT_FALSE(table_.Remove(a).has_value());
  EXPECT_EQ(table_.servers(), 1u);
  EXPECT_EQ(table_.FreeServer(), ServerId(0));
  EXPECT_THAT(table_.Addresses(2), ElementsAre("", "s:2"));
  table_.Remove(w);
  EXPECT_GT(AddServer(0, "s:3"), w);
  EXPECT_EQ(table_.workers(), 0u);
}

TEST_F(MemberTableTest, AProcessIsFoundUnderItsOwnIdAlone) {
  const MemberId a = AddServer(0, "s:1", 11), w = AddWorker(7);
  EXPECT_EQ(table_.FindAs(a, 11), table_.Find(a));
  EXPECT_EQ(table_.FindAs(a, 12), nullptr) << "it registered with another coordinator";
  EXPECT_EQ(table_.FindAs(a, 0), table_.Find(a));
  EXPECT_EQ(table_.FindAs(w, 12), table_.Find(w));
  EXPECT_EQ(table_.FindAs(MemberId(99), 0), nullptr);
  EXPECT_EQ(table_.FindNonce(true, 11), table_.Find(a));
  EXPECT_EQ(table_.FindNonce(false, 11), nullptr);
  EXPECT_EQ(table_.FindNonce(false, 0), nullptr);
  EXPECT_EQ(table_.FindProcess(false, "w", 7), table_.Find(w));
  EXPECT_EQ(table_.FindProcess(true, "w", 7), nullptr);
  EXPECT_EQ(table_.FindProcess(false, "x", 7), nullptr);
  AddWorker(0);
  EXPECT_EQ(table_.FindProcess(false, "w", 0), nullptr) << "pid 0 is nobody";
  EXPECT_THAT(table_.ServersAt("s:1"), ElementsAre(a));
  EXPECT_THAT(table_.ServersAt(""), IsEmpty()) << "workers have no address";
}

TEST_F(MemberTableTest, TheServerThatIsSilentTheLongest) {
  const MemberId a = AddServer(0, "s:1"), b = AddServer(1, "s:2");
  AddWorker(7);
  table_.Find(a)->heard = now_ - absl::Seconds(3);
  table_.Find(b)->heard = now_ - absl::Seconds(5);
  EXPECT_EQ(table_.MostSilentServer(absl::Seconds(2), now_)->id, b);
  EXPECT_EQ(table_.MostSilentServer(absl::Seconds(5), now_), nullptr) << "no longer than that";
  table_.Excuse(absl::Seconds(4), now_);
  EXPECT_EQ(table_.Find(a)->heard, now_) << "nobody is heard of before it was there";
  EXPECT_EQ(table_.Find(b)->heard, now_ - absl::Seconds(1));
}

TEST_F(MemberTableTest, WhatServersSayTogether) {
  const MemberId a = AddServer(0, "s:1"), b = AddServer(1, "s:2"), w = AddWorker(7);
  EXPECT_FALSE(table_.AllServersReady());
  for (const MemberId id : {a, b}) {
    table_.Find(id)->ready = true;
    table_.Find(id)->load.set_round(id.value * 10);
    table_.Find(id)->load.set_bytes_in(3);
    table_.Find(id)->load.set_bytes_out(4);
  }
  table_.Find(w)->load.set_round(1000);
  EXPECT_TRUE(table_.AllServersReady()) << "workers do not count";
  EXPECT_EQ(table_.FurthestRound(), 20u);
  EXPECT_EQ(table_.LastRound(), 10u);
  EXPECT_EQ(table_.Bytes(), 14u);
  table_.NobodyIsReady();
  EXPECT_FALSE(table_.AllServersReady());
}

TEST_F(MemberTableTest, LongTextsAreClipped) {
  Member member;
  member.host = std::string(10000, 'h');
  member.address = std::string(10000, 'a');
  const Member& added = table_.Add(member);
  EXPECT_EQ(added.host.size(), MemberTable::kMaxText);
  EXPECT_EQ(added.address.size(), MemberTable::kMaxText);
}

}  // namespace
}  // namespace descent
