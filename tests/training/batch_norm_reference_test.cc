// Running statistics on a cluster: a plain sequential program, written down from the documents alone (same batches,
// same tree, a step of momentum for parameters, a running mean for statistics, no server, no client), reaches the very
// bits that a cluster of threads reaches over a network that delays, repeats and loses messages. Some batches are empty
// and some have one row.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/time_source.h"
#include "common/random/philox.h"
#include "common/tensor/initial_value.h"
#include "descent/v1/job.pb.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/support/in_process_transport.h"
#include "tests/training/local_control.h"
#include "worker/loop/trainer.h"
#include "worker/models/model_factory.h"

namespace descent {
namespace {

using testing::InProcessCluster;
using testing::LocalControl;
using testing::NetworkFaults;

constexpr uint32_t kRanks = 5;
constexpr uint64_t kClocks = 23, kSeed = 11;
constexpr size_t kFeatures = 12;
constexpr float kRate = 0.05f, kL2 = 1e-3f, kMomentum = 0.75f;
constexpr double kDecay = 0.9, kNorm = 0.5;
const Geometry kGeometry{16, 16};

Batch MakeBatch(Rank rank, Clock clock) {
  const RandomStream stream(kSeed, Purpose::kTest, clock.value, rank.value);
  Batch batch;
  batch.rows = stream.Below(0, 5);
  batch.features = kFeatures;
  batch.dense.Resize(batch.rows * kFeatures);
  uint64_t next = 1;
  for (size_t i = 0; i < batch.rows * kFeatures; ++i) batch.dense[i] = 2 * stream.Uniform(next++);
  for (size_t i = 0; i < batch.rows; ++i) batch.label.push_back(static_cast<float>(stream.Below(next++, 3)));
  return batch;
}

class Source final : public BatchSource {
 public:
  void Request(Rank, Clock) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    return std::make_shared<const Batch>(MakeBatch(rank, clock));
  }
  void Forget(Rank) override {}
};

std::unique_ptr<Model<float>> MakeNet(const std::string& text) {
  v1::ModelSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  ModelInput input;
  input.features = kFeatures;
  auto made = MakeModel<float>(spec, input, {});
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

using Values = std::vector<std::vector<float>>;  // by tensor

// Numbers of one block, added up as the documents say: eight sums by index modulo 8, then pairwise.
double SumOfSquares(const std::vector<float>& values, size_t begin, size_t end) {
  double lane[8] = {};
  for (size_t i = begin; i < end; ++i) lane[(i - begin) % 8] += static_cast<double>(values[i]) * values[i];
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

void Step(const std::vector<TensorSpec>& tensors, const Values& sum, float scale, Values* w, Values* m) {
  // Statistics are in no norm, and nothing is clipped of them.
  double square = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].role == TensorRole::kStatistic) continue;
    std::vector<float> mean = sum[t];
    for (float& d : mean) d *= scale;
    double of_tensor = 0;
    for (size_t begin = 0; begin < mean.size(); begin += kGeometry.block_elements) {
      of_tensor += SumOfSquares(mean, begin, std::min<size_t>(mean.size(), begin + kGeometry.block_elements));
    }
    square += of_tensor;
  }
  const double norm = std::sqrt(square);
  const float by = norm > kNorm ? static_cast<float>(kNorm / norm) : 1;
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (size_t i = 0; i < sum[t].size(); ++i) {
      float& x = (*w)[t][i];
      if (tensors[t].role == TensorRole::kStatistic) {
        x = static_cast<float>(kDecay) * x + static_cast<float>(1 - kDecay) * (sum[t][i] * scale);
        continue;
      }
      float d = sum[t][i] * (scale * by);
      if (tensors[t].decay) d += kL2 * x;
      (*m)[t][i] = kMomentum * (*m)[t][i] + d;
      x -= kRate * (*m)[t][i];
    }
  }
}

std::optional<Values> Sum(const std::optional<Values>& left, const std::optional<Values>& right) {
  if (!left.has_value()) return right;
  if (!right.has_value()) return left;
  Values sum = *left;
  for (size_t t = 0; t < sum.size(); ++t) {
    for (size_t i = 0; i < sum[t].size(); ++i) sum[t][i] += (*right)[t][i];
  }
  return sum;
}

Values Sequential(const std::string& net, uint64_t staleness) {
  auto model = MakeNet(net);
  const std::vector<TensorSpec>& tensors = model->tensors();
  Values w, m;
  for (uint32_t t = 0; t < tensors.size(); ++t) {
    InitialDense(kSeed, TensorId(t), tensors[t], 0, absl::MakeSpan(w.emplace_back(tensors[t].elements())));
    m.emplace_back(tensors[t].elements(), 0.0f);
  }
  std::vector<Values> versions = {w};
  for (uint64_t clock = 0; clock < kClocks; ++clock) {
    const Values& read = versions[clock - std::min(clock, staleness)];
    std::vector<std::optional<Values>> level(kRanks);
    double weight = 0;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      const Batch batch = MakeBatch(Rank(rank), Clock(clock));
      if (batch.rows == 0) continue;
      std::vector<AlignedFloats> parameters(tensors.size()), gradient(tensors.size());
      std::vector<const float*> p;
      std::vector<float*> g;
      for (size_t t = 0; t < tensors.size(); ++t) {
        parameters[t].Resize(read[t].size());
        std::copy(read[t].begin(), read[t].end(), parameters[t].data());
        gradient[t].Resize(read[t].size());
        p.push_back(parameters[t].data());
        g.push_back(gradient[t].data());
      }
      weight += model->Gradient(batch, p, absl::MakeSpan(g)).weight;
      Values& leaf = level[rank].emplace();
      for (size_t t = 0; t < tensors.size(); ++t) leaf.emplace_back(g[t], g[t] + read[t].size());
    }
    while (level.size() > 1) {  // pairs, pairs of pairs, ...
      std::vector<std::optional<Values>> next;
      for (size_t i = 0; i < level.size(); i += 2) {
        next.push_back(i + 1 < level.size() ? Sum(level[i], level[i + 1]) : level[i]);
      }
      level = std::move(next);
    }
    if (weight > 0) Step(tensors, *level[0], static_cast<float>(1 / weight), &w, &m);
    versions.push_back(w);
  }
  return w;
}

Values Distributed(const std::string& net, uint64_t staleness, uint32_t servers, uint32_t workers, uint64_t seed) {
  const std::vector<TensorSpec> tensors = MakeNet(net)->tensors();
  const PartitionMap map = MakePartitionMap(tensors, kGeometry, servers);
  v1::Optimizer rule;
  rule.mutable_momentum()->set_momentum(kMomentum);
  std::vector<ServerNodeOptions> nodes(servers);
  for (uint32_t s = 0; s < servers; ++s) {
    nodes[s].staleness = staleness;
    StoreOptions& store = nodes[s].store;
    store.tensors = tensors;
    store.geometry = kGeometry;
    store.map = map;
    store.self = ServerId(s);
    store.seed = kSeed;
    store.ranks = kRanks;
    store.rule = UpdateRule::Make(rule).value();
    store.rate = [](Clock) { return kRate; };
    store.l2 = kL2;
    store.clip.global_norm = kNorm;
    store.statistic_decay = kDecay;
  }
  NetworkFaults faults;
  faults.seed = seed;
  faults.drop = 0.01;
  faults.duplicate = 0.05;
  faults.max_delay = absl::Microseconds(200);
  auto cluster = InProcessCluster::Create(nodes, faults);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const RealTimeSource time;
  ClientOptions client;
  client.tensors = tensors;
  client.geometry = kGeometry;
  client.map = map;
  client.resend_after = absl::Milliseconds(50);
  const auto connect = [&] {
    Connection connection;
    connection.transport = (*cluster)->NewTransport();
    connection.client = ParameterClient::Create(client, connection.transport.get(), &time);
    return connection;
  };
  std::vector<std::thread> threads;
  for (uint32_t w = 0; w < workers; ++w) {
    threads.emplace_back([&, w] {
      std::vector<LeasedRank> leases;
      for (uint32_t r = w * kRanks / workers; r < (w + 1) * kRanks / workers; ++r) {
        leases.push_back({Rank(r), {Generation(0), 1}});
      }
      LocalControl control(leases);
      Source source;
      auto model = MakeNet(net);
      TrainerOptions options;
      options.consistency.staleness = staleness;
      options.geometry = kGeometry;
      options.ranks = kRanks;
      options.clocks = kClocks;
      Trainer trainer(options, model.get(), &source, nullptr, nullptr, connect, &control, &time);
      const absl::Status status = trainer.Run();
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<AlignedFloats> values(tensors.size());
  PullSpec pull;
  pull.clock = Clock(kClocks + staleness);
  for (size_t t = 0; t < tensors.size(); ++t) {
    values[t].Resize(tensors[t].elements());
    pull.dense.push_back(values[t].data());
  }
  Connection connection = connect();
  EXPECT_TRUE(
      connection.client->Wait(connection.client->Exchange(std::nullopt, pull), absl::Now() + absl::Seconds(60)).ok());
  Values out;
  for (const AlignedFloats& of : values) out.emplace_back(of.data(), of.data() + of.size());
  connection.client.reset();
  return out;
}

void ExpectSameBits(const std::string& net, uint64_t staleness, const std::vector<std::pair<int, int>>& clusters) {
  const Values expected = Sequential(net, staleness);
  const std::vector<TensorSpec> tensors = MakeNet(net)->tensors();
  uint64_t seed = 0;
  for (const auto& [servers, workers] : clusters) {
    const Values found = Distributed(net, staleness, servers, workers, ++seed);
    for (size_t t = 0; t < tensors.size(); ++t) {
      EXPECT_EQ(found[t], expected[t]) << tensors[t].name << " on " << servers << " servers, " << workers << " workers";
    }
  }
  // They have run: the inputs' mean is about 1.
  Values initial;
  for (uint32_t t = 0; t < tensors.size(); ++t) {
    InitialDense(kSeed, TensorId(t), tensors[t], 0, absl::MakeSpan(initial.emplace_back(tensors[t].elements())));
    EXPECT_NE(expected[t], initial[t]) << tensors[t].name;
  }
}

TEST(BatchNormReference, Mlp) {
  const std::string net = "mlp { hidden: 20 hidden: 20 classes: 3 batch_norm: true residual: true }";
  ExpectSameBits(net, 0, {{1, 1}, {2, 3}, {3, 2}, {3, 5}});
  ExpectSameBits(net, 2, {{1, 1}, {2, 3}});
}

TEST(BatchNormReference, Convolution) {
  ExpectSameBits(
      "convolution { height: 3 width: 4 layer { filters: 3 kernel: 2 } top { hidden: 8 classes: 3 batch_norm: true } }",
      0, {{1, 2}, {2, 3}});
}

}  // namespace
}  // namespace descent
