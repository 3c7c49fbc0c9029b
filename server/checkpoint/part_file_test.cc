#include "server/checkpoint/part_file.h"

#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files/crc32c.h"
#include "common/files/file.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

const CutId kCut{RunId(7), Generation(2), 500};

class PartFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/part_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    storage_ = MakePosixStorage(root_);
    ASSERT_TRUE(storage_->MakeFolder("cut").ok());
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(root_).ok()); }

  std::string root_;
  std::unique_ptr<Storage> storage_;
};

std::shared_ptr<std::vector<float>> Floats(size_t n, float first) {
  auto values = std::make_shared<std::vector<float>>(n);
  std::iota(values->begin(), values->end(), first);
  return values;
}

TEST_F(PartFileTest, ABlockAndALargeSlot) {
  constexpr uint32_t kDim = 64, kKeys = 5000;  // with one optimizer vector 2.6 MB
  BlockExport block;
  block.id = BlockId{TensorId(0), 4};
  block.version = 500;
  block.steps = 499;
  block.skipped = {7, 9};
  const auto dense = Floats(1000, 0);
  block.payload.Append(dense->data(), dense->size() * sizeof(float), dense);

  BlockExport slot;
  slot.id = BlockId{TensorId(1), 3};
  slot.version = 500;
  slot.keys = kKeys;
  slot.state_slots = 1;
  slot.order = "what made it";
  const auto keys = std::make_shared<std::vector<uint64_t>>(kKeys);
  std::iota(keys->begin(), keys->end(), uint64_t{10});
  const auto rows = Floats(2 * kKeys * kDim, 1);
  slot.payload.Append(keys->data(), kKeys * sizeof(uint64_t), keys);
  slot.payload.Append(rows->data(), rows->size() * sizeof(float), rows);

  BlockExport empty;
  empty.id = BlockId{TensorId(1), 5};

  auto writer = PartFileWriter::Create(storage_.get(), "cut", kCut, ServerId(3));
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append(block, 0, {500, 500}).ok());
  ASSERT_TRUE((*writer)->Append(slot, kDim, {500, 500}).ok());
  ASSERT_TRUE((*writer)->Append(empty, kDim, {500, 500}).ok());
  const auto part = (*writer)->Finish();
  ASSERT_TRUE(part.ok()) << part.status();
  const std::string bytes = ReadFile(absl::StrCat(root_, "/cut/server-3.part")).value();
  EXPECT_EQ(part->name(), "server-3.part");
  EXPECT_EQ(part->bytes(), bytes.size());
  EXPECT_EQ(part->crc32c(), Crc32c(bytes));
  EXPECT_FALSE((*writer)->Append(empty, kDim, {500, 500}).ok());

  auto reader = PartFileReader::Open(storage_.get(), "cut/server-3.part", 1000);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<uint64_t> read_keys;
  std::vector<float> read_rows, read_state;
  v1::CutRecord header;
  uint64_t records = 0;
  while ((*reader)->NextHeader(&header).value()) {
    ++records;
    EXPECT_EQ(header.run(), 7u);
    EXPECT_EQ(header.generation(), 2u);
    EXPECT_EQ(header.cut(), 500u);
    EXPECT_EQ(header.mark_size(), 2);
    EXPECT_EQ(header.order(), header.index() == 3 && read_keys.empty() ? "what made it" : "") << "once";
    const auto payload = (*reader)->TakePayload();
    ASSERT_TRUE(payload.ok()) << payload.status();
    if (header.tensor() == 0) {
      std::vector<float> values(1000);
      ASSERT_EQ(payload->size(), values.size() * sizeof(float));
      payload->CopyTo(values.data());
      EXPECT_EQ(values, *dense);
      const BlockExport back = ImageOf(header, *payload);
      EXPECT_EQ(back.id, block.id);
      EXPECT_EQ(back.version, 500u);
      EXPECT_EQ(back.steps, 499u);
      EXPECT_EQ(back.skipped, block.skipped);
      EXPECT_EQ(back.payload.size(), payload->size());
      continue;
    }
    EXPECT_LE(payload->size(), kMaxSlotRecordBytes);
    EXPECT_EQ(header.more(), header.index() == 3 && read_keys.size() + header.keys() < kKeys);
    const BlockExport back = ImageOf(header, *payload);
    EXPECT_EQ(back.keys, header.keys());
    EXPECT_EQ(back.state_slots, header.state_slots());
    EXPECT_EQ(back.order, header.order());
    const size_t n = header.keys(), at = read_keys.size();
    read_keys.resize(at + n);
    read_rows.resize((at + n) * kDim);
    read_state.resize((at + n) * kDim);
    PayloadReader take(*payload);
    take.CopyTo(read_keys.data() + at, n * sizeof(uint64_t));
    take.CopyTo(read_rows.data() + at * kDim, n * kDim * sizeof(float));
    take.CopyTo(read_state.data() + at * kDim, n * kDim * sizeof(float));
    EXPECT_EQ(take.remaining(), 0u);
  }
  EXPECT_EQ(records, part->records());
  EXPECT_EQ(records, 5u);
  EXPECT_EQ(read_keys, *keys);
  EXPECT_EQ(read_rows, std::vector<float>(rows->begin(), rows->begin() + kKeys * kDim));
  EXPECT_EQ(read_state, std::vector<float>(rows->begin() + kKeys * kDim, rows->end()));
  EXPECT_EQ((*reader)->crc32c(), part->crc32c());

  // Skipping payloads finds the same headers.
  reader = PartFileReader::Open(storage_.get(), "cut/server-3.part", 1000);
  records = 0;
  while ((*reader)->NextHeader(&header).value()) {
    ++records;
    (*reader)->SkipPayload();
  }
  EXPECT_EQ(records, part->records());
}

TEST_F(PartFileTest, AnEarlierTryIsNotOverwritten) {
  ASSERT_TRUE(PartFileWriter::Create(storage_.get(), "cut", kCut, ServerId(0)).ok());
  EXPECT_EQ(PartFileWriter::Create(storage_.get(), "cut", kCut, ServerId(0)).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(PartFileWriter::Create(storage_.get(), "none", kCut, ServerId(0)).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace descent
