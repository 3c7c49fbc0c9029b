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

TEST_F(CoordinatorReplicas, ABackupThatConfirmsNothingIsGivenUpForAWhile) {
  const auto backup = [&] { return t.c->Status(t.now).server(0).backup(); };
  ASSERT_EQ(backup(), t.server[1]);
  for (uint64_t sequence = 1; sequence < 4; ++sequence) {  // slowly, but it does
    t.unconfirmed[0] = sequence;
    t.Run(absl::Milliseconds(1800));
  }
  EXPECT_EQ(backup(), t.server[1]);
  t.unconfirmed[0] = 7;
  t.Run(absl::Milliseconds(2400));
  EXPECT_EQ(backup(), 0u);
  EXPECT_TRUE(absl::StrContains(t.Log(), "server 0: its backup on server 1 on host s1 (pid 101) confirms nothing"))
      << t.Log();
  // Its primary was told once that was lasting; the backup lets go of what it held; the other servers are as before.
  const v1::HeartbeatReply primary = t.Send(t.server[0]), former = t.Send(t.server[1]);
  ASSERT_EQ(primary.seat_size(), 2);
  EXPECT_TRUE(primary.seat(0).primary());
  EXPECT_FALSE(primary.seat(0).await_backup());
  ASSERT_EQ(former.seat_size(), 1);
  EXPECT_EQ(former.seat(0).server(), 1u);
  EXPECT_FALSE(t.views.synced(0));
  EXPECT_TRUE(t.views.synced(1));
  EXPECT_EQ(t.c->phase(), v1::RUNNING);

  // It comes again after 10 s, and where that is of no use after 20.
  t.Run(absl::Seconds(9));
  EXPECT_EQ(backup(), 0u);
  t.Run(absl::Seconds(2));
  EXPECT_EQ(backup(), t.server[1]);
  t.Run(absl::Seconds(3));
  EXPECT_EQ(backup(), 0u);
  t.unconfirmed.clear();
  t.Run(absl::Seconds(16));
  EXPECT_EQ(backup(), 0u);
  t.Run(absl::Seconds(4));
  EXPECT_TRUE(AllSynced(t));
}

TEST_F(CoordinatorReplicas, AStopIsToldOnceServersThatChangedHandsAreAtOneClock) {
  const auto both = [&](uint64_t clock) {
    t.now += absl::Milliseconds(100);
    const bool first = t.Progress(t.worker[0], {{0, clock}, {1, clock}}).stop();
    return t.Progress(t.worker[1], {{2, clock}, {3, clock}}).stop() && first;
  };
  both(7);
  KillServer(1);
  t.c->Stop({}, t.now);
  EXPECT_FALSE(both(8)) << "completed with the server that died";
  t.MakeViewsLasting();
  EXPECT_FALSE(both(9)) << "told of the new one only now";
  EXPECT_FALSE(both(9)) << "what it had completed when it heard of that";
  EXPECT_FALSE(both(9));
  EXPECT_FALSE(t.Progress(t.worker[0], {{0, 10}, {1, 10}}).stop()) << "the other worker has not";
  both(10);
  EXPECT_TRUE(both(10));
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  for (uint32_t w = 0; w < 2; ++w) t.Progress(t.worker[w], {{2 * w, 10}, {2 * w + 1, 10}}, /*done=*/true);
  EXPECT_EQ(t.c->phase(), v1::SAVING);
}

TEST_F(CoordinatorReplicas, AStopIsToldInTheEndWhateverRanksDo) {
  KillServer(1);
  t.c->Stop({}, t.now);
  t.Run(absl::Seconds(4));
  EXPECT_FALSE(t.Send(t.worker[0]).stop());
  t.Run(absl::Seconds(2));
  EXPECT_TRUE(t.Send(t.worker[0]).stop());
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  t.Run(absl::Seconds(6));
  EXPECT_EQ(t.c->phase(), v1::SAVING);
}

TEST_F(CoordinatorReplicas, NobodyHearsThatABackupWasGivenUpBeforeThatLasts) {
  t.unconfirmed[0] = 7;
  const uint64_t before = t.c->Status(t.now).server(0).view();
  for (int beat = 0; beat < 30; ++beat) {
    t.now += absl::Milliseconds(100);
    for (const auto& [member, is_server] : t.alive) t.Send(member);
    t.c->Tick(t.now);
  }
  EXPECT_GT(t.c->Status(t.now).server(0).view(), before);
  EXPECT_EQ(t.Send(t.server[0]).seat_size(), 0);
  t.MakeViewsLasting();
  EXPECT_EQ(t.Send(t.server[0]).seat_size(), 2);
  // Should the primary die now, its former backup is not what the run goes on with.
  KillServer(0);
  EXPECT_TRUE(t.c->wants_generation());
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

// The second coordinator dies as well, when one server has heard of its generation and the other has not.
TEST_F(AnotherCoordinator, ASecondDeathBeforeTheGenerationRunsIsMendedToo) {
  const auto join = [&](TestCluster* to, uint32_t s, const v1::HeartbeatRequest& holds, uint64_t generation) {
    v1::RegisterServerRequest request = to->ServerRequest(absl::StrCat("s", s), 100 + s);
    *request.mutable_seat() = holds.seat();
    for (v1::SeatReport& seat : *request.mutable_seat()) seat.set_ready(true);
    for (v1::SeatReport& seat : *request.mutable_seat()) seat.set_whole(!seat.primary());
    request.set_seat_generation(generation);
    request.set_seat_run(77);
    const uint64_t member = to->c->RegisterServer(request, to->now).member();
    to->alive[member] = true;
    return member;
  };
  CoordinatorOptions options = Options();
  options.resumed = true;
  options.generation = Generation(2);
  options.adopt = t.views;
  TestCluster second(options);
  second.AddServer("s0", 300);
  const uint64_t heard = join(&second, 1, t.Beat(t.server[1]), 1);
  second.Kill(join(&second, 2, t.Beat(t.server[2]), 1));
  for (uint32_t w = 0; w < 2; ++w) second.AddWorker(absl::StrCat("w", w), 200 + w);
  second.Run(absl::Seconds(1));
  ASSERT_EQ(second.c->phase(), v1::PLACING) << second.Log();
  ASSERT_EQ(second.views.generation(), 2u);
  ASSERT_EQ(second.views.before_size(), 1);
  EXPECT_EQ(second.views.before(0).generation(), 1u);

  options.generation = Generation(3);
  options.adopt = second.views;
  TestCluster third(options);
  third.AddServer("s0", 400);
  join(&third, 1, second.Beat(heard), 2);
  join(&third, 2, t.Beat(t.server[2]), 1);
  const uint64_t worker = third.AddWorker("w0", 200);
  third.AddWorker("w1", 201);
  // Nobody trains before the views of the generations that are over are out of the file.
  for (int step = 0; step < 50 && third.c->phase() != v1::RUNNING; ++step) third.Run(third.step);
  EXPECT_EQ(third.views.before_size(), 0);
  EXPECT_EQ(third.views.generation(), 3u);
  EXPECT_TRUE(third.Send(worker).has_map());
  third.Run(absl::Seconds(3));
  EXPECT_TRUE(absl::StrContains(third.Log(), "nothing is rolled back")) << third.Log();
  EXPECT_TRUE(AllSynced(third));
}

TEST_F(CoordinatorReplicas, AWorkerThatComesWhileAServerIsMissingIsPlaced) {
  KillServer(1);
  t.MakeViewsLasting();
  const uint64_t worker = t.AddWorker("w9", 209);
  EXPECT_TRUE(t.Send(worker).has_map());
}

// The second coordinator adopts what the servers hold; before it runs another server dies, so its first run is that of
// a recovery.
TEST_F(AnotherCoordinator, TimeCountsFromItsFirstRunWhateverThatIs) {
  CoordinatorOptions options = Options();
  options.job.mutable_stopping()->set_seconds(60);
  options.generation = Generation(2);
  options.resumed = true;
  options.adopt = t.views;
  TestCluster next(std::move(options));
  next.step = absl::Milliseconds(200);
  next.AddServer("s0", 300);
  for (uint32_t s = 1; s < 3; ++s) {
    v1::RegisterServerRequest request = next.ServerRequest(absl::StrCat("s", s), 100 + s);
    *request.mutable_seat() = t.Beat(t.server[s]).seat();
    for (v1::SeatReport& seat : *request.mutable_seat()) seat.set_whole(!seat.primary());
    request.set_seat_generation(1);
    request.set_seat_run(77);
    const uint64_t member = next.c->RegisterServer(request, next.now).member();
    next.alive[member] = true;
    next.server.push_back(member);
  }
  for (uint32_t w = 0; w < 2; ++w) next.worker.push_back(next.AddWorker(absl::StrCat("w", w), 200 + w));
  ASSERT_EQ(next.c->phase(), v1::PLACING) << next.Log();
  for (uint32_t s = 1; s < 3; ++s) {
    next.Kill(next.server[s - 1]);
    next.c->ReportFailure(Death(absl::StrCat("s", s), 100 + s), next.now);
  }
  ASSERT_TRUE(next.c->wants_generation()) << next.Log();
  next.c->BeginGeneration(Generation(3), std::nullopt, next.now);
  next.AddServer("s1", 301);
  next.AddServer("s2", 302);
  next.Run(absl::Seconds(4));
  ASSERT_EQ(next.c->phase(), v1::RUNNING) << next.Log();
  EXPECT_EQ(next.c->Status(next.now).recoveries(), 1u);
  next.Run(absl::Seconds(50));
  EXPECT_FALSE(next.c->stopping());
  EXPECT_NEAR(next.c->Status(next.now).seconds(), 52, 3);
  next.Run(absl::Seconds(12));
  EXPECT_TRUE(next.c->stopping()) << "the time is over";
}

}  // namespace
}  // namespace descent
