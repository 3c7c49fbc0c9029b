#include "worker/curvature/lanczos.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace descent {
namespace {

SymmetricOperator Diagonal(std::vector<double> d) {
  return [d = std::move(d)](absl::Span<const double> in, absl::Span<double> out) {
    for (size_t i = 0; i < d.size(); ++i) out[i] = d[i] * in[i];
    return absl::OkStatus();
  };
}

// 2 on the diagonal and -1 beside it: 2 - 2 cos(k pi / (n + 1)).
SymmetricOperator SecondDifferences(size_t n) {
  return [n](absl::Span<const double> in, absl::Span<double> out) {
    for (size_t i = 0; i < n; ++i) out[i] = 2 * in[i] - (i > 0 ? in[i - 1] : 0) - (i + 1 < n ? in[i + 1] : 0);
    return absl::OkStatus();
  };
}

TEST(Lanczos, IsExactAfterAsManyStepsAsThereAreDimensions) {
  const ExtremeEigenvalues ends = Lanczos(4, Diagonal({3, -7, 0.5, 2}), {}).value();
  EXPECT_NEAR(ends.least.value, -7, 1e-12);
  EXPECT_NEAR(ends.greatest.value, 3, 1e-12);
  EXPECT_LE(ends.steps, 4u);
  EXPECT_LT(ends.least.bound, 1e-11);
  EXPECT_TRUE(ends.converged);
}

TEST(Lanczos, OneDimension) {
  const ExtremeEigenvalues ends = Lanczos(1, Diagonal({-2}), {}).value();
  EXPECT_EQ(ends.steps, 1u);
  EXPECT_NEAR(ends.least.value, -2, 1e-15);
  EXPECT_EQ(ends.least.value, ends.greatest.value);
}

TEST(Lanczos, EigenvaluesThatAreEqualTakeOneStepEach) {
  std::vector<double> d(1000, 5);
  for (size_t i = 0; i < 300; ++i) d[i] = -1;
  const ExtremeEigenvalues ends = Lanczos(d.size(), Diagonal(d), {}).value();
  EXPECT_EQ(ends.steps, 2u);
  EXPECT_NEAR(ends.least.value, -1, 1e-10);
  EXPECT_NEAR(ends.greatest.value, 5, 1e-10);
  EXPECT_TRUE(ends.converged);
}

TEST(Lanczos, TheZeroOperator) {
  const ExtremeEigenvalues ends = Lanczos(20, Diagonal(std::vector<double>(20, 0)), {}).value();
  EXPECT_EQ(ends.steps, 1u);
  EXPECT_EQ(ends.least.value, 0);
  EXPECT_EQ(ends.greatest.value, 0);
  EXPECT_EQ(ends.greatest.bound, 0);
}

TEST(Lanczos, OfManyStepsNeitherOrthogonalityNorTheEndsAreLost) {
  constexpr size_t kN = 120;
  LanczosOptions options;
  options.steps = kN;
  options.tolerance = 0;
  const ExtremeEigenvalues ends = Lanczos(kN, SecondDifferences(kN), options).value();
  const double angle = std::numbers::pi / (kN + 1);
  EXPECT_NEAR(ends.least.value, 2 - 2 * std::cos(angle), 1e-12);
  EXPECT_NEAR(ends.greatest.value, 2 - 2 * std::cos(kN * angle), 1e-12);
}

// What is promised of a run that is cut short: an eigenvalue within the bound, and no end beyond the true ones.
TEST(Lanczos, BoundsHoldWhereStepsDoNotSuffice) {
  constexpr size_t kN = 500;
  const auto nearest = [](double x) {
    double best = std::numeric_limits<double>::infinity();
    for (size_t k = 1; k <= kN; ++k) {
      best = std::min(best, std::fabs(x - (2 - 2 * std::cos(static_cast<double>(k) * std::numbers::pi / (kN + 1)))));
    }
    return best;
  };
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    for (size_t steps : {1, 2, 5, 20, 60}) {
      LanczosOptions options;
      options.steps = steps;
      options.seed = seed;
      const ExtremeEigenvalues ends = Lanczos(kN, SecondDifferences(kN), options).value();
      EXPECT_EQ(ends.steps, steps);
      EXPECT_FALSE(ends.converged);
      for (const RitzValue& end : {ends.least, ends.greatest}) EXPECT_LE(nearest(end.value), end.bound + 1e-12);
      EXPECT_GE(ends.least.value, 2 - 2 * std::cos(std::numbers::pi / (kN + 1)) - 1e-12);
      EXPECT_LE(ends.greatest.value, 2 - 2 * std::cos(kN * std::numbers::pi / (kN + 1)) + 1e-12);
    }
  }
}

TEST(Lanczos, TheSameSeedTheSameBits) {
  LanczosOptions options;
  options.steps = 10;
  const ExtremeEigenvalues a = Lanczos(100, SecondDifferences(100), options).value();
  const ExtremeEigenvalues b = Lanczos(100, SecondDifferences(100), options).value();
  EXPECT_EQ(a.least.value, b.least.value);
  EXPECT_EQ(a.greatest.bound, b.greatest.bound);
  options.seed = 2;
  EXPECT_NE(Lanczos(100, SecondDifferences(100), options)->least.value, a.least.value);
}

TEST(Lanczos, WhatTheOperatorCannotIsPassedOn) {
  const SymmetricOperator fails = [](absl::Span<const double>, absl::Span<double>) {
    return absl::DataLossError("the disk");
  };
  EXPECT_EQ(Lanczos(3, fails, {}).status(), absl::DataLossError("the disk"));
  const SymmetricOperator infinite = [](absl::Span<const double> in, absl::Span<double> out) {
    for (size_t i = 0; i < in.size(); ++i) out[i] = std::numeric_limits<double>::infinity() * in[i];
    return absl::OkStatus();
  };
  EXPECT_EQ(Lanczos(3, infinite, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace descent
