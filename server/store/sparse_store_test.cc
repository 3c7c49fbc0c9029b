#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "common/tensor/initial_value.h"
#include "descent/v1/job.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/block_store.h"
#include "server/store/rule_cases.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kRanks = 3;
constexpr uint64_t kKeys = 60;
constexpr uint64_t kFarKey = 0xfffffffffffffffeu;  // keys are any 64 bits

struct Case {
  std::string rule;
  float l2 = 0;
  bool touched_only = false;
  Initializer initializer = {};
  uint32_t dim = 1;
  uint32_t history = 2;
  bool push = false;
  bool decay = true;
  float clip = 0;      // by value
  bool start = false;  // some rows are there from the start, with values of their own
};

// The row that a key starts with; empty: as it is initialised.
std::vector<float> StartRow(const Case& c, uint64_t key) {
  std::vector<float> row;
  if (!c.start || key % 3 != 0) return row;
  for (uint32_t i = 0; i < c.dim; ++i) row.push_back(static_cast<float>(key % 11) / 16 - 0.3f * static_cast<float>(i));
  return row;
}

// With those whose rows are groups.
std::vector<std::string> Rules() {
  std::vector<std::string> rules = AllRules();
  rules.insert(rules.end(), GroupRules().begin(), GroupRules().end());
  return rules;
}

float Rate(Clock clock) { return 0.1f / static_cast<float>(clock.value + 1); }

std::vector<uint64_t> AllKeys() {
  std::vector<uint64_t> keys;
  for (uint64_t k = 0; k < kKeys; ++k) keys.push_back(k);
  keys.push_back(kFarKey);
  return keys;
}

StoreOptions Options(const Case& c) {
  StoreOptions options;
  TensorSpec table;
  table.name = "emb";
  table.sparse = true;
  table.shape = {c.dim};
  table.initializer = c.initializer;
  table.decay = c.decay;
  options.tensors = {table};
  options.geometry.slots = 4;
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.seed = 3;
  options.ranks = kRanks;
  options.rule = UpdateRule::Make(RuleCase(c.rule)).value();
  options.rate = Rate;
  options.l2 = c.l2;
  options.clip.value = c.clip;
  options.l2_touched_rows_only = c.touched_only;
  options.history = c.history;
  options.apply_push = c.push;
  if (c.start) {
    options.start = [c](const TensorSpec& spec) -> absl::StatusOr<std::optional<TensorValues>> {
      EXPECT_EQ(spec.name, "emb");
      TensorValues values;
      for (const uint64_t key : AllKeys()) {
        const std::vector<float> row = StartRow(c, key);
        if (row.empty()) continue;
        values.keys.insert(values.keys.begin(), key);  // in no order of slots
        values.values.insert(values.values.begin(), row.begin(), row.end());
      }
      return values;
    };
  }
  return options;
}

using Rows = std::map<uint64_t, std::vector<float>>;

// Keys and rows of one slot in pieces at odd places.
Payload Pack(const Rows& rows, size_t piece_bytes, bool with_values = true) {
  std::vector<char> bytes;
  const auto append = [&](const void* data, size_t n) {
    bytes.insert(bytes.end(), static_cast<const char*>(data), static_cast<const char*>(data) + n);
  };
  for (const auto& [key, row] : rows) append(&key, sizeof(key));
  for (const auto& [key, row] : rows) {
    if (with_values) append(row.data(), row.size() * sizeof(float));
  }
  Payload payload;
  for (size_t at = 0; at < bytes.size(); at += piece_bytes) {
    const size_t n = std::min(piece_bytes, bytes.size() - at);
    auto copy = std::make_shared<std::vector<char>>(n + 1);
    std::memcpy(copy->data() + 1, bytes.data() + at, n);
    payload.Append(copy->data() + 1, n, copy);
  }
  return payload;
}

std::map<uint32_t, Rows> BySlot(const StoreOptions& options, const Rows& rows) {
  std::map<uint32_t, Rows> out;
  for (const auto& [key, row] : rows) out[options.geometry.slot(key)][key] = row;
  return out;
}

std::vector<float> Floats(const Payload& payload) {
  std::vector<float> out(payload.size() / sizeof(float));
  payload.CopyTo(out.data());
  return out;
}

// What a dense tensor with a row per key would hold.
class DenseTwin {
 public:
  DenseTwin(const Case& c, const StoreOptions& options) : case_(c), options_(options) {
    for (uint64_t key : AllKeys()) {
      Row& row = rows_[key];
      row.w.resize(c.dim);
      InitialRow(options.seed, TensorId(0), c.initializer, key, absl::MakeSpan(row.w));
      if (const std::vector<float> start = StartRow(c, key); !start.empty()) row.w = start;
      for (int s = 0; s < options.rule->state_slots(); ++s) {
        row.state.emplace_back(c.dim, options.rule->initial_state(s));
      }
    }
  }
  // One step of all rows, or of the rows of `gradient` alone.
  void Step(uint64_t t, float scale, const Rows& gradient, bool all) {
    const float l2 = case_.decay ? case_.l2 : 0;
    for (auto& [key, row] : rows_) {
      auto g = gradient.find(key);
      if (g == gradient.end() && !all) continue;
      const std::vector<float> zeros(case_.dim, 0);
      std::vector<float*> state;
      for (auto& s : row.state) state.push_back(s.data());
      const UpdateRule& rule = case_.decay ? *options_.rule : options_.rule->unpenalized();
      std::vector<float> mean = g == gradient.end() ? zeros : g->second;
      for (float& x : mean) {
        x *= scale;
        if (case_.clip > 0) x = std::clamp(x, -case_.clip, case_.clip);
      }
      const descent::Step step{t, Rate(Clock(t - 1)), 1, l2};
      rule.Apply(step, case_.dim, row.w.data(), row.w.data(), state.data(), mean.data());
      Shrink(rule.GroupThreshold(step), &row.w);
    }
  }
  Rows values() const {
    Rows out;
    for (const auto& [key, row] : rows_) out[key] = row.w;
    return out;
  }
  const std::vector<std::vector<float>>& state(uint64_t key) const { return rows_.at(key).state; }

 private:
  static void Shrink(float threshold, std::vector<float>* w) {
    if (threshold == 0) return;
    double lane[8] = {};
    for (size_t i = 0; i < w->size(); ++i) lane[i % 8] += double{(*w)[i]} * (*w)[i];
    const double norm =
        std::sqrt(((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7])));
    for (float& x : *w) x *= norm > threshold ? static_cast<float>(1 - threshold / norm) : 0.0f;
  }
  struct Row {
    std::vector<float> w;
    std::vector<std::vector<float>> state;
  };
  const Case& case_;
  const StoreOptions& options_;
  std::map<uint64_t, Row> rows_;
};

void ExpectRead(BlockStore& store, const StoreOptions& options, std::optional<uint64_t> version, const Rows& want) {
  for (const auto& [slot, rows] : BySlot(options, want)) {
    auto got = store.ReadSparse({TensorId(0), slot}, rows.size(), Pack(rows, 24, false), version);
    ASSERT_TRUE(got.ok()) << got.status();
    std::vector<float> expected;
    for (const auto& [key, row] : rows) expected.insert(expected.end(), row.begin(), row.end());
    ASSERT_EQ(Floats(*got), expected);
  }
}

class SparseStore : public ::testing::Test {
 protected:
  uint64_t Below(uint64_t n) { return random_.Below(draw_++, n); }
  Rows RandomRows(uint32_t dim, uint64_t one_in) {
    Rows rows;
    for (uint64_t key : AllKeys()) {
      if (key % 7 == 5 || Below(one_in) != 0) continue;  // some are never touched
      for (uint32_t i = 0; i < dim; ++i) rows[key].push_back(static_cast<float>(random_.Normal(draw_++)));
    }
    return rows;
  }
  static Rows Add(const Rows& a, const Rows& b) {
    Rows sum = a;
    for (const auto& [key, row] : b) {
      auto [it, inserted] = sum.emplace(key, row);
      for (size_t i = 0; !inserted && i < row.size(); ++i) it->second[i] += row[i];
    }
    return sum;
  }

  void RunRounds(const Case& c) {
    SCOPED_TRACE(c.rule + " l2 " + std::to_string(c.l2) + " dim " + std::to_string(c.dim) +
                 (c.touched_only ? " touched" : ""));
    const StoreOptions options = Options(c);
    auto store = BlockStore::Create(options).value();
    auto other = BlockStore::Create(options).value();
    DenseTwin twin(c, options);
    const bool dense = (c.l2 != 0 || options.rule->proximal()) && c.decay && !c.touched_only;
    const UpdateRule& rule = c.decay ? *options.rule : options.rule->unpenalized();
    const bool idle = rule.idle_without_gradient() && (c.l2 == 0 || !c.decay);
    std::vector<Rows> history = {twin.values()};
    std::set<uint64_t> touched;
    for (const uint64_t key : AllKeys()) {
      if (!StartRow(c, key).empty()) touched.insert(key);
    }
    ExpectRead(*store, options, 0, twin.values());
    for (uint64_t clock = 0; clock < 25; ++clock) {
      std::vector<Rows> g;
      for (uint32_t r = 0; r < kRanks; ++r) g.push_back(RandomRows(c.dim, clock % 5 == 4 ? 40 : 8));
      const Rows left = Add(g[0], g[1]);
      const double weight = clock == 7 || clock == 8 ? 0 : 5;
      for (uint32_t r : {2, 0, 1}) {
        for (const auto& [slot, rows] : BySlot(options, g[r])) {
          ASSERT_TRUE(store->HoldSparse({TensorId(0), slot}, Rank(r), 1, rows.size(), Pack(rows, 13 + r)).ok());
        }
      }
      EXPECT_EQ(store->held_bytes() > 0, !(g[0].empty() && g[1].empty() && g[2].empty()));
      for (const auto& [slot, rows] : BySlot(options, left)) {
        ASSERT_TRUE(other->HoldSparse({TensorId(0), slot}, Rank(0), 2, rows.size(), Pack(rows, 1000)).ok());
      }
      for (const auto& [slot, rows] : BySlot(options, g[2])) {
        ASSERT_TRUE(other->HoldSparse({TensorId(0), slot}, Rank(2), 1, rows.size(), Pack(rows, 1000)).ok());
      }
      const Rows sum = Add(left, g[2]);
      double square = 0, square_other = 0, want = 0;
      ASSERT_EQ(store->HeldSlots(), other->HeldSlots());
      ASSERT_EQ(store->HeldSlots().size(), BySlot(options, sum).size());
      for (BlockId id : store->HeldSlots()) ASSERT_TRUE(store->Commit(id, weight, &square).ok());
      for (BlockId id : other->HeldSlots()) ASSERT_TRUE(other->Commit(id, weight, &square_other).ok());
      if (weight == 0) {
        store->SkipStep(Clock(clock));
        other->SkipStep(Clock(clock));
      }
      store->AdvanceSlots(clock + 1);
      other->AdvanceSlots(clock + 1);
      EXPECT_EQ(store->held_bytes(), 0u);
      if (weight > 0) {
        const float scale = static_cast<float>(1 / weight);
        twin.Step(clock + 1, scale, sum, dense || idle);
        for (const auto& [key, row] : sum) {
          touched.insert(key);
          for (float x : row) want += double{x * scale} * double{x * scale};
        }
      }
      EXPECT_NEAR(square, want, 1e-9 * want);
      EXPECT_EQ(square, square_other);
      history.push_back(twin.values());
      for (uint32_t slot = 0; slot < options.geometry.slots; ++slot) {
        EXPECT_EQ(store->version({TensorId(0), slot}), clock + 1);
      }
      for (uint64_t v = clock + 1 - std::min<uint64_t>(clock + 1, c.history); v <= clock + 1; ++v) {
        SCOPED_TRACE("version " + std::to_string(v) + " at " + std::to_string(clock + 1));
        ASSERT_NO_FATAL_FAILURE(ExpectRead(*store, options, v, history[v]));
      }
      for (uint64_t back = 0; back <= std::min<uint64_t>(clock + 1, c.history); ++back) {  // newest first
        ASSERT_NO_FATAL_FAILURE(ExpectRead(*store, options, clock + 1 - back, history[clock + 1 - back]));
      }
      ASSERT_NO_FATAL_FAILURE(ExpectRead(*other, options, std::nullopt, history.back()));
      EXPECT_EQ(store->ReadSparse({TensorId(0), 0}, 0, Payload(), clock + 2).status().code(),
                absl::StatusCode::kOutOfRange);
      if (clock + 1 > c.history) {
        EXPECT_EQ(store->ReadSparse({TensorId(0), 0}, 0, Payload(), clock - c.history).status().code(),
                  absl::StatusCode::kOutOfRange);
      }
    }
    uint64_t rows = 0;
    for (uint32_t slot = 0; slot < options.geometry.slots; ++slot) {
      auto image = store->Export({TensorId(0), slot}, true).value();
      rows += image.keys;
      EXPECT_EQ(image.version, 25u);
      EXPECT_EQ(image.state_slots, options.rule->state_slots());
      Payload want_image;
      std::vector<uint64_t> keys;
      std::vector<float> values;
      for (uint64_t key : touched) {
        if (options.geometry.slot(key) == slot) keys.push_back(key);
      }
      for (uint64_t key : keys) values.insert(values.end(), history.back()[key].begin(), history.back()[key].end());
      for (int s = 0; s < options.rule->state_slots(); ++s) {
        for (uint64_t key : keys) {
          values.insert(values.end(), twin.state(key)[s].begin(), twin.state(key)[s].end());
        }
      }
      ASSERT_EQ(image.keys, keys.size());
      std::vector<char> bytes(image.payload.size());
      image.payload.CopyTo(bytes.data());
      ASSERT_EQ(bytes.size(), keys.size() * sizeof(uint64_t) + values.size() * sizeof(float));
      EXPECT_EQ(0, std::memcmp(bytes.data(), keys.data(), keys.size() * sizeof(uint64_t)));
      EXPECT_EQ(0, std::memcmp(bytes.data() + keys.size() * 8, values.data(), values.size() * sizeof(float)));
    }
    EXPECT_EQ(rows, touched.size()) << "only a step, or the start, makes a row";
    EXPECT_EQ(store->parameter_bytes(), rows * c.dim * sizeof(float));
  }

  const RandomStream random_{5, Purpose::kTest, 1, 0};
  uint64_t draw_ = 0;
};

TEST_F(SparseStore, HoldsWhatADenseTensorWouldHold) {
  for (const std::string& rule : Rules()) {
    for (float l2 : {0.0f, 0.05f}) {
      for (Initializer initializer : {Initializer{}, Initializer{Initializer::Kind::kUniform, 0.5}}) {
        for (uint32_t dim : {1, 3, 8}) {
          RunRounds({.rule = rule, .l2 = l2, .initializer = initializer, .dim = dim});
        }
        RunRounds({.rule = rule, .l2 = l2, .touched_only = true, .initializer = initializer, .dim = 2});
        RunRounds({.rule = rule, .l2 = l2, .initializer = initializer, .dim = 2, .history = 0});
        RunRounds({.rule = rule, .l2 = l2, .initializer = initializer, .dim = 2, .decay = false});
        RunRounds({.rule = rule, .l2 = l2, .initializer = initializer, .dim = 2, .clip = 0.3f});
      }
    }
  }
}

TEST_F(SparseStore, RowsOfTheStartAreAsADenseTensorThatStartsSo) {
  for (const std::string& rule : Rules()) {
    for (float l2 : {0.0f, 0.05f}) {
      for (Initializer initializer : {Initializer{}, Initializer{Initializer::Kind::kUniform, 0.5}}) {
        RunRounds({.rule = rule, .l2 = l2, .initializer = initializer, .dim = 3, .start = true});
        RunRounds({.rule = rule, .l2 = l2, .touched_only = true, .initializer = initializer, .dim = 2, .start = true});
      }
    }
  }
}

TEST_F(SparseStore, PushesStepRowsAndTheOthersCatchUp) {
  for (const std::string& rule : Rules()) {
    for (float l2 : {0.0f, 0.05f}) {
      const Case c{.rule = rule, .l2 = l2, .initializer = {Initializer::Kind::kUniform, 0.5}, .dim = 3, .push = true};
      SCOPED_TRACE(rule);
      const StoreOptions options = Options(c);
      auto store = BlockStore::Create(options).value();
      DenseTwin twin(c, options);
      std::map<uint32_t, uint64_t> pushes;
      for (uint64_t push = 0; push < 20; ++push) {
        const Rows g = RandomRows(c.dim, 6);
        for (const auto& [slot, rows] : BySlot(options, g)) {
          ASSERT_TRUE(store->ApplySparse({TensorId(0), slot}, 2, rows.size(), Pack(rows, 17)).ok());
          EXPECT_EQ(store->version({TensorId(0), slot}), ++pushes[slot]);
        }
        store->AdvanceSlotsByPush();
        twin.Step(push + 1, 0.5f, g, l2 != 0 || options.rule->proximal() || options.rule->idle_without_gradient());
        ASSERT_NO_FATAL_FAILURE(ExpectRead(*store, options, std::nullopt, twin.values()));
      }
    }
  }
}

TEST_F(SparseStore, PushesThatOverlapLoseNoStep) {
  const Case c{
      .rule = "adam {}", .l2 = 0.05f, .initializer = {Initializer::Kind::kUniform, 0.5}, .dim = 3, .push = true};
  const StoreOptions options = Options(c);
  auto store = BlockStore::Create(options).value();
  DenseTwin twin(c, options);
  Rows g;
  for (uint64_t key : AllKeys()) g[key] = {1, -2, 3};
  // Two pushes touch every row before either is complete: each row makes both steps, and none more.
  for (int push = 0; push < 2; ++push) {
    for (const auto& [slot, rows] : BySlot(options, g)) {
      ASSERT_TRUE(store->ApplySparse({TensorId(0), slot}, 2, rows.size(), Pack(rows, 64)).ok());
    }
    twin.Step(push + 1, 0.5f, g, true);
  }
  store->AdvanceSlotsByPush();
  ExpectRead(*store, options, std::nullopt, twin.values());
  store->AdvanceSlotsByPush();
  ExpectRead(*store, options, std::nullopt, twin.values());
}

// What a restored server goes on with, made in place.
TEST_F(SparseStore, ReinstalledIsAsExportedAndInstalled) {
  const Case c{
      .rule = "adam {}", .l2 = 0.05f, .initializer = {Initializer::Kind::kUniform, 0.5}, .dim = 3, .push = true};
  const StoreOptions options = Options(c);
  const Rows first = RandomRows(c.dim, 4), second = RandomRows(c.dim, 2), third = RandomRows(c.dim, 2);
  const auto push = [&](BlockStore& to, const Rows& g) {
    for (const auto& [slot, rows] : BySlot(options, g)) {
      ASSERT_TRUE(to.ApplySparse({TensorId(0), slot}, 2, rows.size(), Pack(rows, 64)).ok());
    }
  };
  // Rows are behind their table, and ahead of it by two pushes that are not complete.
  const auto make = [&] {
    auto store = BlockStore::Create(options).value();
    push(*store, first);
    store->AdvanceSlotsByPush();
    push(*store, second);
    push(*store, third);
    return store;
  };
  // All that there is after some more steps.
  const auto end_of = [&](BlockStore& store) {
    push(store, first);
    store.SetSlotSteps(5);
    std::vector<std::vector<std::byte>> out;
    for (uint32_t slot = 0; slot < options.geometry.slots; ++slot) {
      const Payload payload = store.Export({TensorId(0), slot}, true)->payload;
      out.emplace_back(payload.size());
      payload.CopyTo(out.back().data());
    }
    return out;
  };
  const auto undisturbed = make(), reinstalled = make();
  const auto installed = BlockStore::Create(options).value();
  for (uint32_t slot = 0; slot < options.geometry.slots; ++slot) {
    const BlockId id{TensorId(0), slot};
    EXPECT_EQ(undisturbed->steps(id), 1u);
    BlockExport image = undisturbed->Export(id, true).value();
    image.ahead.clear();  // as in a cut
    ASSERT_TRUE(installed->Install(image).ok());
    reinstalled->Reinstall(id);
  }
  const auto want = end_of(*installed);
  EXPECT_EQ(end_of(*reinstalled), want);
  EXPECT_NE(end_of(*undisturbed), want) << "rows that count fewer steps make more up";
}

TEST_F(SparseStore, CatchesUpAcrossManySteps) {
  const Case c{.rule = "momentum {}", .l2 = 0.5f, .initializer = {Initializer::Kind::kUniform, 0.5}, .dim = 2};
  const StoreOptions options = Options(c);
  auto store = BlockStore::Create(options).value();
  DenseTwin twin(c, options);
  constexpr uint64_t kSteps = 140'000;  // beyond what is kept prepared
  const Rows one = {{kFarKey, {1, 2}}};
  const BlockId id{TensorId(0), options.geometry.slot(kFarKey)};
  for (uint64_t clock = 0; clock < kSteps; ++clock) {
    const bool touch = clock % 70'000 == 1'000;
    if (touch) {
      ASSERT_TRUE(store->HoldSparse(id, Rank(0), 1, 1, Pack(one, 64)).ok());
      ASSERT_TRUE(store->Commit(id, 1, nullptr).ok());
    }
    const bool skip = clock % 1'000 == 17;
    if (skip) store->SkipStep(Clock(clock));
    store->AdvanceSlots(clock + 1);
    if (!skip) twin.Step(clock + 1, 1, touch ? one : Rows(), true);
  }
  ExpectRead(*store, options, std::nullopt, twin.values());
}

TEST_F(SparseStore, RefusesBeforeAnythingChanges) {
  for (bool push : {false, true}) {
    const Case c{.rule = "sgd {}", .dim = 2, .push = push};
    const StoreOptions options = Options(c);
    auto store = BlockStore::Create(options).value();
    std::vector<uint64_t> own;
    for (uint64_t key : AllKeys()) {
      if (options.geometry.slot(key) == 1) own.push_back(key);
    }
    const auto send = [&](std::vector<uint64_t> keys, std::vector<float> values, uint32_t count) {
      Payload payload;
      payload.Append(keys.data(), keys.size() * sizeof(uint64_t), nullptr);
      payload.Append(values.data(), values.size() * sizeof(float), nullptr);
      const BlockId id{TensorId(0), 1};
      const absl::Status status =
          push ? store->ApplySparse(id, 1, count, payload) : store->HoldSparse(id, Rank(0), 1, count, payload);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(store->version(id), 0u);
      EXPECT_EQ(store->held_bytes(), 0u);
      EXPECT_TRUE(store->HeldSlots().empty());
      EXPECT_EQ(store->Export(id, false)->keys, 0u);
      return std::string(status.message());
    };
    EXPECT_THAT(send({own[0]}, {1}, 1), HasSubstr("table 'emb', slot 1: expected 16 bytes for 1 keys and rows of 2"));
    EXPECT_THAT(send({own[0]}, {1, 2}, 0xffffffffu), HasSubstr("got 16"));
    EXPECT_THAT(send({own[1], own[0]}, {1, 2, 3, 4}, 2), HasSubstr("keys must be unique and ascending"));
    EXPECT_THAT(send({own[0], own[0]}, {1, 2, 3, 4}, 2), HasSubstr("keys must be unique and ascending"));
    uint64_t alien = 0;
    while (options.geometry.slot(alien) == 1) ++alien;
    EXPECT_THAT(send({alien}, {1, 2}, 1), HasSubstr("is of slot"));
    EXPECT_THAT(
        send({own[0], own[1]}, {1, 2, 3, std::numeric_limits<float>::quiet_NaN()}, 2),
        HasSubstr("table 'emb', key " + std::to_string(own[1]) + ", column 1: expected a finite number, got nan"));
  }
}

TEST_F(SparseStore, SumThatOverflowsIsNotApplied) {
  const Case c{.rule = "sgd {}", .dim = 1};
  const StoreOptions options = Options(c);
  auto store = BlockStore::Create(options).value();
  const Rows rows = {{7, {3e38f}}};
  const BlockId id{TensorId(0), options.geometry.slot(7)};
  for (uint32_t r : {0, 2}) ASSERT_TRUE(store->HoldSparse(id, Rank(r), 1, 1, Pack(rows, 64)).ok());
  const absl::Status status = store->Commit(id, 2, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("table 'emb', key 7, column 0"));
  EXPECT_EQ(store->version(id), 0u);
  EXPECT_EQ(store->Export(id, false)->keys, 0u);
}

TEST_F(SparseStore, ReadingMakesNoRow) {
  const Case c{.rule = "sgd {}", .l2 = 0.1f, .initializer = {Initializer::Kind::kNormal, 1}, .dim = 2};
  const StoreOptions options = Options(c);
  auto store = BlockStore::Create(options).value();
  const uint64_t bytes = store->total_bytes();
  ExpectRead(*store, options, std::nullopt, DenseTwin(c, options).values());
  for (uint32_t slot = 0; slot < 4; ++slot) EXPECT_EQ(store->Export({TensorId(0), slot}, true)->keys, 0u);
  EXPECT_LT(store->total_bytes(), bytes + 100'000);
}

}  // namespace
}  // namespace descent
