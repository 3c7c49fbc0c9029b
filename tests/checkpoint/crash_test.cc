// The machine stops at every operation of writing a second cut, and then of pruning the first, many times with other
// luck: the first cut is always found, the second wholly or not at all; what a caller was told lasts.
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "tests/checkpoint/small_cut.h"
#include "tests/support/simulated_disk.h"

namespace descent::testing {
namespace {

constexpr uint64_t kTries = 40;

class CrashTest : public ::testing::Test {
 protected:
  void Start(uint64_t seed) {
    auto luck = std::make_shared<std::mt19937_64>(seed);
    disk_ = std::make_unique<SimulatedDisk>([luck](uint64_t n) { return (*luck)() % n; });
    folder_ = std::make_unique<CheckpointFolder>(disk_.get(), "run/checkpoints");
    const auto generation = folder_->BeginGeneration(RunId(kTestRun));
    ASSERT_TRUE(generation.ok()) << generation.status();
    ASSERT_EQ(*generation, Generation(1));
    ASSERT_TRUE(WriteCut(disk_.get(), folder_.get(), TestCut(1, 5), 2).ok());
  }
  void Crash() {
    disk_->Crash();
    folder_ = std::make_unique<CheckpointFolder>(disk_.get(), "run/checkpoints");
  }
  // Number of the newest good cut, whose contents are compared.
  uint64_t Newest() {
    const auto found = folder_->FindNewestGood(RunId(kTestRun), kTestJob);
    if (!found.ok() || !found->good.has_value()) {
      ADD_FAILURE() << found.status();
      return 0;
    }
    const auto contents = ReadCut(disk_.get(), folder_->CutPath(found->good->id));
    EXPECT_TRUE(contents.ok() && *contents == ExpectedContents(found->good->id));
    // A crash does not make bad cuts: what is newer has no manifest.
    for (const Cut& bad : found->bad) EXPECT_FALSE(bad.committed) << bad.status;
    return found->good->id.number;
  }

  std::unique_ptr<SimulatedDisk> disk_;
  std::unique_ptr<CheckpointFolder> folder_;
};

TEST_F(CrashTest, AtEveryOperationOfASecondCut) {
  Start(0);
  const uint64_t before = disk_->counters().changes;
  ASSERT_TRUE(WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2).ok());
  const uint64_t changes = disk_->counters().changes - before;
  ASSERT_GT(changes, 20u);
  uint64_t first = 0, second = 0, torn = 0, lost = 0;
  for (uint64_t cut = 0; cut <= changes; ++cut) {
    for (uint64_t luck = 0; luck < kTries; ++luck) {
      SCOPED_TRACE(absl::StrCat("power cut after ", cut, " of ", changes, " operations, seed ", luck));
      Start(luck * 1000 + cut);
      disk_->CutPowerAfter(cut);
      const absl::Status written = WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2);
      EXPECT_EQ(written.ok(), cut == changes);
      Crash();
      const uint64_t newest = Newest();
      EXPECT_TRUE(newest == 9 || (newest == 5 && !written.ok()));
      ++(newest == 9 ? second : first);
      torn += disk_->counters().torn_files;
      lost += disk_->counters().lost_changes;

      // Tidied up and tried again, it succeeds.
      const auto generation = folder_->BeginGeneration(RunId(kTestRun));
      ASSERT_TRUE(generation.ok());
      EXPECT_EQ(*generation, Generation(2));
      PruneOptions prune;
      prune.keep_last = 2;
      prune.generation = *generation;
      const auto pruned = folder_->Prune(prune);
      EXPECT_TRUE(pruned.ok()) << pruned.status();
      const auto left = folder_->List();
      for (const Cut& kept : *left) EXPECT_TRUE(kept.status.ok()) << kept.status;
      EXPECT_EQ(left->size(), newest == 9 ? 2u : 1u);
      ASSERT_TRUE(WriteCut(disk_.get(), folder_.get(), TestCut(2, 9), 3).ok());
      EXPECT_EQ(Newest(), 9u);
      if (HasFailure()) return;
    }
  }
  // The rename alone decides, and luck alone whether it lasts before its folder is synced.
  EXPECT_GT(first, 0u);
  EXPECT_GT(second, kTries);
  EXPECT_GT(torn, 0u);
  EXPECT_GT(lost, 0u);
}

TEST_F(CrashTest, AtEveryOperationOfPruning) {
  PruneOptions prune;
  prune.keep_last = 1;
  prune.generation = Generation(1);
  for (uint64_t cut = 0;; ++cut) {
    bool done = false;
    for (uint64_t luck = 0; luck < kTries; ++luck) {
      SCOPED_TRACE(absl::StrCat("power cut after ", cut, " operations, seed ", luck));
      Start(luck * 1000 + cut);
      ASSERT_TRUE(WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2).ok());
      disk_->CutPowerAfter(cut);
      done = folder_->Prune(prune).ok();
      Crash();
      EXPECT_EQ(Newest(), 9u);
      const auto cuts = folder_->List();
      for (const Cut& kept : *cuts) EXPECT_TRUE(kept.status.ok() || !kept.committed) << kept.status;
      EXPECT_EQ(cuts->size() == 1 || !done, true);
      if (HasFailure()) return;
    }
    if (done) break;
  }
}

TEST_F(CrashTest, AtEveryOperationOfBeginningAGeneration) {
  for (uint64_t cut = 0;; ++cut) {
    bool done = false;
    for (uint64_t luck = 0; luck < kTries; ++luck) {
      Start(luck * 1000 + cut);
      disk_->CutPowerAfter(cut);
      const auto second = folder_->BeginGeneration(RunId(kTestRun));
      done = second.ok();
      Crash();
      const auto third = folder_->BeginGeneration(RunId(kTestRun));
      ASSERT_TRUE(third.ok()) << third.status();
      // What a caller was given is never given again.
      EXPECT_TRUE(done ? *third == Generation(3) : *third >= Generation(2));
    }
    if (done) break;
  }
}

TEST_F(CrashTest, FailedOperationsFailTheCut) {
  for (const DiskOperation which :
       {DiskOperation::kMakeFolder, DiskOperation::kCreate, DiskOperation::kAppend, DiskOperation::kSync,
        DiskOperation::kClose, DiskOperation::kRename, DiskOperation::kSyncFolder}) {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(absl::StrCat("operation ", static_cast<int>(which), ", ", nth));
      Start(nth);
      disk_->Fail(which, nth);
      const absl::Status written = WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2);
      const bool injected = disk_->counters().failure(which) > 0;
      EXPECT_EQ(written.ok(), !injected) << written;
      EXPECT_EQ(written.code(), injected ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk);
      Crash();
      const uint64_t newest = Newest();
      EXPECT_TRUE(newest == 9 || (newest == 5 && injected));
      if (HasFailure()) return;
      if (!injected) break;
    }
  }
}

TEST_F(CrashTest, AFullDiskFailsTheCut) {
  Start(1);
  const uint64_t used = disk_->used();
  ASSERT_TRUE(WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2).ok());
  const uint64_t needed = disk_->used() - used;
  for (uint64_t room = 0; room < needed; room += 7) {
    Start(room);
    disk_->set_capacity(disk_->used() + room);
    EXPECT_EQ(WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2).code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(disk_->counters().full_disk, 1u);
    EXPECT_EQ(Newest(), 5u);
    // Room again: the same cut is tried again in the folder that was left.
    disk_->set_capacity(kUnbounded);
    ASSERT_TRUE(WriteCut(disk_.get(), folder_.get(), TestCut(1, 9), 2).ok());
    EXPECT_EQ(Newest(), 9u);
  }
}

}  // namespace
}  // namespace descent::testing
