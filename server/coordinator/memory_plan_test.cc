#include "server/coordinator/memory_plan.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(MemoryPlanTest, AnEstimateCountsVersionsStateAndHeldContributionsOfDenseTensors) {
  TensorSpec dense, table;
  dense.name = "w";
  dense.shape = {1 << 20};
  table.name = "t";
  table.shape = {1 << 20};
  table.sparse = true;
  const std::vector<TensorSpec> specs = {dense, table};
  const Geometry geometry{1 << 18, 16};
  const PartitionMap map = MakePartitionMap(specs, geometry, 2);
  v1::JobSpec job;
  job.set_ranks(8);
  job.mutable_optimizer()->mutable_adam();
  uint64_t round = 0, push = 0;
  for (uint32_t s = 0; s < 2; ++s) {
    const MemoryPlan plan = EstimateMemory(job, false, geometry, ServerId(s), specs, map);
    round += plan.bytes;
    push += EstimateMemory(job, true, geometry, ServerId(s), specs, map).bytes;
    EXPECT_THAT(plan.parts, HasSubstr("parameters in two versions "));
  }
  EXPECT_EQ(round, (2 + 2 + 4) * 4 * kMiB);  // two versions, Adam's two moments, one contribution per two ranks
  EXPECT_EQ(push, (2 + 2 + 1) * 4 * kMiB);
  job.mutable_optimizer()->mutable_sgd();
  EXPECT_EQ(EstimateMemory(job, true, geometry, ServerId(0), specs, map).bytes +
                EstimateMemory(job, true, geometry, ServerId(1), specs, map).bytes,
            (2 + 0 + 1) * 4 * kMiB);
  job.mutable_consistency()->mutable_delay_compensation()->set_mean_square_decay(0.95);
  EXPECT_EQ(EstimateMemory(job, true, geometry, ServerId(0), specs, map).bytes +
                EstimateMemory(job, true, geometry, ServerId(1), specs, map).bytes,
            (2 + 1 + 1) * 4 * kMiB);
}

TEST(MemoryPlanTest, WhoHasTooLittleIsNamedWithBothNumbers) {
  MemberTable members;
  const auto add = [&](uint32_t server, uint64_t bytes) {
    Member member;
    member.is_server = true;
    member.server = ServerId(server);
    member.host = "h";
    member.pid = 10 + server;
    member.memory_bytes = bytes;
    members.Add(member);
  };
  add(0, 1 * kMiB);
  add(1, 4 * kMiB);
  add(2, 0);
  members.Add(Member());  // a worker
  const auto needs = [](ServerId server) { return MemoryPlan{(server.value + 1) * 2 * kMiB, "all"}; };
  const MemoryFit fit = FitMemory(members, 3, false, needs);
  EXPECT_EQ(fit.line, "server 2 needs 6.0 MiB of an unlimited budget (all)");
  EXPECT_THAT(fit.refused, ElementsAre("server 0 on host h (pid 10) needs 2.0 MiB (all) and has 1.0 MiB"));
  // With replicas each also holds a copy of the server before.
  const MemoryFit doubled = FitMemory(members, 3, true, needs);
  EXPECT_THAT(doubled.refused,
              ElementsAre("server 0 on host h (pid 10) needs 8.0 MiB (all, backup of another server 6.0 MiB) and has "
                          "1.0 MiB",
                          "server 1 on host h (pid 11) needs 6.0 MiB (all, backup of another server 2.0 MiB) and has "
                          "4.0 MiB"));
  EXPECT_THAT(FitMemory(MemberTable(), 3, false, needs).refused, IsEmpty());
}

}  // namespace
}  // namespace descent
