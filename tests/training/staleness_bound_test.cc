// The bound, over real connections: rank r at clock c adds exactly 1 to element r of a block on every server, so what a
// pull brings proves what it holds. Rank 0 is slow: it ends a clock only when the others have read as far ahead as they
// may. Over 10,000 pulls in all, no read misses a clock below c - s, the lead reaches s and no more; and a gate that is
// off by one is caught.
#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/time_source.h"
#include "common/net/grpc_client_transport.h"
#include "descent/v1/job.pb.h"
#include "gtest/gtest.h"
#include "server/node/server_node.h"
#include "server/rpc/parameter_service.h"
#include "server/rpc/rpc_server.h"
#include "worker/client/parameter_client.h"

namespace descent {
namespace {

constexpr uint32_t kRanks = 4;
constexpr uint32_t kServers = 3;
constexpr uint64_t kClocks = 430;

struct Outcome {
  uint64_t pulls = 0;
  uint64_t missed = 0;  // a clock below c - s was not there
  uint64_t lead = 0;    // the most that a read was ahead of what it held of the slowest
};

// How far the ranks have read; rank 0 waits on it.
class Progress {
 public:
  void Read(Rank rank, uint64_t clock) {
    MutexLock lock(&mu_);
    read_[rank.value] = clock;
    changed_.SignalAll();
  }
  // Until every other rank has read at `clock`, or the deadline.
  void AwaitOthers(uint64_t clock, absl::Time deadline) {
    MutexLock lock(&mu_);
    while (*std::min_element(read_.begin() + 1, read_.end()) < clock && absl::Now() < deadline) {
      changed_.WaitUntil(&mu_, deadline);
    }
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<uint64_t> read_ ABSL_GUARDED_BY(mu_) = std::vector<uint64_t>(kRanks);
};

Outcome Measure(uint64_t staleness, bool apply_push, uint64_t clocks, EngineFault fault) {
  TensorSpec spec;
  spec.name = "ledger";
  spec.shape = {kServers * kRanks};
  const std::vector<TensorSpec> tensors = {spec};
  const Geometry geometry{kRanks, 16};
  const PartitionMap map = MakePartitionMap(tensors, geometry, kServers);
  const RealTimeSource time;
  std::vector<std::unique_ptr<ParameterService>> services;
  std::vector<std::unique_ptr<RpcServer>> servers;
  GrpcClientOptions transport_options;
  for (uint32_t s = 0; s < kServers; ++s) {
    ServerNodeOptions options;
    options.staleness = staleness;
    options.fault = fault;
    options.store.tensors = tensors;
    options.store.geometry = geometry;
    options.store.map = map;
    options.store.self = ServerId(s);
    options.store.ranks = kRanks;
    options.store.apply_push = apply_push;
    options.store.reduce_sum = true;
    v1::Optimizer sgd;
    sgd.mutable_sgd();
    options.store.rule = *UpdateRule::Make(sgd);
    options.store.rate = [](Clock) { return 1.0f; };
    services.push_back(ParameterService::Create({}, {}));
    auto node = ServerNode::Create(options, services.back()->output());
    EXPECT_TRUE(node.ok()) << node.status();
    services.back()->Install(options, *std::move(node));
    RpcServerOptions rpc;
    rpc.bind = {"127.0.0.1", 0};
    auto server = RpcServer::Start(rpc, services.back().get(), {});
    EXPECT_TRUE(server.ok()) << server.status();
    const std::string address = absl::StrCat("127.0.0.1:", (*server)->port());
    if (s % 2 == 0) {  // the others over TCP
      EXPECT_TRUE((*server)->ServeLocally(address).ok());
    }
    transport_options.servers.push_back(address);
    servers.push_back(*std::move(server));
  }

  Progress progress;
  std::vector<Outcome> outcomes(kRanks);
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < kRanks; ++r) {
    threads.emplace_back([&, r] {
      Outcome& outcome = outcomes[r];
      auto transport = MakeGrpcClientTransport(transport_options);
      ClientOptions options;
      options.tensors = tensors;
      options.geometry = geometry;
      options.map = map;
      auto client = ParameterClient::Create(options, transport.get(), &time);
      alignas(64) float content[kServers * kRanks];
      alignas(64) float one[kServers * kRanks] = {};
      for (uint32_t s = 0; s < kServers; ++s) one[s * kRanks + r] = -1;  // rate 1: adds 1
      for (uint64_t clock = 0; clock < clocks; ++clock) {
        PullSpec pull;
        pull.rank = Rank(r);
        pull.clock = Clock(clock);
        pull.dense = {content};
        const absl::Time deadline = absl::Now() + absl::Seconds(60);
        const absl::Status pulled = client->Wait(client->Exchange(std::nullopt, pull), deadline);
        ASSERT_TRUE(pulled.ok()) << pulled;
        ++outcome.pulls;
        float least = content[0];
        for (float v : content) least = std::min(least, v);
        const auto held = static_cast<uint64_t>(least);
        if (held + staleness < clock) ++outcome.missed;
        outcome.lead = std::max(outcome.lead, clock - std::min(clock, held));
        progress.Read(Rank(r), clock);
        if (r == 0) {
          // As far as the others may read; once, as far as they must not.
          const bool overreach = clock == clocks / 2;
          const uint64_t ahead = std::min(clocks - 1, clock + staleness + (overreach ? 1 : 0));
          progress.AwaitOthers(ahead, overreach ? absl::Now() + absl::Milliseconds(300) : deadline);
        }
        PushSpec push;
        push.rank = Rank(r);
        push.clock = push.read_clock = Clock(clock);
        push.weight = {1};
        push.dense = {one};
        const absl::Status pushed = client->Wait(client->Exchange(push, std::nullopt), deadline);
        ASSERT_TRUE(pushed.ok()) << pushed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& server : servers) server->Stop(absl::ZeroDuration());
  Outcome total;
  for (const Outcome& outcome : outcomes) {
    total.pulls += outcome.pulls;
    total.missed += outcome.missed;
    total.lead = std::max(total.lead, outcome.lead);
  }
  return total;
}

TEST(StalenessBound, HoldsOverRealConnections) {
  uint64_t pulls = 0;
  for (bool apply_push : {false, true}) {
    for (uint64_t staleness : {0, 1, 4}) {
      const Outcome outcome = Measure(staleness, apply_push, kClocks, EngineFault::kNone);
      EXPECT_EQ(outcome.missed, 0u) << "s = " << staleness << ", push " << apply_push;
      EXPECT_EQ(outcome.lead, staleness) << "push " << apply_push;
      pulls += outcome.pulls;
    }
  }
  EXPECT_GE(pulls, 10000u);
  std::printf("%lu pulls\n", pulls);
}

TEST(StalenessBound, AGateThatIsOffByOneIsCaught) {
  for (bool apply_push : {false, true}) {
    for (uint64_t staleness : {0, 1, 4}) {
      const Outcome outcome = Measure(staleness, apply_push, 40, EngineFault::kGateOffByOne);
      EXPECT_GT(outcome.missed, 0u) << "s = " << staleness << ", push " << apply_push;
    }
  }
}

}  // namespace
}  // namespace descent
