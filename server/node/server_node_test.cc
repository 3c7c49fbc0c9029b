#include "server/node/server_node.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/node/node_harness.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using H = NodeHarness;

ServerNodeOptions TwoBlocks(uint32_t ranks = 2) { return H::AddingJob({H::Dense("w", 5)}, {4, 4}, ranks); }
Payload Ones(size_t n) { return Floats(std::vector<float>(n, 1.0f)); }

TEST(ServerNode, RoundFlowsBlockByBlock) {
  H h(TwoBlocks());
  EXPECT_THAT(h.Do(h.PullOf(0, 1)), IsEmpty());
  EXPECT_EQ(h.node->stats().held_pulls, 1u);
  auto acks = h.Do(h.PushOf(0, 0, {0, 1}, 2, Ones(5)));
  ASSERT_EQ(acks.size(), 1u);
  EXPECT_EQ(acks[0].ack->outcome, Outcome::kApplied);
  EXPECT_TRUE(acks[0].ack->complete);
  EXPECT_EQ(acks[0].ack->expected, Clock(1));
  auto first = h.Do(h.PushOf(1, 0, {1}, 2, Ones(1)));  // not complete: no ack, but block 1 is ready
  ASSERT_EQ(first.size(), 1u);
  EXPECT_FALSE(first[0].ack);
  EXPECT_THAT(first[0].dense, ElementsAre(DensePart{BlockId{TensorId(0), 1}, 1}));
  EXPECT_THAT(ToFloats(first[0].payload), ElementsAre(2));
  EXPECT_FALSE(first[0].pull_done);
  auto last = h.Do(h.PushOf(1, 0, {0}, 2, Ones(4)));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_TRUE(last[0].ack->complete);
  EXPECT_THAT(last[1].dense, ElementsAre(DensePart{BlockId{TensorId(0), 0}, 1}));
  EXPECT_THAT(ToFloats(last[1].payload), ElementsAre(2, 2, 2, 2));
  EXPECT_TRUE(last[1].pull_done);
  EXPECT_EQ(last[1].done_below, Clock(1));
  EXPECT_EQ(h.node->stats().held_pulls, 0u);
  EXPECT_EQ(h.node->stats().round, 1u);
  EXPECT_THAT(h.node->Marks(BlockId{TensorId(0), 0}), ElementsAre(1, 1));
}

TEST(ServerNode, FusedExchangeIsOneReply) {
  H h(TwoBlocks(1));
  Request fused = h.PushOf(0, 0, {0, 1}, 2, Ones(5));
  fused.pull = PullFrame{Rank(0), Clock(1), true, {}, {}, false};
  auto replies = h.Do(std::move(fused));
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_TRUE(replies[0].ack->complete);
  EXPECT_TRUE(replies[0].pull_done);
  EXPECT_EQ(replies[0].dense.size(), 2u);
  EXPECT_THAT(ToFloats(replies[0].payload), ElementsAre(1, 1, 1, 1, 1));
}

TEST(ServerNode, DuplicatesFencedEarlyAndExpected) {
  H h(TwoBlocks());
  h.Do(h.PushOf(0, 0, {0, 1}, 2, Ones(5)));
  auto dup = h.Do(h.PushOf(0, 0, {0, 1}, 2, Ones(5)));
  EXPECT_EQ(dup[0].ack->outcome, Outcome::kDuplicate);
  EXPECT_TRUE(dup[0].ack->complete);
  EXPECT_EQ(h.node->stats().duplicates, 2u);
  EXPECT_EQ(h.Do(h.PushOf(0, 2, {0, 1}, 2, Ones(5)))[0].ack->outcome, Outcome::kTooEarly);
  h.node->Fence(Rank(1), {Generation(3), 2});
  auto fenced = h.Do(h.PushOf(1, 0, {0, 1}, 2, Ones(5)));
  EXPECT_EQ(fenced[0].ack->outcome, Outcome::kFenced);
  EXPECT_EQ(fenced[0].ack->message, "rank 1: incarnation (3, 1) is fenced by (3, 2)");
  Request ask = h.NewRequest();
  ask.expected_of = {Rank(1), Rank(0)};
  EXPECT_THAT(h.Do(std::move(ask))[0].expected, ElementsAre(Clock(0), Clock(1)));
}

TEST(ServerNode, UnaryConnectionsAreAlwaysAnswered) {
  H h(TwoBlocks());
  h.node->OnOpen(ConnectionId(5), h.now, true);
  auto replies = h.Do(h.PushOf(0, 0, {0}, 2, Ones(4)), 5);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].ack->outcome, Outcome::kApplied);
  EXPECT_FALSE(replies[0].ack->complete);
  EXPECT_EQ(replies[0].ack->admitted, 1u);
}

TEST(ServerNode, EnvelopesAreCompared) {
  H h(TwoBlocks());
  const auto refused = [&](auto change) {
    Request r = h.PushOf(0, 0, {}, 0, Payload());
    change(&r.envelope);
    auto replies = h.Do(std::move(r));
    return std::pair(replies[0].ack->outcome, std::string(replies[0].refusal.message()));
  };
  EXPECT_EQ(refused([](Envelope* e) { e->protocol = 9; }),
            std::pair(Outcome::kRefused, std::string("protocol mismatch: this server has 1, the request 9")));
  EXPECT_EQ(refused([](Envelope* e) { e->job = 9; }),
            std::pair(Outcome::kRefused, std::string("job fingerprint mismatch: this server has 11, the request 9")));
  EXPECT_EQ(refused([](Envelope* e) { e->run = RunId(9); }),
            std::pair(Outcome::kRefused, std::string("run mismatch: this server has 22, the request 9")));
  EXPECT_EQ(refused([](Envelope* e) { e->generation = Generation(9); }),
            std::pair(Outcome::kStaleGeneration, std::string("generation mismatch: this server has 3, the request 9")));
  EXPECT_EQ(refused([](Envelope* e) { e->map_epoch = 9; }),
            std::pair(Outcome::kWrongMap, std::string("map epoch mismatch: this server has 1, the request 9")));
}

TEST(ServerNode, MalformedRequestsAreRefusedByName) {
  H h(H::AddingJob({H::Dense("w", 5), H::Table("t", 2)}, {4, 4}, 3));
  const std::string before = h.node->DebugState();
  const auto refused = [&](Request r) {
    auto replies = h.Do(std::move(r));
    if (replies.size() != 1) return std::string("no refusal");
    return std::string(replies[0].refusal.ok() ? replies[0].ack->message : replies[0].refusal.message());
  };
  const auto push = [&](std::vector<uint32_t> blocks, size_t floats) {
    return h.PushOf(0, 0, blocks, 2, Ones(floats));
  };
  EXPECT_EQ(refused(h.NewRequest()), "the request asks for nothing");
  EXPECT_EQ(refused(h.PushOf(3, 0, {}, 0, Payload(), 1)), "push of rank 3: the job has 3 ranks");
  EXPECT_EQ(refused(push({0, 1}, 4)), "the payload has 16 bytes, its parts make 20");
  EXPECT_EQ(refused(push({0, 0}, 8)), "tensor 'w', block 0 is named twice in one message");
  EXPECT_EQ(refused(push({7}, 4)), "tensor 'w' has 2 blocks, no block 7");
  Request r = push({0}, 4);
  r.push->dense[0].id.tensor = TensorId(6);
  EXPECT_EQ(refused(std::move(r)), "unknown tensor 6: the job has 2");
  r = push({0}, 4);
  r.push->dense[0].id.tensor = TensorId(1);
  EXPECT_EQ(refused(std::move(r)), "tensor 't' is sparse, not dense");
  r = push({0}, 4);
  r.push->span = 3;
  EXPECT_EQ(refused(std::move(r)),
            "push of rank 0, span 3: a span is a power of two and its first rank a multiple of it");
  r = h.PushOf(1, 0, {}, 0, Payload(), 2);
  EXPECT_THAT(refused(std::move(r)), HasSubstr("rank 1, span 2: a span is"));
  r = push({0}, 4);
  r.push->weight = {1, 1};
  EXPECT_EQ(refused(std::move(r)), "push of rank 0, span 1: 2 weights for 1 ranks");
  r = push({0}, 4);
  r.push->weight = {NAN};
  EXPECT_EQ(refused(std::move(r)), "push of rank 0: weight nan is not finite and >= 0");
  r = push({0}, 4);
  r.push->weight = {-1};
  EXPECT_EQ(refused(std::move(r)), "push of rank 0: weight -1 is not finite and >= 0");
  r = push({}, 0);
  r.push->sparse.assign(3, SparsePart{BlockId{TensorId(1), 0}, 0xffffffffu});
  EXPECT_EQ(refused(std::move(r)), "table 't', slot 0 is named twice in one message");
  r = push({}, 0);
  r.push->sparse = {SparsePart{BlockId{TensorId(1), 0}, 0xffffffffu}};
  EXPECT_EQ(refused(std::move(r)), "the payload has 0 bytes, its parts make 68719476720");
  r = h.PullOf(9, 0);
  EXPECT_EQ(refused(std::move(r)), "pull of rank 9: the job has 3 ranks");
  r = h.PullOf(0, 0);
  r.pull->sparse = {SparsePart{BlockId{TensorId(1), 0}, 1000000}};
  EXPECT_EQ(refused(std::move(r)),
            "pull of table 't', slot 0: 1000000 rows make 8000000 bytes, one part holds 3145728");
  r = h.NewRequest();
  r.expected_of = {Rank(4)};
  EXPECT_EQ(refused(std::move(r)), "rank 4: the job has 3 ranks");
  EXPECT_EQ(h.node->DebugState(), before);
  EXPECT_TRUE(h.failure.ok());

  ServerNodeOptions other = TwoBlocks();
  other.store.map = MakePartitionMap(other.store.tensors, other.store.geometry, 2);
  H two(other);
  const uint32_t theirs = other.store.map.placement[0][0] == ServerId(0) ? 1 : 0;
  auto replies = two.Do(two.PushOf(0, 0, {theirs}, 1, Ones(theirs == 0 ? 4 : 1)));
  EXPECT_THAT(std::string(replies[0].refusal.message()), HasSubstr("belongs to server 1, this is server 0"));
}

TEST(ServerNode, NonfiniteFailsTheJobByName) {
  for (uint64_t s : {0, 1}) {
    ServerNodeOptions o = TwoBlocks();
    o.staleness = s;
    H h(o);
    const uint64_t clock = s;  // with s = 1 the bad one is for a round to come
    if (s == 1) h.Do(h.PushOf(1, 0, {0, 1}, 2, Ones(5)));
    auto replies = h.Do(h.PushOf(1, clock, {0, 1}, 2, Floats({0, 0, 0, NAN, 0})));
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_EQ(replies[0].ack->outcome, Outcome::kRefused);
    EXPECT_THAT(replies[0].ack->message, HasSubstr("'w'"));
    EXPECT_THAT(replies[0].ack->message, HasSubstr("element 3"));
    EXPECT_THAT(replies[0].ack->message, HasSubstr("nan"));
    EXPECT_THAT(replies[0].ack->message, HasSubstr(absl::StrCat("from rank 1 at clock ", clock)));
    EXPECT_EQ(h.failure.message(), replies[0].ack->message);
  }
}

TEST(ServerNode, SendWindowAndMessageSizeAreKept) {
  // 9 blocks of 256 KiB: two to a reply, at most two replies unsent.
  ServerNodeOptions o = H::AddingJob({H::Dense("w", 9 * 65536)}, {65536, 4}, 1);
  o.send_window = 2;
  H h(o);
  h.node->OnRequest(ConnectionId(0), h.PullOf(0, 0), h.now);
  h.node->OnRequest(ConnectionId(0), h.PullOf(0, 0), h.now);
  EXPECT_EQ(h.replies.size(), 2u);
  size_t bytes = 0, done = 0;
  const auto replies = h.Take();
  for (const Reply& reply : replies) {
    EXPECT_LE(reply.payload.size(), kMaxPayloadBytes);
    bytes += reply.payload.size();
    done += reply.pull_done;
  }
  EXPECT_EQ(replies.size(), 10u);
  EXPECT_EQ(bytes, size_t{2} * 9 * 65536 * 4);
  EXPECT_EQ(done, 2u);
  EXPECT_EQ(h.largest_in_flight, 2);
}

TEST(ServerNode, HeldPullsAreBoundedToldAndForgotten) {
  ServerNodeOptions o = TwoBlocks();
  o.max_held_pulls = 2;
  H h(o);
  EXPECT_THAT(h.Do(h.PullOf(0, 1)), IsEmpty());
  EXPECT_THAT(h.Do(h.PullOf(0, 2)), IsEmpty());
  EXPECT_EQ(h.Do(h.PullOf(0, 3))[0].refusal.code(), absl::StatusCode::kResourceExhausted);
  h.Do(h.PushOf(0, 0, {0, 1}, 2, Ones(5)));
  EXPECT_EQ(h.node->next_timer(), h.now + absl::Seconds(2));
  h.now += absl::Seconds(2);
  h.node->OnTimer(h.now);
  auto told = h.Take();
  ASSERT_EQ(told.size(), 2u);
  ASSERT_TRUE(told[0].waiting);
  EXPECT_THAT(told[0].waiting->ranks, ElementsAre(Rank(1)));
  EXPECT_EQ(told[0].waiting->since, absl::Seconds(2));
  EXPECT_EQ(told[0].waiting->why, "held until every rank has completed clock 0: rank 1 is at clock 0");
  ASSERT_EQ(h.node->Waiting(h.now).size(), 2u);  // rank 0's own clock 1 is waited for by the second pull
  h.node->OnClose(ConnectionId(0), h.now);
  EXPECT_EQ(h.node->stats().held_pulls, 0u);
  EXPECT_EQ(h.node->next_timer(), absl::InfiniteFuture());
}

TEST(ServerNode, EmptyRoundsAndZeroWeightAreNoStep) {
  for (bool push_mode : {false, true}) {
    ServerNodeOptions o = TwoBlocks();
    o.store.apply_push = push_mode;
    H h(o);
    for (uint32_t r = 0; r < 2; ++r) {
      Request empty = h.PushOf(r, 0, {}, 0, Payload());
      empty.push->weight = {0};
      EXPECT_TRUE(h.Do(std::move(empty))[0].ack->complete);
    }
    auto replies = h.Do(h.PullOf(0, 1));
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_THAT(ToFloats(replies[0].payload), ElementsAre(0, 0, 0, 0, 0));
  }
}

TEST(ServerNode, ScalarsAreReportedForTheClocksAskedFor) {
  ServerNodeOptions o = TwoBlocks(1);
  o.store.reduce_sum = false;
  o.scalars_every = 2;
  H h(o);
  for (uint64_t c = 0; c < 3; ++c) h.Do(h.PushOf(0, c, {0, 1}, 2, Floats({1, 2, 3, 4, 5})));
  ASSERT_EQ(h.scalars.size(), 2u);
  EXPECT_EQ(h.scalars[1].first, Clock(2));
  ASSERT_EQ(h.scalars[0].second.size(), 2u);
  EXPECT_EQ(h.scalars[0].second[0].square, 30);
  EXPECT_EQ(h.scalars[0].second[1].square, 25);
}

TEST(ServerNode, NormsOfEveryClockAreReportedWhereTheyAreAskedFor) {
  ServerNodeOptions o = TwoBlocks(1);
  o.store.reduce_sum = false;
  o.scalars_every = 2;
  o.norms_of_all = true;
  H h(o);
  for (uint64_t c = 0; c < 3; ++c) {
    const float x = static_cast<float>(c + 1);
    h.Do(h.PushOf(0, c, {0, 1}, 2, Floats({x, 0, 0, 0, 2 * x})));
  }
  ASSERT_EQ(h.scalars.size(), 2u) << "records are of the same clocks as ever";
  EXPECT_EQ(h.scalars[1].first, Clock(2));
  EXPECT_EQ(h.scalars[1].second[0].square, 9);
  EXPECT_GT(h.scalars[1].second[0].step, 0);
  ASSERT_EQ(h.norms.size(), 1u);
  EXPECT_EQ(h.norms[0].first, Clock(1));
  ASSERT_EQ(h.norms[0].second.size(), 2u);
  EXPECT_EQ(h.norms[0].second[0].square, 4);
  EXPECT_EQ(h.norms[0].second[1].square, 16);
  EXPECT_EQ(h.norms[0].second[0].step, 0);
}

TEST(ServerNode, SparseSlotsFollowTheirRound) {
  for (bool push_mode : {false, true}) {
    ServerNodeOptions o = H::AddingJob({H::Table("t", 2)}, {4, 4}, 2);
    o.store.apply_push = push_mode;
    o.store.l2 = 0;
    H h(o);
    const uint64_t key = 77;
    const uint32_t slot = o.store.geometry.slot(key);
    const auto push = [&](uint32_t rank, std::vector<uint64_t> keys) {
      Request r = h.PushOf(rank, 0, {}, 1, Bytes(keys.data(), keys.size() * 8));
      r.push->sparse = {SparsePart{BlockId{TensorId(0), slot}, static_cast<uint32_t>(keys.size())}};
      r.payload.Append(Ones(2 * keys.size()));
      return r;
    };
    auto bad = h.Do(push(0, {key, key}));
    EXPECT_EQ(bad[0].ack->outcome, Outcome::kRefused);
    EXPECT_TRUE(h.failure.ok());  // a wrong form is the peer's affair
    EXPECT_FALSE(bad[0].ack->complete);
    Request pull = h.NewRequest();
    pull.pull = PullFrame{Rank(0), Clock(1), true, {}, {SparsePart{BlockId{TensorId(0), slot}, 1}}, false};
    pull.payload = Bytes(&key, 8);
    EXPECT_THAT(h.Do(std::move(pull)), IsEmpty());
    EXPECT_TRUE(h.Do(push(0, {key}))[0].ack->complete);
    auto replies = h.Do(push(1, {key}));
    ASSERT_EQ(replies.size(), 2u);
    EXPECT_TRUE(replies[1].pull_done);
    ASSERT_EQ(replies[1].sparse.size(), 1u);
    EXPECT_THAT(ToFloats(replies[1].payload), ElementsAre(2, 2));
  }
}

// L2 on a row that no batch touched is caught up at the steps made, and an empty round or push made none. The server
// has no dense block, so that nothing is committed in the empty round.
TEST(ServerNode, CaughtUpRowsLeaveOutRoundsAndPushesWithoutWeight) {
  for (bool push_mode : {false, true}) {
    ServerNodeOptions o = H::AddingJob({H::Table("t", 1)}, {4, 4}, 2);
    o.store.apply_push = push_mode;
    o.store.l2 = 0.5f;  // at rate -1 a missed step is a factor 1.5
    H h(o);
    const uint64_t key = 77;
    const BlockId slot{TensorId(0), o.store.geometry.slot(key)};
    const auto push = [&](uint32_t rank, uint64_t clock, double weight, bool touch) {
      Request r = h.PushOf(rank, clock, {}, touch, Payload());
      r.push->weight = {weight};
      if (touch) {
        r.push->sparse = {SparsePart{slot, 1}};
        r.payload = Bytes(&key, sizeof(key));
        r.payload.Append(Floats({4}));
      }
      EXPECT_EQ(h.Do(std::move(r))[0].ack->outcome, Outcome::kApplied);
    };
    const auto row = [&](uint64_t clock) {
      Request pull = h.NewRequest();
      pull.pull = PullFrame{Rank(0), Clock(clock), true, {}, {SparsePart{slot, 1}}, false};
      pull.payload = Bytes(&key, sizeof(key));
      auto replies = h.Do(std::move(pull));
      EXPECT_EQ(replies.size(), 1u);
      return ToFloats(replies.at(0).payload).at(0);
    };
    push(0, 0, push_mode ? 1 : 2, true);
    push(1, 0, 0, false);
    EXPECT_EQ(row(1), 4);
    push(0, 1, 0, false);
    push(1, 1, 0, false);
    EXPECT_EQ(row(2), 4);
    push(0, 2, 0, false);
    push(1, 2, 1, false);
    EXPECT_EQ(row(3), 6);
  }
}

// Three ranks, three clocks, s = 1: any order that the lead allows ends in the same bits, contributions kept for later
// rounds and partial sums of workers included.
TEST(ServerNode, RoundsAreBitReproducibleInAnyOrder) {
  const auto gradient = [](uint32_t r, uint64_t c) {
    std::vector<float> g(5);
    for (uint32_t i = 0; i < 5; ++i) g[i] = 1.0f / static_cast<float>(3 + 7 * r + 31 * c + i) * (i % 2 ? 1e4f : -1.0f);
    return g;
  };
  std::vector<float> expected;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    ServerNodeOptions o = TwoBlocks(3);
    o.staleness = 1;
    o.store.reduce_sum = false;
    H h(o);
    RandomStream random(seed, Purpose::kTest, 1, 0);
    uint64_t clock[3] = {0, 0, 0}, draw = 0;
    const uint64_t* least = std::min_element(clock, clock + 3);
    while (*(least = std::min_element(clock, clock + 3)) < 3) {
      const uint32_t r = static_cast<uint32_t>(random.Below(draw++, 3));
      const uint64_t c = clock[r];
      if (c > *least + 2 || c == 3) continue;
      if (r == 0 && clock[1] == c && random.Below(draw++, 2) == 0) {  // ranks 0 and 1 from one worker
        std::vector<float> sum = gradient(0, c), other = gradient(1, c);
        for (int i = 0; i < 5; ++i) sum[i] += other[i];
        ASSERT_TRUE(h.Do(h.PushOf(0, c, {0, 1}, 2, Floats(sum), 2))[0].ack->complete);
        ++clock[0], ++clock[1];
        continue;
      }
      ASSERT_TRUE(h.Do(h.PushOf(r, c, {0, 1}, 2, Floats(gradient(r, c))))[0].ack->complete);
      ++clock[r];
    }
    auto replies = h.Do(h.PullOf(0, 4));  // version 3
    ASSERT_EQ(replies.size(), 1u);
    const std::vector<float> got = ToFloats(replies[0].payload);
    if (expected.empty()) expected = got;
    ASSERT_EQ(std::memcmp(got.data(), expected.data(), 20), 0) << "seed " << seed;
  }
}

TEST(ServerNode, SpanUnderPushIsRefused) {
  ServerNodeOptions o = TwoBlocks();
  o.store.apply_push = true;
  H h(o);
  auto replies = h.Do(h.PushOf(0, 0, {0, 1}, 2, Ones(5), 2));
  EXPECT_EQ(replies[0].ack->message, "push of rank 0: span 2, but one step is made per push");
}

}  // namespace
}  // namespace descent
