#include "server/checkpoint/checkpoint_folder.h"

#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/small_cut.h"

namespace descent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class CheckpointFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/checkpoints_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    storage_ = MakePosixStorage(root_ + "/run/checkpoints");
    folder_ = std::make_unique<CheckpointFolder>(storage_.get());
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(root_).ok()); }

  void Write(uint64_t generation, uint64_t number) {
    const absl::Status written = WriteCut(storage_.get(), folder_.get(), TestCut(generation, number), 1);
    EXPECT_TRUE(written.ok()) << written;
  }
  void WriteWithMetric(uint64_t number, double metric, const char* name = "loss") {
    const CutId cut = TestCut(1, number);
    ASSERT_TRUE(folder_->Prepare(cut).ok());
    v1::CutManifest manifest = TestManifest(cut);
    manifest.set_metric_name(name);
    manifest.set_metric(metric);
    std::vector<TestRecord> records;
    for (const BlockId block : TestBlocks()) {
      for (TestRecord& record : RecordsOf(cut, block)) records.push_back(std::move(record));
    }
    *manifest.add_part() = WritePart(storage_.get(), folder_->CutPath(cut), cut, ServerId(0), records).value();
    ASSERT_TRUE(folder_->Commit(manifest).ok());
  }
  void Damage(const CutId& cut) {
    const std::string path = absl::StrCat(folder_->CutPath(cut), "/server-0.part");
    std::string bytes = storage_->ReadFile(path, 1 << 20).value();
    bytes[bytes.size() / 2] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(absl::StrCat(root_, "/run/checkpoints/", path), bytes).ok());
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const std::vector<Cut> cuts = folder_->List().value();
    for (const Cut& cut : cuts) names.push_back(cut.name);
    return names;
  }
  std::vector<std::string> Prune(const PruneOptions& options) { return folder_->Prune(options).value(); }

  std::string root_;
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<CheckpointFolder> folder_;
};

TEST_F(CheckpointFolderTest, EmptyUntilACutIsCommitted) {
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_FALSE(folder_->FindNewestGood(std::nullopt, std::nullopt)->good.has_value());
  EXPECT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(1));
  ASSERT_TRUE(folder_->Prepare(TestCut(1, 5)).ok());
  const std::vector<Cut> cuts = folder_->List().value();
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_FALSE(cuts[0].committed);
  EXPECT_EQ(cuts[0].status, absl::NotFoundError("cut-000000000005-g1/MANIFEST: is not there, so the cut was never "
                                                "committed"));
  Write(1, 5);
  EXPECT_TRUE(folder_->List().value()[0].status.ok());
  EXPECT_EQ(folder_->Prepare(TestCut(1, 5)), absl::AlreadyExistsError("cut-000000000005-g1: is committed"));
}

TEST_F(CheckpointFolderTest, GenerationsCountUpWhateverIsLeft) {
  EXPECT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(1));
  EXPECT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(2));
  EXPECT_EQ(storage_->ReadFile("generation-2", 100).value(), "run feedfeed12345678\n");
  Write(2, 5);
  // Their files are gone, the cut is not.
  ASSERT_TRUE(storage_->Remove("generation-1").ok());
  ASSERT_TRUE(storage_->Remove("generation-2").ok());
  EXPECT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(3));
}

TEST_F(CheckpointFolderTest, AnOlderGenerationMayNotGoOn) {
  EXPECT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(1));
  ASSERT_TRUE(folder_->Prepare(TestCut(1, 5)).ok());
  v1::CutManifest manifest = TestManifest(TestCut(1, 5));
  std::vector<TestRecord> records;
  for (const BlockId block : TestBlocks()) {
    for (TestRecord& record : RecordsOf(TestCut(1, 5), block)) records.push_back(std::move(record));
  }
  *manifest.add_part() =
      WritePart(storage_.get(), folder_->CutPath(TestCut(1, 5)), TestCut(1, 5), ServerId(0), records).value();
  EXPECT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(2));
  const absl::Status fenced = absl::FailedPreconditionError("no cuts of generation 1: generation 2 has begun");
  EXPECT_EQ(folder_->Commit(manifest), fenced);
  EXPECT_EQ(folder_->Prepare(TestCut(1, 6)), fenced);
  EXPECT_FALSE(folder_->List().value()[0].committed);
}

TEST_F(CheckpointFolderTest, ALaterGenerationIsNewerWhateverItsNumbers) {
  Write(1, 100);
  Write(1, 200);
  Damage(TestCut(1, 200));
  const auto found = folder_->FindNewestGood(RunId(kTestRun), kTestJob);
  EXPECT_EQ(found->good->id, TestCut(1, 100));
  EXPECT_EQ(found->bad[0].name, "cut-000000000200-g1");
  // Generation 2 restarted from 100, and cut 200 can be read again.
  Write(2, 150);
  Damage(TestCut(1, 200));
  EXPECT_THAT(Names(), ElementsAre("cut-000000000150-g2", "cut-000000000200-g1", "cut-000000000100-g1"));
  EXPECT_EQ(folder_->FindNewestGood(RunId(kTestRun), kTestJob)->good->id, TestCut(2, 150));
}

TEST_F(CheckpointFolderTest, OfAnotherRunOrJob) {
  Write(1, 5);
  auto found = folder_->FindNewestGood(RunId(1), kTestJob);
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->good.has_value());
  EXPECT_EQ(found->bad[0].status, absl::FailedPreconditionError(
                                      "cut-000000000005-g1: is of run feedfeed12345678, expected 0000000000000001"));
  found = folder_->FindNewestGood(std::nullopt, 2);
  EXPECT_EQ(found->bad[0].status,
            absl::FailedPreconditionError("cut-000000000005-g1: is of the job with fingerprint 1122334455667788, "
                                          "expected 0000000000000002"));
}

TEST_F(CheckpointFolderTest, CommitLooksForTheParts) {
  const CutId cut = TestCut(1, 5);
  v1::CutManifest manifest = TestManifest(cut);
  v1::PartFile* part = manifest.add_part();
  part->set_name("server-0.part");
  part->set_bytes(1000);
  part->set_records(7);
  EXPECT_EQ(folder_->Commit(manifest).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(folder_->Prepare(cut).ok());
  EXPECT_EQ(folder_->Commit(manifest),
            absl::FailedPreconditionError("cut-000000000005-g1/server-0.part: is not there, though its server has "
                                          "finished it: do all of them write to this folder?"));
  ASSERT_TRUE(storage_->CreateExclusive("cut-000000000005-g1/server-0.part", "short").ok());
  EXPECT_EQ(folder_->Commit(manifest),
            absl::FailedPreconditionError("cut-000000000005-g1/server-0.part: has 5 bytes, but its server has written "
                                          "1000"));
  manifest.set_format(9);
  EXPECT_EQ(folder_->Commit(manifest).code(), absl::StatusCode::kInvalidArgument);
  Write(1, 6);
  manifest = folder_->List().value()[0].manifest;
  EXPECT_EQ(folder_->Commit(manifest), absl::AlreadyExistsError("cut-000000000006-g1: is committed"));
}

TEST_F(CheckpointFolderTest, PruneKeepsTheLastAndTheBest) {
  for (const auto& [number, loss] : std::vector<std::pair<uint64_t, double>>{
           {1, 0.5}, {2, 0.1}, {3, 0.3}, {4, std::numeric_limits<double>::quiet_NaN()}, {5, 0.2}, {6, 0.9}}) {
    WriteWithMetric(number, loss);
  }
  WriteWithMetric(7, 0.01, "accuracy");
  WriteWithMetric(8, 0.8);
  PruneOptions options;
  options.keep_last = 2;
  options.keep_best = 2;
  options.generation = Generation(1);
  EXPECT_THAT(Prune(options), UnorderedElementsAre("cut-000000000001-g1", "cut-000000000003-g1", "cut-000000000004-g1",
                                                   "cut-000000000006-g1"));
  EXPECT_THAT(Names(),
              ElementsAre("cut-000000000008-g1", "cut-000000000007-g1", "cut-000000000005-g1", "cut-000000000002-g1"));
  EXPECT_THAT(Prune(options), IsEmpty());
  options.keep_last = 1;
  options.keep_best = 1;
  options.higher_is_better = true;
  Prune(options);
  EXPECT_THAT(Names(), ElementsAre("cut-000000000008-g1"));
}

TEST_F(CheckpointFolderTest, PruneLeavesSomethingGood) {
  for (const uint64_t number : {1, 2, 3, 4}) Write(1, number);
  Damage(TestCut(1, 3));
  Damage(TestCut(1, 4));
  PruneOptions options;
  options.keep_last = 1;
  options.generation = Generation(1);
  // 3 and 4 look good until they are read; 2 is the newest good one.
  EXPECT_THAT(Prune(options), ElementsAre("cut-000000000001-g1"));
  EXPECT_EQ(folder_->FindNewestGood(std::nullopt, std::nullopt)->good->id, TestCut(1, 2));
  options.keep_last = 0;
  EXPECT_THAT(Prune(options), IsEmpty());
}

TEST_F(CheckpointFolderTest, PruneRemovesWhatWasNeverCommitted) {
  Write(1, 1);
  ASSERT_TRUE(folder_->Prepare(TestCut(1, 2)).ok());
  ASSERT_TRUE(folder_->Prepare(TestCut(1, 3)).ok());
  ASSERT_TRUE(folder_->Prepare(TestCut(2, 2)).ok());
  PruneOptions options;
  options.generation = Generation(1);
  options.in_progress = TestCut(1, 3);
  EXPECT_THAT(Prune(options), ElementsAre("cut-000000000002-g1"));
  EXPECT_THAT(Names(), ElementsAre("cut-000000000002-g2", "cut-000000000003-g1", "cut-000000000001-g1"));
  options.generation = Generation(2);
  options.in_progress.reset();
  EXPECT_THAT(Prune(options), UnorderedElementsAre("cut-000000000002-g2", "cut-000000000003-g1"));
}

TEST_F(CheckpointFolderTest, PruneLeavesWhatIsOfAnotherRun) {
  ASSERT_EQ(folder_->BeginGeneration(RunId(kTestRun)).value(), Generation(1));
  for (const uint64_t number : {1, 2, 3}) Write(1, number);
  ASSERT_TRUE(folder_->Prepare(TestCut(1, 4)).ok());
  ASSERT_EQ(folder_->BeginGeneration(RunId(9)).value(), Generation(2));
  ASSERT_TRUE(folder_->Prepare(TestCut(2, 5)).ok());
  PruneOptions options;
  options.generation = Generation(2);
  options.run = RunId(9);
  EXPECT_THAT(Prune(options), ElementsAre("cut-000000000005-g2"));
  options.run = RunId(kTestRun);
  EXPECT_THAT(Prune(options),
              UnorderedElementsAre("cut-000000000001-g1", "cut-000000000002-g1", "cut-000000000004-g1"));
}

TEST_F(CheckpointFolderTest, OtherFilesAreNoCuts) {
  Write(1, 1);
  ASSERT_TRUE(storage_->MakeFolder("cut-1-g1").ok());
  ASSERT_TRUE(storage_->CreateExclusive("README", "").ok());
  ASSERT_TRUE(storage_->CreateExclusive("cut-000000000009-g1", "a file").ok());
  const std::vector<Cut> cuts = folder_->List().value();
  ASSERT_EQ(cuts.size(), 2u);
  EXPECT_FALSE(cuts[0].status.ok());
  PruneOptions options;
  options.generation = Generation(1);
  EXPECT_THAT(Prune(options), IsEmpty());
}

}  // namespace
}  // namespace descent::testing
