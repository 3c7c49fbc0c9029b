#include "server/checkpoint/manifest.h"

#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/checkpoint/cut_id.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

TEST(CutIdTest, NamesAndBack) {
  const CutId id{RunId(1), Generation(2), 500};
  EXPECT_EQ(CutFolderName(id), "cut-000000000500-g2");
  EXPECT_EQ(ParseCutFolderName("cut-000000000500-g2"), (CutId{RunId(0), Generation(2), 500}));
  const CutId most{RunId(0), Generation(kUnbounded), kUnbounded};
  EXPECT_EQ(CutFolderName(most), "cut-18446744073709551615-g18446744073709551615");
  EXPECT_EQ(ParseCutFolderName(CutFolderName(most)), most);
  for (const char* name :
       {"cut-500-g2", "cut-000000000500-g02", "cut-000000000500", "cut-000000000500-g", "cut--g2",
        "cut-0000000005x0-g2", "cut-000000000500-g2 ", "cut-+00000000500-g2", "x", "", "cut-18446744073709551616-g2"}) {
    EXPECT_EQ(ParseCutFolderName(name), std::nullopt) << name;
  }
  EXPECT_EQ(ParsePartFileName(PartFileName(ServerId(17))), ServerId(17));
  for (const char* name : {"server-.part", "server-01.part", "server-1", "server-1.part.part", "../server-1.part"}) {
    EXPECT_EQ(ParsePartFileName(name), std::nullopt) << name;
  }
  EXPECT_EQ(ParseGenerationFileName(GenerationFileName(Generation(3))), Generation(3));
  EXPECT_EQ(ParseGenerationFileName("generation-03"), std::nullopt);
}

v1::CutManifest Good() {
  v1::CutManifest manifest;
  manifest.set_format(kCutFormat);
  manifest.set_run(1);
  manifest.set_generation(2);
  manifest.set_number(500);
  manifest.add_restart_clock(500);
  v1::TensorSpec* w = manifest.add_tensor();
  w->set_name("w");
  w->add_shape(10);
  v1::TensorSpec* t = manifest.add_tensor();
  t->set_name("t");
  t->set_sparse(true);
  t->add_shape(3);
  manifest.set_block_elements(4);
  manifest.set_slots(2);
  manifest.add_blocks(3);
  manifest.add_blocks(2);
  v1::PartFile* part = manifest.add_part();
  part->set_name("server-0.part");
  part->set_bytes(1000);
  part->set_records(5);
  return manifest;
}

TEST(ManifestTest, ThereAndBack) {
  v1::CutManifest manifest = Good();
  manifest.set_coordinator_state(std::string("\0\1\2", 3));
  const auto decoded = DecodeManifest(EncodeManifest(manifest));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->SerializeAsString(), manifest.SerializeAsString());
  EXPECT_THAT(std::string(DecodeManifest("DESCMF02aaaaaaaaaaaaaaaaaaaa").status().message()),
              HasSubstr("begins with 'DESCMF02', expected 'DESCMF01'"));
  EXPECT_EQ(DecodeManifest("").status(), absl::DataLossError("has 0 bytes, expected at least 20"));
}

TEST(ManifestTest, LayoutAndPayloads) {
  const auto layout = CheckManifest(Good());
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->id, (CutId{RunId(1), Generation(2), 500}));
  EXPECT_EQ(layout->blocks, 5u);
  EXPECT_EQ(PayloadBytes(*layout, BlockId{TensorId(0), 0}, 0, 0), 16u);
  EXPECT_EQ(PayloadBytes(*layout, BlockId{TensorId(0), 2}, 0, 2), 2 * 4 * 3u);
  EXPECT_EQ(PayloadBytes(*layout, BlockId{TensorId(1), 0}, 7, 1), 7 * (8 + 2 * 12u));
}

TEST(ManifestTest, WhatMakesNoSenseIsNamed) {
  const auto says = [](const std::function<void(v1::CutManifest*)>& change, const std::string& text) {
    v1::CutManifest manifest = Good();
    change(&manifest);
    const absl::Status status = CheckManifest(manifest).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  says([](auto* m) { m->set_format(2); }, "format 2, expected 1");
  says([](auto* m) { m->set_apply(static_cast<v1::Apply>(5)); }, "apply 5");
  says([](auto* m) { m->clear_restart_clock(); }, "there are no ranks");
  says([](auto* m) { m->set_restart_clock(0, 499); }, "restart_clock of rank 0 is 499, expected the cut's clock 500");
  says([](auto* m) { m->clear_tensor(); }, "the model has no tensors");
  says([](auto* m) { m->mutable_tensor(1)->set_name("w"); }, "two tensors are called 'w'");
  says([](auto* m) { m->set_block_elements(0); }, "block_elements is 0");
  says([](auto* m) { m->set_slots(3); }, "slots is 3, expected a power of two");
  says([](auto* m) { m->set_blocks(0, 4); }, "4, expected 3");
  says([](auto* m) { m->add_blocks(1); }, "blocks of 3 tensors, but there are 2");
  says([](auto* m) { m->mutable_part(0)->set_name("../MANIFEST"); }, "part '../MANIFEST': expected server-<id>.part");
  says([](auto* m) { *m->add_part() = m->part(0); }, "part server-0.part is listed twice");
  says([](auto* m) { m->mutable_part(0)->set_records(126); }, "126 records in 1000 bytes");
  says([](auto* m) { m->mutable_part(0)->set_records(4); }, "the parts have 4 records, but the model has 5 blocks");
  // Sizes that would overflow or take all memory.
  says(
      [](auto* m) {
        m->mutable_tensor(0)->set_shape(0, uint64_t{1} << 40);
        m->set_block_elements(1);
      },
      "has too many blocks");
  says([](auto* m) { m->mutable_tensor(0)->set_shape(0, kUnbounded); }, "takes the model over");
  says(
      [](auto* m) {
        m->mutable_tensor(0)->set_shape(0, uint64_t{1} << 30);
        m->set_block_elements(1);
        m->set_blocks(0, uint64_t{1} << 30);
      },
      "but the model has 1073741826 blocks");
}

TEST(ManifestTest, UnderPushClocksAreTheRanksOwn) {
  v1::CutManifest manifest = Good();
  manifest.set_apply(v1::PUSH);
  manifest.set_restart_clock(0, 42);
  manifest.set_metric_name("loss");
  manifest.set_metric(std::numeric_limits<double>::quiet_NaN());
  const auto layout = CheckManifest(manifest);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_TRUE(layout->apply_push);
  EXPECT_EQ(layout->restart[0], Clock(42));
}

}  // namespace
}  // namespace descent
