// For tests of cuts under ROUND: servers that keep the cuts they are asked for, and ranks that push to them in random
// order.
#ifndef DESCENT_SERVER_NODE_CUT_CLUSTER_H_
#define DESCENT_SERVER_NODE_CUT_CLUSTER_H_

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"

namespace descent::cut_cluster {

using H = NodeHarness;

inline constexpr uint32_t kRanks = 3;
inline constexpr uint64_t kClocks = 13;
inline constexpr uint64_t kEvery = 4;
inline constexpr uint64_t kKeys = 40;
inline constexpr uint32_t kDim = 2;

struct Case {
  bool adam = true;
  uint64_t staleness = 0;
  bool sparse_only = false;
  EngineFault fault = EngineFault::kNone;
};

inline std::vector<TensorSpec> Tensors(const Case& c) {
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
        EXPECT_THAT(record.marks, ::testing::ElementsAre(clock, clock, clock));
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

}  // namespace descent::cut_cluster

#endif  // DESCENT_SERVER_NODE_CUT_CLUSTER_H_
