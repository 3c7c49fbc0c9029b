// The parameter client against real server nodes in this process, and against what plain memory says.
#include "worker/client/parameter_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/tensor/initial_value.h"
#include "descent/v1/job.pb.h"
#include "tests/support/in_process_transport.h"

namespace descent::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 5;
constexpr float kRate = 0.25f;

struct Scene {
  std::vector<TensorSpec> specs;
  Geometry geometry{64, 16};
  uint32_t servers = 2;
  uint32_t ranks = 2;
  uint64_t staleness = 0;
  bool apply_push = false;
  NetworkFaults faults;
  absl::Duration resend_after = absl::Seconds(5);
  absl::Duration waiting_notice = absl::Seconds(2);
  size_t max_payload_bytes = kMaxPayloadBytes;
};

TensorSpec Dense(std::string name, std::vector<uint64_t> shape) {
  return {std::move(name), false, std::move(shape), TensorRole::kTrainable, true, {Initializer::Kind::kUniform, 1.0}};
}
TensorSpec Table(std::string name, uint64_t dim) {
  return {std::move(name), true, {dim}, TensorRole::kTrainable, true, {Initializer::Kind::kUniform, 1.0}};
}

class World {
 public:
  explicit World(Scene setup) : setup_(std::move(setup)) {
    envelope_ = Envelope{kProtocolVersion, 11, RunId(12), Generation(3), 1};
    map_ = MakePartitionMap(setup_.specs, setup_.geometry, setup_.servers);
    auto rule = UpdateRule::Make(v1::Optimizer());
    EXPECT_TRUE(rule.ok());
    std::shared_ptr<const UpdateRule> shared = *std::move(rule);
    std::vector<ServerNodeOptions> nodes;
    for (uint32_t s = 0; s < setup_.servers; ++s) {
      ServerNodeOptions node;
      node.envelope = envelope_;
      node.store.tensors = setup_.specs;
      node.store.geometry = setup_.geometry;
      node.store.map = map_;
      node.store.self = ServerId(s);
      node.store.seed = kSeed;
      node.store.ranks = setup_.ranks;
      node.store.rule = shared;
      node.store.rate = [](Clock) { return kRate; };
      node.store.apply_push = setup_.apply_push;
      node.store.history = setup_.apply_push ? 1 : static_cast<uint32_t>(setup_.staleness) + 1;
      node.staleness = setup_.staleness;
      node.waiting_notice = setup_.waiting_notice;
      nodes.push_back(std::move(node));
    }
    auto cluster = InProcessCluster::Create(std::move(nodes), setup_.faults);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }

  ClientOptions Options() const {
    ClientOptions options;
    options.envelope = envelope_;
    options.tensors = setup_.specs;
    options.geometry = setup_.geometry;
    options.map = map_;
    options.resend_after = setup_.resend_after;
    options.max_payload_bytes = setup_.max_payload_bytes;
    return options;
  }
  InProcessCluster& cluster() { return *cluster_; }
  const Scene& setup() const { return setup_; }

 private:
  Scene setup_;
  Envelope envelope_;
  PartitionMap map_;
  std::unique_ptr<InProcessCluster> cluster_;
};

class Client {
 public:
  explicit Client(World& world) : Client(world, world.Options()) {}
  Client(World& world, ClientOptions options)
      : transport_(world.cluster().NewTransport()),
        client_(ParameterClient::Create(std::move(options), transport_.get(), &time_)) {}
  ~Client() { client_.reset(); }
  ParameterClient* operator->() { return client_.get(); }

 private:
  RealTimeSource time_;
  std::unique_ptr<ClientTransport> transport_;
  std::unique_ptr<ParameterClient> client_;
};

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

// Parameters, dense and by key, as one process would hold them.
class Memory {
 public:
  explicit Memory(const Scene& setup) : setup_(setup), dense(setup.specs.size()), rows(setup.specs.size()) {
    for (uint32_t t = 0; t < setup.specs.size(); ++t) {
      if (setup.specs[t].sparse) continue;
      dense[t].resize(setup.specs[t].elements());
      InitialDense(kSeed, TensorId(t), setup.specs[t], 0, absl::MakeSpan(dense[t]));
    }
  }
  std::vector<float>& Row(uint32_t t, uint64_t key) {
    auto [it, absent] = rows[t].try_emplace(key, setup_.specs[t].dim());
    if (absent) InitialRow(kSeed, TensorId(t), setup_.specs[t].initializer, key, absl::MakeSpan(it->second));
    return it->second;
  }

 private:
  const Scene setup_;

 public:
  std::vector<std::vector<float>> dense;
  std::vector<std::map<uint64_t, std::vector<float>>> rows;
};

float Gradient(uint32_t rank, uint64_t clock, uint32_t tensor, uint64_t element) {
  return static_cast<float>(HashKey(rank * 7919 + clock * 104729 + tensor * 31 + element * 1299709) % 2001) / 1000.0f -
         1.0f;
}

std::vector<std::vector<float>> Gradients(const Scene& setup, uint32_t rank, uint64_t clock) {
  std::vector<std::vector<float>> out(setup.specs.size());
  for (uint32_t t = 0; t < out.size(); ++t) {
    if (setup.specs[t].sparse) continue;
    out[t].resize(setup.specs[t].elements());
    for (uint64_t e = 0; e < out[t].size(); ++e) out[t][e] = Gradient(rank, clock, t, e);
  }
  return out;
}

template <typename T>
std::vector<T*> Pointers(std::vector<std::vector<float>>& buffers) {
  std::vector<T*> out;
  for (auto& buffer : buffers) out.push_back(buffer.empty() ? nullptr : buffer.data());
  return out;
}

std::vector<std::vector<float>> Buffers(const Scene& setup) {
  std::vector<std::vector<float>> out(setup.specs.size());
  for (uint32_t t = 0; t < out.size(); ++t) {
    if (!setup.specs[t].sparse) out[t].assign(setup.specs[t].elements(), -1e9f);
  }
  return out;
}

PushSpec Push(uint32_t rank, uint64_t clock, std::vector<const float*> dense, uint64_t incarnation = 1) {
  PushSpec push;
  push.rank = Rank(rank);
  push.incarnation = Incarnation{Generation(3), incarnation};
  push.clock = Clock(clock);
  push.read_clock = Clock(clock);
  push.weight = {1};
  push.dense = std::move(dense);
  return push;
}
PullSpec Pull(uint32_t rank, uint64_t clock, std::vector<float*> dense) {
  PullSpec pull;
  pull.rank = Rank(rank);
  pull.clock = Clock(clock);
  pull.dense = std::move(dense);
  return pull;
}

// Two ranks of one client train `clocks` clocks, in step; after each the parameters are those of plain memory.
void TrainAgainstMemory(Scene setup, uint64_t clocks, const std::function<void(World&, uint64_t)>& between = {}) {
  World world(setup);
  {
    Client client(world);
    Memory memory(setup);
    auto read = Buffers(setup);
    ASSERT_TRUE(client->Wait(client->Exchange(std::nullopt, Pull(0, 0, Pointers<float>(read))), Soon()).ok());
    for (uint64_t clock = 0; clock <= clocks; ++clock) {
      for (uint32_t t = 0; t < read.size(); ++t) ASSERT_EQ(read[t], memory.dense[t]) << "clock " << clock;
      if (clock == clocks) break;
      auto g0 = Gradients(setup, 0, clock), g1 = Gradients(setup, 1, clock);
      read = Buffers(setup);
      const Ticket a =
          client->Exchange(Push(0, clock, Pointers<const float>(g0)), Pull(0, clock + 1, Pointers<float>(read)));
      if (between) between(world, clock);
      const Ticket b = client->Exchange(Push(1, clock, Pointers<const float>(g1)), std::nullopt);
      ASSERT_TRUE(client->Wait(b, Soon()).ok());
      ASSERT_TRUE(client->Wait(a, Soon()).ok());
      for (uint32_t t = 0; t < g0.size(); ++t) {
        for (uint64_t e = 0; e < g0[t].size(); ++e) memory.dense[t][e] -= kRate * ((g0[t][e] + g1[t][e]) * 0.5f);
      }
    }
  }
  EXPECT_TRUE(world.cluster().failure().ok());
  for (uint32_t s = 0; s < setup.servers; ++s) {
    world.cluster().OnNode(ServerId(s), [&](ServerNode& node) { EXPECT_EQ(node.stats().held_pulls, 0u); });
  }
}

TEST(ParameterClientTest, TensorsAndBlocksAcrossServersAreThoseOfPlainMemory) {
  for (uint32_t servers : {1, 2, 3}) {
    Scene setup;
    setup.servers = servers;
    setup.specs = {Dense("w", {17, 31}), Dense("b", {31}), Dense("v", {31, 10}), Dense("c", {1})};
    TrainAgainstMemory(setup, 5);
  }
}

// What a worker has summed over an aligned subtree of ranks counts like its parts.
TEST(ParameterClientTest, AWorkersOwnSumOfRanksGivesTheSameBits) {
  Scene scene;
  scene.ranks = 4;
  scene.servers = 3;
  scene.specs = {Dense("w", {40, 31}), Dense("b", {31})};
  std::vector<std::vector<float>> result[2];
  for (bool summed : {false, true}) {
    World world(scene);
    Client client(world);
    for (uint64_t clock = 0; clock < 3; ++clock) {
      std::vector<std::vector<std::vector<float>>> g;
      for (uint32_t r = 0; r < 4; ++r) g.push_back(Gradients(scene, r, clock));
      std::vector<Ticket> tickets;
      std::vector<std::vector<float>> sum = g[2];
      if (summed) {
        for (uint32_t t = 0; t < sum.size(); ++t) {
          for (size_t e = 0; e < sum[t].size(); ++e) sum[t][e] += g[3][t][e];
        }
        PushSpec push = Push(2, clock, Pointers<const float>(sum));
        push.span = 2;
        push.weight = {1, 1};
        tickets.push_back(client->Exchange(push, std::nullopt));
      }
      for (uint32_t r = 0; r < (summed ? 2u : 4u); ++r) {
        tickets.push_back(client->Exchange(Push(r, clock, Pointers<const float>(g[r])), std::nullopt));
      }
      for (Ticket ticket : tickets) ASSERT_TRUE(client->Wait(ticket, Soon()).ok());
    }
    result[summed] = Buffers(scene);
    ASSERT_TRUE(client->Wait(client->Exchange(std::nullopt, Pull(0, 3, Pointers<float>(result[summed]))), Soon()).ok());
  }
  EXPECT_EQ(result[0], result[1]);
}

TEST(ParameterClientTest, ModelsOfManyMebibytes) {
  Scene setup;
  setup.geometry = Geometry{65536, 16};
  setup.specs = {Dense("w", {1500, 1001}), Dense("b", {1001}), Dense("v", {700'001})};
  TrainAgainstMemory(setup, 2);
}

TEST(ParameterClientTest, LostRepeatedAndDelayedMessagesChangeNothing) {
  Scene setup;
  setup.servers = 3;
  setup.specs = {Dense("w", {40, 31}), Dense("b", {31})};
  setup.max_payload_bytes = 512;  // several messages per push
  setup.resend_after = absl::Milliseconds(20);
  setup.waiting_notice = absl::Milliseconds(5);
  setup.faults = {7, 0.05, 0.1, absl::Milliseconds(2)};
  TrainAgainstMemory(setup, 8);
}

TEST(ParameterClientTest, BrokenConnectionsChangeNothing) {
  Scene setup;
  setup.servers = 2;
  setup.specs = {Dense("w", {40, 31}), Dense("b", {31})};
  setup.max_payload_bytes = 512;
  TrainAgainstMemory(setup, 6,
                     [](World& world, uint64_t clock) { world.cluster().BreakConnections(ServerId(clock % 2)); });
}

TEST(ParameterClientTest, SparseRowsAreThoseOfPlainMemory) {
  Scene setup;
  setup.servers = 3;
  setup.specs = {Table("t", 3), Dense("b", {5})};
  World world(setup);
  Client client(world);
  Memory memory(setup);
  for (uint64_t clock = 0; clock < 4; ++clock) {
    std::vector<uint64_t> keys;
    for (uint64_t i = 0; i < 200; ++i) keys.push_back(HashKey(clock * 1000 + i) % 500 + (uint64_t{1} << 60));
    std::sort(keys.begin(), keys.end(), [&](uint64_t a, uint64_t b) {
      return std::pair(setup.geometry.slot(a), a) < std::pair(setup.geometry.slot(b), b);
    });
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    std::vector<float> rows(keys.size() * 3, -1e9f);
    PullSpec pull = Pull(0, clock, {});
    pull.sparse = {{TensorId(0), keys, rows.data()}};
    ASSERT_TRUE(client->Wait(client->Exchange(std::nullopt, pull), Soon()).ok());
    std::vector<float> gradient(rows.size());
    for (size_t k = 0; k < keys.size(); ++k) {
      for (uint32_t d = 0; d < 3; ++d) {
        ASSERT_EQ(rows[k * 3 + d], memory.Row(0, keys[k])[d]);
        gradient[k * 3 + d] = Gradient(0, clock, 0, keys[k] * 3 + d);
        memory.Row(0, keys[k])[d] -= kRate * (gradient[k * 3 + d] * 0.5f);
      }
    }
    std::vector<float> b(5);
    PushSpec push = Push(0, clock, {nullptr, b.data()});
    push.sparse = {{TensorId(0), keys, gradient.data()}};
    const Ticket a = client->Exchange(push, std::nullopt);
    PushSpec empty = Push(1, clock, {});
    const Ticket c = client->Exchange(empty, std::nullopt);
    ASSERT_TRUE(client->Wait(a, Soon()).ok());
    ASSERT_TRUE(client->Wait(c, Soon()).ok());
  }
}

TEST(ParameterClientTest, ThreadsShareOneClientUnderLosses) {
  Scene setup;
  setup.servers = 3;
  setup.ranks = 4;
  setup.staleness = 2;
  setup.apply_push = true;
  setup.specs = {Dense("w", {400})};
  setup.resend_after = absl::Milliseconds(20);
  setup.waiting_notice = absl::Milliseconds(5);
  setup.faults = {9, 0.03, 0.05, absl::Milliseconds(1)};
  World world(setup);
  constexpr uint64_t kClocks = 15;
  {
    Client client(world);
    std::vector<std::thread> threads;
    for (uint32_t r = 0; r < setup.ranks; ++r) {
      threads.emplace_back([&, r] {
        std::vector<float> w(400), g(400, -4.0f);  // each push adds 4 * rate = 1
        for (uint64_t clock = 0; clock < kClocks; ++clock) {
          const absl::Status status =
              client->Wait(client->Exchange(Push(r, clock, {g.data()}), Pull(r, clock + 1, {w.data()})), Soon());
          ASSERT_TRUE(status.ok()) << status;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<float> w(400);
    ASSERT_TRUE(client->Wait(client->Exchange(std::nullopt, Pull(0, kClocks + 2, {w.data()})), Soon()).ok());
    std::vector<float> start(400);
    InitialDense(kSeed, TensorId(0), setup.specs[0], 0, absl::MakeSpan(start));
    for (size_t e = 0; e < w.size(); ++e) EXPECT_NEAR(w[e], start[e] + kClocks * setup.ranks, 1e-3);
    for (uint32_t r = 0; r < setup.ranks; ++r) {
      const absl::StatusOr<Clock> expected = client->ExpectedClock(Rank(r), Soon());
      ASSERT_TRUE(expected.ok()) << expected.status();
      EXPECT_EQ(expected->value, kClocks);
    }
    EXPECT_GT(client->stats().resends, 0u);
  }
  EXPECT_GT(world.cluster().dropped(), 0u);
  EXPECT_GT(world.cluster().duplicated(), 0u);
}

TEST(ParameterClientTest, FencedStaleAndRefusedPushesSaySo) {
  Scene setup;
  setup.specs = {Dense("w", {300})};
  World world(setup);
  Client client(world);
  std::vector<float> g(300);
  for (uint32_t s = 0; s < setup.servers; ++s) {
    world.cluster().OnNode(ServerId(s), [](ServerNode& node) { node.Fence(Rank(1), Incarnation{Generation(3), 2}); });
  }
  absl::Status status = client->Wait(client->Exchange(Push(1, 0, {g.data()}), std::nullopt), Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1's push of clock 0 is fenced"));
  EXPECT_TRUE(client->Wait(client->Exchange(Push(1, 0, {g.data()}, 2), std::nullopt), Soon()).ok());

  status = client->Wait(client->Exchange(Push(9, 0, {g.data()}), std::nullopt), Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;

  ClientOptions stale = world.Options();
  stale.envelope.generation = Generation(2);
  Client old(world, stale);
  status = old->Wait(old->Exchange(Push(0, 0, {g.data()}), std::nullopt), Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("2"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("3"));
  std::vector<float> w(300);
  status = old->Wait(old->Exchange(std::nullopt, Pull(0, 0, {w.data()})), Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
}

TEST(ParameterClientTest, ADeadlineNamesTheRanksThatServersWaitFor) {
  Scene setup;
  setup.specs = {Dense("w", {300})};
  setup.waiting_notice = absl::Milliseconds(10);
  World world(setup);
  Client client(world);
  std::vector<float> g(300), w(300);
  const Ticket ticket = client->Exchange(Push(0, 0, {g.data()}), Pull(0, 1, {w.data()}));
  absl::Status status;
  const absl::Time limit = Soon();
  do {  // until both servers have told
    status = client->Wait(ticket, absl::Now() + absl::Milliseconds(20));
    ASSERT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  } while (absl::Now() < limit && std::string(status.message()).find("server 1 waits for") == std::string::npos);
  EXPECT_THAT(std::string(status.message()), HasSubstr("waits for rank 1 since"));
  ASSERT_TRUE(client->LastWaiting().has_value());
  EXPECT_THAT(client->LastWaiting()->ranks, ::testing::ElementsAre(Rank(1)));
  // The ticket goes on.
  const Ticket other = client->Exchange(Push(1, 0, {g.data()}), std::nullopt);
  EXPECT_TRUE(client->Wait(other, Soon()).ok());
  EXPECT_TRUE(client->Wait(ticket, Soon()).ok());
  EXPECT_EQ(client->Wait(ticket, Soon()).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ParameterClientTest, ADeadlineNamesTheServerThatDoesNotAnswer) {
  Scene setup;
  setup.specs = {Dense("w", {300})};
  World world(setup);
  Client client(world);
  std::vector<float> w(300);
  ASSERT_TRUE(client->Wait(client->Exchange(std::nullopt, Pull(0, 0, {w.data()})), Soon()).ok());
  world.cluster().Pause(ServerId(1), true);
  const Ticket ticket = client->Exchange(std::nullopt, Pull(0, 0, {w.data()}));
  const absl::Status status = client->Wait(ticket, absl::Now() + absl::Milliseconds(50));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("server 1 has not answered"));
  world.cluster().Pause(ServerId(1), false);
  EXPECT_TRUE(client->Wait(ticket, Soon()).ok());
}

TEST(ParameterClientTest, CancelEndsWhoeverWaits) {
  Scene setup;
  setup.specs = {Dense("w", {300})};
  World world(setup);
  Client client(world);
  std::vector<float> w(300);
  const Ticket ticket = client->Exchange(std::nullopt, Pull(0, 1, {w.data()}));  // nobody will push
  absl::Status status;
  std::thread waiter([&] { status = client->Wait(ticket, absl::InfiniteFuture()); });
  client->Cancel();
  waiter.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  const Ticket later = client->Exchange(std::nullopt, Pull(0, 0, {w.data()}));
  EXPECT_EQ(client->Wait(later, Soon()).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(client->ExpectedClock(Rank(0), Soon()).status().code(), absl::StatusCode::kCancelled);
}

TEST(ParameterClientTest, AClientThatIsDestroyedLeavesNobodysBuffersBehind) {
  Scene setup;
  setup.specs = {Dense("w", {3000})};
  World world(setup);
  for (int i = 0; i < 20; ++i) {
    auto g = std::make_unique<std::vector<float>>(3000);
    auto w = std::make_unique<std::vector<float>>(3000);
    Client client(world);
    client->Exchange(Push(0, 0, {g->data()}), Pull(0, 1, {w->data()}));
  }  // the client first, then its buffers
}

}  // namespace
}  // namespace descent::testing
