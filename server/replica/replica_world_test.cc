// Thousands of short lives of a primary, its backups and the link between them (replica_world.h).
#include "server/replica/replica_world.h"

#include <cstdlib>
#include <iostream>
#include <string>

#include "gtest/gtest.h"

namespace descent::replica_world {
namespace {

class ReplicaWorld : public ::testing::Test {
 protected:
  void RunSeeds(const Case& c, uint64_t seeds) {
    Counts all;
#ifdef DESCENT_FEWER_SEEDS
    seeds /= DESCENT_FEWER_SEEDS;
#endif
    // The long form: so many times as many.
    if (const char* times = std::getenv("DESCENT_REPLICA_TIMES"); times != nullptr) seeds *= std::stoull(times);
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      World world(c, seed);
      const std::string problem = world.Run();
      ASSERT_EQ(problem, "") << "seed " << seed;
      const Counts& one = world.counts();
      all.kills += one.kills;
      all.joins += one.joins;
      all.losses += one.losses;
      all.dropped_links += one.dropped_links;
      all.fences += one.fences;
      all.unacknowledged += one.unacknowledged;
      all.held += one.held;
      all.acknowledged += one.acknowledged;
    }
    std::cout << seeds << " seeds: " << all.acknowledged << " acknowledged contributions, " << all.kills << " kills, "
              << all.joins << " joins, " << all.dropped_links << " lost links, 0 lost, 0 doubled\n";
    RecordProperty("kills", all.kills);
    RecordProperty("joins", all.joins);
    // The cases that matter have come up.
    const auto n = static_cast<int>(seeds);
    EXPECT_GT(all.kills, n / 3);
    EXPECT_GT(all.joins, n);
    EXPECT_GT(all.losses, n / 4);
    EXPECT_GT(all.dropped_links, n);
    EXPECT_GT(all.fences, n);
    EXPECT_GT(all.unacknowledged, n / 4) << "no push was lost with its primary";
    EXPECT_GT(all.held, n);
  }
};

TEST_F(ReplicaWorld, RoundSynchronous) { RunSeeds({.staleness = 0}, 500); }
TEST_F(ReplicaWorld, RoundWithStaleness) { RunSeeds({.staleness = 2, .clocks = 24}, 500); }
TEST_F(ReplicaWorld, RoundOfTablesAlone) {
  RunSeeds({.adam = false, .staleness = 1, .dense = false, .clocks = 20}, 300);
}
TEST_F(ReplicaWorld, RoundOfDenseBlocksAlone) { RunSeeds({.staleness = 0, .sparse = false}, 300); }
TEST_F(ReplicaWorld, Push) { RunSeeds({.push = true, .staleness = 2}, 500); }
TEST_F(ReplicaWorld, PushWithoutABound) { RunSeeds({.adam = false, .push = true, .staleness = kUnbounded}, 300); }
TEST_F(ReplicaWorld, NoBlocksAtAll) { RunSeeds({.dense = false, .sparse = false}, 200); }

// That the checks can fail.
TEST_F(ReplicaWorld, AnswersThatDoNotWaitAreCaught) {
  for (const bool push : {false, true}) {
    int caught = 0;
    for (uint64_t seed = 1; seed <= 100; ++seed) {
      World world({.push = push, .staleness = 0, .fault = ReplicaFault::kAckBeforeReplicate}, seed);
      caught += !world.Run().empty();
    }
    EXPECT_GT(caught, 20) << push;
  }
}

}  // namespace
}  // namespace descent::replica_world
