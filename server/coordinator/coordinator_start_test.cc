// From registration to the first lease: admission, waiting, placement, memory, the job's length.
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Mismatch(const v1::RegisterReply& reply) {
  return {reply.mismatch().begin(), reply.mismatch().end()};
}

TEST(CoordinatorStartTest, AJobThatCannotBeCoordinatedIsRefused) {
  CoordinatorOptions options = TestCluster::Options(0, 1, 1);
  EXPECT_EQ(Coordinator::Create(options, absl::Now()).status().code(), absl::StatusCode::kInvalidArgument);
  options = TestCluster::Options(1, 1, 1);
  options.job.clear_epochs();
  EXPECT_THAT(Coordinator::Create(options, absl::Now()).status().message(), HasSubstr("epochs nor rounds"));
}

TEST(CoordinatorStartTest, MembersWaitArePlacedAndRun) {
  TestCluster t(TestCluster::Options(4, 2, 2));
  EXPECT_EQ(t.c->GetJob().job().name(), "test");
  EXPECT_EQ(t.c->GetJob().job_fingerprint(), 0xabcu);
  const uint64_t s0 = t.AddServer("a", 1), w0 = t.AddWorker("c", 3);
  t.now += absl::Seconds(12);
  v1::HeartbeatReply reply = t.Send(w0);
  EXPECT_EQ(reply.phase(), v1::STARTING);
  EXPECT_EQ(reply.message(), "waiting 12 s: 1/2 servers, 1/2 workers");
  EXPECT_FALSE(reply.has_map());

  const uint64_t s1 = t.AddServer("b", 2), w1 = t.AddWorker("d", 4);
  reply = t.Send(s0);
  EXPECT_EQ(reply.phase(), v1::PLACING);
  ASSERT_EQ(reply.tensors_size(), 1);
  EXPECT_EQ(reply.tensors(0).name(), "w");
  EXPECT_THAT(std::vector<std::string>(reply.map().address().begin(), reply.map().address().end()),
              ElementsAre("a:1", "b:2"));
  EXPECT_EQ(reply.map().tensor(0).server_size(), 4);  // 200,000 elements in blocks of 65,536
  EXPECT_EQ(reply.leases_size(), 0);
  EXPECT_THAT(reply.message(), HasSubstr("not ready: server 0 on host a (pid 1), server 1 on host b (pid 2)"));

  t.ready = {s0};
  EXPECT_EQ(t.Send(s0).phase(), v1::PLACING);
  EXPECT_FALSE(t.Send(s0).has_map()) << "whoever is ready knows the map";
  t.ready = {s0, s1};
  EXPECT_EQ(t.Send(s1).phase(), v1::RUNNING);
  reply = t.Send(w0);
  ASSERT_EQ(reply.leases_size(), 2);
  EXPECT_EQ(reply.leases(0).rank(), 0u);
  EXPECT_EQ(reply.leases(1).rank(), 1u);
  EXPECT_EQ(reply.leases(0).generation(), 1u);
  EXPECT_EQ(reply.leases(0).number(), 1u);
  EXPECT_TRUE(reply.has_map());
  EXPECT_EQ(reply.clocks_per_epoch(), 25u);  // 250 examples a rank in batches of 10
  EXPECT_EQ(reply.clocks(), 50u);
  EXPECT_EQ(reply.train_rows(), 1000u);
  EXPECT_EQ(t.Send(s0).leases_size(), 4) << "servers hear of all leases";
  EXPECT_EQ(t.Holders(), absl::StrCat(w0, " ", w0, " ", w1, " ", w1));
}

TEST(CoordinatorStartTest, TheJobsLengthInClocks) {
  const auto clocks = [](double epochs, uint64_t rounds, uint32_t ranks, uint64_t rows) {
    CoordinatorOptions options = TestCluster::Options(ranks, 1, 1);
    if (rounds > 0) {
      options.job.set_rounds(rounds);
    } else {
      options.job.set_epochs(epochs);
    }
    TestCluster t(options);
    v1::RegisterWorkerRequest request = t.WorkerRequest("w", 1);
    request.set_train_rows(rows);
    const v1::HeartbeatReply reply = t.Send(t.c->RegisterWorker(request, t.now).member());
    return std::make_pair(reply.clocks_per_epoch(), reply.clocks());
  };
  EXPECT_EQ(clocks(1, 0, 4, 1001), std::make_pair(uint64_t{26}, uint64_t{26}));
  EXPECT_EQ(clocks(0.5, 0, 4, 1000), std::make_pair(uint64_t{25}, uint64_t{13}));
  EXPECT_EQ(clocks(3, 0, 8, 3), std::make_pair(uint64_t{1}, uint64_t{3})) << "fewer examples than ranks";
  EXPECT_EQ(clocks(0, 7, 4, 1000), std::make_pair(uint64_t{25}, uint64_t{7}));
}

TEST(CoordinatorStartTest, FeaturesAreFittedAlikeAndConstantColumnsNamedOnce) {
  TestCluster t(TestCluster::Options(4, 1, 3));
  t.AddServer("a", 1);
  v1::RegisterWorkerRequest request = t.WorkerRequest("c", 3);
  request.mutable_features()->set_columns(2);
  request.mutable_features()->add_name("same");
  request.mutable_features()->add_constant(0);
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(request, t.now)), ElementsAre());
  v1::RegisterWorkerRequest other = t.WorkerRequest("d", 4);
  *other.mutable_features() = request.features();
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(other, t.now)), ElementsAre());
  v1::RegisterWorkerRequest unlike = t.WorkerRequest("e", 5);
  *unlike.mutable_features() = request.features();
  unlike.mutable_features()->add_scale(1);
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(unlike, t.now)),
              ElementsAre("the worker on host e has fitted features otherwise than host c; expected the same numbers, "
                          "from the same data"));
  EXPECT_EQ(t.c->features().constant_size(), 1);
  int told = 0;
  for (const LogLine& line : t.c->DrainLog()) {
    told += line.level == LogLine::Level::kWarning && absl::StrContains(line.text, "not scaled: 'same'");
  }
  EXPECT_EQ(told, 1);
}

TEST(CoordinatorStartTest, StatisticsAreSharedBeforeRegistrationByWhoeverHasTheJob) {
  TestCluster t(TestCluster::Options(4, 1, 1));
  v1::ShareStatisticsRequest request;
  request.set_protocol(1);
  request.set_job_fingerprint(0xabc);
  request.set_host("c");
  request.set_units(1);
  EXPECT_EQ(t.c->ShareStatistics(request, t.now).unit(), 0u);
  request.set_unit(0);
  request.mutable_statistics()->set_rows(7);
  EXPECT_EQ(t.c->ShareStatistics(request, t.now).total().rows(), 7u);
  request.set_job_fingerprint(0xdef);
  EXPECT_EQ(t.c->ShareStatistics(request, t.now).mismatch(),
            "the worker on host c speaks protocol version 1 and has a job of fingerprint 0000000000000def; expected 1, "
            "0000000000000abc");
  v1::StopRequest stop;
  stop.set_at_once(true);
  t.c->Stop(stop, t.now);
  request.set_job_fingerprint(0xabc);
  EXPECT_EQ(t.c->ShareStatistics(request, t.now).mismatch(), "the worker on host c is too late: the job is STOPPED");
}

TEST(CoordinatorStartTest, WorkersThatCountStatisticsAreNotLate) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 1);
  options.job.mutable_cluster()->set_start_timeout_seconds(60);
  TestCluster t(options);
  v1::ShareStatisticsRequest request;
  request.set_protocol(1);
  request.set_job_fingerprint(0xabc);
  request.set_units(3);
  request.mutable_statistics()->set_rows(7);
  for (uint32_t unit = 0; unit < 2; ++unit) {
    t.Run(absl::Seconds(50));
    request.set_unit(unit);
    EXPECT_EQ(t.c->ShareStatistics(request, t.now).mismatch(), "");
  }
  EXPECT_EQ(t.c->phase(), v1::STARTING);
  EXPECT_THAT(t.c->Status(t.now).message(), HasSubstr("statistics of the training data: 2 of 3 units"));
  t.Run(absl::Seconds(70));
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_THAT(t.c->first_cause(), HasSubstr("did not start within 1m of the last statistics of training data"));
}

TEST(CoordinatorStartTest, AnEpochIsAsLongAsWorkersResampleIt) {
  TestCluster t(TestCluster::Options(4, 1, 2));
  v1::RegisterWorkerRequest request = t.WorkerRequest("w", 1);
  request.set_epoch_rows(1600);
  EXPECT_EQ(t.Send(t.c->RegisterWorker(request, t.now).member()).clocks_per_epoch(), 40u);
  v1::RegisterWorkerRequest other = t.WorkerRequest("v", 2);
  other.set_epoch_rows(1599);
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(other, t.now)),
              ElementsAre("the worker on host v has epochs of 1599 examples; expected 1600, as host w"));
}

TEST(CoordinatorStartTest, EveryMismatchIsOneSentenceWithBothValues) {
  TestCluster t(TestCluster::Options(4, 1, 3));
  t.AddServer("a", 1);
  t.AddWorker("c", 3);
  v1::RegisterWorkerRequest request = t.WorkerRequest("d", 4);
  request.set_protocol(2);
  request.set_job_fingerprint(0xdef);
  request.mutable_numerics()->set_build("b2");
  request.mutable_numerics()->set_instruction_set("x86-64-v4");
  request.mutable_numerics()->set_probe(0x66);
  request.mutable_tensors(0)->set_shape(1, 1000);
  request.mutable_files(0)->set_crc32c(1);
  request.set_train_rows(999);
  request.set_validation_rows(99);
  EXPECT_THAT(
      Mismatch(t.c->RegisterWorker(request, t.now)),
      ElementsAre("the worker on host d speaks protocol version 2; expected 1",
                  "the worker on host d was started for another job: its fingerprint is 0000000000000def; expected "
                  "0000000000000abc",
                  "the worker on host d is another build: 'b2'; expected 'b1', as the server on host a "
                  "(consistency.allow_mixed_numerics permits a mixture)",
                  "the worker on host d is compiled for the instruction set x86-64-v4; expected x86-64-v3, as the "
                  "server on host a (consistency.allow_mixed_numerics permits a mixture)",
                  "the worker on host d computes other bits: its numerics probe is 0000000000000066; expected "
                  "0000000000000055, as the server on host a (consistency.allow_mixed_numerics permits a mixture)",
                  "the worker on host d has as tensor 0 'w' float32[100, 1000] trainable, decayed, zero; expected 'w' "
                  "float32[100, 2000] trainable, decayed, zero, as the first worker (host c)",
                  "the worker on host d has another data file x.csv: 12345 bytes, 1000 rows, CRC32C 00000001; expected "
                  "12345 bytes, 1000 rows, CRC32C 1234abcd, as host c",
                  "the worker on host d found 999 rows of training data; expected 1000, as host c",
                  "the worker on host d found 99 rows of validation data; expected 100, as host c"));
  EXPECT_THAT(t.Log(), HasSubstr("refused: the worker on host d speaks protocol"));
  EXPECT_EQ(t.c->Status(t.now).member_size(), 2) << "whoever is refused is no member";

  request = t.WorkerRequest("d", 4);
  request.add_tensors()->set_name("more");
  request.mutable_files(0)->set_name("y.csv");
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(request, t.now)),
              ElementsAre("the worker on host d has a model of 2 tensors; expected 1, as the first worker (host c)",
                          "the worker on host d has as data file 0 y.csv; expected x.csv, as host c"));
  request = t.WorkerRequest("d", 4);
  request.clear_files();
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(request, t.now)),
              ElementsAre("the worker on host d has 0 data files; expected 1, as host c"));
}

TEST(CoordinatorStartTest, TheFirstModelIsCheckedAgainstTheJob) {
  CoordinatorOptions options = TestCluster::Options(4, 1, 1);
  options.job.mutable_model()->set_max_bytes(1000);
  TestCluster t(options);
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(t.WorkerRequest("c", 1), t.now)).at(0), HasSubstr("'w'"));

  v1::RegisterWorkerRequest request = t.WorkerRequest("c", 1);
  request.clear_tensors();
  request.set_train_rows(0);
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(request, t.now)),
              ElementsAre("the worker on host c has a model without tensors; expected at least one",
                          "the worker on host c found 0 rows of training data; expected at least 1"));
  request = t.WorkerRequest("c", 1);
  request.mutable_tensors(0)->set_shape(0, uint64_t{1} << 60);
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(request, t.now)).at(0), HasSubstr("'w'"));
  request = t.WorkerRequest("c", 1);
  request.mutable_tensors(0)->set_role(static_cast<v1::TensorRole>(9));
  EXPECT_THAT(Mismatch(t.c->RegisterWorker(request, t.now)).at(0), HasSubstr("unknown role 9"));
  EXPECT_EQ(t.c->Status(t.now).member_size(), 0);
}

TEST(CoordinatorStartTest, AMixtureOfNumericsIsForWhoAsksForIt) {
  for (const bool apply_push : {false, true}) {
    for (const bool allow : {false, true}) {
      CoordinatorOptions options = TestCluster::Options(4, 1, 2);
      options.apply_push = apply_push;
      options.job.mutable_consistency()->set_allow_mixed_numerics(allow);
      TestCluster t(options);
      t.AddServer("a", 1);
      v1::RegisterWorkerRequest request = t.WorkerRequest("c", 1);
      request.mutable_numerics()->set_probe(1);
      const bool admitted = t.c->RegisterWorker(request, t.now).mismatch_size() == 0;
      EXPECT_EQ(admitted, apply_push || allow);
      EXPECT_EQ(t.Log().find("results may differ in bits") != std::string::npos, admitted);
    }
  }
}

TEST(CoordinatorStartTest, ARegistrationSentTwiceIsOne) {
  TestCluster t(TestCluster::Options(4, 2, 2));
  v1::RegisterServerRequest server = t.ServerRequest("a", 1);
  server.set_nonce(5);
  v1::RegisterWorkerRequest worker = t.WorkerRequest("c", 1);
  worker.set_nonce(5);
  const uint64_t s = t.c->RegisterServer(server, t.now).member(), w = t.c->RegisterWorker(worker, t.now).member();
  EXPECT_NE(s, w);
  EXPECT_EQ(t.c->RegisterServer(server, t.now).member(), s);
  EXPECT_EQ(t.c->RegisterWorker(worker, t.now).member(), w);
  EXPECT_EQ(t.c->Status(t.now).member_size(), 2);
  worker.set_nonce(6);
  EXPECT_NE(t.c->RegisterWorker(worker, t.now).member(), w);
}

TEST(CoordinatorStartTest, OneServerTooManyAndOneAddressTwice) {
  TestCluster t(TestCluster::Options(4, 2, 1));
  t.AddServer("a", 1);
  EXPECT_THAT(Mismatch(t.c->RegisterServer(t.ServerRequest("a", 1), t.now)),
              ElementsAre("the server on host a gives the address a:1, which is that of server 0 on host a (pid 1); "
                          "expected one of its own"));
  t.AddServer("b", 1);
  EXPECT_THAT(Mismatch(t.c->RegisterServer(t.ServerRequest("c", 1), t.now)),
              ElementsAre("the server on host c is one too many: the job has 2 servers, all registered"));
  v1::RegisterServerRequest request = t.ServerRequest("d", 1);
  request.clear_address();
  EXPECT_THAT(Mismatch(t.c->RegisterServer(request, t.now)).at(0), HasSubstr("gave no address"));
}

TEST(CoordinatorStartTest, AServerThatDiesBeforeTheStartIsReplacedUnderItsId) {
  TestCluster t(TestCluster::Options(4, 2, 1));
  const uint64_t s0 = t.AddServer("a", 1);
  t.AddServer("b", 1);
  t.Kill(s0);
  t.Run(absl::Seconds(11));
  EXPECT_EQ(t.c->phase(), v1::STARTING);
  EXPECT_THAT(t.Log(), HasSubstr("gone: server 0 on host a (pid 1): nothing heard for 10.5s; the lease is 10s"));
  EXPECT_EQ(t.c->RegisterServer(t.ServerRequest("c", 1), t.now).server(), 0u);
}

TEST(CoordinatorStartTest, AStartThatTakesTooLongFailsWithWhoIsMissing) {
  CoordinatorOptions options = TestCluster::Options(4, 2, 3);
  options.job.mutable_cluster()->set_start_timeout_seconds(30);
  TestCluster t(options);
  t.AddServer("a", 1);
  t.AddWorker("c", 3);
  t.Run(absl::Seconds(30));
  EXPECT_EQ(t.c->phase(), v1::STARTING);
  t.Run(absl::Seconds(1));
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_EQ(t.c->first_cause(),
            "the job did not start within 30s: missing: 1 of 2 servers, 2 of 3 workers; registered: server 0 on host a "
            "(pid 1), worker 2 on host c (pid 3)");
}

TEST(CoordinatorStartTest, AServerThatNeverGetsReadyIsNamed) {
  CoordinatorOptions options = TestCluster::Options(4, 2, 1);
  options.job.mutable_cluster()->set_start_timeout_seconds(30);
  TestCluster t(options);
  const uint64_t s0 = t.AddServer("a", 1), s1 = t.AddServer("b", 2);
  t.AddWorker("c", 3);
  t.ready.insert(s0);
  for (int i = 0; i < 62; ++i) {
    t.now += absl::Milliseconds(500);
    for (const auto& [member, is_server] : t.alive) t.Send(member);
    t.c->Tick(t.now);
  }
  EXPECT_EQ(t.c->first_cause(), "servers did not make their blocks within 30s: not ready: server 1 on host b (pid 2)");
  EXPECT_EQ(t.Send(s1).message(), t.c->first_cause());
}

TEST(CoordinatorStartTest, WorkersThatTakeTooFewRanksHoldTheStart) {
  TestCluster t(TestCluster::Options(8, 1, 2));
  t.AddServer("a", 1);
  t.AddWorker("c", 1, 2);
  const uint64_t w = t.AddWorker("c", 2, 3);
  EXPECT_EQ(t.Send(w).phase(), v1::STARTING);
  EXPECT_THAT(t.Send(w).message(), HasSubstr("2/2 workers; they take fewer than the job's 8 ranks"));
  t.AddWorker("c", 3, 3);
  EXPECT_EQ(t.Send(w).phase(), v1::PLACING);
}

TEST(CoordinatorStartTest, MemoryThatDoesNotSufficeIsRefusedByNameAndNumber) {
  TestCluster t(TestCluster::Options(8, 2, 1));
  v1::RegisterServerRequest request = t.ServerRequest("a", 1);
  request.set_memory_bytes(1 << 20);
  t.c->RegisterServer(request, t.now);
  request = t.ServerRequest("b", 1);
  request.set_memory_bytes(uint64_t{1} << 30);
  t.c->RegisterServer(request, t.now);
  t.AddWorker("c", 1);
  EXPECT_EQ(t.c->phase(), v1::FAILED);
  EXPECT_THAT(t.c->first_cause(), HasSubstr("does not fit into memory: server 0 on host a (pid 1) needs "));
  EXPECT_THAT(t.c->first_cause(), Not(HasSubstr("server 1")));
}

TEST(CoordinatorStartTest, TheOwnersMemoryPlanIsAsked) {
  CoordinatorOptions options = TestCluster::Options(8, 1, 1);
  options.memory = [](ServerId, const std::vector<TensorSpec>& specs, const PartitionMap& map, uint64_t) {
    EXPECT_EQ(specs.size(), 1u);
    EXPECT_EQ(map.servers, 1u);
    return MemoryPlan{uint64_t{3} << 30, "everything"};
  };
  TestCluster t(options);
  v1::RegisterServerRequest request = t.ServerRequest("a", 1);
  request.set_memory_bytes(uint64_t{2} << 30);
  t.c->RegisterServer(request, t.now);
  t.AddWorker("c", 1);
  EXPECT_EQ(
      t.c->first_cause(),
      "the job does not fit into memory: server 0 on host a (pid 1) needs 3.00 GiB (everything) and has 2.00 GiB; "
      "more servers or limits.server_bytes would help");
  EXPECT_EQ(t.c->Status(t.now).memory(), "server 0 needs 3.00 GiB of 2.00 GiB (everything)");
}

TEST(CoordinatorStartTest, HeartbeatsAreCloseAtFirstAndGrowRare) {
  TestCluster t(TestCluster::Options(4, 1, 2));
  const uint64_t s = t.AddServer("a", 1);
  EXPECT_EQ(t.Send(s).next_ms(), 20u);
  t.now += absl::Seconds(2);
  EXPECT_EQ(t.Send(s).next_ms(), 120u);
  t.now += absl::Seconds(60);
  EXPECT_EQ(t.Send(s).next_ms(), 250u);
  t.AddWorker("c", 1);
  t.AddWorker("c", 2);
  EXPECT_EQ(t.Send(s).next_ms(), 20u);
  t.ready.insert(s);
  EXPECT_EQ(t.Send(s).next_ms(), 20u);
  EXPECT_EQ(t.c->phase(), v1::RUNNING);
  t.now += absl::Seconds(60);
  EXPECT_EQ(t.Send(s).next_ms(), 1000u);
}

TEST(CoordinatorStartTest, AnUnknownMemberOrAnotherRunRegistersAgain) {
  TestCluster t(TestCluster::Options(4, 1, 1));
  EXPECT_TRUE(t.Send(9).unknown_member());
  const uint64_t s = t.AddServer("a", 1);
  v1::HeartbeatRequest beat = t.Beat(s);
  beat.set_run(1);
  EXPECT_TRUE(t.Send(beat).unknown_member());
  EXPECT_THAT(t.Send(beat).message(), HasSubstr("expected run 000000000000004d"));
  beat = t.Beat(s);
  beat.set_generation(2);  // it hears which one there is
  EXPECT_FALSE(t.Send(beat).unknown_member());
  EXPECT_EQ(t.Send(beat).generation(), 1u);
  EXPECT_FALSE(t.Send(s).unknown_member());
}

}  // namespace
}  // namespace descent
