#include "server/coordinator/statistics_table.h"

#include <algorithm>
#include <vector>

#include "common/features/feature_statistics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

// Of unit `u`: values whose sums depend on the order in which they are added.
v1::FeatureStatistics Unit(uint32_t u) {
  Moments moments;
  for (int i = 1; i <= 5; ++i) moments.Add(1.0 / (i + 7.0 * u) * (u % 3 == 0 ? 1e8 : 1));
  v1::FeatureStatistics statistics;
  statistics.set_rows(5);
  statistics.set_columns(1);
  AppendMoments(moments, &statistics);
  return statistics;
}

class StatisticsTableTest : public ::testing::Test {
 protected:
  static v1::ShareStatisticsRequest Request(uint32_t units, const std::string& host = "a") {
    v1::ShareStatisticsRequest request;
    request.set_host(host);
    request.set_data(0x11);
    request.set_units(units);
    return request;
  }
  v1::ShareStatisticsReply Send(v1::ShareStatisticsRequest request, std::optional<uint32_t> unit = std::nullopt) {
    if (unit.has_value()) {
      request.set_unit(*unit);
      *request.mutable_statistics() = Unit(*unit);
    }
    return table_.Share(request, now_);
  }

  StatisticsTable table_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(StatisticsTableTest, TheTotalIsTheSameBitsInEveryOrderOfArrival) {
  v1::FeatureStatistics expected = Unit(0);
  for (uint32_t u = 1; u < 6; ++u) ASSERT_TRUE(MergeStatistics(Unit(u), &expected).ok());
  std::vector<uint32_t> order = {0, 1, 2, 3, 4, 5};
  do {
    table_ = StatisticsTable();
    for (uint32_t u = 0; u < 6; ++u) EXPECT_EQ(Send(Request(6)).unit(), u);
    v1::ShareStatisticsReply reply;
    for (const uint32_t u : order) reply = Send(Request(6, u % 2 == 0 ? "a" : "b"), u);
    ASSERT_TRUE(reply.has_total());
    ASSERT_EQ(reply.total().SerializeAsString(), expected.SerializeAsString());
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(StatisticsTableTest, WhoeverComesLaterGetsTheTotalAtOnce) {
  EXPECT_EQ(Send(Request(1)).unit(), 0u);
  EXPECT_FALSE(Send(Request(1, "b")).has_unit());
  EXPECT_GT(Send(Request(1, "b")).next_ms(), 0u);
  EXPECT_TRUE(Send(Request(1), 0).has_total());
  EXPECT_TRUE(Send(Request(1, "c")).has_total());
  EXPECT_TRUE(Send(Request(1), 0).has_total()) << "sent twice";
  v1::ShareStatisticsRequest next = Request(1);
  next.set_pass(1);
  EXPECT_TRUE(Send(next).has_unit()) << "another pass begins anew";
}

TEST_F(StatisticsTableTest, AUnitThatDoesNotComeIsHandedOutAgain) {
  EXPECT_EQ(Send(Request(2)).unit(), 0u);
  EXPECT_EQ(Send(Request(2, "b")).unit(), 1u);
  now_ += absl::Seconds(1);
  EXPECT_FALSE(Send(Request(2, "b"), 1).has_unit());
  now_ += absl::Seconds(5);
  EXPECT_EQ(Send(Request(2, "b")).unit(), 0u) << "host a is silent";
  EXPECT_FALSE(Send(Request(2, "c")).has_unit()) << "host b has just been asked";
  EXPECT_TRUE(Send(Request(2, "b"), 0).has_total());
  EXPECT_TRUE(Send(Request(2, "a"), 0).has_total()) << "what comes late is the same";
}

// Units beyond one that does not come wait in memory: it is asked for again before there are many, and then no more.
TEST_F(StatisticsTableTest, AnEarlyUnitThatDoesNotComeIsNotLeftToTheEnd) {
  constexpr uint32_t kUnits = 1000;
  EXPECT_EQ(Send(Request(kUnits)).unit(), 0u);
  uint32_t next = Send(Request(kUnits, "b")).unit();
  for (int i = 0; i < 20; ++i) next = Send(Request(kUnits, "b"), next).unit();
  EXPECT_EQ(next, 21u) << "unit 0 is young";
  now_ += absl::Seconds(5);
  EXPECT_EQ(Send(Request(kUnits, "b"), next).unit(), 0u);
  next = Send(Request(kUnits, "c")).unit();
  EXPECT_EQ(next, 22u);
  while (true) {
    const v1::ShareStatisticsReply reply = Send(Request(kUnits, "c"), next);
    if (!reply.has_unit()) break;
    next = reply.unit();
  }
  EXPECT_EQ(next, 256u);
  EXPECT_EQ(table_.ProgressText(), "statistics of the training data: 0 of 1000 units");
  EXPECT_EQ(Send(Request(kUnits, "b"), 0).unit(), 257u);
  EXPECT_EQ(table_.ProgressText(), "statistics of the training data: 257 of 1000 units");
}

TEST_F(StatisticsTableTest, WhatDoesNotFitIsRefusedByName) {
  EXPECT_EQ(Send(Request(2)).unit(), 0u);
  v1::ShareStatisticsRequest request = Request(2, "b");
  request.set_data(0x12);
  EXPECT_EQ(
      table_.Share(request, now_).mismatch(),
      "the worker on host b has other training data, of fingerprint 0000000000000012; expected 0000000000000011, as "
      "host a");
  EXPECT_THAT(Send(Request(3)).mismatch(), HasSubstr("asks for pass 0 over 3 units; expected 2"));
  EXPECT_THAT(Send(Request(0)).mismatch(), HasSubstr("over 0 units"));
  request = Request(2);
  request.set_pass(100000);
  EXPECT_THAT(Send(request).mismatch(), HasSubstr("fewer than 4096 passes"));
  request = Request(2);
  request.set_unit(2);
  EXPECT_THAT(Send(request).mismatch(), HasSubstr("unit 2 of 2"));
  request.set_unit(1);
  *request.mutable_statistics() = Unit(1);
  request.mutable_statistics()->add_mean(1);
  EXPECT_THAT(Send(request).mismatch(), HasSubstr("have 2 means"));
  *request.mutable_statistics() = Unit(1);
  request.mutable_statistics()->set_columns(2);
  EXPECT_EQ(table_.Share(request, now_).mismatch(), "") << "it waits for unit 0";
  EXPECT_THAT(Send(Request(2), 0).mismatch(), HasSubstr("of 2 columns"));
  EXPECT_EQ(Send(Request(2)).unit(), 1u) << "and is wanted again";
  EXPECT_TRUE(Send(Request(2), 1).has_total());
}

TEST_F(StatisticsTableTest, LabelsThatDifferAreTold) {
  v1::ShareStatisticsRequest request = Request(2);
  request.set_labels(true);
  for (uint32_t u = 0; u < 2; ++u) {
    request.set_unit(u);
    request.mutable_statistics()->Clear();
    for (const uint32_t k : {0u, 1u}) {
      AppendMoments({1000, k == u ? 1.0 : 0.0, 0, 0, 1}, request.mutable_statistics());
    }
    EXPECT_EQ(table_.TakeWarning(), "");
    EXPECT_EQ(table_.Share(request, now_).has_total(), u == 1);
  }
  EXPECT_THAT(table_.TakeWarning(), HasSubstr("the labels of 2 of 2 ranks' shares differ"));
  EXPECT_EQ(table_.TakeWarning(), "") << "told once";
}

}  // namespace
}  // namespace descent
