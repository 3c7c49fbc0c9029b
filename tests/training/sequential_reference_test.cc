// A plain sequential program, written down from the documents alone (same batches, same tree, same rule, no server, no
// client, none of their kernels), reaches the very bits that a cluster of threads reaches over a network that delays,
// repeats and loses messages.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <thread>

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
constexpr uint64_t kClocks = 23;
constexpr uint64_t kSeed = 11;
constexpr float kRate = 0.01f, kL2 = 1e-3f;

// Batches as a function of (rank, clock): sizes vary, some are empty.
Batch MakeBatch(bool sparse, Rank rank, Clock clock, const Geometry& geometry) {
  const RandomStream stream(kSeed, Purpose::kTest, clock.value, rank.value);
  Batch batch;
  batch.rows = stream.Below(0, 5);
  batch.sparse = sparse;
  batch.features = sparse ? 0 : 17;
  uint64_t next = 1;
  if (!sparse) {
    batch.dense.Resize(batch.rows * 17);
    for (size_t i = 0; i < batch.rows * 17; ++i) batch.dense[i] = stream.Uniform(next++) - 0.5f;
    for (size_t i = 0; i < batch.rows; ++i) batch.label.push_back(static_cast<float>(stream.Below(next++, 3)));
    return batch;
  }
  std::vector<std::vector<uint64_t>> rows(batch.rows);
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> order;  // (slot, key) -> index
  for (auto& row : rows) {
    for (int i = 0; i < 4; ++i) {
      row.push_back(stream.Below(next++, 60));
      order[{geometry.slot(row.back()), row.back()}] = 0;
    }
    batch.label.push_back(static_cast<float>(stream.Below(next++, 2)));
  }
  for (auto& [key, index] : order) {
    index = static_cast<uint32_t>(batch.keys.size());
    batch.keys.push_back(key.second);
  }
  batch.row_begin.push_back(0);
  for (auto& row : rows) {
    std::vector<uint32_t> columns;
    for (uint64_t key : row) columns.push_back(order.at({geometry.slot(key), key}));
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
    for (uint32_t column : columns) {
      batch.column.push_back(column);
      batch.value.push_back(1.0f + static_cast<float>(column % 3));
    }
    batch.row_begin.push_back(static_cast<uint32_t>(batch.column.size()));
  }
  return batch;
}

class Source final : public BatchSource {
 public:
  Source(bool sparse, Geometry geometry) : sparse_(sparse), geometry_(geometry) {}
  void Request(Rank, Clock) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    return std::make_shared<const Batch>(MakeBatch(sparse_, rank, clock, geometry_));
  }
  void Forget(Rank) override {}

 private:
  const bool sparse_;
  const Geometry geometry_;
};

struct Problem {
  bool sparse = false;
  v1::ModelSpec model;
  v1::Optimizer optimizer;
  uint64_t staleness = 0;
  Geometry geometry{32, 16};
  ClipBounds clip = {};
  float noise = 0;                         // standard deviation
  std::optional<uint64_t> mean_from = {};  // parameters are averaged from this clock on
  bool momentum_schedule = false;
  WireEncoding encoding = WireEncoding::kF32;

  std::unique_ptr<Model<float>> Make() const {
    auto made = MakeModel<float>(model, {sparse ? 0u : 17u, sparse, {}, {}, 0, {}}, {});
    EXPECT_TRUE(made.ok()) << made.status();
    return std::move(*made);
  }
};

float MomentumAt(uint64_t clock) { return 0.5f + 0.01f * static_cast<float>(clock); }
float WeightInMean(uint64_t from, uint64_t clock) {
  return clock <= from ? 1 : static_cast<float>(1 / static_cast<double>(clock - from + 1));
}

double Power(double base, uint64_t n) {
  double result = 1;
  for (; n != 0; n >>= 1, base *= base) {
    if (n & 1) result *= base;
  }
  return result;
}

// A scalar parameter with its optimizer state. Its tensor is decayed where l2 is not 0.
struct Cell {
  float w = 0, s[3] = {}, average = 0;

  // d: the gradient without l2.
  void Step(const v1::Optimizer& rule, uint64_t t, float d, float rate, float l2, bool momentum_schedule) {
    const bool decoupled = rule.has_adamw() || rule.has_lamb();
    if (l2 != 0 && !decoupled) d += l2 * w;
    if (l2 != 0 && decoupled) w -= rate * (l2 * w);
    float size = kRate;  // of the step, for a proximal one
    if (rule.has_adam()) {
      size = Moments(rule.adam(), t, d, false);
    } else if (rule.has_adamw()) {
      Moments(rule.adamw(), t, d, false);
    } else if (rule.has_lamb()) {
      Moments(rule.lamb(), t, d, false, rate);
    } else if (rule.has_lars()) {
      s[0] = static_cast<float>(rule.lars().momentum()) * s[0] + rate * d;
      w -= s[0];
    } else if (rule.has_amsgrad()) {
      size = Moments(rule.amsgrad(), t, d, true);
    } else if (rule.has_momentum()) {
      const double mu = rule.momentum().momentum(), dampening = rule.momentum().dampening();
      s[0] = (momentum_schedule ? MomentumAt(t - 1) : static_cast<float>(mu)) * s[0] +
             static_cast<float>(1 - dampening) * d;
      w -= kRate * s[0];
      size = kRate * static_cast<float>((1 - dampening) / (1 - mu));
    } else if (rule.has_nesterov()) {
      const auto mu = static_cast<float>(rule.nesterov().momentum());
      s[0] = mu * s[0] + d;
      w -= kRate * (d + mu * s[0]);
    } else if (rule.has_adagrad()) {
      s[0] += d * d;
      const float root = std::sqrt(s[0]) + static_cast<float>(rule.adagrad().epsilon());
      w -= kRate * d / root;
      size = kRate / root;
    } else if (rule.has_adadelta()) {
      const double rho = rule.adadelta().rho();
      const auto epsilon = static_cast<float>(rule.adadelta().epsilon());
      s[0] = static_cast<float>(rho) * s[0] + static_cast<float>(1 - rho) * (d * d);
      const float x = std::sqrt(s[1] + epsilon) / std::sqrt(s[0] + epsilon) * d;
      s[1] = static_cast<float>(rho) * s[1] + static_cast<float>(1 - rho) * (x * x);
      w -= kRate * x;
    } else if (rule.has_rmsprop()) {  // centered, with momentum
      const double rho = rule.rmsprop().decay();
      s[1] = static_cast<float>(rho) * s[1] + static_cast<float>(1 - rho) * (d * d);
      s[2] = static_cast<float>(rho) * s[2] + static_cast<float>(1 - rho) * d;
      const float root = std::sqrt(std::max(s[1] - s[2] * s[2], 0.0f)) + static_cast<float>(rule.rmsprop().epsilon());
      s[0] = static_cast<float>(rule.rmsprop().momentum()) * s[0] + d / root;
      w -= kRate * s[0];
    } else if (rule.has_ftrl()) {
      Ftrl(rule.ftrl(), d, l2 != 0);
    } else {
      w -= kRate * d;
    }
    if (l2 != 0 && rule.has_proximal()) {
      const auto threshold = size * static_cast<float>(rule.proximal().l1());
      const float rest = w > threshold ? w - threshold : w < -threshold ? w + threshold : 0;
      w = rest / (1 + size * static_cast<float>(rule.proximal().l2()));
      if (rule.proximal().has_lower()) w = std::max(w, static_cast<float>(rule.proximal().lower()));
    }
  }

  template <typename Spec>
  float Moments(const Spec& spec, uint64_t t, float d, bool largest, float rate = kRate) {
    const double b1 = spec.beta1(), b2 = spec.beta2();
    const auto first = static_cast<float>(1 / (1 - Power(b1, t)));
    const auto second = static_cast<float>(1 / (1 - Power(b2, t)));
    s[0] = static_cast<float>(b1) * s[0] + static_cast<float>(1 - b1) * d;
    s[1] = static_cast<float>(b2) * s[1] + static_cast<float>(1 - b2) * (d * d);
    s[2] = std::max(s[2], s[1]);
    const float root = std::sqrt(s[largest ? 2 : 1] * second) + static_cast<float>(spec.epsilon());
    w -= rate * (s[0] * first) / root;
    return rate / root;
  }

  void Ftrl(const v1::Ftrl& spec, float d, bool penalized) {
    if (d == 0) return;
    const auto inverse = static_cast<float>(1 / double{kRate}), beta = static_cast<float>(spec.beta());
    const float l1 = penalized ? static_cast<float>(spec.l1()) : 0, l2 = penalized ? static_cast<float>(spec.l2()) : 0;
    float &z = s[0], &n = s[1];
    if (n == 0) z = -(w * (beta * inverse + l2) + (w > 0 ? l1 : w < 0 ? -l1 : 0));
    z += d - (std::sqrt(n + d * d) - std::sqrt(n)) * inverse * w;
    n += d * d;
    const float kept = z > l1 ? l1 - z : z < -l1 ? -l1 - z : 0;
    w = kept / ((beta + std::sqrt(n)) * inverse + l2);
  }
};

double SumOfSquares(const std::vector<float>& values);

// The threshold of a group.
void Shrink(const v1::Optimizer& rule, std::vector<Cell>* row) {
  if (rule.proximal().group_lasso() == 0) return;
  float size = kRate;
  if (rule.has_momentum()) {
    size *= static_cast<float>((1 - rule.momentum().dampening()) / (1 - rule.momentum().momentum()));
  }
  const float threshold =
      size * static_cast<float>(rule.proximal().group_lasso()) / (1 + size * static_cast<float>(rule.proximal().l2()));
  std::vector<float> w;
  for (const Cell& cell : *row) w.push_back(cell.w);
  const double norm = std::sqrt(SumOfSquares(w));
  const float by = norm > threshold ? static_cast<float>(1 - threshold / norm) : 0;
  for (Cell& cell : *row) cell.w *= by;
}

// Numbers of one block or slot, added up as the documents say: eight sums by index modulo 8, then pairwise.
double SumOfSquares(const std::vector<float>& values) {
  double lane[8] = {};
  for (size_t i = 0; i < values.size(); ++i) lane[i % 8] += static_cast<double>(values[i]) * values[i];
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// A gradient by element (dense) and by (tensor, key) (tables).
struct Gradient {
  std::vector<std::vector<float>> dense;
  std::map<uint64_t, std::vector<float>> rows;
  bool empty = true;
};

Gradient Sum(std::optional<Gradient> left, std::optional<Gradient> right) {
  if (!left.has_value() || left->empty) return right.has_value() ? *right : Gradient{};
  if (!right.has_value() || right->empty) return *left;
  for (size_t t = 0; t < left->dense.size(); ++t) {
    for (size_t i = 0; i < left->dense[t].size(); ++i) left->dense[t][i] += right->dense[t][i];
  }
  for (auto& [key, row] : right->rows) {
    auto [it, fresh] = left->rows.try_emplace(key, row);
    if (fresh) continue;
    for (size_t i = 0; i < row.size(); ++i) it->second[i] += row[i];
  }
  return *left;
}

// Tables know 60 keys, so the reference keeps them dense: a row that nobody has touched still decays.
struct State {
  std::vector<std::vector<Cell>> dense;
  std::map<uint64_t, std::vector<Cell>> rows;
};

// One step of everything; the sum of gradients becomes their mean, and what clipping leaves of it.
void Step(const Problem& problem, const std::vector<TensorSpec>& tensors, uint64_t clock, float scale, Gradient* sum,
          State* state) {
  const v1::Optimizer& rule = problem.optimizer;
  const auto bounded = [&](float d) {
    const float bound = problem.clip.value;
    return bound > 0 ? std::min(std::max(d, -bound), bound) : d;
  };
  sum->dense.resize(tensors.size());
  const Gradient raw = *sum;
  // Only multiplied, a gradient is multiplied once, by both factors.
  const bool once = problem.clip.value == 0 && problem.noise == 0;
  std::vector<double> square(tensors.size(), 0), parameters(tensors.size(), 0);
  for (size_t t = 0; t < tensors.size(); ++t) {
    std::map<uint32_t, std::vector<float>> of_block, w_of_block;
    if (tensors[t].sparse) {
      for (auto& [key, row] : sum->rows) {
        for (float& d : row) of_block[problem.geometry.slot(key)].push_back(d = bounded(d * scale));
      }
    } else {
      sum->dense[t].resize(state->dense[t].size());
      for (size_t i = 0; i < sum->dense[t].size(); ++i) {
        float& d = sum->dense[t][i];
        const Cell& cell = state->dense[t][i];
        const auto block = static_cast<uint32_t>(i / problem.geometry.block_elements);
        d = bounded(d * scale);
        float measured = d;
        if (rule.has_lamb()) {
          Cell tried = cell;
          tried.w = 0;
          tried.Moments(rule.lamb(), clock + 1, d, false, -1);  // w = 0 - -1 u
          measured = tried.w + (tensors[t].decay ? kL2 : 0) * cell.w;
        }
        of_block[block].push_back(measured);
        w_of_block[block].push_back(cell.w);
      }
    }
    for (const auto& [block, values] : of_block) square[t] += SumOfSquares(values);
    for (const auto& [block, values] : w_of_block) parameters[t] += SumOfSquares(values);
  }
  std::vector<double> factor(tensors.size(), 1);
  double all = 0;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const double norm = std::sqrt(square[t]);
    if (problem.clip.norm > 0 && norm > problem.clip.norm) factor[t] = problem.clip.norm / norm;
    all += factor[t] * factor[t] * square[t];
  }
  const double global = std::sqrt(all);
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (problem.clip.global_norm > 0 && global > problem.clip.global_norm) {
      factor[t] *= problem.clip.global_norm / global;
    }
    const float l2 = tensors[t].decay ? kL2 : 0;
    float rate = kRate;
    if (tensors[t].decay && square[t] > 0 && parameters[t] > 0) {
      const double w = std::sqrt(parameters[t]), g = factor[t] * std::sqrt(square[t]);
      if (rule.has_lars()) rate *= static_cast<float>(rule.lars().trust() * w / (g + double{l2} * w));
      if (rule.has_lamb()) rate *= static_cast<float>(w / g);
    }
    const auto by = static_cast<float>(factor[t]);
    const auto step = [&](float d, Cell* cell) { cell->Step(rule, clock + 1, d, rate, l2, problem.momentum_schedule); };
    if (tensors[t].sparse) {
      for (auto& [key, row] : state->rows) {
        const auto g = sum->rows.find(key);
        for (size_t i = 0; i < row.size(); ++i) {
          const bool named = g != sum->rows.end();
          step(!named ? 0 : once ? raw.rows.at(key)[i] * (scale * by) : g->second[i] * by, &row[i]);
        }
        if (l2 != 0) Shrink(rule, &row);
      }
      continue;
    }
    const RandomStream noise(kSeed, Purpose::kGradientNoise, clock, static_cast<uint32_t>(t));
    for (size_t i = 0; i < state->dense[t].size(); ++i) {
      float d = once ? raw.dense[t][i] * (scale * by) : sum->dense[t][i] * by;
      if (problem.noise > 0) d += problem.noise * static_cast<float>(noise.Normal(i));
      step(d, &state->dense[t][i]);
    }
    const size_t row_size = state->dense[t].size() / tensors[t].shape[0];
    for (size_t begin = 0; l2 != 0 && begin < state->dense[t].size(); begin += row_size) {
      std::vector<Cell> row(state->dense[t].begin() + begin, state->dense[t].begin() + begin + row_size);
      Shrink(rule, &row);
      std::copy(row.begin(), row.end(), state->dense[t].begin() + begin);
    }
  }
}

State Sequential(const Problem& problem) {
  auto model = problem.Make();
  const auto& tensors = model->tensors();
  State state;
  state.dense.resize(tensors.size());
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].sparse) {
      for (uint64_t key = 0; key < 60; ++key) state.rows[key].resize(tensors[t].dim());
      continue;
    }
    std::vector<float> values(tensors[t].elements());
    InitialDense(kSeed, TensorId(static_cast<uint32_t>(t)), tensors[t], 0, absl::MakeSpan(values));
    for (float v : values) state.dense[t].push_back({v, {}, v});
  }
  std::vector<State> versions = {state};  // version v has the updates of clocks < v
  for (uint64_t clock = 0; clock < kClocks; ++clock) {
    const State& read = versions[clock - std::min(clock, problem.staleness)];
    std::vector<Gradient> leaves(kRanks);
    double total_weight = 0;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      const Batch batch = MakeBatch(problem.sparse, Rank(rank), Clock(clock), problem.geometry);
      if (batch.rows == 0) continue;
      std::vector<AlignedFloats> parameters(tensors.size()), gradient(tensors.size());
      std::vector<const float*> p;
      std::vector<float*> g;
      for (size_t t = 0; t < tensors.size(); ++t) {
        if (tensors[t].sparse) {
          const size_t dim = tensors[t].dim();
          parameters[t].Resize(batch.keys.size() * dim);
          for (size_t k = 0; k < batch.keys.size(); ++k) {
            for (size_t i = 0; i < dim; ++i) parameters[t][k * dim + i] = read.rows.at(batch.keys[k])[i].w;
          }
        } else {
          parameters[t].Resize(read.dense[t].size());
          for (size_t i = 0; i < read.dense[t].size(); ++i) parameters[t][i] = read.dense[t][i].w;
        }
        RoundToWire(problem.encoding, parameters[t].size(), parameters[t].data());
        gradient[t].Resize(parameters[t].size());
        p.push_back(parameters[t].data());
        g.push_back(gradient[t].data());
      }
      total_weight += model->Gradient(batch, p, absl::MakeSpan(g)).weight;
      for (AlignedFloats& values : gradient) RoundToWire(problem.encoding, values.size(), values.data());
      Gradient& leaf = leaves[rank];
      leaf.empty = false;
      leaf.dense.resize(tensors.size());
      for (size_t t = 0; t < tensors.size(); ++t) {
        if (!tensors[t].sparse) {
          leaf.dense[t].assign(g[t], g[t] + gradient[t].size());
          continue;
        }
        const size_t dim = tensors[t].dim();
        for (size_t k = 0; k < batch.keys.size(); ++k)
          leaf.rows[batch.keys[k]].assign(g[t] + k * dim, g[t] + (k + 1) * dim);
      }
    }
    // The tree over rank numbers: pairs, pairs of pairs, ...
    std::vector<Gradient> level = leaves;
    while (level.size() > 1) {
      std::vector<Gradient> next;
      for (size_t i = 0; i < level.size(); i += 2) {
        next.push_back(i + 1 < level.size() ? Sum(level[i], level[i + 1]) : level[i]);
      }
      level = std::move(next);
    }
    if (total_weight > 0) Step(problem, tensors, clock, static_cast<float>(1 / total_weight), &level[0], &state);
    if (problem.mean_from.has_value()) {
      const float weight = WeightInMean(*problem.mean_from, clock);
      for (auto& tensor : state.dense) {
        for (Cell& cell : tensor) {
          cell.average = weight == 1 ? cell.w : cell.average + weight * (cell.w - cell.average);
        }
      }
    }
    versions.push_back(state);
  }
  return state;
}

// The parameters after the same job on a cluster: dense tensors, then the rows of keys 0..59.
std::vector<std::vector<float>> Distributed(const Problem& problem, uint32_t servers, uint32_t workers,
                                            const NetworkFaults& faults) {
  const auto tensors = problem.Make()->tensors();
  const PartitionMap map = MakePartitionMap(tensors, problem.geometry, servers);
  std::vector<ServerNodeOptions> nodes(servers);
  for (uint32_t s = 0; s < servers; ++s) {
    nodes[s].staleness = problem.staleness;
    nodes[s].encoding = problem.encoding;
    StoreOptions& store = nodes[s].store;
    store.tensors = tensors;
    store.geometry = problem.geometry;
    store.map = map;
    store.self = ServerId(s);
    store.seed = kSeed;
    store.ranks = kRanks;
    store.rule = std::move(*UpdateRule::Make(problem.optimizer));
    store.rate = [](Clock) { return kRate; };
    store.l2 = kL2;
    store.clip = problem.clip;
    if (problem.noise > 0) store.noise = [noise = problem.noise](Clock) { return noise; };
    if (problem.momentum_schedule) store.momentum = [](Clock t) { return MomentumAt(t.value); };
    if (problem.mean_from.has_value()) {
      store.average_weight = [from = *problem.mean_from](Clock t) { return WeightInMean(from, t.value); };
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
      Source source(problem.sparse, problem.geometry);
      auto model = problem.Make();
      TrainerOptions options;
      options.consistency.staleness = problem.staleness;
      options.geometry = problem.geometry;
      options.ranks = kRanks;
      options.clocks = kClocks;
      options.penalty.l2 = kL2;
      options.rounded = problem.encoding != WireEncoding::kF32;
      Trainer trainer(options, model.get(), &source, nullptr, nullptr, connect, &control, &time);
      const absl::Status status = trainer.Run();
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<AlignedFloats> values(tensors.size());
  std::vector<std::pair<uint32_t, uint64_t>> order;
  for (uint64_t key = 0; key < 60; ++key) order.emplace_back(problem.geometry.slot(key), key);
  std::sort(order.begin(), order.end());
  std::vector<uint64_t> keys;
  for (const auto& [slot, key] : order) keys.push_back(key);
  PullSpec pull;
  pull.clock = Clock(kClocks + problem.staleness);
  pull.averaged = problem.mean_from.has_value();
  for (size_t t = 0; t < tensors.size(); ++t) {
    values[t].Resize(tensors[t].sparse ? 60 * tensors[t].dim() : tensors[t].elements());
    pull.dense.push_back(tensors[t].sparse ? nullptr : values[t].data());
    if (tensors[t].sparse) pull.sparse.push_back({TensorId(static_cast<uint32_t>(t)), keys, values[t].data()});
  }
  Connection connection = connect();
  EXPECT_TRUE(
      connection.client->Wait(connection.client->Exchange(std::nullopt, pull), absl::Now() + absl::Seconds(60)).ok());
  std::vector<std::vector<float>> out;
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (!tensors[t].sparse) {
      out.emplace_back(values[t].data(), values[t].data() + values[t].size());
      continue;
    }
    std::vector<float> rows(values[t].size());
    const size_t dim = tensors[t].dim();
    for (size_t k = 0; k < 60; ++k) std::copy_n(values[t].data() + k * dim, dim, rows.begin() + keys[k] * dim);
    out.push_back(rows);
  }
  connection.client.reset();
  return out;
}

using Shapes = std::vector<std::pair<int, int>>;  // servers and workers

void ExpectSameBits(const Problem& problem, const Shapes& shapes = {{1, 1}, {2, 3}, {3, 2}, {3, 5}}) {
  const State expected = Sequential(problem);
  const auto tensors = problem.Make()->tensors();
  NetworkFaults faults;
  faults.drop = 0.01;
  faults.duplicate = 0.05;
  faults.max_delay = absl::Microseconds(200);
  for (const auto& [servers, workers] : shapes) {
    ++faults.seed;
    const auto found = Distributed(problem, servers, workers, faults);
    for (size_t t = 0; t < tensors.size(); ++t) {
      std::vector<float> reference;
      if (tensors[t].sparse) {
        for (const auto& [key, row] : expected.rows) {
          for (const Cell& cell : row) reference.push_back(cell.w);
        }
      } else {
        for (const Cell& cell : expected.dense[t]) {
          reference.push_back(problem.mean_from.has_value() ? cell.average : cell.w);
        }
      }
      RoundToWire(problem.encoding, reference.size(), reference.data());  // as they are read
      ASSERT_EQ(found[t].size(), reference.size());
      for (size_t i = 0; i < reference.size(); ++i) {
        ASSERT_EQ(found[t][i], reference[i])
            << tensors[t].name << " element " << i << " on " << servers << " servers, " << workers << " workers";
      }
    }
  }
}

Problem Mlp() {
  Problem problem;
  problem.geometry = {24, 16};  // whole rows of every layer in each block, as a group lasso wants
  problem.model.mutable_mlp()->add_hidden(12);
  problem.model.mutable_mlp()->add_hidden(8);
  problem.model.mutable_mlp()->set_classes(3);
  return problem;
}
// Rules as a job would say them, with every default written out.
v1::Optimizer Rule(const std::string& text) {
  v1::Optimizer rule;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &rule)) << text;
  ResolveOptimizer(&rule);
  return rule;
}
constexpr const char* kRules[] = {
    "sgd {}",
    "momentum {}",
    "momentum { momentum: 0.8 dampening: 0.8 } proximal { l1: 0.02 lower: -0.5 }",
    "nesterov {}",
    "adagrad {}",
    "adadelta {}",
    "rmsprop { centered: true momentum: 0.5 }",
    "adam {}",
    "adam {} proximal { l1: 0.01 l2: 0.1 lower: -1 }",
    "adamw {}",
    "amsgrad { beta2: 0.9 }",
    "ftrl { l1: 0.01 l2: 0.1 }",
    "sgd {} proximal { group_lasso: 0.3 }",
    "momentum { momentum: 0.8 dampening: 0.8 } proximal { l1: 0.01 l2: 0.1 group_lasso: 0.2 }",
};

TEST(SequentialReference, MlpUnderEveryRule) {
  Problem problem = Mlp();
  for (const char* rule : kRules) {
    SCOPED_TRACE(rule);
    problem.optimizer = Rule(rule);
    // A group, a row, lies in one block.
    problem.geometry.block_elements = problem.optimizer.proximal().group_lasso() > 0 ? 24 : 32;
    ExpectSameBits(problem, {{2, 3}});
  }
  problem = Mlp();
  problem.optimizer = Rule("adam {}");
  ExpectSameBits(problem);
}

TEST(SequentialReference, MlpWithStaleRounds) {
  Problem problem = Mlp();
  problem.optimizer = Rule("adam {}");
  problem.staleness = 2;
  ExpectSameBits(problem);
}

TEST(SequentialReference, SparseTableUnderEveryRule) {
  Problem problem;
  problem.sparse = true;
  problem.model.mutable_logistic()->set_sparse_table(true);
  for (const char* rule : kRules) {
    SCOPED_TRACE(rule);
    problem.optimizer = Rule(rule);
    ExpectSameBits(problem, {{2, 3}});
  }
  problem.optimizer = Rule("adam {}");
  ExpectSameBits(problem);
  problem.staleness = 1;
  ExpectSameBits(problem);
}

// Steps that wait for norms of whole tensors, whose blocks lie on several servers.
TEST(SequentialReference, ClippingAndLayerwiseRates) {
  Problem problem = Mlp();
  for (const char* rule : {"lars { trust: 0.05 }", "lamb {}"}) {
    SCOPED_TRACE(rule);
    problem.optimizer = Rule(rule);
    ExpectSameBits(problem);
  }
  problem.clip.value = 0.05f;
  ExpectSameBits(problem, {{2, 3}});
  problem.optimizer = Rule("lars { trust: 0.05 }");
  problem.clip.global_norm = 0.4;
  ExpectSameBits(problem, {{2, 3}});
  problem.optimizer = Rule("momentum {}");
  for (const ClipBounds& clip : {ClipBounds{0, 0.2, 0}, ClipBounds{0, 0, 0.3}, ClipBounds{0.1f, 0.2, 0.3}}) {
    problem.clip = clip;
    problem.staleness = 0;
    ExpectSameBits(problem);
    problem.staleness = 2;
    ExpectSameBits(problem, {{3, 2}});
  }
}

TEST(SequentialReference, ClippingOfTables) {
  Problem problem;
  problem.sparse = true;
  problem.model.mutable_logistic()->set_sparse_table(true);
  problem.optimizer = Rule("adam {}");
  for (const ClipBounds& clip : {ClipBounds{0.05f, 0, 0}, ClipBounds{0, 0.2, 0}, ClipBounds{0.2f, 0.5, 0.3}}) {
    problem.clip = clip;
    problem.staleness = 0;
    ExpectSameBits(problem);
    problem.staleness = 1;
    ExpectSameBits(problem, {{2, 3}});
  }
}

TEST(SequentialReference, NoiseAveragesAndSchedulesOfMomentum) {
  Problem problem = Mlp();
  problem.optimizer = Rule("momentum {}");
  problem.noise = 0.01f;
  ExpectSameBits(problem, {{1, 1}, {3, 2}});
  problem.momentum_schedule = true;
  problem.clip.global_norm = 0.3;
  ExpectSameBits(problem, {{2, 3}});
  problem.mean_from = 5;
  ExpectSameBits(problem, {{1, 1}, {3, 2}});
}

// Numbers of 16 bits on the wire: each rank's gradient is rounded by itself, so that the bits are still those of any
// number of workers.
TEST(SequentialReference, HalvesOnTheWire) {
  for (const WireEncoding encoding : {WireEncoding::kFp16, WireEncoding::kBf16}) {
    Problem problem = Mlp();
    problem.optimizer = Rule("adam {}");
    problem.encoding = encoding;
    ExpectSameBits(problem);
    Problem table;
    table.sparse = true;
    table.model.mutable_logistic()->set_sparse_table(true);
    table.optimizer = Rule("adagrad {}");
    table.encoding = encoding;
    ExpectSameBits(table);
  }
}

}  // namespace
}  // namespace descent
