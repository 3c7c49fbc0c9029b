// A store whose blocks are exported at one moment while it goes on, and one that goes on from what was exported.
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/block_store.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kKeys = 60;
constexpr uint32_t kDim = 3;
const TensorId kDense(0), kTable(1);

v1::Optimizer Spec(const std::string& kind) {
  v1::Optimizer spec;
  if (kind == "sgd") spec.mutable_sgd();
  if (kind == "momentum") spec.mutable_momentum();
  if (kind == "adagrad") spec.mutable_adagrad()->set_initial_accumulator(0.1);
  if (kind == "adam") spec.mutable_adam();
  return spec;
}

StoreOptions Options(const std::string& rule, bool push = false) {
  StoreOptions options;
  TensorSpec w;
  w.name = "w";
  w.shape = {250};
  w.initializer = {Initializer::Kind::kUniform, 0.5};
  TensorSpec table = w;
  table.name = "emb";
  table.sparse = true;
  table.shape = {kDim};
  TensorSpec mean = w;
  mean.name = "mean";
  mean.role = TensorRole::kStatistic;
  options.tensors = {w, table, mean};
  options.geometry = {100, 4};
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.seed = 3;
  options.ranks = 2;
  options.rule = UpdateRule::Make(Spec(rule)).value();
  options.rate = [](Clock clock) { return 0.1f / static_cast<float>(clock.value + 1); };
  options.l2 = 0.01f;
  options.apply_push = push;
  options.history = push ? 0 : 1;
  return options;
}

std::vector<std::byte> Bytes(const Payload& payload) {
  std::vector<std::byte> out(payload.size());
  payload.CopyTo(out.data());
  return out;
}

Payload Copy(const std::vector<std::byte>& bytes) {
  auto copy = std::make_shared<std::vector<std::byte>>(bytes);
  Payload out;
  out.Append(copy->data(), copy->size(), copy);
  return out;
}

// All blocks and slots of a store of Options.
std::vector<BlockId> Ids(const StoreOptions& options) {
  std::vector<BlockId> ids;
  for (uint32_t t = 0; t < options.tensors.size(); ++t) {
    for (uint32_t b = 0; b < options.geometry.blocks(options.tensors[t]); ++b) ids.push_back({TensorId(t), b});
  }
  return ids;
}

// A run of rounds whose gradients depend on the clock alone; key 59 is touched by none.
class TestRun {
 public:
  explicit TestRun(StoreOptions options) : options_(options), store_(BlockStore::Create(options).value()) {}

  BlockStore& store() { return *store_; }
  std::map<BlockId, BlockExport> Exports() {
    std::map<BlockId, BlockExport> out;
    for (BlockId id : Ids(options_)) out[id] = store_->Export(id, true).value();
    return out;
  }
  // Weightless in clocks 4 and 9.
  void Round(uint64_t clock) {
    const RandomStream random(clock, Purpose::kTest, 0, 0);
    const double weight = clock % 5 == 4 ? 0 : 3;
    uint64_t draw = 0;
    for (uint32_t rank = 0; rank < 2; ++rank) {
      for (BlockId id : store_->dense_blocks()) {
        std::vector<float> g(store_->Read(id, std::nullopt)->size() / sizeof(float));
        for (float& x : g) x = static_cast<float>(random.Normal(draw++));
        ASSERT_TRUE(store_->Hold(id, Rank(rank), 1, Floats(g)).ok());
      }
      for (const auto& [slot, keys] : BySlot(random, &draw)) {
        ASSERT_TRUE(store_->HoldSparse({kTable, slot}, Rank(rank), 1, keys.size(), Rows(keys, random, &draw)).ok());
      }
    }
    for (BlockId id : store_->dense_blocks()) ASSERT_TRUE(store_->Commit(id, weight, nullptr).ok());
    for (BlockId id : store_->HeldSlots()) ASSERT_TRUE(store_->Commit(id, weight, nullptr).ok());
    if (weight == 0) store_->SkipStep(Clock(clock));
    store_->AdvanceSlots(clock + 1);
  }
  void Push(uint64_t push) {
    const RandomStream random(push, Purpose::kTest, 0, 0);
    uint64_t draw = 0;
    for (BlockId id : store_->dense_blocks()) {
      std::vector<float> g(store_->Read(id, std::nullopt)->size() / sizeof(float));
      for (float& x : g) x = static_cast<float>(random.Normal(draw++));
      ASSERT_TRUE(store_->Apply(id, 2, Floats(g)).ok());
    }
    for (const auto& [slot, keys] : BySlot(random, &draw)) {
      ASSERT_TRUE(store_->ApplySparse({kTable, slot}, 2, keys.size(), Rows(keys, random, &draw)).ok());
    }
    store_->AdvanceSlotsByPush();
  }
  std::vector<float> Row(uint64_t key) {
    Payload keys;
    keys.Append(&key, sizeof(key), nullptr);
    const Payload row = store_->ReadSparse({kTable, options_.geometry.slot(key)}, 1, keys, std::nullopt).value();
    std::vector<float> out(kDim);
    row.CopyTo(out.data());
    return out;
  }

 private:
  static Payload Floats(const std::vector<float>& values) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    return Copy({bytes, bytes + values.size() * sizeof(float)});
  }
  std::map<uint32_t, std::vector<uint64_t>> BySlot(const RandomStream& random, uint64_t* draw) const {
    std::map<uint32_t, std::vector<uint64_t>> out;
    if (options_.tensors.size() == 1) return out;
    for (uint64_t key = 0; key + 1 < kKeys; ++key) {
      if (random.Below((*draw)++, 6) == 0) out[options_.geometry.slot(key)].push_back(key);
    }
    return out;
  }
  static Payload Rows(const std::vector<uint64_t>& keys, const RandomStream& random, uint64_t* draw) {
    std::vector<float> values(keys.size() * kDim);
    for (float& x : values) x = static_cast<float>(random.Normal((*draw)++));
    const auto* bytes = reinterpret_cast<const std::byte*>(keys.data());
    Payload payload = Copy({bytes, bytes + keys.size() * sizeof(uint64_t)});
    payload.Append(Floats(values));
    return payload;
  }

  const StoreOptions options_;
  std::unique_ptr<BlockStore> store_;
};

void ExpectSame(const BlockExport& a, const BlockExport& b) {
  SCOPED_TRACE("tensor " + std::to_string(a.id.tensor.value) + ", block " + std::to_string(a.id.index));
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.keys, b.keys);
  EXPECT_EQ(a.state_slots, b.state_slots);
  EXPECT_EQ(a.skipped, b.skipped);
  EXPECT_EQ(Bytes(a.payload), Bytes(b.payload));
}

// Some rows of a slot's image.
BlockExport Part(const BlockExport& image, uint32_t first, uint32_t keys) {
  BlockExport part = image;
  part.keys = keys;
  part.payload = image.payload.Sub(first * sizeof(uint64_t), keys * sizeof(uint64_t));
  const size_t row = kDim * sizeof(float);
  for (uint32_t v = 0; v <= image.state_slots; ++v) {
    part.payload.Append(image.payload.Sub(image.keys * (sizeof(uint64_t) + v * row) + first * row, keys * row));
  }
  return part;
}

// Exports of `run` as they were, and what they must stay while it goes on.
struct Kept {
  explicit Kept(TestRun& run) : shared(run.Exports()) {
    for (const auto& [id, image] : shared) bytes[id] = Bytes(image.payload);
  }
  std::map<BlockId, BlockExport> shared;
  std::map<BlockId, std::vector<std::byte>> bytes;
};

TEST(Cut, ExportsStayAsTheyWereAndAStoreMadeOfThemGoesOnWithTheSameBits) {
  for (const char* rule : {"sgd", "momentum", "adagrad", "adam"}) {
    for (bool push : {false, true}) {
      SCOPED_TRACE(std::string(rule) + (push ? " push" : " round"));
      const StoreOptions options = Options(rule, push);
      TestRun run(options);
      const auto go = [push](TestRun& r, uint64_t clock) { push ? r.Push(clock) : r.Round(clock); };
      for (uint64_t c = 0; c < 7; ++c) go(run, c);
      const Kept kept(run);
      for (uint64_t c = 7; c < 12; ++c) go(run, c);
      TestRun restored(options);
      for (const auto& [id, image] : kept.shared) {
        ASSERT_EQ(Bytes(image.payload), kept.bytes.at(id)) << "a step wrote into what was exported";
        BlockExport on_disk = image;
        on_disk.payload = Copy(kept.bytes.at(id));
        if (image.keys > 3) {
          ASSERT_TRUE(restored.store().Install(Part(on_disk, 0, 2)).ok());
          ASSERT_TRUE(restored.store().Install(Part(on_disk, 2, image.keys - 2)).ok());
        } else {
          ASSERT_TRUE(restored.store().Install(on_disk).ok());
        }
      }
      for (const auto& [id, image] : restored.Exports()) ExpectSame(image, kept.shared.at(id));
      for (uint64_t c = 7; c < 12; ++c) go(restored, c);
      const auto want = run.Exports();
      for (const auto& [id, image] : restored.Exports()) ExpectSame(image, want.at(id));
      // A row that no step has made is caught up from the start: the weightless rounds are known too.
      EXPECT_EQ(restored.Row(kKeys - 1), run.Row(kKeys - 1));
    }
  }
}

TEST(Cut, PinnedSlotsAreExportedAsOfThePin) {
  for (bool push : {false, true}) {
    TestRun run(Options("adam", push));
    for (uint64_t c = 0; c < 7; ++c) push ? run.Push(c) : run.Round(c);
    const auto want = run.Exports();
    run.store().PinSlots();
    // The rows rest, but their table goes on, and readers catch them up.
    for (uint64_t c = 7; c < 12; ++c) {
      push ? run.store().AdvanceSlotsByPush() : run.store().AdvanceSlots(c + 1);
      for (uint64_t key = 0; key < kKeys; ++key) run.Row(key);
    }
    const auto now = run.Exports();
    for (uint32_t slot = 0; slot < 4; ++slot) {
      const BlockId id{kTable, slot};
      EXPECT_NE(Bytes(now.at(id).payload), Bytes(want.at(id).payload)) << "what stands now was caught up";
      ExpectSame(run.store().ExportPinned(id).value(), want.at(id));
      ExpectSame(run.store().Export(id, true).value(), now.at(id));
    }
    for (uint64_t key = 0; key < kKeys; ++key) run.Row(key);
    for (const auto& [id, image] : run.Exports()) ExpectSame(image, now.at(id));
  }
}

TEST(Cut, WhatDoesNotFitIsRefusedByName) {
  const StoreOptions options = Options("adam");
  TestRun run(options);
  for (uint64_t c = 0; c < 3; ++c) run.Round(c);
  const auto images = run.Exports();
  const auto refused = [&](const BlockExport& image) {
    TestRun fresh(options);
    const absl::Status status = fresh.store().Install(image);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  BlockExport image = images.at({kDense, 2});
  image.payload = image.payload.Sub(0, 4);
  EXPECT_EQ(refused(image),
            "image of tensor 'w', block 2: expected 50 values and 2 state vectors in 600 bytes, got 2 state vectors, 4 "
            "bytes");
  image = images.at({kDense, 2});
  image.state_slots = 1;
  EXPECT_THAT(refused(image), HasSubstr("got 1 state vectors, 600 bytes"));

  const BlockExport slot = images.at({kTable, 1});
  ASSERT_GT(slot.keys, 3u);
  image = slot;
  --image.keys;
  EXPECT_THAT(refused(image), HasSubstr("image of table 'emb', slot 1: expected 2 state vectors and "));
  image = slot;
  image.id.index = 2;
  EXPECT_THAT(refused(image), HasSubstr("is of slot 1"));
  image = slot;
  image.steps = 2;
  EXPECT_EQ(refused(image), "image of table 'emb', slot 1: expected as many steps as its version 3, got 2");
  TestRun twice(options);
  ASSERT_TRUE(twice.store().Install(Part(slot, 0, 2)).ok());
  EXPECT_THAT(twice.store().Install(Part(slot, 1, 2)).message(), HasSubstr("slot 1: expected each key once, got "));
  image = Part(slot, 2, 1);
  image.version = image.steps = 4;
  EXPECT_EQ(twice.store().Install(image).message(),
            "image of table 'emb', slot 1: expected version 3 and 3 steps as with its first rows, got 4 and 4");
}

TEST(Cut, TheBudgetCountsTheOrderOfPushes) {
  StoreOptions options = Options("adam", true);
  const StoreBudget without = PlanStore(options);
  EXPECT_EQ(without.order, 0u);
  options.recorded_pushes = 1000;
  const StoreBudget budget = PlanStore(options);
  EXPECT_EQ(budget.total(), without.total() + budget.order);
  // 3 blocks of each dense tensor, 4 slots.
  EXPECT_EQ(budget.order, 3u * 1000 * (8 * 10 + 64 + 4 * 4));
  options.self = ServerId(7);  // which has nothing
  EXPECT_EQ(PlanStore(options).order, 0u);
}

TEST(Cut, TheBudgetCountsWhatACutHolds) {
  StoreOptions options = Options("adam");
  const StoreBudget without = PlanStore(options);
  EXPECT_EQ(without.cut, 0u);
  options.cuts = true;
  const StoreBudget budget = PlanStore(options);
  EXPECT_EQ(budget.cut, budget.parameters + budget.state);
  EXPECT_EQ(budget.total(), without.total() + budget.cut);
  options.tensors.resize(1);
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  const StoreBudget dense = PlanStore(options);
  TestRun run(options);
  for (uint64_t c = 0; c < 3; ++c) run.Round(c);
  const uint64_t before = run.store().total_bytes();
  const auto cut = run.Exports();
  EXPECT_EQ(run.store().total_bytes(), before) << "an export is a reference";
  for (uint64_t c = 3; c < 12; ++c) run.Round(c);
  EXPECT_GT(run.store().total_bytes(), dense.total() - dense.cut) << "the cut is held";
  EXPECT_LE(run.store().total_bytes(), dense.total() + 64 * 3 * 9);  // buffers are rounded up to 64 bytes
}

}  // namespace
}  // namespace descent
