// Records whose checksums are right and whose contents are not: what a server with a bug, or of another cluster, would
// write.
#include "server/checkpoint/cut_reader.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/small_cut.h"
#include "tests/support/simulated_disk.h"

namespace descent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const CutId kCut = TestCut(3, 9);

class CutReaderTest : public ::testing::Test {
 protected:
  static std::vector<TestRecord> AllRecords() {
    std::vector<TestRecord> records;
    for (const BlockId block : TestBlocks()) {
      for (TestRecord& record : RecordsOf(kCut, block)) records.push_back(std::move(record));
    }
    return records;
  }
  // One part with these records and a manifest that lists it; then read back.
  absl::Status Read(const std::vector<TestRecord>& records, const CutId& written, const v1::CutManifest& like) {
    CheckpointFolder folder(&disk_);
    const std::string path = folder.CutPath(kCut);
    EXPECT_TRUE(disk_.Remove(path).ok());
    EXPECT_TRUE(folder.Prepare(kCut).ok());
    v1::CutManifest manifest = like;
    *manifest.add_part() = WritePart(&disk_, path, written, ServerId(0), records).value();
    if (absl::Status status = folder.Commit(manifest); !status.ok()) return status;
    return ReadCut(&disk_, path).status();
  }
  absl::Status Read(const std::vector<TestRecord>& records) { return Read(records, kCut, TestManifest(kCut)); }
  void ExpectLost(const absl::Status& status, absl::string_view reason) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("cut-000000000009-g3/server-0.part: ", reason)));
  }

  SimulatedDisk disk_{[](uint64_t) { return uint64_t{0}; }};
};

TEST_F(CutReaderTest, ReadsWhatWasWritten) {
  CheckpointFolder folder(&disk_);
  for (uint32_t servers = 1; servers <= 4; ++servers) {
    const CutId cut = TestCut(1, servers);
    ASSERT_TRUE(WriteCut(&disk_, &folder, cut, servers).ok());
    const auto contents = ReadCut(&disk_, folder.CutPath(cut));
    ASSERT_TRUE(contents.ok()) << contents.status();
    EXPECT_EQ(*contents, ExpectedContents(cut));
  }
}

TEST_F(CutReaderTest, HandsOutWhatIsWanted) {
  CheckpointFolder folder(&disk_);
  ASSERT_TRUE(WriteCut(&disk_, &folder, kCut, 2).ok());
  const auto reader = CutReader::Open(&disk_, folder.CutPath(kCut));
  ASSERT_TRUE(reader.ok()) << reader.status();
  for (const CutReader::Extent extent : {CutReader::Extent::kEverything, CutReader::Extent::kWanted}) {
    std::vector<uint32_t> slots;
    std::vector<bool> more;
    const absl::Status read = (*reader)->ForEach([](BlockId id) { return id.tensor == TensorId(1) && id.index != 1; },
                                                 [&](const v1::CutRecord& header, const Payload& payload) {
                                                   slots.push_back(header.index());
                                                   more.push_back(header.more());
                                                   return absl::OkStatus();
                                                 },
                                                 extent);
    EXPECT_TRUE(read.ok()) << read;
    EXPECT_THAT(slots, ElementsAre(3, 0, 0, 2));
    EXPECT_THAT(more, ElementsAre(false, true, false, false));
  }
  const absl::Status stopped =
      (*reader)->ForEach([](BlockId) { return true; },
                         [](const v1::CutRecord&, const Payload&) { return absl::ResourceExhaustedError("no room"); });
  EXPECT_EQ(stopped, absl::ResourceExhaustedError("no room"));
}

TEST_F(CutReaderTest, OrdersMakeHeadersLargeWhereTheyAreRecorded) {
  std::vector<TestRecord> records = AllRecords();
  records[1].header.set_order(std::string(size_t{3} << 20, 'o'));
  v1::CutManifest manifest = TestManifest(kCut);
  const absl::Status refused = Read(records, kCut, manifest);
  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("a header of 3145"));
  manifest.set_job_text("name: \"small\"\nrecord_order: true\n");
  EXPECT_TRUE(Read(records, kCut, manifest).ok());
}

TEST_F(CutReaderTest, EveryFieldOfAHeaderIsChecked) {
  EXPECT_TRUE(Read(AllRecords()).ok());
  const auto with = [&](size_t record, const std::function<void(TestRecord*)>& change) {
    std::vector<TestRecord> records = AllRecords();
    change(&records[record]);
    return Read(records);
  };
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_tensor(2); }), "record 2: tensor 2, expected one of 2");
  ExpectLost(with(0, [](TestRecord* r) { r->header.set_tensor(1); }),
             "record 1: slot 0 of tensor 't': a payload of 32 bytes, expected 0");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_index(3); }),
             "record 2: block 3 of tensor 'w', expected one of 3");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_index(0); }), "record 2: block 0 of tensor 'w' is there twice");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_version(8); }),
             "record 2: block 1 of tensor 'w': version 8, expected the cut's clock 9");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_mark(1, 8); }),
             "record 2: block 1 of tensor 'w': mark of rank 1 is 8, expected 9");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_mark(1, 10); }),
             "record 2: block 1 of tensor 'w': mark of rank 1 is 10, expected 9");
  ExpectLost(with(1, [](TestRecord* r) { r->header.add_mark(9); }),
             "record 2: block 1 of tensor 'w': marks of 3 ranks, expected 2");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_state_slots(2); }),
             "record 2: block 1 of tensor 'w': a payload of 32 bytes, expected 48");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_state_slots(4000000000); }),
             "record 2: block 1 of tensor 'w': 4000000000 optimizer vectors, expected at most 64");
  ExpectLost(with(1, [](TestRecord* r) { r->header.set_keys(1); }), "record 2: block 1 of tensor 'w' has keys");
  ExpectLost(with(1, [](TestRecord* r) { r->payload += "1234"; }),
             "record 2: block 1 of tensor 'w': a payload of 36 bytes, expected 32");
  ExpectLost(with(4, [](TestRecord* r) { r->header.set_keys(4000000000); }),
             "record 5: slot 0 of tensor 't': a payload of 24 bytes, expected 96000000000");
  ExpectLost(with(4, [](TestRecord* r) { r->header.set_steps(7); }),
             "record 5: slot 0 of tensor 't', expected further rows of slot 0 of tensor 't' at version 9");
}

TEST_F(CutReaderTest, OfAnotherClusterOrCut) {
  ExpectLost(Read(AllRecords(), CutId{RunId(7), Generation(3), 9}, TestManifest(kCut)),
             "record 1: of run 0000000000000007, expected feedfeed12345678");
  ExpectLost(Read(AllRecords(), TestCut(2, 9), TestManifest(kCut)), "record 1: of generation 2, expected 3");
  ExpectLost(Read(AllRecords(), TestCut(3, 8), TestManifest(kCut)), "record 1: of cut 8, expected 9");
}

TEST_F(CutReaderTest, BlocksMissingOrTorn) {
  std::vector<TestRecord> records = AllRecords();
  // Slot 0 has two records, so there are as many as blocks still, and the manifest makes sense.
  records.erase(records.begin() + 2);
  EXPECT_EQ(Read(records),
            absl::DataLossError("cut-000000000009-g3: block 2 of tensor 'w' is in none of the part files"));

  records = AllRecords();  // slot 0 is records 3 and 4
  std::swap(records[4], records[5]);
  ExpectLost(Read(records), "record 5: slot 1 of tensor 't', expected further rows of slot 0");
  records = AllRecords();
  std::rotate(records.begin() + 4, records.begin() + 5, records.end());
  records.pop_back();
  ExpectLost(Read(records), "record 5: slot 1 of tensor 't', expected further rows of slot 0");
  records = AllRecords();
  records.back().header.set_more(true);
  ExpectLost(Read(records), "ends where further rows of a slot were to follow");
}

TEST_F(CutReaderTest, UnderPushMarksMayBeAheadOfTheClockToRestartAt) {
  v1::CutManifest manifest = TestManifest(kCut);
  manifest.set_apply(v1::PUSH);
  manifest.set_restart_clock(0, 4);
  manifest.set_restart_clock(1, 6);
  std::vector<TestRecord> records = AllRecords();
  records[0].header.set_version(77);
  records[0].header.set_mark(0, 4);
  EXPECT_TRUE(Read(records, kCut, manifest).ok());
  records[0].header.set_mark(1, 5);
  ExpectLost(Read(records, kCut, manifest),
             "record 1: block 0 of tensor 'w': mark of rank 1 is 5, expected at least 6");
}

// A length that damage made huge takes no memory: it is held against the size of the file first.
TEST_F(CutReaderTest, NoLengthIsBelieved) {
  CheckpointFolder folder(&disk_);
  ASSERT_TRUE(WriteCut(&disk_, &folder, kCut, 1).ok());
  const std::string path = folder.CutPath(kCut) + "/server-0.part";
  const std::string original = disk_.ReadFile(path, 1 << 20).value();
  const auto expect = [&](const std::string& bytes, absl::string_view reason) {
    disk_.Put(path, bytes);
    ExpectLost(ReadCut(&disk_, folder.CutPath(kCut)).status(), reason);
  };
  std::string damaged = original;
  damaged.replace(8, 4, "\xff\xff\xff\xff");
  expect(damaged, "record 1 at byte 12: a header of 4294967295 bytes, at most 1048596");
  damaged = original;
  damaged.replace(8, 4, std::string("\x14\x01\x00\x00", 4));  // 276: a header may be so long
  expect(damaged, "record 1");
  // A header whose payload would be larger than the file.
  v1::CutRecord header;
  uint32_t length = 0;
  std::memcpy(&length, original.data() + 8, sizeof(length));
  ASSERT_TRUE(header.ParseFromString(original.substr(12, length)));
  header.set_payload_bytes(uint64_t{1} << 62);
  std::string text = header.SerializeAsString();
  length = static_cast<uint32_t>(text.size());
  std::memcpy(damaged.data() + 8, &length, sizeof(length));
  damaged.replace(12, text.size(), text);
  expect(damaged, absl::StrCat("record 1 at byte ", 12 + text.size(), ": a payload of 4611686018427387904 bytes"));
}

}  // namespace
}  // namespace descent::testing
