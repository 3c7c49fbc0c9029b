// A thousand rounds of what surrounds a rule (clipping, layer-wise rates, noise, groups, averages, schedules of
// momentum) against programs in float64, written from the papers and sharing nothing with the store.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/job/optimizer_spec.h"
#include "common/random/philox.h"
#include "common/tensor/initial_value.h"
#include "gtest/gtest.h"
#include "server/store/block_store.h"
#include "server/store/rule_cases.h"

namespace descent {
namespace {

constexpr int kSteps = 1000;
constexpr uint64_t kSeed = 5;
constexpr uint32_t kRows = 7, kColumns = 6, kBlock = 12;  // of "w"; a block has two rows
constexpr double kRate = 0.02f;

float Draw(uint64_t stream, uint64_t i) { return 2 * RandomStream(7, Purpose::kTest, stream, 0).Uniform(i) - 1; }

struct Case {
  std::string rule = "sgd {}";
  double l2 = 0;
  ClipBounds clip = {};
  double noise = 0;  // eta; gamma 0.55
  int average_from = -1;
  double decay = 0;       // of the average; 0: the mean
  bool schedule = false;  // of momentum
};

double MomentumAt(int t) { return 0.5 + 0.4 * (t % 100) / 100.0; }

StoreOptions Options(const Case& c) {
  StoreOptions options;
  TensorSpec w;
  w.name = "w";
  w.shape = {kRows, kColumns};
  w.initializer = {Initializer::Kind::kUniform, 0.5};
  TensorSpec bias;
  bias.name = "bias";
  bias.shape = {3};
  bias.decay = false;
  options.tensors = {w, bias};
  options.geometry.block_elements = kBlock;
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.seed = kSeed;
  options.ranks = 2;
  options.rule = UpdateRule::Make(RuleCase(c.rule)).value();
  options.rate = [](Clock) { return static_cast<float>(kRate); };
  options.l2 = static_cast<float>(c.l2);
  options.clip = c.clip;
  if (c.noise > 0) {
    options.noise = [eta = c.noise](Clock t) {
      return static_cast<float>(std::sqrt(eta / std::pow(1.0 + static_cast<double>(t.value), 0.55)));
    };
  }
  if (c.average_from >= 0) {
    options.average_weight = [c](Clock t) {
      const int n = static_cast<int>(t.value) - c.average_from;
      return n <= 0 ? 1.0f : static_cast<float>(c.decay > 0 ? 1 - c.decay : 1.0 / (n + 1));
    };
  }
  if (c.schedule) options.momentum = [](Clock t) { return static_cast<float>(MomentumAt(static_cast<int>(t.value))); };
  return options;
}

// One parameter as the papers have it; the norms are the caller's.
struct Cell {
  double w = 0, m = 0, v = 0, average = 0;
};

class Reference {
 public:
  explicit Reference(const Case& c, const std::vector<TensorSpec>& tensors) : case_(c), spec_(RuleCase(c.rule)) {
    ResolveOptimizer(&spec_);
    for (uint32_t t = 0; t < 2; ++t) {
      std::vector<float> start(tensors[t].elements());
      InitialDense(kSeed, TensorId(t), tensors[t], 0, absl::MakeSpan(start));
      for (float w : start) cells_[t].push_back({w, 0, 0, w});
    }
  }

  // g: the mean gradient, by tensor.
  void Step(int t, std::vector<double> g[2]) {
    for (int k = 0; k < 2; ++k) {
      for (double& x : g[k]) {
        if (case_.clip.value > 0) x = std::clamp<double>(x, -case_.clip.value, case_.clip.value);
      }
      const double norm = Norm(g[k]);
      if (case_.clip.norm > 0 && norm > case_.clip.norm) Scale(case_.clip.norm / norm, &g[k]);
    }
    const double global = std::hypot(Norm(g[0]), Norm(g[1]));
    if (case_.clip.global_norm > 0 && global > case_.clip.global_norm) {
      for (int k = 0; k < 2; ++k) Scale(case_.clip.global_norm / global, &g[k]);
    }
    for (uint32_t k = 0; k < 2; ++k) {
      const double deviation = std::sqrt(case_.noise / std::pow(1.0 + t, 0.55));
      const RandomStream normal(kSeed, Purpose::kGradientNoise, static_cast<uint64_t>(t), k);
      for (size_t i = 0; i < g[k].size() && case_.noise > 0; ++i) g[k][i] += deviation * normal.Normal(i);
      OneTensor(t, k == 0, g[k], &cells_[k]);
      for (Cell& cell : cells_[k]) {
        const int n = t - case_.average_from;
        cell.average = n <= 0            ? cell.w
                       : case_.decay > 0 ? case_.decay * cell.average + (1 - case_.decay) * cell.w
                                         : (cell.average * n + cell.w) / (n + 1);
      }
    }
  }
  const std::vector<Cell>& cells(uint32_t tensor) const { return cells_[tensor]; }

 private:
  static double Norm(const std::vector<double>& x) {
    double square = 0;
    for (double v : x) square += v * v;
    return std::sqrt(square);
  }
  static void Scale(double by, std::vector<double>* x) {
    for (double& v : *x) v *= by;
  }

  void OneTensor(int t, bool decayed, const std::vector<double>& g, std::vector<Cell>* cells) {
    const double l2 = decayed ? case_.l2 : 0;
    std::vector<double> w;
    for (const Cell& cell : *cells) w.push_back(cell.w);
    if (spec_.has_lars()) {  // You et al. 2017, algorithm 1
      const double mu = case_.schedule ? MomentumAt(t) : spec_.lars().momentum();
      const double local =
          !decayed || Norm(w) == 0 || Norm(g) == 0 ? 1 : spec_.lars().trust() * Norm(w) / (Norm(g) + l2 * Norm(w));
      for (size_t i = 0; i < g.size(); ++i) {
        Cell& cell = (*cells)[i];
        cell.m = mu * cell.m + kRate * local * (g[i] + l2 * cell.w);
        cell.w -= cell.m;
      }
      return;
    }
    if (spec_.has_lamb()) {  // You et al. 2020, algorithm 2
      const v1::Lamb& lamb = spec_.lamb();
      std::vector<double> update;
      for (size_t i = 0; i < g.size(); ++i) {
        Cell& cell = (*cells)[i];
        cell.m = lamb.beta1() * cell.m + (1 - lamb.beta1()) * g[i];
        cell.v = lamb.beta2() * cell.v + (1 - lamb.beta2()) * g[i] * g[i];
        update.push_back(cell.m / (1 - std::pow(lamb.beta1(), t + 1)) /
                             (std::sqrt(cell.v / (1 - std::pow(lamb.beta2(), t + 1))) + lamb.epsilon()) +
                         l2 * cell.w);
      }
      const double ratio = !decayed || Norm(w) == 0 || Norm(update) == 0 ? 1 : Norm(w) / Norm(update);
      for (size_t i = 0; i < g.size(); ++i) (*cells)[i].w -= kRate * ratio * update[i];
      return;
    }
    double reach = kRate;
    for (size_t i = 0; i < g.size(); ++i) {
      Cell& cell = (*cells)[i];
      const double d = g[i] + l2 * cell.w;
      const double mu = case_.schedule         ? MomentumAt(t)
                        : spec_.has_nesterov() ? spec_.nesterov().momentum()
                        : spec_.has_momentum() ? spec_.momentum().momentum()
                                               : 0;
      cell.m = mu * cell.m + d;
      cell.w -= kRate * (spec_.has_nesterov() ? d + mu * cell.m : cell.m);
      if (spec_.has_momentum()) reach = kRate / (1 - mu);
    }
    if (!decayed || !spec_.has_proximal()) return;
    const v1::Proximal& step = spec_.proximal();
    for (size_t row = 0; row < cells->size(); row += kColumns) {
      double norm = 0;
      for (size_t i = row; i < row + kColumns; ++i) {
        double& x = (*cells)[i].w;
        x = std::copysign(std::max(0.0, std::fabs(x) - reach * step.l1()), x) / (1 + reach * step.l2());
        norm += x * x;
      }
      const double threshold = reach * step.group_lasso() / (1 + reach * step.l2());
      const double by = std::sqrt(norm) > threshold ? 1 - threshold / std::sqrt(norm) : 0;
      for (size_t i = row; i < row + kColumns; ++i) (*cells)[i].w *= by;
    }
  }

  const Case case_;
  v1::Optimizer spec_;
  std::vector<Cell> cells_[2];
};

std::vector<float> Floats(const Payload& payload) {
  std::vector<float> out(payload.size() / sizeof(float));
  payload.CopyTo(out.data());
  return out;
}

class StepReference : public ::testing::TestWithParam<Case> {};

TEST_P(StepReference, ThousandRoundsAgreeWithFloat64) {
  const Case& c = GetParam();
  SCOPED_TRACE(c.rule);
  const StoreOptions options = Options(c);
  auto store = BlockStore::Create(options).value();
  Reference reference(c, options.tensors);
  for (int t = 0; t < kSteps; ++t) {
    std::vector<double> g[2];
    std::vector<BlockScalars> parts;
    for (const BlockId id : store->dense_blocks()) {
      const size_t n = options.geometry.block_size(options.tensors[id.tensor.value], id.index);
      const uint64_t begin = options.geometry.block_begin(id.index);
      for (uint32_t rank = 0; rank < 2; ++rank) {
        auto values = std::make_shared<std::vector<float>>();
        for (uint64_t i = begin; i < begin + n; ++i) {
          // A direction of each element's own under noise, with an outburst now and then.
          const float size = t % 17 == 0 ? 20.0f : 1.0f;
          values->push_back(size * (0.3f * Draw(1 + id.tensor.value, i) +
                                    Draw(10 + 4 * static_cast<uint64_t>(t) + 2 * id.tensor.value + rank, i)));
        }
        Payload payload;
        payload.Append(values->data(), n * sizeof(float), values);
        ASSERT_TRUE(store->Hold(id, Rank(rank), 1, payload).ok());
        std::vector<double>& mean = g[id.tensor.value];
        mean.resize(begin + n, 0);
        for (uint64_t i = 0; i < n; ++i) mean[begin + i] += (*values)[i] / 4.0;
      }
      if (!store->measures()) continue;
      parts.push_back(store->Measure(id, 4).value());
      EXPECT_EQ(store->Measure(id, 4).value(), parts.back()) << "it changes nothing";
    }
    if (store->measures()) store->Agree(AddInBlockOrder(Clock(t), 2, parts));
    for (const BlockId id : store->dense_blocks()) ASSERT_TRUE(store->Commit(id, 4, nullptr).ok());
    reference.Step(t, g);
  }
  for (const BlockId id : store->dense_blocks()) {
    const std::vector<float> w = Floats(store->Read(id, std::nullopt).value());
    const std::vector<float> average = Floats(store->ReadAverage(id, std::nullopt).value());
    for (size_t i = 0; i < w.size(); ++i) {
      const Cell& want = reference.cells(id.tensor.value)[options.geometry.block_begin(id.index) + i];
      EXPECT_NEAR(w[i], want.w, 1e-5 * std::max(std::fabs(want.w), 0.25)) << id.tensor.value << ", " << i;
      const double mean = c.average_from >= 0 ? want.average : want.w;
      EXPECT_NEAR(average[i], mean, 1e-5 * std::max(std::fabs(mean), 0.25)) << id.tensor.value << ", " << i;
    }
  }
  const StepCounts counts = store->counts();
  EXPECT_EQ(counts.steps, uint64_t{kSteps} * store->dense_blocks().size());
  const bool clips = c.clip.value > 0 || c.clip.norm > 0 || c.clip.global_norm > 0;
  if (clips) {
    EXPECT_GT(counts.clipped, counts.steps / 20);
    EXPECT_LT(counts.clipped, counts.steps / 2);
  } else {
    EXPECT_EQ(counts.clipped, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, StepReference,
    ::testing::Values(Case{.clip = {.value = 1.5f}},                                 //
                      Case{.rule = "momentum {}", .l2 = 0.01, .clip = {.norm = 4}},  //
                      Case{.l2 = 0.01, .clip = {.global_norm = 5}},                  //
                      Case{.clip = {.value = 3, .norm = 9, .global_norm = 8}},       //
                      Case{.rule = "lars { trust: 0.02 }", .l2 = 0.01},              //
                      Case{.rule = "lars { trust: 0.02 }", .clip = {.global_norm = 5}, .schedule = true},
                      Case{.rule = "lamb {}", .l2 = 0.01},  //
                      Case{.rule = "lamb { beta2: 0.99 }", .l2 = 0.1, .clip = {.value = 1.5f}},
                      Case{.l2 = 0.01, .noise = 0.3},                               //
                      Case{.clip = {.global_norm = 5}, .noise = 0.1},               //
                      Case{.rule = "momentum {}", .l2 = 0.1, .average_from = 300},  //
                      Case{.l2 = 0.1, .average_from = 0},                           //
                      Case{.l2 = 0.1, .average_from = 10, .decay = 0.98},           //
                      Case{.rule = "momentum {}", .l2 = 0.1, .schedule = true},     //
                      Case{.rule = "nesterov {}", .l2 = 0.1, .schedule = true},     //
                      Case{.rule = "sgd {} proximal { group_lasso: 0.5 }"},         //
                      Case{.rule = "sgd {} proximal { l1: 0.125 l2: 0.25 group_lasso: 0.25 }"},
                      Case{.rule = "momentum {} proximal { l2: 0.1 group_lasso: 0.2 }"}));

// Pushes computed from versions up to six steps back, of which the store keeps four.
// `decay`: of the mean square of an adaptive lambda; 0: it is constant.
void ExpectDelayedPushes(bool aware, double lambda, double decay, const std::string& rule) {
  SCOPED_TRACE(absl::StrCat(rule, ", lambda ", lambda, ", decay ", decay));
  constexpr uint64_t kHistory = 4;
  Case c;
  c.rule = rule;
  StoreOptions options = Options(c);
  options.apply_push = true;
  options.staleness_aware_rate = aware;
  options.compensation = static_cast<float>(lambda);
  options.mean_square_decay = static_cast<float>(decay);
  options.history = kHistory;
  auto store = BlockStore::Create(options).value();
  const BlockId id{TensorId(0), 1};
  std::vector<std::vector<double>> versions(1);
  for (float w : Floats(store->Read(id, std::nullopt).value())) versions[0].push_back(w);
  std::vector<double> m(kBlock, 0), mean_square(kBlock, 0);
  const RandomStream random(3, Purpose::kTest, 0, 0);
  for (uint64_t t = 0; t < kSteps; ++t) {
    const uint64_t staleness = std::min(t, random.Below(t, 7));
    const std::vector<double>& was = versions[t - std::min(staleness, kHistory)];
    std::vector<float> sum;
    std::vector<double> next = versions[t];
    for (uint64_t i = 0; i < kBlock; ++i) {
      sum.push_back(3 * (static_cast<float>(versions[t - staleness][i]) - 0.3f) + Draw(100 + t, i));
      double g = sum[i] / 3.0;
      double by = static_cast<float>(lambda);
      if (decay > 0) {  // Zheng et al. 2017, DC-ASGD-a
        mean_square[i] = decay * mean_square[i] + (1 - decay) * g * g;
        by /= std::sqrt(mean_square[i] + 1e-7);
      }
      g += by * g * g * (next[i] - was[i]);
      m[i] = rule == "sgd {}" ? g : 0.9 * m[i] + g;
      next[i] -= kRate / (aware && staleness > 1 ? static_cast<double>(staleness) : 1) * m[i];
    }
    versions.push_back(next);
    Payload payload;
    payload.Append(sum.data(), sum.size() * sizeof(float), nullptr);
    ASSERT_TRUE(store->Apply(id, 3, payload, t - staleness).ok());
  }
  const std::vector<float> w = Floats(store->Read(id, std::nullopt).value());
  for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(w[i], versions.back()[i], 1e-5) << i;
}

TEST(DelayedPushes, AgreeWithFloat64) {
  for (const char* rule : {"sgd {}", "momentum {}"}) {
    ExpectDelayedPushes(true, 0, 0, rule);
    ExpectDelayedPushes(false, 2, 0, rule);
    ExpectDelayedPushes(true, 0.5, 0, rule);
    ExpectDelayedPushes(false, 1, 0.95, rule);
    ExpectDelayedPushes(true, 2, 0.5, rule);
  }
}

// The mean square is state: an image with state carries it, and whoever goes on from one has the same bits. Without it
// the first push of a staleness above 0 would tell.
TEST(DelayedPushes, TheMeanSquareGoesIntoImages) {
  Case c;
  c.rule = "momentum {}";
  StoreOptions options = Options(c);
  options.apply_push = true;
  options.compensation = 2;
  options.mean_square_decay = 0.9f;
  options.history = 4;
  options.average_weight = [](Clock) { return 0.25f; };
  const BlockId id{TensorId(0), 1};
  const auto push = [&](BlockStore* store, uint64_t t, uint64_t read) {
    std::vector<float> sum;
    for (uint64_t i = 0; i < kBlock; ++i) sum.push_back(Draw(300 + t, i));
    Payload payload;
    payload.Append(sum.data(), sum.size() * sizeof(float), nullptr);
    ASSERT_TRUE(store->Apply(id, 2, payload, read).ok());
  };
  auto store = BlockStore::Create(options).value(), other = BlockStore::Create(options).value();
  for (uint64_t t = 0; t < 20; ++t) push(store.get(), t, t);
  const BlockExport image = store->Export(id, true).value();
  EXPECT_EQ(image.state_slots, 3u) << "momentum, mean square, average";
  EXPECT_EQ(image.payload.size(), 4 * kBlock * sizeof(float));
  EXPECT_EQ(store->Export(id, false)->state_slots, 0u);
  ASSERT_TRUE(other->Install(image).ok());
  for (BlockStore* each : {store.get(), other.get()}) {
    push(each, 20, 20);
    push(each, 21, 20);
  }
  const BlockExport after = store->Export(id, true).value();
  EXPECT_EQ(Floats(other->Export(id, true)->payload), Floats(after.payload));
  // By hand: the second state vector after 22 pushes.
  std::vector<double> mean_square(kBlock, 0);
  for (uint64_t t = 0; t < 22; ++t) {
    for (uint64_t i = 0; i < kBlock; ++i) {
      const double g = Draw(300 + t, i) / 2.0;
      mean_square[i] = 0.9 * mean_square[i] + 0.1 * g * g;
    }
  }
  const std::vector<float> floats = Floats(after.payload);
  for (uint64_t i = 0; i < kBlock; ++i) EXPECT_NEAR(floats[2 * kBlock + i], mean_square[i], 1e-6) << i;
  const StoreBudget constant = PlanStore([&] {
    StoreOptions without = options;
    without.mean_square_decay = 0;
    return without;
  }());
  EXPECT_EQ(PlanStore(options).state, 2 * constant.state) << "as large as the momentum";
}

// Rows that the gradient does not hold up become 0, all of them at once, and the others do not.
TEST(GroupLasso, TakesWholeRowsOut) {
  Case c;
  c.rule = "sgd {} proximal { group_lasso: 1 }";
  const StoreOptions options = Options(c);
  auto store = BlockStore::Create(options).value();
  // f(w) = 1/2 ||w - a||^2, a's rows of norms from below 1 to above: the minimum is a (1 - 1 / ||a||)+.
  const auto target = [](uint64_t i) { return 0.15 * static_cast<double>(1 + i / kColumns); };
  for (int t = 0; t < 600; ++t) {
    for (uint32_t b = 0; b < options.geometry.blocks(options.tensors[0]); ++b) {
      const BlockId id{TensorId(0), b};
      std::vector<float> g = Floats(store->Read(id, std::nullopt).value());
      for (size_t i = 0; i < g.size(); ++i) g[i] -= static_cast<float>(target(options.geometry.block_begin(b) + i));
      Payload payload;
      payload.Append(g.data(), g.size() * sizeof(float), nullptr);
      ASSERT_TRUE(store->Hold(id, Rank(0), 2, payload).ok());
      ASSERT_TRUE(store->Commit(id, 1, nullptr).ok());
    }
  }
  for (uint32_t b = 0; b < options.geometry.blocks(options.tensors[0]); ++b) {
    const std::vector<float> w = Floats(store->Read({TensorId(0), b}, std::nullopt).value());
    for (size_t i = 0; i < w.size(); ++i) {
      const double a = target(options.geometry.block_begin(b) + i), norm = a * std::sqrt(double{kColumns});
      if (norm <= 1) {
        EXPECT_EQ(w[i], 0.0f);
      } else {
        EXPECT_NEAR(w[i], a * (1 - 1 / norm), 1e-4);
      }
    }
  }
}

TEST(GroupLasso, RefusesRowsThatLieInTwoBlocks) {
  Case c;
  c.rule = "sgd {} proximal { group_lasso: 1 }";
  StoreOptions options = Options(c);
  options.geometry.block_elements = 8;
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  const absl::Status status = BlockStore::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      status.message(),
      "tensor 'w': optimizer.proximal.group_lasso needs each row of 6 parameters in one block, but block_elements is "
      "8: set it to a multiple, such as 6");
}

// Noise is a function of (seed, tensor, step, element): its moments, and that it does not repeat.
TEST(GradientNoise, IsNormalWithTheStatedVariance) {
  Case c;
  c.noise = 0.25;
  StoreOptions options = Options(c);
  options.tensors[0].shape = {20000, 1};
  options.geometry.block_elements = 4096;
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.rate = [](Clock) { return 1.0f; };
  auto store = BlockStore::Create(options).value();
  std::vector<double> first;
  for (int t = 0; t < 2; ++t) {
    double sum = 0, square = 0, product = 0;
    size_t at = 0;
    for (uint32_t b = 0; b < options.geometry.blocks(options.tensors[0]); ++b) {
      const BlockId id{TensorId(0), b};
      const std::vector<float> before = Floats(store->Read(id, std::nullopt).value());
      const std::vector<float> zeros(before.size(), 0.0f);
      Payload payload;
      payload.Append(zeros.data(), zeros.size() * sizeof(float), nullptr);
      ASSERT_TRUE(store->Hold(id, Rank(0), 2, payload).ok());
      ASSERT_TRUE(store->Commit(id, 1, nullptr).ok());
      const std::vector<float> after = Floats(store->Read(id, std::nullopt).value());
      for (size_t i = 0; i < after.size(); ++i, ++at) {
        const double x = before[i] - after[i];
        sum += x;
        square += x * x;
        if (t == 0) first.push_back(x);
        if (t == 1) product += x * first[at];
      }
    }
    const double variance = 0.25 / std::pow(1.0 + t, 0.55);
    EXPECT_NEAR(sum / 20000, 0, 4 * std::sqrt(variance / 20000));
    EXPECT_NEAR(square / 20000, variance, 4 * variance * std::sqrt(2.0 / 20000));
    if (t == 1) {
      EXPECT_NEAR(product / 20000, 0, 4 * 0.25 / std::sqrt(20000.0));
    }
  }
}

TEST(TablesRefuse, WhatIsOfEveryElement) {
  Case c;
  c.noise = 1;
  StoreOptions options = Options(c);
  options.tensors[0].sparse = true;
  options.tensors[0].shape = {4};
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  EXPECT_EQ(BlockStore::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.noise = nullptr;
  EXPECT_TRUE(BlockStore::Create(options).ok());
  options.average_weight = [](Clock) { return 1.0f; };
  EXPECT_EQ(BlockStore::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace descent
