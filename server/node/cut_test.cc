// Cuts under ROUND: servers that were cut at a clock, made again from the images, also on another number of servers,
// and driven on must end in the bits of servers that never stopped.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/node/cut_cluster.h"
#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using cut_cluster::Case;
using cut_cluster::Cluster;
using cut_cluster::H;
using cut_cluster::kClocks;
using cut_cluster::kEvery;
using cut_cluster::kRanks;

TEST(ServerCut, RestoredServersEndInTheBitsOfServersThatNeverStopped) {
  for (bool adam : {true, false}) {
    for (uint64_t s : {0, 1, 3}) {
      for (bool sparse_only : {false, true}) {
        const Case c{adam, s, sparse_only};
        Cluster undisturbed(c, 1);
        undisturbed.Drive(kClocks, 99);
        const auto want = undisturbed.State();
        for (uint64_t seed = 0; seed < 6; ++seed) {
          SCOPED_TRACE(absl::StrCat(adam ? "Adam" : "Adagrad", ", s ", s, ", seed ", seed));
          Cluster cluster(c, 2);
          cluster.Drive(kClocks, seed);
          ASSERT_EQ(cluster.State(), want) << "cuts changed what is trained";
          ASSERT_THAT(cluster.CutClocks(), ElementsAre(4, 8, 12));
          for (uint64_t clock : {4, 8}) {
            const WholeCut cut = cluster.CutAt(clock);
            for (uint32_t servers : {1, 2, 3}) {
              Cluster restored(c, servers, &cut, clock);
              restored.Drive(kClocks, seed + 100);
              ASSERT_EQ(restored.State(), want) << "from clock " << clock << " onto " << servers << " servers";
              EXPECT_EQ(restored.CutClocks().front(), clock + kEvery) << "none at the clock restored from";
              // And once more, from a cut of the restored.
              const WholeCut second = restored.CutAt(12);
              Cluster again(c, 2, &second, 12);
              again.Drive(kClocks, seed);
              ASSERT_EQ(again.State(), want);
            }
          }
        }
      }
    }
  }
}

TEST(ServerCut, ACutThatIsTornIsFound) {
  const Case sound;
  Case torn;
  torn.fault = EngineFault::kCutTorn;
  Cluster undisturbed(sound, 1);
  undisturbed.Drive(kClocks, 99);
  bool found = false;
  for (uint64_t seed = 0; seed < 6 && !found; ++seed) {
    Cluster cluster(torn, 2);
    cluster.Drive(kClocks, seed);
    const WholeCut cut = cluster.CutAt(8);
    Cluster restored(sound, 2, &cut, 8);
    restored.Drive(kClocks, seed);
    found = restored.State() != undisturbed.State();
  }
  EXPECT_TRUE(found);
}

// An owner that never finds the time: what the next cut or a step needs is imaged then, the rest in the end.
TEST(ServerCut, CutsAreWholeWithoutAnyPumping) {
  const Case c;
  Cluster undisturbed(c, 1);
  undisturbed.Drive(kClocks, 99);
  Cluster cluster(c, 2);
  cluster.Drive(kClocks, 3, false);
  for (uint64_t clock : {4, 8, 12}) {
    const WholeCut cut = cluster.CutAt(clock);
    Cluster restored(c, 3, &cut, clock);
    restored.Drive(kClocks, 5);
    EXPECT_EQ(restored.State(), undisturbed.State());
  }
}

TEST(ServerCut, OnDemand) {
  Case c;
  c.staleness = 1;
  Cluster cluster(c, 1);
  ServerNode& node = *cluster.server(0).node;
  auto now = std::make_shared<KeptCut>();
  ASSERT_TRUE(node.BeginCut(Clock(0), now).ok());
  EXPECT_EQ(now->records().size(), 6u) << "the dense blocks; slots come later";
  EXPECT_EQ(node.BeginCut(Clock(0), now).message(), "another cut, at clock 0, is in progress");
  while (node.PumpCut()) {
  }
  EXPECT_TRUE(now->done());
  EXPECT_EQ(now->records().size(), 6u + 8u);

  auto later = std::make_shared<KeptCut>();
  ASSERT_TRUE(node.BeginCut(Clock(4), later).ok());
  auto sooner = std::make_shared<KeptCut>();
  ASSERT_TRUE(node.BeginCut(Clock(3), sooner).ok());
  const absl::Status another = node.BeginCut(Clock(5), now);
  EXPECT_EQ(another.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(another.message(), "cuts at clocks 4 and 3 are to come already");
  cluster.Drive(3, 1);
  EXPECT_FALSE(sooner->records().empty());
  EXPECT_THAT(later->records(), IsEmpty());
  cluster.Drive(5, 1);
  EXPECT_TRUE(sooner->done());
  EXPECT_TRUE(later->done());
  for (const auto& [id, record] : sooner->records()) EXPECT_EQ(record.image.version, 3u);
  // A cut of cut_every was due there too: both have all.
  const WholeCut regular = cluster.CutAt(4);
  ASSERT_EQ(later->records().size(), regular.size());
  for (const auto& [id, record] : regular) EXPECT_EQ(later->records().at(id).image.version, record.image.version);

  const absl::Status late = node.BeginCut(Clock(4), now);
  EXPECT_EQ(late.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(late.message(), "a cut at clock 4 is too late: the round is 5");

  // One that is wanted no more is let go of, waiting or begun.
  for (uint64_t at : {9, 5}) {
    auto dropped = std::make_shared<KeptCut>();
    ASSERT_TRUE(node.BeginCut(Clock(at), dropped).ok());
    EXPECT_EQ(dropped.use_count(), 2);
    node.DropCut();
    EXPECT_EQ(dropped.use_count(), 1);
    EXPECT_FALSE(node.PumpCut());
    EXPECT_FALSE(dropped->done());
  }
}

TEST(ServerCut, ARoundOfWhichBlocksHaveMadeTheStepIsTooLate) {
  H h(H::AddingJob({H::Dense("w", 8)}, {4, 4}, 2));
  const Payload four = Floats({1, 1, 1, 1});
  h.Do(h.PushOf(0, 0, {0}, 2, four));
  h.Do(h.PushOf(1, 0, {0}, 2, four));
  const absl::Status late = h.node->BeginCut(Clock(0), std::make_shared<KeptCut>());
  EXPECT_EQ(late.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(late.message(), "a cut at clock 0 is too late: the round is 0, and some blocks have made its step");
  auto cut = std::make_shared<KeptCut>();
  ASSERT_TRUE(h.node->BeginCut(Clock(1), cut).ok());
  h.Do(h.PushOf(0, 0, {1}, 2, four));
  h.Do(h.PushOf(0, 1, {0, 1}, 2, Floats(std::vector<float>(8, 1))));  // for the next round: not in the cut
  EXPECT_FALSE(cut->done());
  h.Do(h.PushOf(1, 0, {1}, 2, four));
  ASSERT_TRUE(cut->done());
  for (const auto& [id, record] : cut->records()) {
    EXPECT_THAT(ToFloats(record.image.payload), ElementsAre(2, 2, 2, 2));
    EXPECT_THAT(record.marks, ElementsAre(1, 1));
  }
}

TEST(ServerCut, WhatIsNoWholeCutIsRefusedByName) {
  const Case c;
  Cluster cluster(c, 1);
  cluster.Drive(5, 1);
  const WholeCut cut = cluster.CutAt(4);
  ServerNodeOptions options = cluster.server(0).options;
  const BlockExport dense = cut.at({TensorId(0), 1}).image, slot = cut.at({TensorId(1), 2}).image;
  const std::vector<uint64_t> marks(kRanks, 4);
  const auto fresh = [&] { return std::move(ServerNode::Create(options, &cluster.server(0)).value()); };
  EXPECT_EQ(fresh()->Install(dense, marks).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fresh()->FinishRestore().message(), "this server is not being restored");

  options.restored = RestoredState{{Clock(4), Clock(4)}};
  EXPECT_EQ(ServerNode::Create(options, &cluster.server(0)).status().message(),
            "cut: it has clocks of 2 ranks, the job has 3");
  options.restored = RestoredState{{Clock(4), Clock(4), Clock(5)}};
  EXPECT_EQ(ServerNode::Create(options, &cluster.server(0)).status().message(),
            "cut: rank 2 goes on with clock 5, rank 0 with 4, but with apply: ROUND all are the cut's");
  options.restored = RestoredState{std::vector<Clock>(kRanks, Clock(4))};
  const auto refused = [&](BlockExport image, std::vector<uint64_t> with) {
    const absl::Status status = fresh()->Install(image, with);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(refused(dense, {4, 4}), "image of tensor 'w', block 1: expected marks of 3 ranks, got 2");
  EXPECT_EQ(refused(dense, {4, 5, 4}), "image of tensor 'w', block 1: expected clock 4 of rank 1, got 5");
  BlockExport wrong = slot;
  wrong.version = 5;
  EXPECT_EQ(refused(wrong, marks), "image of table 'emb', slot 2: expected version 4, got 5");
  wrong.id = {TensorId(7), 0};
  EXPECT_EQ(refused(wrong, marks), "unknown tensor 7: the job has 2");
  wrong = dense;
  wrong.payload = Payload();
  EXPECT_THAT(refused(wrong, marks), HasSubstr("image of tensor 'w', block 1: expected 8 values and 2 state vectors"));

  auto node = fresh();
  for (const auto& [id, record] : cut) {
    const bool left_out = id == BlockId{TensorId(1), 5};
    ASSERT_TRUE(left_out || node->Install(record.image, record.marks).ok());
  }
  EXPECT_EQ(node->Install(dense, marks).message(), "image of tensor 'w', block 1: expected it once, got another");
  const absl::Status missing = node->FinishRestore();
  EXPECT_EQ(missing.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(missing.message(), "the cut has no image of table 'emb', slot 5");
}

}  // namespace
}  // namespace descent
