#include "common/saved_model/saved_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/files/file.h"
#include "common/saved_model/canonical_hash.h"
#include "common/saved_model/model_writer.h"
#include "common/saved_model/npy_header.h"

namespace descent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SavedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/saved-model-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }
  std::string dir() const { return folder_ + "/model"; }

  static ModelDescription Description() {
    ModelDescription d;
    d.job_text = "name: \"x\"\n";
    d.seed = 7;
    d.slots = 4;
    d.features = 3;
    d.sparse = true;
    d.classes = 2;
    d.threshold = 0.1;
    d.clock = 42;
    d.specs = {{.name = "layer1/weights", .shape = {3, 2}, .initializer = {}},
               {.name = "table", .sparse = true, .shape = {2}, .initializer = {Initializer::Kind::kUniform, 0.5}},
               {.name = "bias", .shape = {2}, .role = TensorRole::kStatistic, .decay = false, .initializer = {}}};
    return d;
  }
  static std::vector<uint64_t> Keys(size_t n) {
    Geometry geometry;
    geometry.slots = 4;
    std::vector<uint64_t> keys;
    for (uint64_t k = 0; k < n; ++k) keys.push_back(k * 0x9e3779b97f4a7c15u);
    std::sort(keys.begin(), keys.end(),
              [&](uint64_t a, uint64_t b) { return std::pair(geometry.slot(a), a) < std::pair(geometry.slot(b), b); });
    return keys;
  }
  static std::vector<float> Rows(size_t n) {
    std::vector<float> rows;
    for (size_t i = 0; i < 2 * n; ++i) rows.push_back(static_cast<float>(i) / 3);
    return rows;
  }
  // Writes in pieces of `piece` elements or rows; returns parameters_sha256.
  std::string Write(size_t keys, size_t piece, float first = 1) {
    auto writer = ModelWriter::Begin(dir(), Description());
    EXPECT_TRUE(writer.ok()) << writer.status();
    const std::vector<float> weights = {first, 2, 3, 4, 5, 6};
    for (size_t i = 0; i < weights.size(); i += piece) {
      EXPECT_TRUE((*writer)->AppendDense(TensorId(0), absl::MakeConstSpan(weights).subspan(i, piece)).ok());
    }
    const auto k = Keys(keys);
    const auto rows = Rows(keys);
    for (size_t i = 0; i < keys; i += piece) {
      const absl::Status status = (*writer)->AppendRows(TensorId(1), absl::MakeConstSpan(k).subspan(i, piece),
                                                        absl::MakeConstSpan(rows).subspan(2 * i, 2 * piece));
      EXPECT_TRUE(status.ok()) << status;
    }
    EXPECT_TRUE((*writer)->AppendDense(TensorId(2), {-1, -2}).ok());
    auto hash = (*writer)->Finish();
    EXPECT_TRUE(hash.ok()) << hash.status();
    return hash.ok() ? *hash : "";
  }
  void Flip(const std::string& file, absl::string_view find) {
    auto bytes = ReadFile(file);
    ASSERT_TRUE(bytes.ok());
    const size_t at = bytes->find(std::string(find));
    ASSERT_NE(at, std::string::npos);
    (*bytes)[at] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(file, *bytes).ok());
  }

  std::string folder_;
};

TEST_F(SavedModelTest, WhatIsWrittenIsReadBack) {
  const std::string hash = Write(1000, 64);
  auto model = SavedModel::Load(dir());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->parameters_sha256(), hash);
  const ModelDescription& d = (*model)->description();
  EXPECT_EQ(d.specs, Description().specs);
  EXPECT_EQ(d.job_text, Description().job_text);
  EXPECT_EQ(d.seed, 7u);
  EXPECT_EQ(d.slots, 4u);
  EXPECT_EQ(d.features, 3u);
  EXPECT_EQ(d.classes, 2u);
  EXPECT_EQ(d.threshold, 0.1);
  EXPECT_EQ(d.clock, 42u);
  EXPECT_TRUE(d.sparse);
  EXPECT_THAT((*model)->dense(TensorId(0)), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT((*model)->dense(TensorId(2)), ElementsAre(-1, -2));
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*model)->dense(TensorId(0)).data()) % 64, 0u);
  const auto keys = Keys(1000);
  EXPECT_EQ(std::vector<uint64_t>((*model)->keys(TensorId(1)).begin(), (*model)->keys(TensorId(1)).end()), keys);
  for (size_t i = 0; i < keys.size(); ++i) {
    const float* row = (*model)->FindRow(TensorId(1), keys[i]);
    ASSERT_NE(row, nullptr);
    EXPECT_EQ(row[0], Rows(1000)[2 * i]);
    EXPECT_EQ(row[1], Rows(1000)[2 * i + 1]);
  }
  EXPECT_EQ((*model)->FindRow(TensorId(1), 12345), nullptr);
  auto left = ListFolder(folder_);
  ASSERT_TRUE(left.ok());
  EXPECT_THAT(*left, ElementsAre("model"));
  auto inside = ListFolder(dir());
  ASSERT_TRUE(inside.ok());
  EXPECT_THAT(*inside, ElementsAre("model.json", "model.npz"));
}

TEST_F(SavedModelTest, TheHashIsOfTheNumbersAndNotOfThePieces) {
  const std::string hash = Write(100, 1);
  EXPECT_EQ(Write(100, 7), hash);
  EXPECT_NE(Write(99, 7), hash);
  EXPECT_NE(Write(100, 7, 1.0000001f), hash);
}

TEST_F(SavedModelTest, TheHashIsTheDocumentedOne) {
  // By hand: printf 'b\0D' and 64-bit 1, 2, floats 1.0, -2.0; 't\0T', 1, 1, key 3, float 0.5, count 1 | sha256sum.
  CanonicalHash hash;
  hash.Begin({.name = "b", .shape = {2}, .initializer = {}});
  hash.Floats({1.0f});
  hash.Floats({-2.0f});
  hash.Begin({.name = "t", .sparse = true, .shape = {1}, .initializer = {}});
  hash.Key(3);
  hash.Floats({0.5f});
  EXPECT_EQ(hash.Finish(), "f2c444ffddfe8c5b2a9f42d9631de94bf1c7b827df8a7db8bd907affb73f6d81");
}

TEST_F(SavedModelTest, StateIsHashedApartFromParameters) {
  const TensorSpec spec = {.name = "b", .shape = {1}, .initializer = {}};
  CanonicalHash parameters, state;
  parameters.Begin(spec);
  state.Begin(spec, 1);
  for (CanonicalHash* hash : {&parameters, &state}) hash->Floats({1.0f});
  state.Floats({0.25f});
  EXPECT_NE(parameters.Finish(), state.Finish());
}

TEST_F(SavedModelTest, AModelIsReplacedWhole) {
  Write(3, 1);
  const std::string second = Write(4, 2, 9);
  auto model = SavedModel::Load(dir());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->parameters_sha256(), second);
  auto left = ListFolder(folder_);
  ASSERT_TRUE(left.ok());
  EXPECT_THAT(*left, ElementsAre("model"));
}

TEST_F(SavedModelTest, AnUnfinishedModelLeavesNothing) {
  {
    auto writer = ModelWriter::Begin(dir(), Description());
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->AppendDense(TensorId(0), {1, 2}).ok());
  }
  auto left = ListFolder(folder_);
  ASSERT_TRUE(left.ok());
  EXPECT_TRUE(left->empty());
}

TEST_F(SavedModelTest, AnEmptyTableIsOne) {
  Write(0, 1);
  auto model = SavedModel::Load(dir());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE((*model)->keys(TensorId(1)).empty());
}

TEST_F(SavedModelTest, WrongOrdersAndLengthsAreRefused) {
  auto writer = ModelWriter::Begin(dir(), Description());
  ASSERT_TRUE(writer.ok());
  ModelWriter& w = **writer;
  EXPECT_THAT(w.AppendDense(TensorId(0), {1, 2, 3, 4, 5, 6, 7}).ToString(),
              HasSubstr("tensor \"layer1/weights\": 6 elements were expected, 7 came"));
  EXPECT_TRUE(w.AppendDense(TensorId(0), {1, 2, 3, 4, 5}).ok());
  EXPECT_THAT(w.AppendRows(TensorId(1), {1}, {1, 2}).ToString(), HasSubstr("6 elements were expected, 5 came"));
  EXPECT_TRUE(w.AppendDense(TensorId(0), {6}).ok());
  EXPECT_THAT(w.AppendRows(TensorId(1), {1}, {1, 2, 3}).ToString(), HasSubstr("1 rows of 2 floats were expected"));
  const auto keys = Keys(2);
  EXPECT_THAT(w.AppendRows(TensorId(1), {keys[1], keys[0]}, {1, 2, 3, 4}).ToString(),
              HasSubstr("ascending (slot, key) was expected"));
  EXPECT_THAT(w.AppendDense(TensorId(1), {1}).ToString(), HasSubstr("no dense tensor"));
  EXPECT_THAT(w.AppendDense(TensorId(0), {1}).ToString(), HasSubstr("the order of the specs was expected"));
  EXPECT_FALSE(w.Finish().ok());
}

TEST_F(SavedModelTest, DamageIsFoundAndNamed) {
  Write(10, 3);
  const std::string npz = dir() + "/model.npz";
  const std::string json = dir() + "/model.json";
  const std::string good = *ReadFile(npz);
  const float six = 6;
  Flip(npz, absl::string_view(reinterpret_cast<const char*>(&six), 4));
  absl::Status status = SavedModel::Load(dir()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.ToString(), AllOf(HasSubstr(npz), HasSubstr("layer1/weights.npy")));

  ASSERT_TRUE(WriteFileAtomically(npz, good.substr(0, good.size() / 2)).ok());
  EXPECT_THAT(SavedModel::Load(dir()).status().ToString(), AllOf(HasSubstr(npz), HasSubstr("no zip archive")));
  ASSERT_TRUE(WriteFileAtomically(npz, good).ok());

  const std::string text = *ReadFile(json);
  std::string other = text;
  const size_t at = other.find("\"parameters_sha256\": \"") + 22;
  other[at] = other[at] == '0' ? '1' : '0';
  ASSERT_TRUE(WriteFileAtomically(json, other).ok());
  EXPECT_THAT(SavedModel::Load(dir()).status().ToString(), AllOf(HasSubstr(npz), HasSubstr("parameters_sha256")));

  std::string big = text;
  big.replace(big.find("\"rows\": 10"), 10, "\"rows\": 1152921504606846976");
  ASSERT_TRUE(WriteFileAtomically(json, big).ok());
  EXPECT_THAT(SavedModel::Load(dir()).status().ToString(), AllOf(HasSubstr(npz), HasSubstr("too short")));

  ASSERT_TRUE(WriteFileAtomically(json, "{ nonsense").ok());
  EXPECT_THAT(SavedModel::Load(dir()).status().ToString(), HasSubstr(json));
  EXPECT_EQ(SavedModel::Load(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(NpyHeaderTest, IsNumpysOwnForm) {
  const std::string header = NpyHeader(kNpyFloat32, {3, 2});
  EXPECT_EQ(header.size(), 128u);
  EXPECT_THAT(header.substr(10), HasSubstr("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"));
  EXPECT_THAT(NpyHeader(kNpyUint64, {5}), HasSubstr("'shape': (5,), }"));
}

}  // namespace
}  // namespace descent
