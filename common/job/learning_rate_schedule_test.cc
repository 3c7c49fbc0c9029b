#include "common/job/learning_rate_schedule.h"

#include <cmath>
#include <limits>
#include <string>

#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

// 100 rounds an epoch, 10 epochs.
constexpr uint64_t kPerEpoch = 100;

LearningRateSchedule Of(const std::string& rate, const std::string& length = "epochs: 10") {
  auto job = ParseJob(
      length + " data { train { csv { path: \"a\" } } } model { linear {} } learning_rate { " + rate + " }", "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  EXPECT_TRUE(ValidateJob(*job).ok()) << ValidateJob(*job);
  return LearningRateSchedule(*job, kPerEpoch);
}

TEST(LearningRateSchedule, Constant) {
  for (uint64_t clock : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 48}) EXPECT_EQ(Of("constant: 0.1").At(clock), 0.1f);
}

TEST(LearningRateSchedule, Step) {
  const LearningRateSchedule rate = Of("step { initial: 0.5 factor: 0.5 every_rounds: 10 }");
  EXPECT_EQ(rate.At(0), 0.5f);
  EXPECT_EQ(rate.At(9), 0.5f);
  EXPECT_EQ(rate.At(10), 0.25f);
  EXPECT_EQ(rate.At(29), 0.125f);
  EXPECT_EQ(rate.At(uint64_t{1} << 40), 0.0f);
  const LearningRateSchedule epochs = Of("step { initial: 1 every_epochs: 0.5 }");
  EXPECT_EQ(epochs.At(49), 1.0f);
  EXPECT_EQ(epochs.At(50), 0.1f);
  EXPECT_EQ(epochs.At(100), 0.01f);
}

TEST(LearningRateSchedule, Exponential) {
  const LearningRateSchedule rate = Of("exponential { initial: 2 factor: 0.25 rounds: 10 }");
  EXPECT_EQ(rate.At(0), 2.0f);
  EXPECT_EQ(rate.At(5), 1.0f) << "a quarter's root";
  EXPECT_EQ(rate.At(10), 0.5f);
  EXPECT_EQ(rate.At(30), 0.03125f);
  EXPECT_FLOAT_EQ(rate.At(1), 1.7411011265922482f);  // 2 * 4^-0.1
  EXPECT_EQ(Of("exponential { initial: 2 epochs: 1 }").At(200), 0.02f);
}

TEST(LearningRateSchedule, InverseTimeAndSquareRoot) {
  const LearningRateSchedule time = Of("inverse_time { initial: 0.5 rounds: 4 }");
  EXPECT_EQ(time.At(0), 0.5f);
  EXPECT_EQ(time.At(4), 0.25f);
  EXPECT_EQ(time.At(12), 0.125f);
  const LearningRateSchedule root = Of("inverse_sqrt { initial: 0.5 rounds: 1 }");
  EXPECT_EQ(root.At(0), 0.5f);
  EXPECT_EQ(root.At(3), 0.25f);
  EXPECT_EQ(root.At(15), 0.125f);
  EXPECT_EQ(Of("inverse_sqrt { initial: 0.5 epochs: 1 }").At(300), 0.25f);
}

TEST(LearningRateSchedule, Polynomial) {
  const LearningRateSchedule line = Of("polynomial { initial: 1 final: 0.5 rounds: 8 }");
  EXPECT_EQ(line.At(0), 1.0f);
  EXPECT_EQ(line.At(2), 0.875f);
  EXPECT_EQ(line.At(7), 0.5625f);
  EXPECT_EQ(line.At(8), 0.5f);
  EXPECT_EQ(line.At(1'000'000), 0.5f);
  const LearningRateSchedule square = Of("polynomial { initial: 1 power: 2 }");  // over the whole run
  EXPECT_EQ(square.At(500), 0.25f);
  EXPECT_EQ(square.At(1000), 0.0f);
  EXPECT_EQ(Of("polynomial { initial: 1 power: 0.5 rounds: 4 }").At(3), 0.5f);
}

TEST(LearningRateSchedule, Cosine) {
  const LearningRateSchedule rate = Of("cosine { initial: 1 final: 0.2 rounds: 12 }");
  EXPECT_EQ(rate.At(0), 1.0f);
  EXPECT_FLOAT_EQ(rate.At(2), 0.2f + 0.4f * (1 + 0.8660254037844386f));
  EXPECT_FLOAT_EQ(rate.At(4), 0.8f);
  EXPECT_FLOAT_EQ(rate.At(6), 0.6f);
  EXPECT_FLOAT_EQ(rate.At(8), 0.4f);
  EXPECT_EQ(rate.At(12), 0.2f);
  EXPECT_EQ(rate.At(13), 0.2f);
  EXPECT_FLOAT_EQ(Of("cosine { initial: 1 }").At(500), 0.5f) << "the rest of the run";
  EXPECT_FLOAT_EQ(Of("cosine { initial: 1 }", "rounds: 60").At(20), 0.75f);
  EXPECT_FLOAT_EQ(Of("cosine { initial: 1 } warmup_rounds: 20", "rounds: 80").At(40), 0.75f);
  EXPECT_FLOAT_EQ(Of("cosine { initial: 1 epochs: 2 }").At(100), 0.5f);
}

TEST(LearningRateSchedule, CosineRestarts) {
  const LearningRateSchedule same = Of("cosine { initial: 1 rounds: 10 restarts: true }");
  for (uint64_t clock = 0; clock < 10; ++clock) {
    EXPECT_EQ(same.At(clock), same.At(clock + 10));
    EXPECT_EQ(same.At(clock), same.At(clock + 1'000'000));
  }
  EXPECT_FLOAT_EQ(same.At(15), 0.5f);
  const LearningRateSchedule longer = Of("cosine { initial: 1 rounds: 10 restarts: true growth: 2 }");
  EXPECT_FLOAT_EQ(longer.At(5), 0.5f);
  EXPECT_EQ(longer.At(10), 1.0f);
  EXPECT_FLOAT_EQ(longer.At(20), 0.5f);
  EXPECT_EQ(longer.At(30), 1.0f);
  EXPECT_FLOAT_EQ(longer.At(50), 0.5f);
  EXPECT_EQ(longer.At(70), 1.0f);
}

TEST(LearningRateSchedule, OneCycle) {
  const LearningRateSchedule rate = Of("one_cycle { peak: 1 initial: 0.2 final: 0.1 rise: 0.25 rounds: 16 }");
  EXPECT_FLOAT_EQ(rate.At(0), 0.2f);
  EXPECT_FLOAT_EQ(rate.At(2), 0.6f);
  EXPECT_FLOAT_EQ(rate.At(4), 1.0f);
  EXPECT_FLOAT_EQ(rate.At(6), 0.6f);
  EXPECT_FLOAT_EQ(rate.At(8), 0.2f);
  EXPECT_FLOAT_EQ(rate.At(12), 0.15f);
  EXPECT_EQ(rate.At(16), 0.1f);
  const LearningRateSchedule defaults = Of("one_cycle { peak: 1 }");
  EXPECT_FLOAT_EQ(defaults.At(0), 0.1f);
  EXPECT_FLOAT_EQ(defaults.At(450), 1.0f);
  EXPECT_FLOAT_EQ(defaults.At(900), 0.1f);
  EXPECT_FLOAT_EQ(defaults.At(1000), 0.001f);
  EXPECT_FLOAT_EQ(Of("one_cycle { peak: 1 rise: 0.5 rounds: 2 }").At(1), 1.0f);
}

TEST(LearningRateSchedule, WarmUpIsLinearInFrontOfAny) {
  const LearningRateSchedule rate = Of("step { initial: 1 factor: 0.5 every_rounds: 10 } warmup_rounds: 3");
  EXPECT_EQ(rate.At(0), 0.25f);
  EXPECT_EQ(rate.At(1), 0.5f);
  EXPECT_EQ(rate.At(2), 0.75f);
  EXPECT_EQ(rate.At(3), 1.0f);
  EXPECT_EQ(rate.At(12), 1.0f);
  EXPECT_EQ(rate.At(13), 0.5f);
  const LearningRateSchedule epochs = Of("constant: 1 warmup_epochs: 0.5");
  EXPECT_FLOAT_EQ(epochs.At(0), 1.0f / 51);
  EXPECT_FLOAT_EQ(epochs.At(49), 50.0f / 51);
  EXPECT_EQ(epochs.At(50), 1.0f);
  // A warm-up as long as the run leaves one round for what follows.
  EXPECT_EQ(Of("cosine { initial: 1 } warmup_rounds: 100", "rounds: 100").At(100), 1.0f);
}

TEST(LearningRateSchedule, ScalesWithTheNumberOfRanks) {
  const std::string length = "ranks: 16 rounds: 10";
  EXPECT_EQ(Of("constant: 0.5 scaling: LINEAR", length).At(3), 8.0f);
  EXPECT_EQ(Of("constant: 0.5 scaling: LINEAR scaled_from: 4", length).At(3), 2.0f);
  EXPECT_EQ(Of("constant: 0.5 scaling: SQUARE_ROOT scaled_from: 4", length).At(3), 1.0f);
  EXPECT_EQ(Of("constant: 0.5 scaling: LINEAR scaled_from: 32", length).At(3), 0.25f);
  const LearningRateSchedule whole =
      Of("polynomial { initial: 1 final: 0.5 } warmup_rounds: 1 scaling: LINEAR", length);
  EXPECT_EQ(whole.At(0), 8.0f);
  EXPECT_EQ(whole.At(1), 16.0f);
  EXPECT_EQ(whole.At(10), 8.0f);
}

TEST(LearningRateSchedule, IsFiniteAndNeverNegative) {
  for (const char* rate :
       {"step { initial: 1 every_rounds: 1 }", "exponential { initial: 1 rounds: 3 }",
        "inverse_time { initial: 1 rounds: 1 }", "inverse_sqrt { initial: 1 rounds: 7 }",
        "polynomial { initial: 1 power: 0.3 rounds: 77 }", "cosine { initial: 1 rounds: 77 }",
        "cosine { initial: 1 rounds: 1 restarts: true }", "cosine { initial: 1 rounds: 1 restarts: true growth: 3 }",
        "one_cycle { peak: 1 rise: 0.3 rounds: 77 } warmup_rounds: 5"}) {
    const LearningRateSchedule schedule = Of(rate);
    const auto check = [&](uint64_t clock) {
      EXPECT_TRUE(std::isfinite(schedule.At(clock))) << rate << " at " << clock;
      EXPECT_GE(schedule.At(clock), 0) << rate << " at " << clock;
      EXPECT_LE(schedule.At(clock), 1) << rate << " at " << clock;
    };
    for (uint64_t clock = 0; clock < 300; ++clock) check(clock);
    for (int shift = 9; shift < 64; ++shift) check(uint64_t{1} << shift);
    check(std::numeric_limits<uint64_t>::max());
  }
}

}  // namespace
}  // namespace descent
