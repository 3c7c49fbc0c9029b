#include "worker/client/exchange_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

namespace descent {
namespace {

using ::testing::HasSubstr;

TensorSpec Dense(std::string name, uint64_t n) { return TensorSpec{std::move(name), false, {n}, {}, true, {}}; }
TensorSpec Table(std::string name, uint64_t dim) { return TensorSpec{std::move(name), true, {dim}, {}, true, {}}; }

std::shared_ptr<const ModelLayout> Layout(std::vector<TensorSpec> specs, Geometry geometry, uint32_t servers) {
  PartitionMap map = MakePartitionMap(specs, geometry, servers);
  return std::make_shared<ModelLayout>(std::move(specs), geometry, std::move(map));
}

std::vector<uint64_t> Keys(const Geometry& geometry, uint64_t n) {
  std::vector<uint64_t> keys(n);
  std::iota(keys.begin(), keys.end(), 1000);
  std::sort(keys.begin(), keys.end(),
            [&](uint64_t a, uint64_t b) { return std::pair(geometry.slot(a), a) < std::pair(geometry.slot(b), b); });
  return keys;
}

// Every message that a ticket sends at first.
std::vector<std::pair<ServerId, Request>> All(const ExchangePlan& plan, uint32_t servers, uint64_t* copied) {
  ClientCore core(ClientCore::Options{{}, servers, absl::Seconds(5), {}});
  ClientCore::Actions actions;
  for (uint32_t s = 0; s < servers; ++s) core.OnOpen(ServerId(s), absl::UnixEpoch(), &actions);
  core.Begin(plan.Spec(), absl::UnixEpoch(), &actions);
  std::vector<std::pair<ServerId, Request>> out;
  for (const auto& send : actions.send) out.emplace_back(send.server, plan.Build({}, send, {}, nullptr, copied));
  return out;
}

TEST(ExchangePlanTest, EveryElementOnceToItsServerInMessagesOfAMebibyteAndFromWhereItLies) {
  const auto layout = Layout({Dense("a", 1'000'003), Dense("b", 70'001), Dense("c", 3)}, Geometry{}, 3);
  std::vector<std::vector<float>> gradient;
  PushSpec push;
  push.weight = {1};
  for (const TensorSpec& spec : layout->specs) gradient.emplace_back(spec.elements());
  for (auto& g : gradient) {
    std::iota(g.begin(), g.end(), 0);
    push.dense.push_back(g.data());
  }
  auto plan = ExchangePlan::Make(layout, push, std::nullopt);
  ASSERT_TRUE(plan.ok());
  uint64_t copied = 0;
  std::map<BlockId, int> seen;
  std::map<uint32_t, uint32_t> parts, announced;
  for (const auto& [server, request] : All(**plan, 3, &copied)) {
    EXPECT_LE(request.payload.size(), kMaxPayloadBytes);
    ASSERT_TRUE(request.push.has_value());
    announced[server.value] = request.push->contributions;
    PayloadReader reader(request.payload);
    for (const DensePart& part : request.push->dense) {
      EXPECT_EQ(layout->map.server(part.id), server);
      ++seen[part.id];
      ++parts[server.value];
      const size_t n = layout->geometry.block_size(layout->specs[part.id.tensor.value], part.id.index);
      const Payload bytes = reader.Take(n * sizeof(float));
      ASSERT_EQ(bytes.pieces().size(), 1u);
      EXPECT_EQ(static_cast<const void*>(bytes.pieces()[0].data),
                gradient[part.id.tensor.value].data() + layout->geometry.block_begin(part.id.index));
    }
    EXPECT_EQ(reader.remaining(), 0u);
  }
  EXPECT_EQ(seen.size(), 16u + 2u + 1u);
  for (const auto& [id, times] : seen) EXPECT_EQ(times, 1);
  EXPECT_EQ(parts, announced);
  EXPECT_EQ(copied, 0u);
}

TEST(ExchangePlanTest, EveryClockIsAnnouncedToEveryServer) {
  const auto layout = Layout({Dense("a", 3)}, Geometry{}, 3);
  PushSpec push;
  push.weight = {0};
  auto plan = ExchangePlan::Make(layout, push, std::nullopt);
  ASSERT_TRUE(plan.ok());
  uint64_t copied = 0;
  const auto messages = All(**plan, 3, &copied);
  ASSERT_EQ(messages.size(), 3u);
  for (const auto& [server, request] : messages) {
    EXPECT_EQ(request.push->contributions, 0u);
    EXPECT_TRUE(request.payload.empty());
  }
}

TEST(ExchangePlanTest, SparseKeysAndRowsGoTogetherBySlotAndPullKeysRideAlong) {
  const Geometry geometry{65536, 64};
  const auto layout = Layout({Table("t", 8)}, geometry, 2);
  const std::vector<uint64_t> keys = Keys(geometry, 5000);
  std::vector<float> rows(keys.size() * 8), back(keys.size() * 8);
  std::iota(rows.begin(), rows.end(), 0);
  PushSpec push;
  push.weight = {1};
  push.sparse = {{TensorId(0), keys, rows.data()}};
  PullSpec pull;
  pull.clock = Clock(1);
  pull.sparse = {{TensorId(0), keys, back.data()}};
  auto plan = ExchangePlan::Make(layout, push, pull);
  ASSERT_TRUE(plan.ok());
  uint64_t copied = 0;
  size_t pushed = 0, pulled = 0;
  for (const auto& [server, request] : All(**plan, 2, &copied)) {
    ASSERT_TRUE(request.push.has_value() && request.pull.has_value());
    EXPECT_FALSE(request.pull->all_dense);
    PayloadReader reader(request.payload);
    for (const SparsePart& part : request.push->sparse) {
      std::vector<uint64_t> k(part.keys);
      std::vector<float> r(part.keys * 8);
      reader.CopyTo(k.data(), k.size() * 8);
      reader.CopyTo(r.data(), r.size() * 4);
      const auto at = std::find(keys.begin(), keys.end(), k[0]) - keys.begin();
      EXPECT_EQ(layout->map.server(part.id), server);
      EXPECT_EQ(geometry.slot(k[0]), part.id.index);
      EXPECT_TRUE(std::equal(k.begin(), k.end(), keys.begin() + at));
      EXPECT_TRUE(std::equal(r.begin(), r.end(), rows.begin() + at * 8));
      pushed += k.size();
    }
    for (const SparsePart& part : request.pull->sparse) pulled += part.keys;
    EXPECT_EQ(
        reader.remaining(), request.pull->sparse.empty() ? 0 : [&] {
          size_t n = 0;
          for (const SparsePart& part : request.pull->sparse) n += part.keys * 8;
          return n;
        }());
  }
  EXPECT_EQ(pushed, keys.size());
  EXPECT_EQ(pulled, keys.size());
}

TEST(ExchangePlanTest, ManyKeysMakeSeveralPulls) {
  const Geometry geometry{65536, 64};
  const auto layout = Layout({Table("t", 1), Dense("a", 5)}, geometry, 1);
  const std::vector<uint64_t> keys = Keys(geometry, 300'000);
  std::vector<float> back(keys.size()), a(5);
  PullSpec pull;
  pull.dense = {nullptr, a.data()};
  pull.sparse = {{TensorId(0), keys, back.data()}};
  auto plan = ExchangePlan::Make(layout, std::nullopt, pull);
  ASSERT_TRUE(plan.ok());
  uint64_t copied = 0;
  size_t pulled = 0;
  const auto messages = All(**plan, 1, &copied);
  EXPECT_EQ(messages.size(), 5u);
  for (const auto& [server, request] : messages) {
    EXPECT_LE(request.payload.size(), kMaxPayloadBytes);
    for (const SparsePart& part : request.pull->sparse) pulled += part.keys;
  }
  EXPECT_TRUE(messages[0].second.pull->all_dense);
  EXPECT_FALSE(messages[1].second.pull->all_dense);
  EXPECT_EQ(pulled, keys.size());
}

TEST(ExchangePlanTest, ASlotTooLargeForAMessageIsRefusedWithAdvice) {
  const Geometry geometry{65536, 1};
  const auto layout = Layout({Table("embedding", 64)}, geometry, 1);
  const std::vector<uint64_t> keys = Keys(geometry, 16'000);
  std::vector<float> rows(keys.size() * 64);
  PushSpec push;
  push.weight = {1};
  push.sparse = {{TensorId(0), keys, rows.data()}};
  auto plan = ExchangePlan::Make(layout, push, std::nullopt);
  ASSERT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("table 'embedding': slot 0 has 16000 keys"));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("raise `slots` (now 1)"));
}

TEST(ExchangePlanTest, KeysOutOfOrderAreRefused) {
  const Geometry geometry{65536, 1};
  const auto layout = Layout({Table("t", 1)}, geometry, 1);
  float rows[2] = {};
  for (std::vector<uint64_t> keys : {std::vector<uint64_t>{5, 4}, std::vector<uint64_t>{5, 5}}) {
    PushSpec push;
    push.weight = {1};
    push.sparse = {{TensorId(0), keys, rows}};
    auto plan = ExchangePlan::Make(layout, push, std::nullopt);
    ASSERT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr("follows key 5"));
  }
}

TEST(ExchangePlanTest, RepliesAreCheckedBeforeTheyAreWritten) {
  const auto layout = Layout({Dense("a", 3), Table("t", 2)}, Geometry{}, 1);
  float a[3] = {}, rows[2] = {};
  const uint64_t key = 9;
  PullSpec pull;
  pull.dense = {a, nullptr};
  pull.sparse = {{TensorId(1), absl::MakeConstSpan(&key, 1), rows}};
  auto plan = ExchangePlan::Make(layout, std::nullopt, pull);
  ASSERT_TRUE(plan.ok());
  const BlockId slot{TensorId(1), layout->geometry.slot(9)};
  const float values[5] = {1, 2, 3, 4, 5};
  Reply good;
  good.dense.push_back({BlockId{TensorId(0), 0}, 1});
  good.sparse.push_back({slot, 1, 1});
  good.payload.Append(values, sizeof values, nullptr);
  ASSERT_TRUE((*plan)->Check(0, good).ok());
  EXPECT_EQ(WriteParts(good.payload, (*plan)->Writes(0, good, {ClientCore::kNone, 1})), 8u);
  EXPECT_EQ(a[0], 0);
  EXPECT_EQ(rows[1], 5);
  EXPECT_EQ(WriteParts(good.payload, (*plan)->Writes(0, good, {0, 1})), 20u);
  EXPECT_EQ(a[2], 3);

  Reply shorter = good;
  shorter.payload = good.payload.Sub(0, 16);
  EXPECT_THAT(std::string((*plan)->Check(0, shorter).message()), HasSubstr("16 payload bytes; its parts take 20"));
  Reply unknown = good;
  unknown.dense[0].id.index = 1;
  EXPECT_EQ((*plan)->Check(0, unknown).code(), absl::StatusCode::kDataLoss);
  Reply more = good;
  more.sparse[0].keys = 2;
  EXPECT_THAT(std::string((*plan)->Check(0, more).message()), HasSubstr("2 rows of table 1"));
}

}  // namespace
}  // namespace descent
