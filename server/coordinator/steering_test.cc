#include "server/coordinator/steering.h"

#include <cmath>
#include <random>

#include "common/job/job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kEnd = 1000, kEvery = 10;

v1::JobSpec Job(const std::string& rules) {
  auto job = ParseJob(R"(
    name: "a" ranks: 2 rounds: 1000 learning_rate { constant: 0.1 }
    data { root: "/x" train { csv { path: "a" } } validation { csv { path: "b" } } } model { logistic {} }
    evaluation { every_rounds: 10 metrics: ROC_AUC } )" +
                          rules,
                      "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  EXPECT_TRUE(ValidateJob(*job).ok()) << ValidateJob(*job);
  return *job;
}

MetricRecord Evaluation(uint64_t clock, double loss, double accuracy = 0.5) {
  MetricRecord record;
  record.kind = MetricRecord::Kind::kEvaluation;
  record.clock = clock;
  record.loss = loss;
  record.accuracy = accuracy;
  return record;
}

v1::ScalarSquares Norms(uint64_t clock, double gradient, double step) {
  v1::ScalarSquares squares;
  squares.set_clock(clock);
  squares.set_gradient(gradient * gradient);
  squares.set_step(step * step);
  return squares;
}

// Evaluates at 10, 20, ... until it stops or the losses are over; cuts and servers follow at once.
std::vector<std::string> Train(Steering* steering, const std::vector<double>& losses, uint64_t from = 0) {
  std::vector<std::string> told;
  for (size_t i = 0; i < losses.size() && steering->stop().empty(); ++i) {
    const uint64_t clock = from + (i + 1) * kEvery;
    EXPECT_EQ(steering->begin_below(kEvery), clock);
    steering->Evaluated(Evaluation(clock, losses[i]), kEnd);
    for (const MetricRecord& record : steering->Step(0, 0)) {
      told.push_back(absl::StrCat(record.clock, " ", record.decision, ": ", record.why));
    }
    steering->Step(steering->wants_cut().value_or(0), kUnbounded);
  }
  return told;
}

TEST(PatienceTest, ByHand) {
  const Patience less(2, 0.1, false), more(1, 0, true);
  Patience::State state;
  EXPECT_TRUE(less.Take(5, &state));
  EXPECT_FALSE(less.Take(4.95, &state)) << "better by too little";
  EXPECT_FALSE(less.Over(state));
  EXPECT_FALSE(less.Take(std::nan(""), &state));
  EXPECT_TRUE(less.Over(state));
  EXPECT_TRUE(less.Take(4.8, &state));
  EXPECT_FALSE(less.Over(state));
  EXPECT_FALSE(less.Take(std::nullopt, &state));
  EXPECT_EQ(state.best, 4.8);
  state = {};
  EXPECT_FALSE(more.Take(std::nullopt, &state));
  EXPECT_TRUE(more.Over(state));
  EXPECT_TRUE(more.Take(0.5, &state));
  EXPECT_FALSE(more.Take(0.5, &state));
  EXPECT_TRUE(more.Take(0.6, &state));
}

TEST(SteeringTest, AJobWithoutRulesHoldsNobody) {
  Steering steering(Job(""));
  EXPECT_FALSE(steering.enabled());
  steering.Evaluated(Evaluation(10, 1), kEnd);
  EXPECT_THAT(steering.Step(0, 0), IsEmpty());
  EXPECT_FALSE(steering.begin_below(kEvery).has_value());
  EXPECT_TRUE(steering.StateOf(10, kEvery).has_value());
}

TEST(SteeringTest, StopsEarlyAfterItsPatience) {
  Steering steering(Job("stopping { early { patience: 2 } }"));
  EXPECT_THAT(Train(&steering, {5, 4, 4.5, 4, 3}),
              ElementsAre("40 stop: loss was no better in 2 evaluations than 4 at clock 20"));
  EXPECT_EQ(steering.best_clock(), 20u);
  EXPECT_EQ(steering.begin_below(kEvery), 40u) << "nobody goes beyond the stop";
}

TEST(SteeringTest, OfOtherMetricsMoreIsBetter) {
  Steering steering(Job(R"(stopping { early { metric: "accuracy" patience: 1 } })"));
  for (const auto& [clock, accuracy] : {std::pair(10, 0.5), std::pair(20, 0.7), std::pair(30, 0.6)}) {
    steering.Evaluated(Evaluation(clock, 1, accuracy), kEnd);
    steering.Step(0, 0);
  }
  EXPECT_THAT(steering.stop(), HasSubstr("accuracy was no better in 1 evaluations than 0.7 at clock 20"));
}

TEST(SteeringTest, ABestModelIsHeldUntilACutHasIt) {
  Steering steering(Job("stopping { early { patience: 2 restore_best: true } }"));
  steering.Evaluated(Evaluation(10, 5), kEnd);
  steering.Step(0, 0);
  EXPECT_EQ(steering.wants_cut(), 10u);
  EXPECT_EQ(steering.begin_below(kEvery), 10u);
  steering.Step(7, 0);
  EXPECT_EQ(steering.begin_below(kEvery), 10u);
  steering.Step(10, 0);
  EXPECT_FALSE(steering.wants_cut().has_value());
  EXPECT_EQ(steering.begin_below(kEvery), 20u);
  steering.Evaluated(Evaluation(20, 6), kEnd);
  steering.Step(10, 0);
  EXPECT_FALSE(steering.wants_cut().has_value()) << "it is no better";
  EXPECT_EQ(steering.begin_below(kEvery), 30u);
  // The last evaluation may be the best: its model stands, and nothing begins.
  steering.Evaluated(Evaluation(kEnd, 1), kEnd);
  EXPECT_THAT(steering.Step(10, 0), IsEmpty());
  EXPECT_FALSE(steering.wants_cut().has_value());
  EXPECT_EQ(steering.best_clock(), kEnd);
}

TEST(SteeringTest, StopsWhereTheLossStandsStillForLong) {
  Steering steering(Job("stopping { loss_change: 0.1 evaluations: 2 }"));
  EXPECT_THAT(Train(&steering, {5, 4.95, 4, 3.95, 3.9, 3.8}),
              ElementsAre("50 stop: the change of the loss was below 0.1 in 2 evaluations in a row"));
}

TEST(SteeringTest, StopsOnTheNormsOfTheRoundBeforeAndWaitsForThem) {
  Steering steering(Job("stopping { gradient_norm: 1e-3 parameter_change: 1e-6 }"));
  ASSERT_TRUE(steering.needs_norms());
  steering.Evaluated(Evaluation(10, 1), kEnd);
  steering.Agreed(Norms(8, 0, 0));
  EXPECT_THAT(steering.Step(0, 0), IsEmpty());
  EXPECT_EQ(steering.begin_below(kEvery), 10u);
  EXPECT_FALSE(steering.StateOf(10, kEvery).has_value()) << "the norms of clock 9 belong to it";
  steering.Agreed(Norms(9, 1, 1));
  steering.Step(0, 0);
  EXPECT_EQ(steering.begin_below(kEvery), 20u);
  EXPECT_EQ(steering.StateOf(10, kEvery)->scalars().gradient(), 1);
  steering.Agreed(Norms(19, 1e-4, 1));
  steering.Evaluated(Evaluation(20, 1), kEnd);
  steering.Step(0, 0);
  EXPECT_EQ(steering.stop(), "the norm of the gradient was below 0.001 in 1 evaluation");
}

TEST(SteeringTest, StopsOnATarget) {
  Steering steering(
      Job(R"(stopping { target { metric: "loss" value: 0.5 } target { metric: "roc_auc" value: 0.9 } })"));
  EXPECT_THAT(Train(&steering, {0.6, 0.5}), ElementsAre("20 stop: the target is reached: loss 0.5 is at most 0.5"));
  steering.Begin({});
  MetricRecord record = Evaluation(10, 3);
  record.metrics.values = {{"roc_auc", 0.95}};
  steering.Evaluated(record, kEnd);
  steering.Step(0, 0);
  EXPECT_EQ(steering.stop(), "the target is reached: roc_auc 0.95 is at least 0.9");
}

TEST(SteeringTest, ReducesTheRateOnAPlateau) {
  Steering steering(Job("reduce_on_plateau { factor: 0.5 patience: 2 cooldown: 1 min_factor: 0.2 }"));
  EXPECT_THAT(Train(&steering, {5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5}),
              ElementsAre("30 rate: loss was no better in 2 evaluations: the rate is now 0.5 of the schedule's",
                          "60 rate: loss was no better in 2 evaluations: the rate is now 0.25 of the schedule's",
                          "90 rate: loss was no better in 2 evaluations: the rate is now 0.2 of the schedule's"));
  EXPECT_EQ(steering.FactorAt(29), 1);
  EXPECT_EQ(steering.FactorAt(30), 0.5);
  EXPECT_EQ(steering.FactorAt(89), 0.25);
  EXPECT_EQ(steering.FactorAt(500), 0.2);
}

TEST(SteeringTest, ANewRateIsHeldUntilEveryServerKnowsIt) {
  Steering steering(Job("reduce_on_plateau { patience: 1 }"));
  steering.Evaluated(Evaluation(10, 5), kEnd);
  steering.Step(0, 0);
  EXPECT_EQ(steering.begin_below(kEvery), 20u);
  steering.Evaluated(Evaluation(20, 5), kEnd);
  EXPECT_EQ(steering.Step(0, 0).size(), 1u);
  EXPECT_EQ(steering.begin_below(kEvery), 20u);
  steering.Step(0, 1);
  EXPECT_EQ(steering.begin_below(kEvery), 30u);
}

TEST(SteeringTest, AGenerationFromAnyCutDecidesTheSame) {
  const v1::JobSpec job = Job(R"(
    stopping { early { patience: 9 restore_best: true } loss_change: 0.02 evaluations: 3 gradient_norm: 0.05 }
    reduce_on_plateau { factor: 0.5 patience: 2 cooldown: 1 min_factor: 1e-9 })");
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    std::mt19937 random(seed);
    std::vector<double> losses, gradients;
    for (int i = 0; i < 60; ++i) {
      losses.push_back(10.0 / (i + 3) + 0.4 * (random() % 100) / 100.0);
      gradients.push_back((random() % 1000) / 1000.0 + 1.0 / (i + 1));
    }
    // From a clock on, with what is known there; what is decided, and the state in each cut.
    const auto run = [&](uint64_t from, const v1::CoordinatorState& state,
                         std::map<uint64_t, v1::CoordinatorState>* states) {
      Steering steering(job);
      steering.Begin(state);
      std::vector<std::string> told;
      for (uint64_t clock = from; steering.stop().empty() && clock < 600; ++clock) {
        if (clock % kEvery == 0 && clock > 0) {
          if (clock > from || !state.has_scalars()) {
            steering.Agreed(Norms(clock - 1, gradients[clock / kEvery - 1], 1));
          }
          if (states != nullptr) (*states)[clock] = *steering.StateOf(clock, kEvery);
          steering.Evaluated(Evaluation(clock, losses[clock / kEvery - 1]), kEnd);
          for (const MetricRecord& r : steering.Step(0, 0)) told.push_back(absl::StrCat(r.clock, r.decision, r.why));
          steering.Step(steering.wants_cut().value_or(0), kUnbounded);
        } else if (states != nullptr && clock > 0) {
          (*states)[clock] = *steering.StateOf(clock, kEvery);
        }
      }
      told.push_back(absl::StrCat(steering.best_clock(), " ", steering.stop()));
      return told;
    };
    std::map<uint64_t, v1::CoordinatorState> states;
    const std::vector<std::string> whole = run(0, {}, &states);
    for (const auto& [cut, state] : states) {
      const std::vector<std::string> rest = run(cut, state, nullptr);
      ASSERT_LE(rest.size(), whole.size());
      EXPECT_TRUE(std::equal(rest.rbegin(), rest.rend(), whole.rbegin())) << "seed " << seed << ", cut " << cut;
      // And nothing that was still to come is missing.
      for (size_t i = 0; i + rest.size() < whole.size(); ++i) {
        EXPECT_LT(static_cast<uint64_t>(atoi(whole[i].c_str())), cut);
      }
    }
  }
}

TEST(SteeringTest, ACutOlderThanWhatIsRememberedHasNoState) {
  Steering steering(Job("stopping { early { patience: 1000 } }"));
  Train(&steering, std::vector<double>(99, 1.0));
  EXPECT_TRUE(steering.StateOf(500, kEvery).has_value());
  EXPECT_EQ(steering.StateOf(500, kEvery)->steering().clock(), 490u);
  EXPECT_EQ(steering.StateOf(501, kEvery)->steering().clock(), 500u);
}

}  // namespace
}  // namespace descent
