#include "server/process/node_options.h"

#include <string>

#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

StoreOptions Of(const std::string& text, uint64_t clocks_per_epoch = 100) {
  auto job =
      ParseJob("name: 'a' ranks: 4 epochs: 2 model { linear {} } data { train { csv { path: 'a' } } }" + text, "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  EXPECT_TRUE(ValidateJob(*job).ok()) << ValidateJob(*job);
  return StoreOptionsOf(*job, clocks_per_epoch).value();
}

TEST(NodeOptions, RatesFollowTheScheduleByRounds) {
  const std::string step = "learning_rate { step { initial: 1 factor: 0.5 every_epochs: 0.1 } }";
  const StoreOptions round = Of(step);
  EXPECT_EQ(round.rate(Clock(9)), 1.0f);
  EXPECT_EQ(round.rate(Clock(10)), 0.5f);
  // Each of four ranks makes a push a round.
  const StoreOptions push = Of("consistency { mode: ASYNC }" + step);
  EXPECT_EQ(push.rate(Clock(39)), 1.0f);
  EXPECT_EQ(push.rate(Clock(40)), 0.5f);
  // The rest of a run of 200 clocks.
  EXPECT_EQ(Of("learning_rate { polynomial { initial: 1 } }").rate(Clock(100)), 0.5f);
  EXPECT_EQ(Of("consistency { mode: ASYNC } learning_rate { polynomial { initial: 1 } }").rate(Clock(403)), 0.5f);
}

TEST(NodeOptions, StepsDecayByL2OrByTheRulesOwn) {
  const std::string rate = "learning_rate { constant: 1 }";
  EXPECT_EQ(Of(rate).l2, 0.0f);
  EXPECT_EQ(Of(rate + "l2: 0.25").l2, 0.25f);
  EXPECT_EQ(Of(rate + "optimizer { adamw { weight_decay: 0.5 } }").l2, 0.5f);
  EXPECT_EQ(Of(rate + "optimizer { adamw {} }").l2, 0.01f);
  // With local training the job's is in the steps that ranks make, and the rule's own in those of servers.
  const std::string local = rate + "local_training { steps: 2 learning_rate: 0.1 }";
  EXPECT_EQ(Of(local + "l2: 0.25").l2, 0.0f);
  EXPECT_EQ(Of(local + "optimizer { adamw { weight_decay: 0.5 } }").l2, 0.5f);
}

}  // namespace
}  // namespace descent
