// Local training. A plain sequential program, written down from the documents alone (the same mini-batches, a copy of
// the model for each rank, the tree, the servers' rule; no server, no client, none of their kernels), reaches the very
// bits that a cluster of threads reaches over a network that delays, repeats and loses messages. And one local step is
// ordinary training, but for rounding.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/time_source.h"
#include "common/job/optimizer_spec.h"
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
constexpr uint64_t kClocks = 17, kSeed = 11;
constexpr size_t kFeatures = 17;
constexpr uint32_t kClasses = 3;

struct Problem {
  std::string model = "mlp { hidden: 12 hidden: 8 classes: 3 }";
  std::string rule = "sgd {}";
  float rate = 1;  // of the servers' step
  float local_rate = 0.05f, l2 = 1e-2f;
  uint32_t steps = 4, batch_size = 3;
  std::optional<uint64_t> average_from;  // the model is the mean of those from this clock on
  WireEncoding encoding = WireEncoding::kF32;
  std::vector<std::string> frozen;
  Geometry geometry{32, 16};
  bool ordinary = false;  // for comparison: rounds of gradients, on which the servers make steps of local_rate

  std::unique_ptr<Model<float>> Make() const {
    v1::ModelSpec spec;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(model, &spec)) << model;
    ModelInput input;
    input.features = kFeatures;
    input.seed = kSeed;
    input.frozen = frozen;
    auto made = MakeModel<float>(spec, input, {});
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  v1::Optimizer Rule() const {
    v1::Optimizer optimizer;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(rule, &optimizer)) << rule;
    ResolveOptimizer(&optimizer);
    return optimizer;
  }
};

// Rows of a clock as a function of (rank, clock, place); how many there are varies, from none to all.
size_t RowsOf(const Problem& problem, Rank rank, Clock clock) {
  return RandomStream(kSeed, Purpose::kTest, clock.value, rank.value).Below(0, problem.steps * problem.batch_size + 1);
}
Batch Rows(Rank rank, Clock clock, size_t first, size_t rows) {
  Batch batch;
  batch.rows = rows;
  batch.rank = rank.value;
  batch.clock = clock.value;
  batch.features = kFeatures;
  batch.dense.Resize(rows * kFeatures);
  const RandomStream stream(kSeed, Purpose::kTest, clock.value, rank.value);
  for (size_t r = 0; r < rows; ++r) {
    const uint64_t from = 1 + (first + r) * (kFeatures + 2);
    for (size_t i = 0; i < kFeatures; ++i) batch.dense[r * kFeatures + i] = stream.Uniform(from + i) - 0.5f;
    batch.label.push_back(static_cast<float>(stream.Below(from + kFeatures, kClasses)));
    batch.weight.push_back(0.5f + stream.Uniform(from + kFeatures + 1));
  }
  return batch;
}

class Source final : public BatchSource {
 public:
  explicit Source(const Problem& problem) : problem_(problem) {}
  void Request(Rank, Clock) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    return std::make_shared<const Batch>(Rows(rank, clock, 0, RowsOf(problem_, rank, clock)));
  }
  void Forget(Rank) override {}

 private:
  const Problem& problem_;
};

// A scalar parameter with the state of the servers' rule.
struct Cell {
  float w = 0, m = 0, average = 0;

  void Step(const v1::Optimizer& rule, float rate, float d) {
    if (rule.has_momentum()) {
      m = static_cast<float>(rule.momentum().momentum()) * m + d;
      w -= rate * m;
    } else if (rule.has_nesterov()) {
      const auto mu = static_cast<float>(rule.nesterov().momentum());
      m = mu * m + d;
      w -= rate * (d + mu * m);
    } else {
      ASSERT_TRUE(rule.has_sgd());
      w -= rate * d;
    }
  }
};
using Tensors = std::vector<std::vector<float>>;

// What a rank contributes in a clock, and its weight; none without rows.
std::optional<Tensors> Local(const Problem& problem, Model<float>* model, const Tensors& begin, Rank rank, Clock clock,
                             double* weight) {
  const size_t rows = RowsOf(problem, rank, clock);
  *weight = static_cast<double>(rows);
  if (rows == 0) return std::nullopt;
  const std::vector<TensorSpec>& tensors = model->tensors();
  Tensors copy = begin;
  for (size_t first = 0, k = 0; first < rows; first += problem.batch_size, ++k) {
    const size_t n = std::min<size_t>(problem.batch_size, rows - first);
    Batch batch = Rows(rank, clock, first, n);
    batch.clock = clock.value * problem.steps + k;
    std::vector<AlignedFloats> parameters(tensors.size()), gradient(tensors.size());
    std::vector<const float*> p;
    std::vector<float*> g;
    for (size_t t = 0; t < tensors.size(); ++t) {
      parameters[t].Resize(copy[t].size());
      std::copy(copy[t].begin(), copy[t].end(), parameters[t].data());
      gradient[t].Resize(copy[t].size());
      p.push_back(parameters[t].data());
      g.push_back(gradient[t].data());
    }
    EXPECT_EQ(model->Gradient(batch, p, absl::MakeSpan(g)).weight, n);
    const auto scale = static_cast<float>(1.0 / static_cast<double>(n));
    for (size_t t = 0; t < tensors.size(); ++t) {
      for (size_t i = 0; i < copy[t].size(); ++i) {
        float d = gradient[t][i] * scale;
        if (tensors[t].decay && problem.l2 != 0) d += problem.l2 * copy[t][i];
        copy[t][i] -= problem.local_rate * d;
      }
    }
  }
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (size_t i = 0; i < copy[t].size(); ++i) copy[t][i] = static_cast<float>(rows) * (begin[t][i] - copy[t][i]);
    RoundToWire(problem.encoding, copy[t].size(), copy[t].data());
  }
  return copy;
}

std::optional<Tensors> Sum(std::optional<Tensors> left, const std::optional<Tensors>& right) {
  if (!left.has_value()) return right;
  if (!right.has_value()) return left;
  for (size_t t = 0; t < left->size(); ++t) {
    for (size_t i = 0; i < (*left)[t].size(); ++i) (*left)[t][i] += (*right)[t][i];
  }
  return left;
}

float WeightInMean(uint64_t from, uint64_t clock) {
  return clock <= from ? 1 : static_cast<float>(1 / static_cast<double>(clock - from + 1));
}

Tensors Sequential(const Problem& problem) {
  const auto model = problem.Make();
  const std::vector<TensorSpec>& tensors = model->tensors();
  const v1::Optimizer rule = problem.Rule();
  std::vector<std::vector<Cell>> state(tensors.size());
  for (size_t t = 0; t < tensors.size(); ++t) {
    std::vector<float> values(tensors[t].elements());
    InitialDense(kSeed, TensorId(static_cast<uint32_t>(t)), tensors[t], 0, absl::MakeSpan(values));
    for (float v : values) state[t].push_back({v, 0, v});
  }
  for (uint64_t clock = 0; clock < kClocks; ++clock) {
    Tensors begin(tensors.size());
    for (size_t t = 0; t < tensors.size(); ++t) {
      for (const Cell& cell : state[t]) begin[t].push_back(cell.w);
      RoundToWire(problem.encoding, begin[t].size(), begin[t].data());
    }
    std::vector<std::optional<Tensors>> level;
    double total = 0;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      double weight = 0;
      level.push_back(Local(problem, model.get(), begin, Rank(rank), Clock(clock), &weight));
      total += weight;
    }
    while (level.size() > 1) {  // pairs, pairs of pairs, ...
      std::vector<std::optional<Tensors>> next;
      for (size_t i = 0; i < level.size(); i += 2) {
        next.push_back(i + 1 < level.size() ? Sum(level[i], level[i + 1]) : level[i]);
      }
      level = std::move(next);
    }
    const float scale = total > 0 ? static_cast<float>(1 / total) : 0;
    for (size_t t = 0; t < tensors.size(); ++t) {
      const bool moves = total > 0 && tensors[t].role == TensorRole::kTrainable;
      for (size_t i = 0; i < state[t].size(); ++i) {
        Cell& cell = state[t][i];
        if (moves) cell.Step(rule, problem.rate, (*level[0])[t][i] * scale);
        if (!problem.average_from.has_value() || tensors[t].role != TensorRole::kTrainable) continue;
        const float by = WeightInMean(*problem.average_from, clock);
        cell.average = by == 1 ? cell.w : cell.average + by * (cell.w - cell.average);
      }
    }
  }
  Tensors out(tensors.size());
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (const Cell& cell : state[t]) out[t].push_back(problem.average_from.has_value() ? cell.average : cell.w);
    RoundToWire(problem.encoding, out[t].size(), out[t].data());  // as it is read
  }
  return out;
}

Tensors Distributed(const Problem& problem, uint32_t servers, uint32_t workers, const NetworkFaults& faults = {}) {
  const auto tensors = problem.Make()->tensors();
  const PartitionMap map = MakePartitionMap(tensors, problem.geometry, servers);
  std::vector<ServerNodeOptions> nodes(servers);
  for (uint32_t s = 0; s < servers; ++s) {
    nodes[s].encoding = problem.encoding;
    StoreOptions& store = nodes[s].store;
    store.tensors = tensors;
    store.geometry = problem.geometry;
    store.map = map;
    store.self = ServerId(s);
    store.seed = kSeed;
    store.ranks = kRanks;
    store.rule = std::move(*UpdateRule::Make(problem.Rule()));
    store.rate = [rate = problem.ordinary ? problem.local_rate : problem.rate](Clock) { return rate; };
    store.l2 = problem.ordinary ? problem.l2 : 0;
    if (problem.average_from.has_value()) {
      store.average_weight = [from = *problem.average_from](Clock t) { return WeightInMean(from, t.value); };
    }
  }
  auto cluster = InProcessCluster::Create(nodes, faults);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const RealTimeSource time;
  ClientOptions client;
  client.tensors = tensors;
  client.geometry = problem.geometry;
  client.map = map;
  client.resend_after = absl::Milliseconds(50);
  client.encoding = problem.encoding;
  auto connect = [&] {
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
      Source source(problem);
      auto model = problem.Make();
      TrainerOptions options;
      options.geometry = problem.geometry;
      options.ranks = kRanks;
      options.clocks = kClocks;
      options.rounded = problem.encoding != WireEncoding::kF32;
      if (!problem.ordinary)
        options.local_steps = LocalStepsOptions{problem.steps, problem.batch_size, problem.local_rate, problem.l2};
      Trainer trainer(options, model.get(), &source, nullptr, nullptr, connect, &control, &time);
      const absl::Status status = trainer.Run();
      EXPECT_TRUE(status.ok()) << status;
      for (const LeasedRank& lease : leases) EXPECT_EQ(control.completed(lease.rank), kClocks);
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<AlignedFloats> values(tensors.size());
  PullSpec pull;
  pull.clock = Clock(kClocks);
  pull.averaged = problem.average_from.has_value();
  for (size_t t = 0; t < tensors.size(); ++t) {
    values[t].Resize(tensors[t].elements());
    pull.dense.push_back(values[t].data());
  }
  Connection connection = connect();
  const absl::Status read =
      connection.client->Wait(connection.client->Exchange(std::nullopt, pull), absl::Now() + absl::Seconds(60));
  EXPECT_TRUE(read.ok()) << read;
  Tensors out;
  for (const AlignedFloats& v : values) out.emplace_back(v.data(), v.data() + v.size());
  connection.client.reset();
  return out;
}

using Shapes = std::vector<std::pair<uint32_t, uint32_t>>;  // servers and workers

void ExpectSameBits(const Problem& problem, const Shapes& shapes = {{1, 1}, {2, 3}, {3, 2}, {3, 5}}) {
  const Tensors expected = Sequential(problem);
  const auto tensors = problem.Make()->tensors();
  NetworkFaults faults;
  faults.drop = 0.01;
  faults.duplicate = 0.05;
  faults.max_delay = absl::Microseconds(200);
  for (const auto& [servers, workers] : shapes) {
    ++faults.seed;
    const Tensors found = Distributed(problem, servers, workers, faults);
    for (size_t t = 0; t < tensors.size(); ++t) {
      ASSERT_EQ(found[t].size(), expected[t].size());
      for (size_t i = 0; i < expected[t].size(); ++i) {
        ASSERT_EQ(found[t][i], expected[t][i])
            << tensors[t].name << " element " << i << " on " << servers << " servers, " << workers << " workers";
      }
    }
  }
}

TEST(LocalTraining, AveragedCopies) {
  Problem problem;
  ExpectSameBits(problem);
  problem.l2 = 0;
  problem.steps = 1;
  problem.batch_size = 7;
  ExpectSameBits(problem, {{2, 3}});
  problem.steps = 12;
  problem.batch_size = 1;
  ExpectSameBits(problem, {{3, 2}});
}

TEST(LocalTraining, UnderTheServersRule) {
  Problem problem;
  for (const char* rule : {"momentum { momentum: 0.6 }", "nesterov { momentum: 0.6 }"}) {
    SCOPED_TRACE(rule);
    problem.rule = rule;
    problem.rate = 0.7f;
    ExpectSameBits(problem, {{1, 1}, {2, 3}});
  }
  problem.average_from = 5;
  ExpectSameBits(problem, {{1, 1}, {3, 2}});
}

// Masks are drawn by the numbers of mini-batches; a frozen tensor stays as it is.
TEST(LocalTraining, DropoutAndFrozenTensors) {
  Problem problem;
  problem.model = "mlp { hidden: 12 hidden: 8 classes: 3 dropout: 0.3 input_dropout: 0.1 }";
  ExpectSameBits(problem, {{1, 1}, {3, 5}});
  problem.frozen = {"layer1/weights"};
  ExpectSameBits(problem, {{2, 3}});
}

// Each rank's difference is rounded by itself.
TEST(LocalTraining, HalvesOnTheWire) {
  Problem problem;
  for (const WireEncoding encoding : {WireEncoding::kFp16, WireEncoding::kBf16}) {
    problem.encoding = encoding;
    ExpectSameBits(problem, {{1, 1}, {2, 3}, {3, 5}});
  }
}

// w - 1 (w - (w - a g)) is w - a g.
TEST(LocalTraining, OneStepIsOrdinaryTrainingButForRounding) {
  Problem problem;
  problem.steps = 1;
  problem.batch_size = 9;
  const Tensors local = Distributed(problem, 2, 2);
  problem.ordinary = true;
  const Tensors ordinary = Distributed(problem, 2, 2);
  float moved = 0;
  const auto tensors = problem.Make()->tensors();
  for (size_t t = 0; t < local.size(); ++t) {
    std::vector<float> begin(tensors[t].elements());
    InitialDense(kSeed, TensorId(static_cast<uint32_t>(t)), tensors[t], 0, absl::MakeSpan(begin));
    for (size_t i = 0; i < local[t].size(); ++i) {
      EXPECT_NEAR(local[t][i], ordinary[t][i], 4e-6) << tensors[t].name << " element " << i;
      moved = std::max(moved, std::abs(local[t][i] - begin[i]));
    }
  }
  EXPECT_GT(moved, 1e-2f);
}

}  // namespace
}  // namespace descent
