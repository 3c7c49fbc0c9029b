// Cuts under ROUND: servers that were cut at a clock, made again from the images, also on another number of servers,
// and driven on must end in the bits of servers that never stopped.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using H = NodeHarness;

constexpr uint32_t kRanks = 3;
constexpr uint64_t kClocks = 13;
constexpr uint64_t kEvery = 4;
constexpr uint64_t kKeys = 40;
constexpr uint32_t kDim = 2;

struct Case {
  bool adam = true;
  uint64_t staleness = 0;
  bool sparse_only = false;
  EngineFault fault = EngineFault::kNone;
};

std::vector<TensorSpec> Tensors(const Case& c) {
  std::vector<TensorSpec> tensors;
  if (!c.sparse_only) tensors.push_back(H::Dense("w", 45));
  tensors.push_back(H::Table("emb", kDim));
  for (TensorSpec& spec : tensors) spec.initializer = {Initializer::Kind::kUniform, 0.5};
  return tensors;
}

// One server that keeps the cuts it is asked for.
class Server final : public ServerNode::Output {
 public:
  Server(const Case& c, uint32_t servers, uint32_t self, const WholeCut* from, uint64_t clock) {
    options = H::AddingJob(Tensors(c), {8, 8}, kRanks);
    v1::Optimizer rule;
    c.adam ? void(rule.mutable_adam()) : void(rule.mutable_adagrad());
    options.store.rule = std::move(UpdateRule::Make(rule).value());
    options.store.rate = [](Clock at) { return 0.1f / static_cast<float>(at.value + 1); };
    options.store.reduce_sum = false;
    options.store.l2 = 0.01f;
    options.store.self = ServerId(self);
    options.store.map = MakePartitionMap(options.store.tensors, options.store.geometry, servers);
    options.staleness = c.staleness;
    options.cut_every = kEvery;
    options.fault = c.fault;
    if (from != nullptr) options.restored = RestoredState{std::vector<Clock>(kRanks, Clock(clock))};
    node = std::move(ServerNode::Create(options, this).value());
    if (from != nullptr) {
      const absl::Status status = RestoreFrom(*from, options, node.get());
      EXPECT_TRUE(status.ok()) << status;
    }
    node->OnOpen(ConnectionId(0), now);
  }

  void Send(ConnectionId to, Reply reply) override {
    EXPECT_TRUE(reply.refusal.ok()) << reply.refusal;
    EXPECT_TRUE(!reply.ack || reply.ack->outcome == Outcome::kApplied) << reply.ack->message;
    unsent.push_back(to);
  }
  void Fail(absl::Status cause) override { ADD_FAILURE() << cause; }
  void Scalars(Clock, std::vector<BlockSquare>) override {}
  std::shared_ptr<CutSink> BeginCut(Clock clock) override {
    auto cut = std::make_shared<KeptCut>();
    EXPECT_TRUE(cuts.emplace(clock.value, cut).second);
    return cut;
  }
  void Do(Request request) {
    node->OnRequest(ConnectionId(0), std::move(request), now);
    for (const std::vector<ConnectionId> sent = std::exchange(unsent, {}); ConnectionId to : sent) {
      node->OnSent(to, now);
    }
  }

  ServerNodeOptions options;
  std::unique_ptr<ServerNode> node;
  const absl::Time now = absl::UnixEpoch();
  std::vector<ConnectionId> unsent;
  std::map<uint64_t, std::shared_ptr<KeptCut>> cuts;
};

class Cluster {
 public:
  Cluster(const Case& c, uint32_t servers, const WholeCut* from = nullptr, uint64_t clock = 0)
      : case_(c), clock_(kRanks, clock) {
    for (uint32_t s = 0; s < servers; ++s) servers_.push_back(std::make_unique<Server>(c, servers, s, from, clock));
  }
  Server& server(uint32_t s) { return *servers_[s]; }

  // Every rank's pushes up to clock `end`, each contribution a message, in an order of `seed`; readers and the owner's
  // PumpCut in between.
  void Drive(uint64_t end, uint64_t seed, bool pump = true) {
    const RandomStream random(seed, Purpose::kTest, 1, 0);
    uint64_t draw = 0;
    std::vector<std::vector<std::pair<uint32_t, Request>>> unsent(kRanks);
    while (*std::min_element(clock_.begin(), clock_.end()) < end) {
      const uint64_t least = *std::min_element(clock_.begin(), clock_.end());
      const auto r = static_cast<uint32_t>(random.Below(draw++, kRanks));
      if (clock_[r] == end || clock_[r] > least + case_.staleness + 1) continue;
      auto& messages = unsent[r];
      if (messages.empty()) messages = Push(r, clock_[r]);
      std::swap(messages[random.Below(draw++, messages.size())], messages.back());
      servers_[messages.back().first]->Do(std::move(messages.back().second));
      messages.pop_back();
      if (messages.empty()) ++clock_[r];
      Server& any = *servers_[random.Below(draw++, servers_.size())];
      if (pump && random.Below(draw++, 80) == 0) any.node->PumpCut();
      if (random.Below(draw++, 20) == 0) ReadRow(any, random.Below(draw++, kKeys));
    }
    for (auto& server : servers_) {
      while (server->node->PumpCut()) {
      }
    }
  }
  // Everything that there is, parameters and state.
  std::map<BlockId, std::vector<std::byte>> State() {
    std::map<BlockId, std::vector<std::byte>> out;
    for (auto& server : servers_) {
      ForEachBlock(*server, [&](BlockId id) {
        const Payload image = server->node->store().Export(id, true)->payload;
        out[id].resize(image.size());
        image.CopyTo(out[id].data());
      });
    }
    return out;
  }
  WholeCut CutAt(uint64_t clock) {
    WholeCut all;
    for (auto& server : servers_) {
      const auto cut = server->cuts.find(clock);
      if (cut == server->cuts.end() || !cut->second->done()) {
        ADD_FAILURE() << "no whole cut at clock " << clock;
        return {};
      }
      size_t blocks = 0;
      ForEachBlock(*server, [&](BlockId) { ++blocks; });
      EXPECT_EQ(cut->second->records().size(), blocks);
      for (const auto& [id, record] : cut->second->records()) {
        EXPECT_EQ(record.image.version, clock);
        EXPECT_THAT(record.marks, ElementsAre(clock, clock, clock));
        EXPECT_TRUE(all.emplace(id, record).second);
      }
    }
    return all;
  }
  std::vector<uint64_t> CutClocks() {
    std::vector<uint64_t> clocks;
    for (const auto& [clock, cut] : servers_[0]->cuts) clocks.push_back(clock);
    return clocks;
  }

 private:
  template <typename F>
  static void ForEachBlock(const Server& server, F f) {
    const StoreOptions& store = server.options.store;
    for (uint32_t t = 0; t < store.tensors.size(); ++t) {
      for (uint32_t b = 0; b < store.geometry.blocks(store.tensors[t]); ++b) {
        const BlockId id{TensorId(t), b};
        if (store.map.server(id) == store.self) f(id);
      }
    }
  }
  static void ReadRow(Server& server, uint64_t key) {
    const StoreOptions& store = server.options.store;
    const BlockId slot{TensorId(static_cast<uint32_t>(store.tensors.size()) - 1), store.geometry.slot(key)};
    if (store.map.server(slot) != store.self) return;
    EXPECT_TRUE(server.node->store().ReadSparse(slot, 1, Bytes(&key, sizeof(key)), std::nullopt).ok());
  }

  // What rank r sends for clock c: (server, message). In clock 6 nobody has an example.
  std::vector<std::pair<uint32_t, Request>> Push(uint32_t r, uint64_t c) {
    const bool empty = c == 6;
    const RandomStream random(r * 1000 + c, Purpose::kTest, 2, 0);
    std::vector<std::pair<uint32_t, Request>> out;
    for (uint32_t s = 0; s < servers_.size(); ++s) {
      Server& server = *servers_[s];
      std::vector<Request> parts;
      ForEachBlock(server, [&](BlockId id) {
        const StoreOptions& store = server.options.store;
        const TensorSpec& spec = store.tensors[id.tensor.value];
        PushFrame push;
        Payload payload;
        if (spec.sparse) {
          std::vector<uint64_t> keys;
          for (uint64_t key = 0; key < kKeys; ++key) {
            if (store.geometry.slot(key) == id.index && random.Below(key, 8) == 0) keys.push_back(key);
          }
          if (keys.empty()) return;
          push.sparse = {SparsePart{id, static_cast<uint32_t>(keys.size())}};
          payload = Bytes(keys.data(), keys.size() * sizeof(uint64_t));
          std::vector<float> rows;
          for (uint64_t key : keys) {
            for (uint32_t d = 0; d < kDim; ++d) rows.push_back(Normal(random, 1000 + key * kDim + d));
          }
          payload.Append(Floats(rows));
        } else {
          push.dense = {DensePart{id}};
          std::vector<float> g(store.geometry.block_size(spec, id.index));
          for (size_t i = 0; i < g.size(); ++i) g[i] = Normal(random, 2000 + id.index * 100 + i);
          payload = Floats(g);
        }
        Request request;
        request.push = std::move(push);
        request.payload = std::move(payload);
        if (!empty) parts.push_back(std::move(request));
      });
      const auto announced = static_cast<uint32_t>(parts.size());
      if (parts.empty()) parts.emplace_back().push.emplace();
      for (Request& request : parts) {
        request.envelope = server.options.envelope;
        request.id = ++last_id_;
        request.push->rank = Rank(r);
        request.push->incarnation = {Generation(3), 1};
        request.push->clock = Clock(c);
        request.push->weight = {empty ? 0.0 : 2.0 + r};
        request.push->contributions = announced;
        out.emplace_back(s, std::move(request));
      }
    }
    return out;
  }
  static float Normal(const RandomStream& random, uint64_t at) { return static_cast<float>(random.Normal(at)); }

  const Case case_;
  std::vector<uint64_t> clock_;
  std::vector<std::unique_ptr<Server>> servers_;
  uint64_t last_id_ = 0;
};

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
  EXPECT_EQ(node.BeginCut(Clock(5), now).message(), "another cut, at clock 0, is in progress");
  while (node.PumpCut()) {
  }
  EXPECT_TRUE(now->done());
  EXPECT_EQ(now->records().size(), 6u + 8u);

  auto later = std::make_shared<KeptCut>();
  ASSERT_TRUE(node.BeginCut(Clock(4), later).ok());
  const absl::Status another = node.BeginCut(Clock(5), now);
  EXPECT_EQ(another.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(another.message(), "another cut, at clock 4, is in progress");
  cluster.Drive(3, 1);
  EXPECT_THAT(later->records(), IsEmpty());
  cluster.Drive(5, 1);
  EXPECT_TRUE(later->done());
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
