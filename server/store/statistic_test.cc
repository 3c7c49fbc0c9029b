// Tensors that are running statistics: means of what comes, by hand, whatever surrounds the steps of parameters.
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "descent/v1/job.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "server/store/block_store.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const BlockId kParameter{TensorId(0), 0}, kStatistic{TensorId(1), 0}, kSecondBlock{TensorId(1), 1};

StoreOptions Options(const std::string& rule = "sgd {}") {
  v1::Optimizer optimizer;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(rule, &optimizer)) << rule;
  StoreOptions options;
  TensorSpec w;
  w.name = "w";
  w.shape = {2};
  w.initializer = {Initializer::Kind::kConstant, 1};
  TensorSpec mean = w;
  mean.name = "mean";
  mean.shape = {3};
  mean.role = TensorRole::kStatistic;
  mean.decay = false;
  options.tensors = {w, mean};
  options.geometry.block_elements = 2;
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.ranks = 2;
  options.rule = UpdateRule::Make(optimizer).value();
  options.rate = [](Clock) { return 0.5f; };
  options.statistic_decay = 0.75;
  return options;
}

Payload Of(const std::vector<float>& values) {
  auto copy = std::make_shared<std::vector<float>>(values);
  Payload payload;
  payload.Append(copy->data(), copy->size() * sizeof(float), copy);
  return payload;
}
std::vector<float> Read(BlockStore& store, BlockId id, bool averaged = false) {
  const Payload payload = averaged ? store.ReadAverage(id, std::nullopt).value() : store.Read(id, std::nullopt).value();
  std::vector<float> out(payload.size() / sizeof(float));
  payload.CopyTo(out.data());
  return out;
}

// Of six examples, two of them rank 1's; `square` is what the blocks add to the gradient's.
void Round(BlockStore& store, double* square = nullptr) {
  ASSERT_TRUE(store.Hold(kParameter, Rank(0), 1, Of({30, 0})).ok());
  ASSERT_TRUE(store.Hold(kParameter, Rank(1), 1, Of({0, 6})).ok());
  ASSERT_TRUE(store.Hold(kStatistic, Rank(0), 1, Of({4 * 10, 4 * 1})).ok());
  ASSERT_TRUE(store.Hold(kStatistic, Rank(1), 1, Of({2 * 40, 2 * 1})).ok());
  ASSERT_TRUE(store.Hold(kSecondBlock, Rank(0), 2, Of({6 * 5})).ok());
  if (store.measures()) {
    std::vector<BlockScalars> parts;
    for (const BlockId id : store.dense_blocks()) parts.push_back(store.Measure(id, 6).value());
    EXPECT_GT(parts[0].square, 0);
    for (size_t i = 1; i < parts.size(); ++i) EXPECT_EQ(parts[i], (BlockScalars{parts[i].id, 0, 0, 0, {}}));
    store.Agree(AddInBlockOrder(Clock(0), 2, parts));
  }
  for (const BlockId id : store.dense_blocks()) ASSERT_TRUE(store.Commit(id, 6, square).ok());
}

TEST(Statistic, IsARunningMeanWeightedByExamples) {
  auto store = BlockStore::Create(Options()).value();
  double square = 0;
  Round(*store, &square);
  // The means of the six are 20, 1 and 5.
  EXPECT_THAT(Read(*store, kStatistic), ElementsAre(0.75f + 0.25f * 20, 1));
  EXPECT_THAT(Read(*store, kSecondBlock), ElementsAre(0.75f + 0.25f * 5));
  EXPECT_DOUBLE_EQ(square, 25 + 1) << "of the parameters' gradient, 5 and 1, alone";
  EXPECT_EQ(store->counts().steps, 1u);
  Round(*store);
  EXPECT_THAT(Read(*store, kStatistic), ElementsAre(0.75f * 5.75f + 0.25f * 20, 1));
  // Nobody had an example: all stays, one version on.
  for (const BlockId id : store->dense_blocks()) ASSERT_TRUE(store->Commit(id, 0, nullptr).ok());
  EXPECT_THAT(Read(*store, kStatistic), ElementsAre(0.75f * 5.75f + 0.25f * 20, 1));
  EXPECT_EQ(store->version(kStatistic), 3u);
}

TEST(Statistic, NothingElseTouchesIt) {
  std::vector<StoreOptions> all;
  for (const char* rule :
       {"momentum {}", "adam {}", "ftrl { l1: 0.1 }", "lars {}", "lamb {}", "sgd {} proximal { l1: 1 upper: 2 }"}) {
    all.push_back(Options(rule));
  }
  all.push_back(Options());
  all.back().l2 = 0.5f;
  all.back().clip = {0.1f, 0.2, 0.05};
  all.back().noise = [](Clock) { return 3.0f; };
  all.back().average_weight = [](Clock) { return 0.5f; };
  all.back().reduce_sum = true;
  all.push_back(Options("momentum {}"));
  all.back().momentum = [](Clock) { return 0.1f; };
  for (const StoreOptions& options : all) {
    auto store = BlockStore::Create(options).value();
    Round(*store);
    Round(*store);
    for (const bool averaged : {false, true}) {
      EXPECT_THAT(Read(*store, kStatistic, averaged), ElementsAre(0.75f * 5.75f + 0.25f * 20, 1));
    }
    EXPECT_EQ(store->Export(kStatistic, true)->state_slots, 0u);
    EXPECT_EQ(store->counts().steps, 2u);
  }
}

TEST(Statistic, MovesWithEachPush) {
  StoreOptions options = Options("adam {}");
  options.apply_push = true;
  options.staleness_aware_rate = true;
  options.compensation = 4;
  options.history = 4;
  auto store = BlockStore::Create(options).value();
  ASSERT_TRUE(store->Apply(kStatistic, 4, Of({40, 4}), 0).ok());
  EXPECT_THAT(Read(*store, kStatistic), ElementsAre(0.75f + 0.25f * 10, 1));
  ASSERT_TRUE(store->Apply(kStatistic, 2, Of({80, 2}), 0).ok());
  EXPECT_THAT(Read(*store, kStatistic), ElementsAre(0.75f * 3.25f + 0.25f * 40, 1));
  ASSERT_TRUE(store->Apply(kStatistic, 0, Of({0, 0}), 0).ok());
  EXPECT_THAT(Read(*store, kStatistic), ElementsAre(0.75f * 3.25f + 0.25f * 40, 1));
  EXPECT_EQ(store->counts().steps, 0u);
}

TEST(Statistic, GoesOnFromAnImage) {
  auto store = BlockStore::Create(Options("adam {}")).value(),
       restored = BlockStore::Create(Options("adam {}")).value();
  Round(*store);
  for (const BlockId id : store->dense_blocks()) ASSERT_TRUE(restored->Install(store->Export(id, true).value()).ok());
  Round(*store);
  Round(*restored);
  for (const BlockId id : store->dense_blocks()) EXPECT_EQ(Read(*store, id), Read(*restored, id));
}

TEST(Statistic, BadNumbersAreNamed) {
  auto store = BlockStore::Create(Options()).value();
  EXPECT_EQ(store->Hold(kStatistic, Rank(0), 1, Of({1, std::numeric_limits<float>::infinity()})).message(),
            "tensor 'mean', element 1: expected a finite number, got inf");
}

TEST(Statistic, IsOfMiniBatches) {
  EXPECT_THAT(BlockStore::Create(Options("lbfgs {}")).status().message(),
              HasSubstr("tensor 'mean': a running statistic is of mini-batches"));
}

}  // namespace
}  // namespace descent
