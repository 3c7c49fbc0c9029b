// Whatever happens to the newest cut's files, nothing of it is loaded: the cut before it is found, and the bad one is
// named with the file.
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "server/checkpoint/cut_reader.h"
#include "tests/checkpoint/small_cut.h"
#include "tests/support/simulated_disk.h"

namespace descent::testing {
namespace {

using ::testing::HasSubstr;

const CutId kOlder = TestCut(1, 5), kNewer = TestCut(1, 9);

class CorruptionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteCut(&disk_, &folder_, kOlder, 2).ok());
    ASSERT_TRUE(WriteCut(&disk_, &folder_, kNewer, 2).ok());
  }

  std::string Path(const CutId& cut, absl::string_view file) const {
    return absl::StrCat(folder_.CutPath(cut), "/", file);
  }
  std::string Read(const std::string& path) { return *disk_.ReadFile(path, 1 << 20); }

  std::vector<std::string> Files() { return disk_.List(folder_.CutPath(kNewer)).value(); }  // the newer cut's

  // The newer cut is as it was written.
  void ExpectWhole() {
    const auto found = folder_.FindNewestGood(RunId(kTestRun), kTestJob);
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_TRUE(found->good.has_value());
    EXPECT_EQ(found->good->id, kNewer);
    EXPECT_TRUE(found->bad.empty());
    const auto contents = ReadCut(&disk_, folder_.CutPath(kNewer));
    ASSERT_TRUE(contents.ok()) << contents.status();
    EXPECT_EQ(*contents, ExpectedContents(kNewer));
  }

  // The newer cut is refused, its folder and this file are named, the older one is found.
  void ExpectRefused(absl::string_view file, absl::string_view reason = "") {
    EXPECT_FALSE(ReadCut(&disk_, folder_.CutPath(kNewer)).ok());
    const auto found = folder_.FindNewestGood(RunId(kTestRun), kTestJob);
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_EQ(found->bad.size(), 1u);
    EXPECT_EQ(found->bad[0].name, CutFolderName(kNewer));
    EXPECT_THAT(std::string(found->bad[0].status.message()), HasSubstr(absl::StrCat(CutFolderName(kNewer), "/", file)));
    EXPECT_THAT(std::string(found->bad[0].status.message()), HasSubstr(std::string(reason)));
    ASSERT_TRUE(found->good.has_value());
    EXPECT_EQ(found->good->id, kOlder);
  }

  // Of a cut that is damaged: a server that reads its own blocks alone gets them as they were, or an error.
  void ExpectRightOrRefused() {
    const auto reader = CutReader::Open(&disk_, folder_.CutPath(kNewer));
    if (!reader.ok()) return;
    const auto wanted = [](BlockId id) { return id.index % 2 == 0; };
    CutContents contents;
    const absl::Status read = (*reader)->ForEach(
        wanted,
        [&](const v1::CutRecord& header, const Payload& payload) {
          std::string bytes(payload.size(), '\0');
          payload.CopyTo(bytes.data());
          contents[BlockId{TensorId(header.tensor()), header.index()}] += bytes;
          return absl::OkStatus();
        },
        CutReader::Extent::kWanted);
    if (!read.ok()) return;
    CutContents expected = ExpectedContents(kNewer);
    std::erase_if(expected, [&](const auto& entry) { return !wanted(entry.first); });
    EXPECT_EQ(contents, expected);
  }

  SimulatedDisk disk_{[](uint64_t) { return uint64_t{0}; }};
  CheckpointFolder folder_{&disk_, "checkpoints"};
};

TEST_F(CorruptionTest, EveryBitOfEveryFile) {
  ExpectWhole();
  uint64_t flips = 0, bits = 0;
  for (const std::string& file : Files()) {
    const std::string path = Path(kNewer, file);
    const std::string original = Read(path);
    bits += 8 * original.size();
    for (size_t at = 0; at < original.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit, ++flips) {
        std::string damaged = original;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
        disk_.Put(path, damaged);
        SCOPED_TRACE(absl::StrCat(file, ", byte ", at, ", bit ", bit));
        ExpectRefused(file);
        ExpectRightOrRefused();
        if (HasFailure()) return;
      }
    }
    disk_.Put(path, original);
  }
  EXPECT_EQ(flips, bits);
  EXPECT_GT(bits, 5000u);
  ExpectWhole();
}

TEST_F(CorruptionTest, EveryTruncationAndWhatIsAppended) {
  for (const std::string& file : Files()) {
    const std::string path = Path(kNewer, file);
    const std::string original = Read(path);
    for (size_t length = 0; length < original.size(); ++length) {
      disk_.Put(path, original.substr(0, length));
      SCOPED_TRACE(absl::StrCat(file, ", ", length, " bytes"));
      ExpectRefused(file);
      if (HasFailure()) return;
    }
    for (const std::string& more : {std::string(1, '\0'), std::string("x"), original}) {
      disk_.Put(path, original + more);
      ExpectRefused(file);
    }
    disk_.Put(path, original);
  }
  ExpectWhole();
}

// Of every length from every place on, all bytes are nought, as after a power cut on some file systems.
TEST_F(CorruptionTest, HolesOfZeros) {
  for (const std::string& file : Files()) {
    const std::string path = Path(kNewer, file);
    const std::string original = Read(path);
    for (size_t begin = 0; begin < original.size(); begin += 3) {
      std::string damaged = original.substr(0, begin);
      damaged.resize(original.size(), '\0');
      if (damaged == original) continue;
      disk_.Put(path, damaged);
      SCOPED_TRACE(absl::StrCat(file, ", from byte ", begin));
      ExpectRefused(file);
      ExpectRightOrRefused();
      if (HasFailure()) return;
    }
    disk_.Put(path, original);
  }
}

TEST_F(CorruptionTest, TwoBlocksSwapped) {
  // Blocks 0 and 2 of 'w', and slots, go to server 0 in turn; block 0 and a slot differ in length, so whole records are
  // exchanged by cutting them out.
  const std::string path = Path(kNewer, "server-0.part");
  const std::string original = Read(path);
  std::vector<std::string> records;
  std::string rest = original.substr(kPartMagic.size());
  while (!rest.empty()) {
    uint32_t length = 0;
    std::memcpy(&length, rest.data(), sizeof(length));
    v1::CutRecord header;
    ASSERT_TRUE(header.ParseFromString(rest.substr(sizeof(length), length)));
    const size_t size = sizeof(length) + length + header.payload_bytes() + sizeof(uint32_t);
    records.push_back(rest.substr(0, size));
    rest.erase(0, size);
  }
  ASSERT_GE(records.size(), 3u);
  const auto write = [&](const std::vector<std::string>& all) {
    std::string bytes(kPartMagic);
    for (const std::string& record : all) bytes += record;
    disk_.Put(path, bytes);
  };
  write(records);
  ExpectWhole();
  for (size_t a = 0; a < records.size(); ++a) {
    for (size_t b = a + 1; b < records.size(); ++b) {
      std::vector<std::string> swapped = records;
      std::swap(swapped[a], swapped[b]);
      write(swapped);
      ExpectRefused("server-0.part");
      ExpectRightOrRefused();
      // The same with a payload and its checksum exchanged, or with one record twice.
      swapped = records;
      swapped[b] = records[a];
      write(swapped);
      ExpectRefused("server-0.part");
      ExpectRightOrRefused();
    }
  }
}

TEST_F(CorruptionTest, PayloadsOfTwoBlocksSwapped) {
  ASSERT_TRUE(disk_.Remove(folder_.CutPath(kNewer)).ok());
  ASSERT_TRUE(WriteCut(&disk_, &folder_, kNewer, 1).ok());  // all of 'w' in one file
  const std::string path = Path(kNewer, "server-0.part");
  std::string bytes = Read(path);
  const std::string a = RecordsOf(kNewer, BlockId{TensorId(0), 0})[0].payload;
  const std::string b = RecordsOf(kNewer, BlockId{TensorId(0), 1})[0].payload;
  ASSERT_EQ(a.size(), b.size());
  const size_t at_a = bytes.find(a), at_b = bytes.find(b);
  ASSERT_NE(at_a, std::string::npos);
  ASSERT_NE(at_b, std::string::npos);
  bytes.replace(at_a, a.size(), b).replace(at_b, b.size(), a);
  disk_.Put(path, bytes);
  ExpectRefused("server-0.part", "record 1");
  // With their checksums, too: those cover the header.
  std::string crc_a = bytes.substr(at_a + a.size(), 4), crc_b = bytes.substr(at_b + b.size(), 4);
  bytes.replace(at_a + a.size(), 4, crc_b).replace(at_b + b.size(), 4, crc_a);
  disk_.Put(path, bytes);
  ExpectRefused("server-0.part", "record 1");
}

TEST_F(CorruptionTest, APartOfAnotherCut) {
  disk_.Put(Path(kNewer, "server-0.part"), Read(Path(kOlder, "server-0.part")));
  ExpectRefused("server-0.part", "of cut 5, expected 9");
}

TEST_F(CorruptionTest, PartsExchanged) {
  const std::string a = Read(Path(kNewer, "server-0.part")), b = Read(Path(kNewer, "server-1.part"));
  disk_.Put(Path(kNewer, "server-0.part"), b);
  disk_.Put(Path(kNewer, "server-1.part"), a);
  ExpectRefused("server-");
}

TEST_F(CorruptionTest, FilesMissingOrExtra) {
  for (const std::string& file : Files()) {
    const std::string original = Read(Path(kNewer, file));
    ASSERT_TRUE(disk_.Remove(Path(kNewer, file)).ok());
    ExpectRefused(file, "is not there");
    disk_.Put(Path(kNewer, file), original);
  }
  for (const char* file : {"server-2.part", "MANIFEST.tmp", "notes"}) {
    disk_.Put(Path(kNewer, file), Read(Path(kNewer, "server-0.part")));
    ExpectRefused(file, "is not in the manifest");
    ASSERT_TRUE(disk_.Remove(Path(kNewer, file)).ok());
  }
  ExpectWhole();
}

TEST_F(CorruptionTest, AManifestOfAnotherCutOrGeneration) {
  const std::string original = Read(Path(kNewer, "MANIFEST"));
  disk_.Put(Path(kNewer, "MANIFEST"), Read(Path(kOlder, "MANIFEST")));
  ExpectRefused("MANIFEST", "is of cut-000000000005-g1");
  v1::CutManifest manifest = *DecodeManifest(original);
  manifest.set_generation(2);
  disk_.Put(Path(kNewer, "MANIFEST"), EncodeManifest(manifest));
  ExpectRefused("MANIFEST", "is of cut-000000000009-g2");
  manifest.set_generation(1);
  manifest.set_run(7);
  disk_.Put(Path(kNewer, "MANIFEST"), EncodeManifest(manifest));
  EXPECT_FALSE(ReadCut(&disk_, folder_.CutPath(kNewer)).ok());
  const auto any = folder_.FindNewestGood(std::nullopt, std::nullopt);
  EXPECT_THAT(std::string(any->bad[0].status.message()),
              HasSubstr("server-0.part: record 1: of run feedfeed12345678, expected 0000000000000007"));
}

TEST_F(CorruptionTest, AllBad) {
  for (const CutId& cut : {kOlder, kNewer}) disk_.Put(Path(cut, "server-1.part"), "DESCPT01");
  const auto found = folder_.FindNewestGood(std::nullopt, std::nullopt);
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->good.has_value());
  ASSERT_EQ(found->bad.size(), 2u);
  EXPECT_EQ(found->bad[0].name, CutFolderName(kNewer));
  EXPECT_EQ(found->bad[1].name, CutFolderName(kOlder));
}

}  // namespace
}  // namespace descent::testing
