// Servers that record the order of what they take in: what they ask of pushes, what their cuts hold, which reads wait.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/wire/read_vector.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"
#include "server/node/order_log.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using H = NodeHarness;

// Two dense blocks and a table of two slots; ranks 0 and 1.
ServerNodeOptions Job(bool apply_push, uint32_t servers = 1) {
  ServerNodeOptions options = H::AddingJob({H::Dense("w", 4), H::Table("emb", 1)}, {2, 2}, 2);
  options.store.map = MakePartitionMap(options.store.tensors, options.store.geometry, servers);
  options.store.apply_push = apply_push;
  options.staleness = apply_push ? kUnbounded : 0;
  options.record_order = true;
  return options;
}
uint32_t KeyOfSlot(uint32_t slot) {
  uint32_t key = 0;
  while (Geometry{2, 2}.slot(key) != slot) ++key;
  return key;
}
// A push to both blocks and to a slot of a server that has all.
Request Push(H& h, uint32_t rank, uint64_t clock, const std::string& read, uint32_t slot) {
  const uint64_t key = KeyOfSlot(slot);
  Payload payload = Floats({1, 1, 1, 1});
  payload.Append(Bytes(&key, sizeof(key)));
  payload.Append(Floats({1}));
  Request request = h.PushOf(rank, clock, {0, 1}, 3, std::move(payload));
  request.push->sparse = {SparsePart{BlockId{TensorId(1), slot}, 1}};
  request.push->read = read;
  return request;
}
std::string Read(std::vector<uint64_t> dense) { return EncodeRead({std::move(dense), {}}); }

WholeCut CutOf(ServerNode* node, Clock at = Clock(0)) {
  auto cut = std::make_shared<KeptCut>();
  EXPECT_TRUE(node->BeginCut(at, cut).ok());
  while (node->PumpCut()) {
  }
  EXPECT_TRUE(cut->done());
  node->DropCut();
  return cut->records();
}
BlockOrder OrderOf(const WholeCut& cut, uint32_t tensor, uint32_t index) {
  auto order = DecodeOrder(cut.at(BlockId{TensorId(tensor), index}).image.order, 2);
  EXPECT_TRUE(order.ok()) << order.status();
  return *std::move(order);
}

TEST(RecordOrder, PushesSayWhatTheyWereComputedFrom) {
  H h(Job(true));
  auto replies = h.Do(Push(h, 0, 0, "", 0));
  ASSERT_THAT(replies, SizeIs(1));
  EXPECT_EQ(replies[0].ack->outcome, Outcome::kRefused);
  EXPECT_THAT(replies[0].ack->message, HasSubstr("rank 0 at clock 0: the order is recorded, so it must say"));
  EXPECT_THAT(h.Do(Push(h, 0, 0, Read({0, 0, 0}), 0))[0].ack->message, HasSubstr("a run of 3 blocks after 0"));
  EXPECT_THAT(h.Do(Push(h, 0, 0, Read({0}), 0))[0].ack->message, HasSubstr("names 1 dense blocks, the model has 2"));
  EXPECT_EQ(h.node->store().version(BlockId{TensorId(0), 0}), 0u) << "nothing has changed";
  Request empty = h.PushOf(0, 0, {}, 0, {});  // without any example it was computed from nothing
  empty.push->weight = {0};
  EXPECT_EQ(h.Do(empty)[0].ack->outcome, Outcome::kApplied);
}

TEST(RecordOrder, ACutHoldsWhatEachBlockTookIn) {
  H h(Job(true));
  h.Do(Push(h, 1, 0, Read({0, 0}), 0));
  h.Do(Push(h, 0, 0, Read({0, 1}), 1));
  h.Do(Push(h, 0, 0, Read({0, 1}), 1));  // a late copy
  h.Do(Push(h, 1, 1, Read({2, 2}), 0));
  const WholeCut cut = CutOf(h.node.get());
  const BlockOrder first = OrderOf(cut, 0, 0), second = OrderOf(cut, 0, 1);
  ASSERT_THAT(first.entries, SizeIs(3));
  EXPECT_EQ(first.entries[0].read, Read({0, 0}));
  EXPECT_EQ(first.entries[1].read, Read({0, 1}));
  EXPECT_EQ(first.entries[2].clock, Clock(1));
  ASSERT_THAT(second.entries, SizeIs(3));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(second.entries[i].digest, first.entries[i].digest);
    EXPECT_FALSE(second.entries[i].read.has_value()) << "once on a server is enough";
  }
  const BlockOrder slot = OrderOf(cut, 1, 0);
  ASSERT_THAT(slot.entries, SizeIs(2));
  EXPECT_EQ(slot.entries[0].steps, 0u);
  EXPECT_EQ(slot.entries[1].steps, 2u) << "the table's, not the slot's";
  EXPECT_EQ(cut.at(BlockId{TensorId(1), 0}).image.steps, 3u);
}

TEST(RecordOrder, GoesOnFromACutAlsoOnOtherServers) {
  H h(Job(true));
  h.Do(Push(h, 1, 0, Read({0, 0}), 0));
  h.Do(Push(h, 0, 0, Read({0, 1}), 1));
  const WholeCut cut = CutOf(h.node.get());
  for (uint32_t servers : {1, 2}) {
    for (uint32_t self = 0; self < servers; ++self) {
      ServerNodeOptions options = Job(true, servers);
      options.store.self = ServerId(self);
      options.restored = RestoredState{{Clock(1), Clock(1)}};
      H after(options, 0);
      ASSERT_TRUE(RestoreFrom(cut, options, after.node.get()).ok());
      for (const auto& [id, record] : CutOf(after.node.get())) {
        const BlockOrder before = OrderOf(cut, id.tensor.value, id.index);
        BlockOrder now = *DecodeOrder(record.image.order, 2);
        if (id.tensor.value == 1) {
          EXPECT_EQ(now.entries.back(), BlockOrder::Entry::Restored(2));
          now.entries.pop_back();
        }
        EXPECT_EQ(now, before);
      }
    }
  }
}

TEST(RecordOrder, AnOrderThatDoesNotFitIsRefusedByName) {
  H h(Job(true));
  h.Do(Push(h, 1, 0, Read({0, 0}), 0));
  const WholeCut good = CutOf(h.node.get());
  const auto restored = [&](const WholeCut& cut) {
    ServerNodeOptions options = Job(true);
    options.restored = RestoredState{{Clock(0), Clock(1)}};
    H after(options, 0);
    return RestoreFrom(cut, options, after.node.get());
  };
  EXPECT_TRUE(restored(good).ok());
  const BlockId block{TensorId(0), 1}, slot{TensorId(1), 0};
  WholeCut none = good;
  none.at(block).image.order.clear();
  EXPECT_EQ(restored(none).message(), "image of tensor 'w', block 1: its order, byte 0: there is none");
  WholeCut torn = good;
  torn.at(slot).image.order.pop_back();
  EXPECT_EQ(restored(torn).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(restored(torn).message(), HasSubstr("image of table 'emb', slot 0: its order, byte 1: "));
  WholeCut short_of = good;
  short_of.at(block).image.order = "D";
  EXPECT_EQ(restored(short_of).message(), "image of tensor 'w', block 1: its order has 0 pushes, but its version is 1");
}

TEST(RecordOrder, RoundsTakeNoRoom) {
  H h(Job(false));
  for (uint64_t clock = 0; clock < 3; ++clock) {
    for (uint32_t rank : {0, 1}) h.Do(Push(h, rank, clock, "", 0));
  }
  const WholeCut cut = CutOf(h.node.get(), Clock(3));
  for (const auto& [id, record] : cut) EXPECT_EQ(record.image.order, "R");
  ServerNodeOptions options = Job(false);
  options.restored = RestoredState{{Clock(3), Clock(3)}};
  H after(options, 0);
  ASSERT_TRUE(RestoreFrom(cut, options, after.node.get()).ok());
  EXPECT_THAT(OrderOf(CutOf(after.node.get(), Clock(3)), 1, 1).restored, ElementsAre(Clock(3)));
}

// What is computed from a state after the cut must not get into a part that another server takes later.
TEST(RecordOrder, ReadsWaitUntilTheCutIsWhole) {
  for (uint32_t servers : {1, 2}) {
    H h(Job(true, servers));
    auto cut = std::make_shared<KeptCut>();
    ASSERT_TRUE(h.node->BeginCut(Clock(0), cut).ok());
    while (h.node->PumpCut()) {
    }
    ASSERT_TRUE(cut->done());
    auto replies = h.Do(h.PullOf(0, 0));
    if (servers == 1) {  // there is no other part
      ASSERT_THAT(replies, SizeIs(1));
      continue;
    }
    EXPECT_THAT(replies, IsEmpty());
    Request push = h.PushOf(0, 0, {}, 0, {});
    push.push->weight = {0};
    EXPECT_THAT(h.Do(push), SizeIs(1)) << "pushes go on";
    EXPECT_THAT(h.Do(h.PullOf(1, 0)), IsEmpty());
    h.node->DropCut();
    replies = h.Take();
    ASSERT_THAT(replies, SizeIs(2));
    EXPECT_TRUE(replies[0].pull_done && replies[1].pull_done);
    EXPECT_THAT(h.Do(h.PullOf(0, 0)), SizeIs(1));
  }
}

TEST(RecordOrder, ReadsTellVersionsAndSteps) {
  for (bool record : {true, false}) {
    ServerNodeOptions options = Job(true);
    options.record_order = record;
    H h(options);
    h.Do(Push(h, 1, 0, Read({0, 0}), 0));
    h.Do(Push(h, 0, 0, Read({0, 0}), 1));
    const uint64_t key = KeyOfSlot(0);
    Request request = h.PullOf(0, 1);
    request.pull->sparse = {SparsePart{BlockId{TensorId(1), 0}, 1}};
    request.payload = Bytes(&key, sizeof(key));
    const auto replies = h.Do(request);
    ASSERT_THAT(replies, SizeIs(1));
    EXPECT_EQ(replies[0].dense[0].version, 2u);
    EXPECT_EQ(replies[0].sparse[0].version, 1u);
    EXPECT_EQ(replies[0].sparse[0].steps, record ? 2u : 0u);
  }
}

}  // namespace
}  // namespace descent
