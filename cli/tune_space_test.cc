#include "cli/tune_space.h"

#include <cmath>
#include <map>

#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string Error(const TuneSpace& space) {
  const auto trials = TrialsOf(space);
  return trials.ok() ? "" : std::string(trials.status().message());
}

double Number(const std::string& text) {
  double value = 0;
  EXPECT_TRUE(absl::SimpleAtod(text, &value)) << text;
  return value;
}

TEST(TuneSpace, AGridIsEveryCombination) {
  const auto trials = TrialsOf({.grid = {"a.b=0.1,0.01", "c=x|y,z"}});
  ASSERT_TRUE(trials.ok()) << trials.status();
  EXPECT_THAT(*trials, ElementsAre(ElementsAre(Pair("a.b", "0.1"), Pair("c", "x")),
                                   ElementsAre(Pair("a.b", "0.1"), Pair("c", "y,z")),
                                   ElementsAre(Pair("a.b", "0.01"), Pair("c", "x")),
                                   ElementsAre(Pair("a.b", "0.01"), Pair("c", "y,z"))));
}

TEST(TuneSpace, AnEqualsSignWithinBracketsBelongsToThePath) {
  const auto trials = TrialsOf({.grid = {"data.train.csv.label_map[a=b]=1,2", "optimizer={ sgd {} }|{ adam {} }"}});
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 4u);
  EXPECT_THAT((*trials)[3], ElementsAre(Pair("data.train.csv.label_map[a=b]", "2"), Pair("optimizer", "{ adam {} }")));
}

TEST(TuneSpace, ARangeHasEqualRatios) {
  const auto trials = TrialsOf({.range = {"learning_rate.constant=1e-4..1"}, .trials = 5});
  ASSERT_TRUE(trials.ok()) << trials.status();
  std::vector<std::string> values;
  for (const TrialFields& fields : *trials) values.push_back(fields[0].second);
  EXPECT_THAT(values, ElementsAre("0.0001", "0.001", "0.01", "0.1", "1"));
}

TEST(TuneSpace, EndsOfARangeAreNotRoundedBeyondIt) {
  const auto trials = TrialsOf({.range = {"optimizer.momentum.momentum=0.9..0.9999999"}, .trials = 2});
  ASSERT_TRUE(trials.ok()) << trials.status();
  EXPECT_EQ((*trials)[0][0].second, "0.9");
  EXPECT_LT(Number((*trials)[1][0].second), 1);
  EXPECT_NEAR(Number((*trials)[1][0].second), 0.9999999, 1e-12);
}

TEST(TuneSpace, WholeNumbersOfARangeAreToldOnce) {
  const auto trials = TrialsOf({.range = {"batch_size=1..4"}, .trials = 10});
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ((*trials)[i][0].second, std::to_string(i + 1));
}

TEST(TuneSpace, DrawsAreWithinAndFillTheInterval) {
  const auto trials = TrialsOf({.random = {"u=-1.5..2.5", "n=3..6"}, .random_log = {"l=1e-4..1"}, .trials = 2000});
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 2000u);
  double sum = 0;
  int small = 0;
  std::map<std::string, int> whole;
  for (const TrialFields& fields : *trials) {
    const double u = Number(fields[0].second), l = Number(fields[2].second);
    EXPECT_GE(u, -1.5);
    EXPECT_LE(u, 2.5);
    EXPECT_GE(l, 1e-4);
    EXPECT_LE(l, 1);
    sum += u;
    small += l < 1e-2;  // half of the logarithms
    ++whole[fields[1].second];
  }
  EXPECT_NEAR(sum / 2000, 0.5, 5 * 4 / std::sqrt(12.0 * 2000));  // five standard deviations
  EXPECT_NEAR(small, 1000, 5 * std::sqrt(2000 * 0.25));
  ASSERT_EQ(whole.size(), 4u);
  for (const auto& [value, count] : whole) EXPECT_NEAR(count, 500, 5 * std::sqrt(2000 * 0.25 * 0.75)) << value;
}

TEST(TuneSpace, DrawsAreAFunctionOfSeedAndTrial) {
  TuneSpace space{.random = {"a=0.1..0.9", "b=0.1..0.9"}, .trials = 5, .seed = 7};
  const auto first = TrialsOf(space);
  space.trials = 9;
  const auto longer = TrialsOf(space);
  space.seed = 8;
  const auto other = TrialsOf(space);
  ASSERT_TRUE(first.ok() && longer.ok() && other.ok());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ((*first)[i], (*longer)[i]);
    EXPECT_NE((*first)[i], (*other)[i]);
    EXPECT_NE((*first)[i][0].second, (*first)[i][1].second);
  }
}

TEST(TuneSpace, RandomFieldsGoRoundTheGrid) {
  const auto trials = TrialsOf({.grid = {"g=1,2"}, .random = {"a=0..0.5"}, .trials = 3});
  ASSERT_TRUE(trials.ok()) << trials.status();
  ASSERT_EQ(trials->size(), 3u);
  EXPECT_EQ((*trials)[0][0].second, "1");
  EXPECT_EQ((*trials)[1][0].second, "2");
  EXPECT_EQ((*trials)[2][0].second, "1");
}

TEST(TuneSpace, WhatIsWrongIsNamed) {
  EXPECT_THAT(Error({}), HasSubstr("nothing to try"));
  EXPECT_EQ(Error({.grid = {"a"}}), "--grid a: expected path=values");
  EXPECT_EQ(Error({.grid = {"a=1,,2"}}), "--grid a=1,,2: a value is missing");
  EXPECT_EQ(Error({.random = {"a=1"}}), "--random a=1: expected path=LOW..HIGH, two numbers");
  EXPECT_EQ(Error({.random = {"a=nan..1"}}), "--random a=nan..1: expected path=LOW..HIGH, two numbers");
  EXPECT_EQ(Error({.random = {"a=2..1"}}), "--random a=2..1: the first number is not below the second");
  EXPECT_EQ(Error({.range = {"a=0..1"}}), "--range a=0..1: has no logarithm: expected numbers above 0");
  EXPECT_THAT(Error({.range = {"a=1..2"}, .random = {"b=1..2"}}), HasSubstr("--range does not go with"));
  EXPECT_THAT(Error({.grid = {"a=1,2"}, .trials = 2}), HasSubstr("a grid is tried as a whole"));
  EXPECT_EQ(Error({.range = {"a=0.1..1", "b=0.1..1"}, .trials = 200}), "the grid has more than 10000 points");
}

}  // namespace
}  // namespace descent
