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

// A full-gradient method's norms are of the point that it tries: of what is evaluated only in a round that took it.
TEST(SteeringTest, NormsOfATrialThatIsNotTakenSayNothing) {
  auto job = ParseJob(R"(
    name: "a" ranks: 2 rounds: 1000 optimizer { lbfgs {} }
    data { root: "/x" train { csv { path: "a" } } validation { csv { path: "b" } } } model { logistic {} }
    evaluation { every_rounds: 10 } stopping { gradient_norm: 1e-3 parameter_change: 1e-6 })",
                      "job");
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  ASSERT_TRUE(ValidateJob(*job).ok()) << ValidateJob(*job);
  Steering steering(*job);
  steering.Agreed(Norms(9, 1, 0));  // the first base is the initial point
  steering.Evaluated(Evaluation(10, 5), kEnd);
  steering.Step(0, 0);
  EXPECT_EQ(steering.stop(), "");
  steering.Agreed(Norms(19, 1e-5, 0));
  steering.Evaluated(Evaluation(20, 4), kEnd);
  steering.Step(0, 0);
  EXPECT_EQ(steering.stop(), "") << "the gradient is of another point";
  steering.Agreed(Norms(29, 1e-4, 1));
  steering.Evaluated(Evaluation(30, 3), kEnd);
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

// Evaluates; norms that explain are there.
std::vector<std::string> Diverge(Steering* steering, uint64_t clock, double loss) {
  MetricRecord record = Evaluation(clock, loss);
  record.worst_rank = 1;
  record.worst_loss = 2 * loss;
  v1::ScalarSquares norms = Norms(clock - 1, 5, 1);
  norms.set_tensor("w");
  norms.set_of_tensor(16);
  steering->Agreed(norms);
  steering->Evaluated(record, kEnd);
  std::vector<std::string> told;
  for (const MetricRecord& r : steering->Step(0, 0))
    told.push_back(absl::StrCat(r.clock, " ", r.decision, ": ", r.why));
  return told;
}

TEST(DivergenceTest, BoundsByHand) {
  v1::JobSpec job = Job("divergence { loss_above: 10 jump_factor: 3 }");
  const DivergenceBounds bounds(job);
  EXPECT_EQ(bounds.Broken(10, 4), "");
  EXPECT_EQ(bounds.Broken(std::nullopt, 4), "") << "not evaluated";
  EXPECT_EQ(bounds.Broken(10.5, std::nullopt), "loss is 10.5, above 10");
  EXPECT_EQ(bounds.Broken(6, 2), "") << "not more than three times";
  EXPECT_EQ(bounds.Broken(6.5, 2), "loss has jumped to 6.5, more than 3 times its least value 2");
  EXPECT_EQ(bounds.Broken(6, -2), "") << "no multiple of that is a bound";
  EXPECT_EQ(bounds.Broken(std::nan(""), std::nullopt), "loss is nan");
  EXPECT_EQ(bounds.Broken(INFINITY, std::nullopt), "loss is inf");
  EXPECT_EQ(DivergenceBounds(Job("")).Broken(INFINITY, std::nullopt), "");
}

TEST(SteeringTest, ADivergenceFailsByName) {
  Steering steering(Job("divergence { jump_factor: 2 }"));
  EXPECT_THAT(Diverge(&steering, 10, 4), IsEmpty());
  EXPECT_THAT(Diverge(&steering, 20, 3), IsEmpty());
  EXPECT_EQ(steering.begin_below(kEvery), 30u);
  EXPECT_FALSE(steering.wants_cut().has_value()) << "nothing is to be gone back to";
  const std::string why =
      "loss has jumped to 7, more than 2 times its least value 3; of the ranks' shares that of rank 1 has the greatest "
      "loss, 14; of the tensors 'w' has the greatest gradient, of norm 4";
  EXPECT_THAT(Diverge(&steering, 30, 7), ElementsAre("30 diverged: " + why));
  EXPECT_EQ(steering.failure(), "the run has diverged at clock 30: " + why);
  EXPECT_EQ(steering.begin_below(kEvery), 30u);
  EXPECT_THAT(steering.Step(0, 0), IsEmpty());
}

TEST(SteeringTest, NormsThatExplainAreWaitedForButNotForLong) {
  Steering steering(Job("divergence { loss_above: 5 }"));
  steering.Evaluated(Evaluation(10, 7), kEnd);
  EXPECT_THAT(steering.Step(0, 0), IsEmpty());
  EXPECT_EQ(steering.wants_norms(), 9u);
  EXPECT_EQ(steering.failure(), "");
  EXPECT_EQ(steering.Step(0, 0, /*late=*/true).size(), 1u);
  EXPECT_EQ(steering.failure(), "the run has diverged at clock 10: loss is 7, above 5");
}

TEST(SteeringTest, ADivergenceGoesBackToTheLastEvaluationWithinBounds) {
  Steering steering(Job("divergence { loss_above: 10 action: ROLLBACK rate_factor: 0.25 max_rollbacks: 2 }"));
  EXPECT_TRUE(steering.changes_rate());
  // Each evaluation within bounds is held until a cut has it.
  EXPECT_THAT(Diverge(&steering, 10, 4), IsEmpty());
  EXPECT_EQ(steering.wants_cut(), 10u);
  EXPECT_EQ(steering.begin_below(kEvery), 10u);
  const v1::CoordinatorState cut = *steering.StateOf(10, kEvery);
  steering.Step(10, 0);
  EXPECT_EQ(steering.begin_below(kEvery), 20u);
  EXPECT_THAT(steering.NeededCuts(steering.state()), ElementsAre(10));
  EXPECT_THAT(steering.NeededCuts(cut.steering()), IsEmpty()) << "it is the first";

  for (const uint32_t count : {1u, 2u}) {
    const std::vector<std::string> told = Diverge(&steering, 20, 40);
    ASSERT_EQ(told.size(), 1u);
    EXPECT_THAT(told[0], testing::AllOf(testing::StartsWith("20 rollback: loss is 40, above 10"),
                                        testing::EndsWith(absl::StrCat(
                                            ": back to clock 10 with the rate at ", count == 1 ? "0.25" : "0.0625",
                                            " of the schedule's; rollback ", count, " of 2"))));
    ASSERT_TRUE(steering.rollback().has_value());
    const Rollback rollback = *steering.rollback();
    EXPECT_EQ(rollback.to, 10u);
    // The generation that goes on from that cut.
    steering.Begin(cut);
    steering.RolledBack(rollback);
    EXPECT_FALSE(steering.rollback().has_value());
    EXPECT_EQ(steering.FactorAt(9), 1);
    EXPECT_EQ(steering.FactorAt(10), count == 1 ? 0.25 : 0.0625);
    EXPECT_EQ(steering.begin_below(kEvery), 10u);
    EXPECT_THAT(Diverge(&steering, 10, 4), IsEmpty());
    steering.Step(10, 0);
    EXPECT_EQ(steering.begin_below(kEvery), 10u) << "not before every server knows the rate";
    steering.Step(10, 1);
    EXPECT_EQ(steering.begin_below(kEvery), 20u);
    EXPECT_EQ(steering.StateOf(15, kEvery)->steering().rollbacks(), count) << "further cuts know of it";
  }
  EXPECT_THAT(Diverge(&steering, 20, 40), ElementsAre(testing::StartsWith("20 diverged: loss is 40")));
  EXPECT_THAT(steering.failure(),
              testing::StartsWith("the run has diverged at clock 20 after 2 rollbacks: loss is 40"));
}

TEST(SteeringTest, AGradientThatIsNotFiniteIsADivergence) {
  Steering steering(Job("divergence { loss_above: 10 action: ROLLBACK }"));
  EXPECT_EQ(steering.NotFinite(3, "rank 1: weights[2] is nan").why,
            "rank 1: weights[2] is nan: back to the beginning with the rate at 0.5 of the schedule's; rollback 1 of 3");
  EXPECT_EQ(steering.rollback()->to, 0u);
  Steering stops(Job("divergence { loss_above: 10 }"));
  EXPECT_FALSE(stops.rolls_back()) << "then it fails as in any job";
}

TEST(SteeringTest, ADivergenceAtTheEndGoesBackToo) {
  Steering steering(Job("divergence { loss_above: 10 action: ROLLBACK }"));
  EXPECT_THAT(Diverge(&steering, 10, 4), IsEmpty());
  steering.Step(10, 0);
  EXPECT_EQ(Diverge(&steering, kEnd, 11).size(), 1u);
  EXPECT_EQ(steering.rollback()->to, 10u);
}

// The norms of the last clock may never come: workers leave.
TEST(SteeringTest, ADivergenceAtTheEndWaitsForNoNorms) {
  Steering steering(Job("divergence { loss_above: 10 }"));
  steering.Evaluated(Evaluation(kEnd, 11), kEnd);
  EXPECT_EQ(steering.Step(0, 0).size(), 1u);
  EXPECT_EQ(steering.failure(), "the run has diverged at clock 1000: loss is 11, above 10");
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
