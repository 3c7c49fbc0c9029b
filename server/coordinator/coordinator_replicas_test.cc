// The coordinator of a cluster with replicas: deaths that backups mend, and those that they don't.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

bool AllSynced(const TestCluster& t) {
  const v1::StatusReply status = t.c->Status(t.now);
  bool all = status.server_size() == 3;
  for (const v1::ServerStatus& server : status.server()) all &= server.synced();
  return all;
}

class CoordinatorReplicas : public testing::Test {
 protected:
  CoordinatorReplicas() : t(Options()) {
    t.step = absl::Milliseconds(200);  // with replicas a longer gap is the coordinator's own
    t.Start(3, 2, absl::Seconds(3));
  }

  static CoordinatorOptions Options() {
    CoordinatorOptions options = TestCluster::Options(4, 3, 2);
    options.job.set_replicas(1);
    options.cuts.every_rounds = 10;
    return options;
  }
  static v1::FailureReport Death(const std::string& host, uint64_t pid) {
    v1::FailureReport report;
    report.set_role("server");
    report.set_host(host);
    report.set_pid(pid);
    report.set_cause("ended by signal 9");
    return report;
  }
  void KillServer(uint32_t s) {
    t.Kill(t.server[s]);
    t.c->ReportFailure(Death(absl::StrCat("s", s), 100 + s), t.now);
  }
  std::string Address(uint32_t s) { return t.c->addresses()[s]; }

  TestCluster t;
};

TEST_F(CoordinatorReplicas, RunsOnceEveryBackupIsSynced) {
  EXPECT_TRUE(AllSynced(t));
  TestCluster waiting(Options());
  waiting.sync = false;
  for (uint32_t s = 0; s < 3; ++s) waiting.AddServer(absl::StrCat("s", s), 100 + s);
  for (uint32_t w = 0; w < 2; ++w) waiting.AddWorker(absl::StrCat("w", w), 200 + w);
  waiting.Run(absl::Seconds(5));
  EXPECT_EQ(waiting.c->phase(), v1::PLACING);
  waiting.sync = true;
  waiting.Run(absl::Seconds(1));
  EXPECT_EQ(waiting.c->phase(), v1::RUNNING);
}

TEST_F(CoordinatorReplicas, PromotesABackupAndKeepsTheGeneration) {
  t.Progress(t.worker[0], {{0, 7}});
  KillServer(1);
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_FALSE(t.c->wants_generation());
  EXPECT_EQ(t.c->generation(), Generation(1));
  EXPECT_EQ(Address(1), absl::StrCat("m", t.server[2], ":1"));
  EXPECT_EQ(t.c->Status(t.now).promotions(), 1u);
  EXPECT_TRUE(absl::StrContains(t.Log(), "server 1: its backup takes over")) << t.Log();

  // Workers are told, once it is lasting, and once; their progress stands.
  v1::HeartbeatRequest beat = t.Beat(t.worker[0]);
  beat.set_ready(true);
  v1::HeartbeatReply news = t.Send(beat);
  EXPECT_FALSE(news.has_map());
  EXPECT_EQ(news.moves(), 0u);
  EXPECT_EQ(t.Send(t.server[2]).seat_size(), 0) << "nor is the backup";
  t.MakeViewsLasting();
  EXPECT_EQ(t.Send(t.server[2]).seat_size(), 2);
  news = t.Send(beat);
  EXPECT_TRUE(news.has_map());
  EXPECT_EQ(news.moves(), 1u);
  EXPECT_EQ(news.map().address(1), Address(1));
  beat.set_moves(1);
  EXPECT_FALSE(t.Send(beat).has_map());
  const v1::StatusReply status = t.c->Status(t.now);
  EXPECT_EQ(status.rank(0).clock(), 7u);
}

TEST_F(CoordinatorReplicas, ASilentServerIsNotWaitedForAsLongAsALease) {
  t.Kill(t.server[1]);
  t.Run(absl::Seconds(2));
  EXPECT_EQ(t.c->Status(t.now).promotions(), 1u);
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
}

TEST_F(CoordinatorReplicas, AnotherProcessBecomesABackupAndTheNextDeathIsMendedToo) {
  KillServer(1);
  t.server[1] = t.AddServer("s1", 301);
  t.Run(absl::Seconds(4));
  EXPECT_TRUE(AllSynced(t));
  KillServer(2);  // who served 1 and 2
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  EXPECT_EQ(t.c->generation(), Generation(1));
  EXPECT_EQ(t.c->Status(t.now).promotions(), 3u);
}

TEST_F(CoordinatorReplicas, PrimaryAndBackupTogetherGoBackToTheLastCut) {
  KillServer(1);
  KillServer(2);
  EXPECT_EQ(t.c->phase(), v1::PLACING);
  EXPECT_TRUE(t.c->wants_generation());
  t.c->BeginGeneration(Generation(2), std::nullopt, t.now);
  t.server[1] = t.AddServer("s1", 301);
  t.server[2] = t.AddServer("s2", 302);
  t.Run(absl::Seconds(4));
  EXPECT_EQ(t.c->phase(), v1::RUNNING) << t.Log();
  EXPECT_EQ(t.c->generation(), Generation(2));
  EXPECT_TRUE(AllSynced(t));
}

TEST_F(CoordinatorReplicas, ABackupThatIsNotSyncedIsNotPromoted) {
  KillServer(1);
  t.sync = false;
  t.server[1] = t.AddServer("s1", 301);
  t.Run(absl::Seconds(4));
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  KillServer(2);  // serves 1, whose new backup lacks something
  EXPECT_TRUE(t.c->wants_generation());
}

TEST_F(CoordinatorReplicas, AServerThatWakesUpIsUnknown) {
  KillServer(1);
  EXPECT_TRUE(t.Send(t.server[1]).unknown_member());
}

// The coordinator of `t` has died with server 0; the others come to another one, with what they hold or without.
class AnotherCoordinator : public CoordinatorReplicas {
 protected:
  std::unique_ptr<TestCluster> Take(bool with_what_they_hold) {
    CoordinatorOptions options = Options();
    options.generation = Generation(2);
    options.resumed = true;
    options.adopt = t.views;
    auto next = std::make_unique<TestCluster>(std::move(options));
    next->AddServer("s0", 300);
    for (uint32_t s = 1; s < 3; ++s) {
      v1::RegisterServerRequest request = next->ServerRequest(absl::StrCat("s", s), 100 + s);
      if (with_what_they_hold) {
        *request.mutable_seat() = t.Beat(t.server[s]).seat();
        for (v1::SeatReport& seat : *request.mutable_seat()) seat.set_whole(!seat.primary());
        request.set_seat_generation(1);
        request.set_seat_run(77);
      }
      const v1::RegisterReply reply = next->c->RegisterServer(request, next->now);
      next->alive[reply.member()] = true;
    }
    for (uint32_t w = 0; w < 2; ++w) next->AddWorker(absl::StrCat("w", w), 200 + w);
    next->Run(absl::Seconds(4));
    return next;
  }
};

TEST_F(AnotherCoordinator, GoesOnWithWhatTheServersHold) {
  const auto next = Take(true);
  EXPECT_EQ(next->c->phase(), v1::RUNNING) << next->Log();
  EXPECT_TRUE(absl::StrContains(next->Log(), "nothing is rolled back")) << next->Log();
  const std::vector<MetricRecord> records = next->c->DrainRecords();
  EXPECT_TRUE(std::none_of(records.begin(), records.end(),
                           [](const MetricRecord& r) { return r.kind == MetricRecord::Kind::kRolledBack; }));
  // The one that held the backup of server 0 serves it now, with another backup to join.
  const uint64_t serves = next->c->Status(next->now).server(0).primary();
  EXPECT_EQ(next->c->addresses()[0], absl::StrCat("m", t.server[1], ":0"));
  EXPECT_NE(serves, 0u);
  EXPECT_TRUE(AllSynced(*next)) << "backups have joined";
}

TEST_F(AnotherCoordinator, GoesBackToTheCutWhereTheServersHoldNothing) {
  const auto next = Take(false);
  EXPECT_EQ(next->c->phase(), v1::RUNNING) << next->Log();
  EXPECT_TRUE(absl::StrContains(next->Log(), "do not hold all blocks")) << next->Log();
  const std::vector<MetricRecord> records = next->c->DrainRecords();
  EXPECT_TRUE(std::any_of(records.begin(), records.end(),
                          [](const MetricRecord& r) { return r.kind == MetricRecord::Kind::kRolledBack; }));
}

TEST_F(CoordinatorReplicas, AWorkerThatComesWhileAServerIsMissingIsPlaced) {
  KillServer(1);
  t.MakeViewsLasting();
  const uint64_t worker = t.AddWorker("w9", 209);
  EXPECT_TRUE(t.Send(worker).has_map());
}

}  // namespace
}  // namespace descent
