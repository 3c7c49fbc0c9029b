#include "server/node/order_log.h"

#include "absl/strings/str_cat.h"
#include "common/wire/read_vector.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kRanks = 3;

BlockOrder Read(const OrderLog& log, uint32_t block, uint64_t version) {
  const std::string bytes = log.Image(block, version);
  auto order = DecodeOrder(bytes, kRanks);
  EXPECT_TRUE(order.ok()) << order.status();
  EXPECT_EQ(EncodeOrder(*order), bytes);
  return *std::move(order);
}

BlockOrder::Entry Push(uint32_t rank, uint64_t clock, const std::string& read, bool here, uint64_t steps = 0) {
  BlockOrder::Entry entry{false, Rank(rank), Clock(clock), ReadDigest(read), steps, std::nullopt};
  if (here) entry.read = read;
  return entry;
}
BlockOrder::Entry Restored(uint64_t steps) { return BlockOrder::Entry::Restored(steps); }

TEST(OrderLog, AReadVectorStandsWhereItCameFirst) {
  OrderLog log(kRanks, 2, 1, true);
  log.OnPush(1, Rank(2), Clock(0), "v1", 0);
  log.OnPush(0, Rank(2), Clock(0), "v1", 0);
  log.OnPush(2, Rank(2), Clock(0), "v1", 5);
  log.OnPush(0, Rank(0), Clock(9), "v2", 0);
  // The lease moved: another attempt of the same clock, which another block takes in.
  log.OnPush(1, Rank(0), Clock(9), "v3", 0);
  log.OnPush(2, Rank(0), Clock(9), "v3", 4);
  EXPECT_THAT(Read(log, 0, 2).entries, ElementsAre(Push(2, 0, "v1", false), Push(0, 9, "v2", true)));
  EXPECT_THAT(Read(log, 1, 2).entries, ElementsAre(Push(2, 0, "v1", true), Push(0, 9, "v3", true)));
  EXPECT_THAT(Read(log, 2, 2).entries, ElementsAre(Push(2, 0, "v1", false, 5), Push(0, 9, "v3", false, 4)));
}

TEST(OrderLog, GoesOnFromACut) {
  OrderLog before(kRanks, 1, 1, true);
  before.OnPush(0, Rank(1), Clock(3), "a", 0);
  before.OnPush(1, Rank(1), Clock(3), "a", 7);
  OrderLog after(kRanks, 1, 1, true);
  ASSERT_TRUE(after.Install(0, before.Image(0, 1), 1, 1).ok());
  ASSERT_TRUE(after.Install(1, before.Image(1, 1), 1, 8).ok());
  after.OnPush(0, Rank(0), Clock(1), "b", 0);
  after.OnPush(1, Rank(0), Clock(1), "b", 9);
  EXPECT_THAT(Read(after, 0, 2).entries, ElementsAre(Push(1, 3, "a", true), Push(0, 1, "b", true)));
  EXPECT_THAT(Read(after, 1, 2).entries,
              ElementsAre(Push(1, 3, "a", false, 7), Restored(8), Push(0, 1, "b", false, 9)));
  // Twice from the same cut is once.
  OrderLog again(kRanks, 1, 1, true);
  ASSERT_TRUE(again.Install(1, before.Image(1, 1), 1, 8).ok());
  OrderLog thrice(kRanks, 1, 1, true);
  ASSERT_TRUE(thrice.Install(1, again.Image(1, 1), 1, 8).ok());
  EXPECT_THAT(Read(thrice, 1, 1).entries, ElementsAre(Push(1, 3, "a", false, 7), Restored(8)));
}

TEST(OrderLog, RoundsNameWhoWasMissing) {
  OrderLog log(kRanks, 2, 2, false);
  log.OnRound(0, Clock(0), {});
  log.OnSlotsRound(Clock(0), {});
  EXPECT_EQ(log.Image(0, 1).size(), 1u) << "a round of all ranks takes no room";
  log.OnRound(0, Clock(1), {Rank(0), Rank(2)});
  log.OnSlotsRound(Clock(1), {Rank(1)});
  log.OnSlotsRound(Clock(4), {Rank(2)});
  EXPECT_THAT(Read(log, 0, 5).rounds, ElementsAre(BlockOrder::Round{Clock(1), {Rank(0), Rank(2)}}));
  EXPECT_THAT(Read(log, 1, 5).rounds, IsEmpty());
  EXPECT_THAT(Read(log, 3, 5).rounds,
              ElementsAre(BlockOrder::Round{Clock(1), {Rank(1)}}, BlockOrder::Round{Clock(4), {Rank(2)}}));
  EXPECT_THAT(Read(log, 3, 4).rounds, ElementsAre(BlockOrder::Round{Clock(1), {Rank(1)}})) << "of the cut's clock";

  OrderLog after(kRanks, 2, 2, false);
  ASSERT_TRUE(after.Install(3, log.Image(3, 2), 2, 2).ok());
  after.OnSlotsRound(Clock(2), {Rank(0)});
  const BlockOrder order = Read(after, 3, 3);
  EXPECT_THAT(order.restored, ElementsAre(Clock(2)));
  EXPECT_THAT(order.rounds,
              ElementsAre(BlockOrder::Round{Clock(1), {Rank(1)}}, BlockOrder::Round{Clock(2), {Rank(0)}}));
}

TEST(OrderLog, WhatDoesNotFitTheBlockIsRefused) {
  OrderLog from(kRanks, 1, 1, true);
  from.OnPush(0, Rank(1), Clock(3), "a", 0);
  OrderLog log(kRanks, 1, 1, true);
  EXPECT_EQ(log.Install(0, from.Image(0, 1), 2, 2).message(), "its order has 1 pushes, but its version is 2");
  EXPECT_EQ(log.Install(1, from.Image(0, 1), 1, 1).message(),
            "its order is of another kind than the block: 'D', expected 'S'");
  EXPECT_EQ(log.Install(0, "", 0, 0).message(), "its order, byte 0: there is none");
  OrderLog rounds(kRanks, 1, 0, false);
  rounds.OnRound(0, Clock(6), {Rank(1)});
  EXPECT_EQ(OrderLog(kRanks, 1, 0, false).Install(0, rounds.Image(0, 9), 6, 6).message(),
            "its order tells of round 7, but its version is 6");
  EXPECT_THAT(DecodeOrder(from.Image(0, 1), 1).status().message(), HasSubstr("rank 1, but the job has 1"));
}

TEST(OrderLog, MalformedBytesAreRefusedAndNeverCrash) {
  OrderLog log(kRanks, 1, 1, true);
  log.OnPush(1, Rank(1), Clock(300), "some read vector", 7);
  log.OnPush(1, Rank(2), Clock(4), "another", 70000);
  ASSERT_TRUE(log.Install(1, log.Image(1, 2), 2, 9).ok());
  OrderLog rounds(kRanks, 1, 0, false);
  rounds.OnRound(0, Clock(2), {Rank(0), Rank(1)});
  rounds.OnRound(0, Clock(700), {Rank(2)});
  for (const std::string& good : {log.Image(1, 2), rounds.Image(0, 900)}) {
    const BlockOrder want = *DecodeOrder(good, kRanks);
    for (size_t n = 0; n < good.size(); ++n) {
      const auto cut = DecodeOrder(good.substr(0, n), kRanks);
      if (cut.ok()) {
        EXPECT_NE(*cut, want) << n;
      }
    }
    for (size_t i = 0; i < good.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string flipped = good;
        flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
        const auto order = DecodeOrder(flipped, kRanks);
        if (order.ok()) {
          EXPECT_NE(*order, want) << "byte " << i << ", bit " << bit;
        }
      }
    }
  }
}

}  // namespace
}  // namespace descent
