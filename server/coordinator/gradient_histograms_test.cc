#include "server/coordinator/gradient_histograms.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

std::string NameOf(double norm) { return NormHistogram::NameOf(NormHistogram::BucketOf(norm)); }

TEST(NormHistogramTest, BucketsAreThirdsOfDecades) {
  EXPECT_EQ(NameOf(0), "0");
  EXPECT_EQ(NameOf(std::numeric_limits<double>::denorm_min()), "<1e-12");
  EXPECT_EQ(NameOf(0.999e-12), "<1e-12");
  EXPECT_EQ(NameOf(1.001e-12), "1e-12");
  EXPECT_EQ(NameOf(0.999), "0.464");
  EXPECT_EQ(NameOf(1), "1");
  EXPECT_EQ(NameOf(2.154), "1");
  EXPECT_EQ(NameOf(2.155), "2.15");
  EXPECT_EQ(NameOf(4.641), "2.15");
  EXPECT_EQ(NameOf(4.642), "4.64");
  EXPECT_EQ(NameOf(9.999), "4.64");
  EXPECT_EQ(NameOf(10), "10");
  EXPECT_EQ(NameOf(9.99e11), "4.64e+11");
  EXPECT_EQ(NameOf(1.001e12), "1e+12");
  EXPECT_EQ(NameOf(std::numeric_limits<double>::infinity()), "1e+12");
}

TEST(NormHistogramTest, EveryBucketBeginsAtItsEdge) {
  std::string before;
  for (int k = -NormHistogram::kThirds; k < NormHistogram::kThirds; ++k) {
    const double edge = std::pow(10.0, k / 3.0);
    const std::string name = NameOf(edge * 1.0001);
    EXPECT_NE(name, before) << "two buckets have one name";
    EXPECT_NEAR(std::stod(name) / edge, 1, 0.005);
    EXPECT_EQ(NameOf(edge * 2.15), name);
    EXPECT_NE(NameOf(edge * 2.16), name);
    before = name;
  }
}

TEST(NormHistogramTest, TellsTheBucketsThatWereHit) {
  NormHistogram histogram;
  EXPECT_THAT(histogram.Hit(), IsEmpty());
  for (double norm : {3.0, 0.0, 2.5, 0.05, 1e-30, 1e40, 0.0}) histogram.Add(norm);
  EXPECT_THAT(histogram.Hit(),
              ElementsAre(Pair("0", 2), Pair("<1e-12", 1), Pair("0.0464", 1), Pair("2.15", 2), Pair("1e+12", 1)));
}

TEST(GradientHistogramsTest, AWindowIsCompleteWithItsLastRound) {
  GradientHistograms histograms(3);
  EXPECT_THAT(histograms.Add(0, {4, 0}), IsEmpty());
  EXPECT_THAT(histograms.Add(1, {9, 1e-4}), IsEmpty());
  const std::vector<GradientWindow> closed = histograms.Add(2, {4, 1e4});
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].clock, 3u);
  EXPECT_EQ(closed[0].rounds, 3u);
  ASSERT_EQ(closed[0].tensors.size(), 2u);
  EXPECT_THAT(closed[0].tensors[0].Hit(), ElementsAre(Pair("1", 2), Pair("2.15", 1)));
  EXPECT_EQ(closed[0].tensors[1].Hit().size(), 3u);
  EXPECT_FALSE(histograms.Close().has_value());
  // The next begins anew.
  EXPECT_THAT(histograms.Add(3, {1, 1}), IsEmpty());
  const std::optional<GradientWindow> last = histograms.Close();
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->clock, 4u);
  EXPECT_EQ(last->rounds, 1u);
  EXPECT_THAT(last->tensors[0].Hit(), ElementsAre(Pair("1", 1)));
}

TEST(GradientHistogramsTest, RoundsThatNeverComeHoldNothingUp) {
  GradientHistograms histograms(4);
  EXPECT_THAT(histograms.Add(1, {1}), IsEmpty());
  std::vector<GradientWindow> closed = histograms.Add(9, {100});  // a window that lacks its first round
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].clock, 2u);
  EXPECT_EQ(closed[0].rounds, 1u);
  EXPECT_THAT(histograms.Add(3, {1}), IsEmpty()) << "of a window that is closed";
  closed = histograms.Add(12, {1});
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].clock, 10u);
  EXPECT_EQ(closed[0].rounds, 1u) << "what came late is not in it";
  EXPECT_THAT(closed[0].tensors[0].Hit(), ElementsAre(Pair("10", 1)));
}

TEST(GradientHistogramsTest, RoundsThatAreMadeAgainCountOnce) {
  GradientHistograms histograms(4);
  for (uint64_t clock = 0; clock < 6; ++clock) histograms.Add(clock, {1});
  histograms.Restart();  // at clock 3
  const std::vector<GradientWindow> closed = [&] {
    histograms.Add(3, {100});
    return histograms.Add(4, {100});
  }();
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].clock, 4u);
  EXPECT_EQ(closed[0].rounds, 1u) << "of the window that was gone back into, the rounds since";
  EXPECT_EQ(histograms.Close()->rounds, 1u);
}

TEST(GradientHistogramsTest, WindowsOfOneRound) {
  GradientHistograms histograms(1);
  for (uint64_t clock : {0, 1, 5}) {
    const std::vector<GradientWindow> closed = histograms.Add(clock, {1});
    ASSERT_EQ(closed.size(), 1u);
    EXPECT_EQ(closed[0].clock, clock + 1);
  }
}

}  // namespace
}  // namespace descent
