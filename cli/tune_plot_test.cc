#include "cli/tune_plot.h"

#include <regex>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using testing::HasSubstr;
using testing::Not;

Trial Of(TrialFields fields, std::optional<double> value) {
  Trial trial;
  trial.fields = std::move(fields);
  trial.result = value.has_value() ? "finished" : "failed";
  trial.value = value;
  return trial;
}

// Places of the points, the worst trial first.
std::vector<std::pair<double, double>> Points(const std::string& svg) {
  std::vector<std::pair<double, double>> out;
  const std::regex point("<circle cx=\"([0-9.]+)\" cy=\"([0-9.]+)\" r=\"4\"");
  for (std::sregex_iterator i(svg.begin(), svg.end(), point), end; i != end; ++i) {
    out.emplace_back(std::stod((*i)[1]), std::stod((*i)[2]));
  }
  return out;
}

TEST(TunePlot, EqualRatiosAreEquallyFarApart) {
  std::vector<Trial> trials;
  for (const char* rate : {"0.01", "0.1", "1"}) {
    trials.push_back(Of({{"rate", rate}}, 0.5 + 0.1 * static_cast<double>(trials.size())));
  }
  const auto points = Points(TunePlot(trials, {"loss", false}));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[0].first - points[1].first, points[1].first - points[2].first, 0.2);
  EXPECT_NEAR(points[0].second - points[1].second, points[1].second - points[2].second, 0.2);
  EXPECT_GT(points[0].first, points[2].first);
  EXPECT_LT(points[0].second, points[2].second);  // more is further up
}

TEST(TunePlot, EqualDifferencesWhereTheSpanIsSmall) {
  const auto points =
      Points(TunePlot({Of({{"beta", "0.8"}}, 3), Of({{"beta", "0.9"}}, 2), Of({{"beta", "1.0"}}, 1)}, {"loss", false}));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[0].first - points[1].first, points[1].first - points[2].first, 0.2);
}

TEST(TunePlot, APanelForEachFieldAndNamesAsTheyAre) {
  const std::string svg = TunePlot({Of({{"rate", "0.1"}, {"optimizer", "{ a < b & \"c\" }"}}, 1),
                                    Of({{"rate", "0.2"}, {"optimizer", "{ sgd {} }"}}, std::nullopt)},
                                   {"loss", false});
  EXPECT_EQ(Points(svg).size(), 2u);
  EXPECT_THAT(svg, HasSubstr("width=\"660\""));
  EXPECT_THAT(svg, HasSubstr(">rate<"));
  EXPECT_THAT(svg, HasSubstr(">{ a &lt; b &amp; &quot;c&quot; }<"));
  EXPECT_THAT(svg, HasSubstr("#888888"));  // the cross of the one that failed
}

TEST(TunePlot, NothingToShowIsNoReasonToFail) {
  for (const std::vector<Trial>& trials : {std::vector<Trial>{},
                                           {Of({{"rate", "0.1"}}, std::nullopt)},
                                           {Of({{"rate", "0"}}, 0), Of({{"rate", "0"}}, 0)},
                                           {Of({{"rate", "1"}}, 0), Of({{"rate", "2"}}, 5e19)}}) {
    const std::string svg = TunePlot(trials, {"loss", false});
    EXPECT_THAT(svg, HasSubstr("</svg>"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
    EXPECT_THAT(svg, Not(HasSubstr(">-0<")));
  }
}

}  // namespace
}  // namespace descent
