#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "common/tensor/initial_value.h"
#include "descent/v1/job.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/block_store.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Elements of a block but the last.
constexpr uint32_t kBlock = 100;
constexpr uint64_t kElements = 250;

StoreOptions Options(const v1::Optimizer& optimizer, uint32_t ranks) {
  StoreOptions options;
  TensorSpec w;
  w.name = "w";
  w.shape = {kElements};
  w.initializer = {Initializer::Kind::kUniform, 0.5};
  TensorSpec bias = w;
  bias.name = "bias";
  bias.shape = {3};
  bias.decay = false;
  TensorSpec mean = bias;
  mean.name = "mean";
  mean.role = TensorRole::kAuxiliary;
  options.tensors = {w, bias, mean};
  options.geometry.block_elements = kBlock;
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.seed = 3;
  options.ranks = ranks;
  options.rule = UpdateRule::Make(optimizer).value();
  options.rate = [](Clock clock) { return 0.1f / static_cast<float>(clock.value + 1); };
  options.l2 = 0.01f;
  options.history = 1;
  return options;
}

v1::Optimizer Adam() {
  v1::Optimizer spec;
  spec.mutable_adam();
  return spec;
}

float Draw(uint64_t stream, uint64_t i) { return 2 * RandomStream(9, Purpose::kTest, stream, 0).Uniform(i) - 1; }

// A payload of `values` in pieces that split floats and lie at odd addresses.
Payload Shredded(const std::vector<float>& values, size_t piece_bytes) {
  Payload payload;
  const auto* bytes = reinterpret_cast<const char*>(values.data());
  const size_t size = values.size() * sizeof(float);
  for (size_t at = 0; at < size; at += piece_bytes) {
    const size_t n = std::min(piece_bytes, size - at);
    auto copy = std::make_shared<std::vector<char>>(n + 1);
    std::memcpy(copy->data() + 1, bytes + at, n);
    payload.Append(copy->data() + 1, n, copy);
  }
  return payload;
}

std::vector<float> Floats(const Payload& payload) {
  std::vector<float> out(payload.size() / sizeof(float));
  payload.CopyTo(out.data());
  return out;
}

std::vector<float> Gradient(uint64_t clock, uint32_t rank, BlockId id, size_t n) {
  std::vector<float> g(n);
  for (size_t i = 0; i < n; ++i) g[i] = Draw(clock * 100 + rank, id.tensor.value * 10000 + id.index * 1000 + i);
  return g;
}

size_t Size(BlockStore& store, BlockId id) { return store.Read(id, std::nullopt)->size() / sizeof(float); }

TEST(DenseStore, StartsWithTheValuesThatItIsGiven) {
  StoreOptions options = Options(Adam(), 2);
  options.average_weight = [](Clock) { return 0.5f; };
  options.map = MakePartitionMap(options.tensors, options.geometry, 2);
  options.start = [](const TensorSpec& spec) -> absl::StatusOr<std::optional<TensorValues>> {
    if (spec.name == "bias") return std::nullopt;
    TensorValues values;
    for (uint64_t i = 0; i < spec.elements(); ++i) values.values.push_back(static_cast<float>(i) + 0.5f);
    return values;
  };
  uint32_t blocks = 0;
  for (const uint32_t server : {0u, 1u}) {
    options.self = ServerId(server);
    auto store = BlockStore::Create(options).value();
    for (const BlockId id : store->dense_blocks()) {
      ++blocks;
      const uint64_t begin = options.geometry.block_begin(id.index);
      std::vector<float> expected(Size(*store, id));
      if (id.tensor.value == 1) {
        InitialDense(3, id.tensor, options.tensors[1], begin, absl::MakeSpan(expected));
      } else {
        for (size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<float>(begin + i) + 0.5f;
      }
      EXPECT_EQ(Floats(*store->Read(id, std::nullopt)), expected);
      EXPECT_EQ(Floats(*store->ReadAverage(id, std::nullopt)), expected) << "averages begin there too";
    }
  }
  EXPECT_EQ(blocks, 5u);
  options.start = [](const TensorSpec&) { return absl::FailedPreconditionError("no such tensor"); };
  EXPECT_EQ(BlockStore::Create(options).status().message(), "no such tensor");
}

TEST(DenseStore, RoundsGiveTheBitsOfAPlainProgram) {
  constexpr uint32_t kRanks = 5;
  auto store = BlockStore::Create(Options(Adam(), kRanks)).value();
  auto other = BlockStore::Create(Options(Adam(), kRanks)).value();
  auto rule = UpdateRule::Make(Adam()).value();
  EXPECT_THAT(store->dense_blocks(),
              ElementsAre(BlockId{TensorId(0), 0}, BlockId{TensorId(0), 1}, BlockId{TensorId(0), 2},
                          BlockId{TensorId(1), 0}, BlockId{TensorId(2), 0}));
  for (BlockId id : store->dense_blocks()) {
    const StoreOptions options = Options(Adam(), kRanks);
    const size_t n = Size(*store, id);
    std::vector<float> w(n), m(n, 0), v(n, 0);
    InitialDense(3, id.tensor, options.tensors[id.tensor.value], options.geometry.block_begin(id.index),
                 absl::MakeSpan(w));
    EXPECT_EQ(Floats(*store->Read(id, std::nullopt)), w);
    for (uint64_t clock = 0; clock < 4; ++clock) {
      std::vector<std::vector<float>> g;
      for (uint32_t r = 0; r < kRanks; ++r) g.push_back(Gradient(clock, r, id, n));
      // ((0 + 1) + (2 + 3)) + 4; rank 3 is missing in clock 2.
      std::vector<float> left(n), sum(n);
      for (size_t i = 0; i < n; ++i) {
        left[i] = clock == 2 ? g[2][i] : g[2][i] + g[3][i];
        sum[i] = ((g[0][i] + g[1][i]) + left[i]) + g[4][i];
      }
      const double weight = 11.5;
      const float scale = static_cast<float>(1 / weight);
      double square = 0;
      if (id.tensor.value < 2) {
        float* state[] = {m.data(), v.data()};
        const float l2 = id.tensor.value == 0 ? 0.01f : 0;
        rule->Apply({clock + 1, options.rate(Clock(clock)), scale, l2}, n, w.data(), w.data(), state, sum.data());
        for (float x : sum) square += double{x * scale} * double{x * scale};
      }
      for (uint32_t r : {4, 1, 2, 0, 3}) {
        if (clock == 2 && r == 3) continue;
        ASSERT_TRUE(store->Hold(id, Rank(r), 1, Shredded(g[r], 7 + r)).ok());
        EXPECT_LE(store->held_bytes(), 3 * n * sizeof(float));
      }
      // The same from a worker that summed two of them.
      ASSERT_TRUE(other->Hold(id, Rank(4), 4, Shredded(g[4], 1000)).ok());
      ASSERT_TRUE(other->Hold(id, Rank(2), 1, Shredded(g[2], 1000)).ok());
      ASSERT_TRUE(other->Hold(id, Rank(2), 2, Shredded(left, 33)).ok());
      ASSERT_TRUE(other->Hold(id, Rank(0), 1, Shredded(g[0], 1000)).ok());
      ASSERT_TRUE(other->Hold(id, Rank(1), 1, Shredded(g[1], 1000)).ok());
      double got = 0, got_other = 0;
      ASSERT_TRUE(store->Commit(id, weight, &got).ok());
      ASSERT_TRUE(other->Commit(id, weight, &got_other).ok());
      EXPECT_NEAR(got, square, 1e-9 * square);
      EXPECT_EQ(got, got_other);
      EXPECT_EQ(store->held_bytes(), 0u);
      ASSERT_EQ(Floats(*store->Read(id, clock + 1)), w);
      ASSERT_EQ(Floats(*other->Read(id, clock + 1)), w);
    }
    auto image = store->Export(id, true).value();
    EXPECT_EQ(image.version, 4u);
    EXPECT_EQ(image.steps, 4u);
    std::vector<float> all = w;
    if (id.tensor.value < 2) {
      EXPECT_EQ(image.state_slots, 2u);
      all.insert(all.end(), m.begin(), m.end());
      all.insert(all.end(), v.begin(), v.end());
    }
    EXPECT_EQ(Floats(image.payload), all);
    EXPECT_EQ(Floats(store->Export(id, false)->payload), w);
  }
}

TEST(DenseStore, OneRankIsAppliedFromWhereItWasReceived) {
  const BlockId id{TensorId(0), 2};
  auto one = BlockStore::Create(Options(Adam(), 1)).value();
  auto two = BlockStore::Create(Options(Adam(), 2)).value();
  for (uint64_t clock = 0; clock < 3; ++clock) {
    const std::vector<float> g = Gradient(clock, 0, id, 50);
    ASSERT_TRUE(one->Hold(id, Rank(0), 1, Shredded(g, 13)).ok());
    ASSERT_TRUE(two->Hold(id, Rank(0), 1, Shredded(g, 13)).ok());
    double a = 0, b = 0;
    ASSERT_TRUE(one->Commit(id, 3, &a).ok());
    ASSERT_TRUE(two->Commit(id, 3, &b).ok());
    EXPECT_EQ(a, b);
    EXPECT_EQ(Floats(*one->Read(id, std::nullopt)), Floats(*two->Read(id, std::nullopt)));
  }
}

// Of four ranks' contributions only those are copied that wait for one: of each pair the first.
TEST(DenseStore, CopiesOnlyWhatWaits) {
  auto store = BlockStore::Create(Options(Adam(), 4)).value();
  const BlockId id{TensorId(1), 0};
  const uint64_t one = 3 * sizeof(float);
  uint64_t copies = 0;
  for (const auto& [rank, copied] :
       {std::pair(3u, true), std::pair(0u, true), std::pair(1u, false), std::pair(2u, false)}) {
    ASSERT_TRUE(store->Hold(id, Rank(rank), 1, Shredded({1, 2, 3}, 4)).ok());
    copies += copied ? 1 : 0;
    EXPECT_EQ(store->copied_bytes(), copies * one) << rank;
  }
  ASSERT_TRUE(store->Commit(id, 4, nullptr).ok());
  ASSERT_TRUE(store->Read(id, std::nullopt).ok());
  EXPECT_EQ(store->copied_bytes(), copies * one);
}

TEST(DenseStore, VersionsStayAsTheyWere) {
  StoreOptions options = Options(Adam(), 1);
  options.history = 2;
  auto store = BlockStore::Create(std::move(options)).value();
  const BlockId id{TensorId(1), 0};
  std::map<uint64_t, std::vector<float>> content;
  const Payload first = *store->Read(id, 0);
  content[0] = Floats(first);
  for (uint64_t v = 0; v < 6; ++v) {
    ASSERT_TRUE(store->Hold(id, Rank(0), 1, Shredded({1, 2, 3}, 5)).ok());
    ASSERT_TRUE(store->Commit(id, 1, nullptr).ok());
    content[v + 1] = Floats(*store->Read(id, std::nullopt));
    EXPECT_NE(content[v + 1], content[v]);
    for (uint64_t u = 0; u <= v + 2; ++u) {
      auto read = store->Read(id, u);
      if (u + 2 >= v + 1 && u <= v + 1) {
        EXPECT_EQ(Floats(*read), content[u]);
      } else {
        EXPECT_EQ(read.status().code(), absl::StatusCode::kOutOfRange);
      }
    }
  }
  EXPECT_EQ(Floats(first), content[0]) << "a payload that is still being sent was overwritten";
}

TEST(DenseStore, PayloadsOutliveTheStore) {
  auto store = BlockStore::Create(Options(Adam(), 1)).value();
  const Payload payload = *store->Read({TensorId(0), 0}, std::nullopt);
  const std::vector<float> before = Floats(payload);
  store.reset();
  EXPECT_EQ(Floats(payload), before);
}

TEST(DenseStore, NothingHeldOrNoWeightIsNoStep) {
  auto store = BlockStore::Create(Options(Adam(), 2)).value();
  const BlockId id{TensorId(1), 0};
  const Payload before = *store->Read(id, std::nullopt);
  const uint64_t bytes = store->total_bytes();
  ASSERT_TRUE(store->Commit(id, 5, nullptr).ok());
  ASSERT_TRUE(store->Hold(id, Rank(1), 1, Shredded({1, 2, 3}, 4)).ok());
  ASSERT_TRUE(store->Commit(id, 0, nullptr).ok());
  EXPECT_EQ(store->version(id), 2u);
  EXPECT_EQ(store->Read(id, std::nullopt)->pieces()[0].data, before.pieces()[0].data);
  EXPECT_GE(store->total_bytes(), bytes);
}

TEST(DenseStore, RefusesBeforeAnythingChanges) {
  auto store = BlockStore::Create(Options(Adam(), 2)).value();
  const BlockId id{TensorId(0), 2};
  const std::vector<float> before = Floats(store->Export(id, true)->payload);
  std::vector<float> g(50, 1.0f);
  EXPECT_THAT(store->Hold(id, Rank(0), 1, Shredded({1, 2}, 8)).message(),
              HasSubstr("tensor 'w', block 2: expected 50 values in 200 bytes, got 8 bytes"));
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    g[17] = bad;
    const absl::Status status = store->Hold(id, Rank(0), 1, Shredded(g, 3));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("tensor 'w', element 217: expected a finite number, got "));
    EXPECT_EQ(store->held_bytes(), 0u);
    EXPECT_FALSE(store->Apply(id, 1, Shredded(g, 64)).ok());
  }
  EXPECT_EQ(store->version(id), 0u);
  EXPECT_EQ(Floats(store->Export(id, true)->payload), before);

  // Finite contributions whose sum is not.
  g.assign(50, 3e38f);
  ASSERT_TRUE(store->Hold(id, Rank(0), 1, Shredded(g, 64)).ok());
  ASSERT_TRUE(store->Hold(id, Rank(1), 1, Shredded(g, 64)).ok());
  double square = 0;
  const absl::Status status = store->Commit(id, 2, &square);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("tensor 'w', element 200: expected a finite number, got inf"));
  EXPECT_EQ(square, 0);
  EXPECT_EQ(store->version(id), 0u);
  EXPECT_EQ(Floats(store->Export(id, true)->payload), before);
  EXPECT_EQ(store->Commit(id, std::nan(""), nullptr).code(), absl::StatusCode::kInvalidArgument);
}

TEST(DenseStore, PushesStepOneByOne) {
  StoreOptions options = Options(Adam(), 4);
  options.apply_push = true;
  options.history = 0;
  const auto rate = options.rate;
  auto store = BlockStore::Create(std::move(options)).value();
  auto rule = UpdateRule::Make(Adam()).value();
  const BlockId id{TensorId(0), 1};
  std::vector<float> w = Floats(*store->Read(id, std::nullopt)), m(kBlock, 0), v(kBlock, 0);
  for (uint64_t push = 0; push < 5; ++push) {
    const std::vector<float> g = Gradient(push, 0, id, kBlock);
    float* state[] = {m.data(), v.data()};
    rule->Apply({push + 1, rate(Clock(push)), 0.5f, 0.01f}, kBlock, w.data(), w.data(), state, g.data());
    ASSERT_TRUE(store->Apply(id, 2, Shredded(g, 11)).ok());
    EXPECT_EQ(store->version(id), push + 1);
    ASSERT_EQ(Floats(*store->Read(id, std::nullopt)), w);
  }
}

TEST(DenseStore, TakesWhatItsBudgetSays) {
  StoreOptions options = Options(Adam(), 4);
  const StoreBudget budget = PlanStore(options);
  EXPECT_EQ(budget.parameters, 4 * (kElements + 3 + 3));
  EXPECT_EQ(budget.state, 8 * (kElements + 3));
  auto store = BlockStore::Create(std::move(options)).value();
  EXPECT_EQ(store->parameter_bytes(), budget.parameters);
  for (uint64_t clock = 0; clock < 5; ++clock) {
    for (BlockId id : store->dense_blocks()) {
      const size_t n = Size(*store, id);
      for (uint32_t r : {0, 2, 1, 3})
        ASSERT_TRUE(store->Hold(id, Rank(r), 1, Shredded(Gradient(0, r, id, n), 64)).ok());
    }
    for (BlockId id : store->dense_blocks()) ASSERT_TRUE(store->Commit(id, 1, nullptr).ok());
  }
  EXPECT_LE(store->total_bytes(), budget.total() + 64 * 5 * 8);  // buffers are rounded up to 64 bytes
}

}  // namespace
}  // namespace descent
