// What slow ranks cost: 8 ranks, a worker each, real trainers and servers over loopback; the gradient is a sleep of 20
// ms, 5 times longer with probability 0.1, drawn from (seed, rank, clock); or always 5 times longer for one rank. Wall
// time of bounded staleness and of a backup rank against plain SYNC, beside what the same draws give where messages
// take no time.
//
//   stragglers [clocks] [seed]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/check.h"
#include "common/base/time_source.h"
#include "common/net/grpc_client_transport.h"
#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "server/node/server_node.h"
#include "server/rpc/parameter_service.h"
#include "server/rpc/rpc_server.h"
#include "tests/training/local_control.h"
#include "worker/loop/trainer.h"

namespace descent {
namespace {

constexpr uint32_t kRanks = 8;
constexpr uint32_t kServers = 2;
constexpr absl::Duration kCompute = absl::Milliseconds(20);
constexpr int kFactor = 5;
constexpr double kProbability = 0.1;
constexpr uint64_t kElements = 4096;

struct Load {
  uint64_t clocks = 300;
  uint64_t seed = 1;
  bool permanent = false;  // rank 0 is always slow, the others never

  absl::Duration Of(uint32_t rank, uint64_t clock) const {
    const bool slow = permanent ? rank == 0 : RandomStream(seed, Purpose::kTest, clock, rank).Uniform(0) < kProbability;
    return slow ? kFactor * kCompute : kCompute;
  }
};

struct Mode {
  const char* name;
  uint64_t staleness = 0;
  bool apply_push = false;
  uint32_t backup = 0;
  bool finish = false;
};
constexpr Mode kModes[] = {{"SYNC"},
                           {"BOUNDED, staleness 4", 4, true},
                           {"BOUNDED, staleness 8", 8, true},
                           {"SYNC, 1 backup rank, ABANDON", 0, false, 1},
                           {"SYNC, 1 backup rank, FINISH", 0, false, 1, true}};

// The same draws where nothing but the gradient takes time.
absl::Duration Ideal(const Mode& mode, const Load& load) {
  const absl::Duration start;
  std::vector<absl::Duration> free(kRanks, start);
  if (mode.apply_push) {
    std::vector<absl::Duration> complete;  // of each clock, by every rank
    for (uint64_t c = 0; c < load.clocks; ++c) {
      const absl::Duration gate = c > mode.staleness ? complete[c - mode.staleness - 1] : start;
      for (uint32_t r = 0; r < kRanks; ++r) free[r] = std::max(free[r], gate) + load.Of(r, c);
      complete.push_back(*std::max_element(free.begin(), free.end()));
    }
    return complete.back();
  }
  absl::Duration begin = start;
  for (uint64_t c = 0; c < load.clocks; ++c) {
    std::vector<absl::Duration> end(kRanks);
    for (uint32_t r = 0; r < kRanks; ++r) end[r] = std::max(begin, free[r]) + load.Of(r, c);
    std::vector<absl::Duration> sorted = end;
    std::sort(sorted.begin(), sorted.end());
    const absl::Duration close = sorted[kRanks - 1 - mode.backup];
    for (uint32_t r = 0; r < kRanks; ++r) {
      const bool begun = std::max(begin, free[r]) < close;
      if (mode.backup > 0 && !mode.finish) {
        free[r] = close;
      } else if (begun) {
        free[r] = end[r];
      }
    }
    begin = close;
  }
  return begin;
}

class Source final : public BatchSource {
 public:
  void Request(Rank, Clock) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    auto batch = std::make_shared<Batch>();
    batch->rows = 1;
    batch->label = {static_cast<float>(rank.value), static_cast<float>(clock.value)};
    return batch;
  }
  void Forget(Rank) override {}
};

class Sleeper final : public Model<float> {
 public:
  explicit Sleeper(const Load& load) : load_(load) {
    TensorSpec spec;
    spec.name = "w";
    spec.shape = {kElements};
    tensors_ = {spec};
  }
  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }
  BatchResult Gradient(const Batch& batch, absl::Span<const float* const>, absl::Span<float* const> gradient) override {
    const absl::Time end =
        absl::Now() + load_.Of(static_cast<uint32_t>(batch.label[0]), static_cast<uint64_t>(batch.label[1]));
    std::fill_n(gradient[0], kElements, 1.0f);
    for (absl::Time now = absl::Now(); now < end && !Unwanted(); now = absl::Now()) {
      absl::SleepFor(std::min(end - now, absl::Milliseconds(1)));
    }
    return {.loss = 1, .weight = 1};
  }
  BatchResult Evaluate(const Batch&, absl::Span<const float* const>) override { return {}; }
  void Predict(const Batch&, absl::Span<const float* const>, std::vector<float>*) override {}

 private:
  const Load load_;
  std::vector<TensorSpec> tensors_;
};

struct Measured {
  absl::Duration wall;
  uint64_t skipped = 0;  // (rank, clock)s that counted nowhere
};

Measured Measure(const Mode& mode, const Load& load) {
  const std::vector<TensorSpec> tensors = Sleeper(load).tensors();
  const Geometry geometry{static_cast<uint32_t>(kElements / 8), 16};
  const PartitionMap map = MakePartitionMap(tensors, geometry, kServers);
  const RealTimeSource time;
  std::vector<std::unique_ptr<ParameterService>> services;
  std::vector<std::unique_ptr<RpcServer>> servers;
  GrpcClientOptions transport;
  for (uint32_t s = 0; s < kServers; ++s) {
    ServerNodeOptions options;
    options.staleness = mode.staleness;
    options.backup_ranks = mode.backup;
    options.store.tensors = tensors;
    options.store.geometry = geometry;
    options.store.map = map;
    options.store.self = ServerId(s);
    options.store.ranks = kRanks;
    options.store.apply_push = mode.apply_push;
    options.store.rule = std::move(UpdateRule::Make(v1::Optimizer()).value());
    options.store.rate = [](Clock) { return 0.01f; };
    services.push_back(ParameterService::Create({}, {}));
    auto node = ServerNode::Create(options, services.back()->output());
    DESCENT_CHECK(node.ok());
    services.back()->Install(options, *std::move(node));
    RpcServerOptions rpc;
    rpc.bind = {"127.0.0.1", 0};
    auto server = RpcServer::Start(rpc, services.back().get(), {});
    DESCENT_CHECK(server.ok());
    transport.servers.push_back(absl::StrCat("127.0.0.1:", (*server)->port()));
    servers.push_back(*std::move(server));
  }
  ClientOptions client;
  client.tensors = tensors;
  client.geometry = geometry;
  client.map = map;
  client.backup_ranks = mode.backup > 0;
  const auto connect = [&] {
    Connection connection;
    connection.transport = MakeGrpcClientTransport(transport);
    connection.client = ParameterClient::Create(client, connection.transport.get(), &time);
    return connection;
  };
  std::vector<std::thread> threads;
  std::vector<uint64_t> skipped(kRanks);
  const absl::Time begin = absl::Now();
  for (uint32_t r = 0; r < kRanks; ++r) {
    threads.emplace_back([&, r] {
      testing::LocalControl control({{Rank(r), {Generation(0), 1}}});
      Source source;
      Sleeper model(load);
      TrainerOptions options;
      options.consistency.staleness = mode.staleness;
      options.consistency.apply_push = mode.apply_push;
      options.consistency.backup_ranks = mode.backup;
      options.consistency.finish_late = mode.finish;
      options.geometry = geometry;
      options.ranks = kRanks;
      options.clocks = load.clocks;
      Trainer trainer(options, &model, &source, nullptr, nullptr, connect, &control, &time);
      DESCENT_CHECK(trainer.Run().ok());
      skipped[r] = control.skipped(Rank(r));
    });
  }
  for (std::thread& thread : threads) thread.join();
  Measured measured{absl::Now() - begin};
  for (const uint64_t n : skipped) measured.skipped += n;
  for (auto& server : servers) server->Stop(absl::ZeroDuration());
  return measured;
}

void Table(const Load& load) {
  std::printf("%s, %lu clocks, seed %lu\n",
              load.permanent ? "one rank always 5 times slower" : "5 times slower, p = 0.1", load.clocks, load.seed);
  std::printf("%-32s %8s %8s %8s %8s\n", "mode", "wall s", "speed", "ideal", "left out");
  absl::Duration base, ideal_base;
  for (const Mode& mode : kModes) {
    const absl::Duration ideal = Ideal(mode, load);
    const Measured measured = Measure(mode, load);
    if (base == absl::ZeroDuration()) {
      base = measured.wall;
      ideal_base = ideal;
    }
    std::printf("%-32s %8.2f %8.2f %8.2f %7.1f%%\n", mode.name, absl::ToDoubleSeconds(measured.wall),
                absl::FDivDuration(base, measured.wall), absl::FDivDuration(ideal_base, ideal),
                100.0 * static_cast<double>(measured.skipped) / static_cast<double>(kRanks * load.clocks));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace descent

int main(int argc, char** argv) {
  descent::Load load;
  if (argc > 1) load.clocks = std::strtoull(argv[1], nullptr, 10);
  if (argc > 2) load.seed = std::strtoull(argv[2], nullptr, 10);
  for (const bool permanent : {false, true}) {
    load.permanent = permanent;
    descent::Table(load);
  }
}
