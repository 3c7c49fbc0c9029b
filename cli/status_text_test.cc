#include "cli/status_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

v1::StatusReply Running() {
  v1::StatusReply status;
  status.set_job("fashion-mlp");
  status.set_phase(v1::RUNNING);
  status.set_clocks(4690);
  status.set_clocks_per_epoch(469);
  status.set_round(704);
  status.set_loss(0.41234);
  status.set_examples_per_second(123456);
  status.set_bytes_per_second(45.2e6);
  status.set_staleness_spread(1);
  status.set_seconds_left(65);
  status.set_last_evaluation("epoch 1: loss 0.43, accuracy 0.8712, objective 0.5");
  return status;
}

TEST(StatusLine, Training) {
  EXPECT_EQ(StatusLine(Running(), 0),
            "epoch 1.5/10 | round 704/4690 | loss 0.4123 | accuracy 0.8712 | 123k ex/s | spread 1 | 45.2 MB/s | "
            "left 1:05");
}

TEST(StatusLine, NarrowTerminalsLoseTheLeastInteresting) {
  EXPECT_EQ(StatusLine(Running(), 80), "epoch 1.5/10 | loss 0.4123 | accuracy 0.8712 | 123k ex/s | left 1:05");
  EXPECT_EQ(StatusLine(Running(), 60), "epoch 1.5/10 | loss 0.4123 | accuracy 0.8712 | left 1:05");
  EXPECT_EQ(StatusLine(Running(), 30), "epoch 1.5/10 | loss 0.4123");
  EXPECT_EQ(StatusLine(Running(), 5), "epoch");
  for (size_t width = 1; width < 130; ++width) EXPECT_LE(StatusLine(Running(), width).size(), width);
}

TEST(StatusLine, StartUpTellsWhoIsMissing) {
  v1::StatusReply status;
  status.set_message("waiting 12 s: 2/2 servers, 2/3 workers");
  EXPECT_EQ(StatusLine(status, 0), "waiting 12 s: 2/2 servers, 2/3 workers");
  EXPECT_EQ(StatusLine(status, 13), "waiting 12 s:");
  status.clear_message();
  EXPECT_EQ(StatusLine(status, 0), "starting");
}

TEST(StatusLine, WithoutEpochs) {
  v1::StatusReply status;
  status.set_phase(v1::RUNNING);
  status.set_clocks(100);
  EXPECT_EQ(StatusLine(status, 0), "round 0/100 | spread 0");
}

TEST(StatusLine, AHeldReadIsShown) {
  v1::StatusReply status = Running();
  v1::Waited* waited = status.add_waited();
  waited->set_rank(3);
  waited->set_seconds(7.4);
  EXPECT_THAT(StatusLine(status, 0), testing::EndsWith("| waiting 7 s for rank 3"));
}

TEST(StatusLine, ControlCharactersOfOthersStayOut) {
  v1::StatusReply status;
  status.set_message("a\x1b[2Jb\nc");
  EXPECT_EQ(StatusLine(status, 0), "a [2Jb c");
}

TEST(StatusReport, TellsWhoIsWaitedForAndSinceWhen) {
  v1::StatusReply status = Running();
  v1::Waited* waited = status.add_waited();
  waited->set_rank(3);
  waited->set_seconds(4.23);
  waited->set_why("clock 17 of 18 begun, 3 of 8 contributions in");
  waited->set_host("beta");
  waited->set_pid(41);
  waited->set_clock(17);
  waited->set_last_rpc("push of clock 17, 3 of 8 contributions, 4.2 s ago, to server 1");
  *status.add_waited() = *waited;
  status.mutable_waited(1)->clear_host();
  status.mutable_waited(1)->clear_last_rpc();
  const std::string report = StatusReport(status);
  EXPECT_THAT(report, testing::HasSubstr("4.2 s for rank 3 of host beta pid 41, 17 clocks completed: clock 17 of 18 "
                                         "begun, 3 of 8 contributions in; last RPC: push of clock 17, 3 of 8 "
                                         "contributions, 4.2 s ago, to server 1\n"));
  EXPECT_THAT(report, testing::HasSubstr("4.2 s for rank 3 of no worker, 17 clocks completed: clock 17 of 18 begun, 3 "
                                         "of 8 contributions in\n"));
}

TEST(StatusReport, ListsMembers) {
  v1::StatusReply status = Running();
  status.set_run(0xabc);
  status.set_generation(1);
  status.set_memory("memory: 1.6 MB of 14 GB");
  v1::MemberStatus* member = status.add_member();
  member->set_role("server");
  member->set_host("alpha");
  member->set_pid(7);
  member->set_address("127.0.0.1:99");
  for (const uint64_t clock : {704, 706, 705}) status.add_rank()->set_clock(clock);
  status.set_last_cut(7);
  status.set_recoveries(2);
  const std::string report = StatusReport(status);
  EXPECT_THAT(report, testing::ContainsRegex("last checkpoint +7\n"));
  EXPECT_THAT(report, testing::ContainsRegex("recoveries +2\n"));
  EXPECT_THAT(report, testing::HasSubstr("job fashion-mlp, run 0000000000000abc, generation 1: running\n"));
  EXPECT_THAT(report, testing::HasSubstr("host alpha pid 7 at 127.0.0.1:99, silent 0.0 s"));
  EXPECT_THAT(report, testing::HasSubstr("3, clocks 704 to 706\n"));
  EXPECT_THAT(report, testing::HasSubstr("memory: 1.6 MB of 14 GB\n"));
}

TEST(StatusReport, TellsPrimariesAndBackups) {
  v1::StatusReply status = Running();
  for (uint32_t s = 0; s < 2; ++s) {
    v1::MemberStatus* member = status.add_member();
    member->set_member(4 + s);
    member->set_role("server");
    member->set_server(s);
    member->set_pid(70 + s);
    v1::ServerStatus* server = status.add_server();
    server->set_server(s);
    server->set_primary(5);
    server->set_backup(s == 0 ? 4 : 0);
    server->set_synced(s == 0);
  }
  status.set_promotions(1);
  const std::string report = StatusReport(status);
  EXPECT_THAT(report, testing::ContainsRegex("blocks of 0 +primary process of server 1 \\(pid 71\\), backup process of "
                                             "server 0 \\(pid 70\\), synced\n"));
  EXPECT_THAT(report, testing::ContainsRegex("blocks of 1 +primary process of server 1 .*, backup nobody\n"));
  EXPECT_THAT(report, testing::ContainsRegex("promotions +1\n"));
}

TEST(Units, Scale) {
  EXPECT_EQ(Rate(0), "0");
  EXPECT_EQ(Rate(951), "951");
  EXPECT_EQ(Rate(12345), "12.3k");
  EXPECT_EQ(Rate(4.56e6), "4.56M");
  EXPECT_EQ(Bytes(999), "999 B");
  EXPECT_EQ(Bytes(3.25e9), "3.25 GB");
  EXPECT_EQ(Duration(0), "0:00");
  EXPECT_EQ(Duration(42.4), "0:42");
  EXPECT_EQ(Duration(3723), "1:02:03");
  EXPECT_EQ(Duration(-1), "?");
  EXPECT_EQ(Duration(1e300), "?");
}

}  // namespace
}  // namespace descent
