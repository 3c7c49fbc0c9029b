#include "tests/support/simulated_disk.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::function<uint64_t(uint64_t)> Always(uint64_t value) {
  return [value](uint64_t n) { return std::min(value, n - 1); };
}
// For changes of folders 0 keeps and 1 loses; of a file's tail it is the number of bytes that are kept.
constexpr uint64_t kLose = 1;

std::string Contents(SimulatedDisk* disk, const std::string& path) {
  const auto contents = disk->ReadFile(path, 1000);
  return contents.ok() ? *contents : std::string(contents.status().message());
}

TEST(SimulatedDiskTest, WhatIsSyncedSurvives) {
  SimulatedDisk disk(Always(kLose));
  ASSERT_TRUE(disk.MakeFolder("a/b").ok());
  ASSERT_TRUE(disk.SyncFolder("").ok());
  ASSERT_TRUE(disk.SyncFolder("a").ok());
  ASSERT_TRUE(disk.CreateExclusive("a/b/f", "bytes").ok());
  ASSERT_TRUE(disk.Rename("a/b/f", "a/b/g").ok());
  ASSERT_TRUE(disk.SyncFolder("a/b").ok());
  disk.Crash();
  EXPECT_EQ(Contents(&disk, "a/b/g"), "bytes");
  EXPECT_THAT(*disk.List("a/b"), ElementsAre("g"));
  EXPECT_EQ(disk.counters().lost_changes, 0u);
}

TEST(SimulatedDiskTest, LosesWhatIsNotSynced) {
  SimulatedDisk disk(Always(kLose));
  ASSERT_TRUE(disk.CreateExclusive("renamed", "1").ok());
  ASSERT_TRUE(disk.CreateExclusive("removed", "2").ok());
  ASSERT_TRUE(disk.Rename("renamed", "new").ok());
  ASSERT_TRUE(disk.Remove("removed").ok());
  const auto file = disk.Create("made");
  ASSERT_TRUE((*file)->Append("3").ok());
  ASSERT_TRUE((*file)->Sync().ok());  // the bytes, not the name
  EXPECT_THAT(*disk.List(""), ElementsAre("made", "new"));
  disk.Crash();
  EXPECT_THAT(*disk.List(""), ElementsAre("removed", "renamed"));
  EXPECT_EQ(disk.counters().lost_changes, 3u);
  EXPECT_EQ((*file)->Append("4"), absl::UnavailableError("made: opened before a crash"));
}

TEST(SimulatedDiskTest, OrKeepsIt) {
  SimulatedDisk disk(Always(0));
  ASSERT_TRUE(disk.CreateExclusive("renamed", "1").ok());
  ASSERT_TRUE(disk.Rename("renamed", "new").ok());
  disk.Crash();
  EXPECT_THAT(*disk.List(""), ElementsAre("new"));
}

TEST(SimulatedDiskTest, TearsAnUnsyncedTail) {
  SimulatedDisk disk(Always(3));
  const auto file = disk.Create("f");
  ASSERT_TRUE(disk.SyncFolder("").ok());
  ASSERT_TRUE((*file)->Append("one ").ok());
  ASSERT_TRUE((*file)->Sync().ok());
  ASSERT_TRUE((*file)->Append("three").ok());
  EXPECT_EQ(Contents(&disk, "f"), "one three");
  disk.Crash();
  EXPECT_EQ(Contents(&disk, "f"), "one thr");
  EXPECT_EQ(disk.counters().torn_files, 1u);
}

TEST(SimulatedDiskTest, AFailedSyncIsFinal) {
  SimulatedDisk disk(Always(0));
  const auto file = disk.Create("f");
  ASSERT_TRUE(disk.SyncFolder("").ok());
  ASSERT_TRUE((*file)->Append("lost").ok());
  disk.Fail(DiskOperation::kSync);
  EXPECT_EQ((*file)->Sync(), absl::UnavailableError("f: Input/output error"));
  EXPECT_TRUE((*file)->Sync().ok());
  disk.Crash();
  EXPECT_EQ(Contents(&disk, "f"), "");
  EXPECT_EQ(disk.counters().failure(DiskOperation::kSync), 1u);
  EXPECT_EQ(disk.counters().operation(DiskOperation::kSync), 2u);
  EXPECT_EQ(disk.counters().lost_files, 1u);
}

TEST(SimulatedDiskTest, FailsTheNthTime) {
  SimulatedDisk disk(Always(0));
  ASSERT_TRUE(disk.CreateExclusive("f", "").ok());
  disk.Fail(DiskOperation::kRename, 2);
  EXPECT_TRUE(disk.Rename("f", "g").ok());
  EXPECT_EQ(disk.Rename("g", "h"), absl::UnavailableError("g: Input/output error"));
  EXPECT_TRUE(disk.Rename("g", "h").ok());
  EXPECT_EQ(disk.counters().failure(DiskOperation::kRename), 1u);
}

TEST(SimulatedDiskTest, FillsUp) {
  SimulatedDisk disk(Always(0));
  disk.set_capacity(6);
  ASSERT_TRUE(disk.CreateExclusive("f", "1234").ok());
  const auto file = disk.Create("g");
  EXPECT_EQ((*file)->Append("5678"), absl::ResourceExhaustedError("g: No space left on device"));
  EXPECT_EQ(Contents(&disk, "g"), "56");
  EXPECT_EQ(disk.used(), 6u);
  EXPECT_EQ(disk.counters().full_disk, 1u);
  ASSERT_TRUE(disk.Remove("f").ok());
  EXPECT_TRUE((*file)->Append("78").ok());
}

TEST(SimulatedDiskTest, PowerIsCutBetweenTwoOperations) {
  SimulatedDisk disk(Always(0));
  disk.CutPowerAfter(2);  // Create and Append
  EXPECT_EQ(disk.CreateExclusive("f", "1234"), absl::UnavailableError("f: the power is out"));
  EXPECT_EQ(disk.Open("f").status(), absl::UnavailableError("f: the power is out"));
  EXPECT_EQ(disk.List("").status().code(), absl::StatusCode::kUnavailable);
  disk.Crash();
  EXPECT_EQ(Contents(&disk, "f"), "");
  EXPECT_EQ(disk.CreateExclusive("f", "1234"), absl::AlreadyExistsError("f: File exists"));
}

TEST(SimulatedDiskTest, ErrorsAreThoseOfThePosixStorage) {
  SimulatedDisk disk(Always(0));
  disk.Put("d/f", "x");
  EXPECT_EQ(disk.Open("none").status(), absl::NotFoundError("none: No such file or directory"));
  EXPECT_EQ(disk.Open("d").status(), absl::FailedPreconditionError("d: is no regular file"));
  EXPECT_EQ(disk.List("d/f").status(), absl::FailedPreconditionError("d/f: is a file, not a folder"));
  EXPECT_EQ(disk.Create("d/f").status(), absl::AlreadyExistsError("d/f: File exists"));
  EXPECT_EQ(disk.Create("../f").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(disk.Remove("none/f").ok());
  EXPECT_TRUE(disk.Remove("d").ok());
  EXPECT_THAT(*disk.List(""), IsEmpty());
}

}  // namespace
}  // namespace descent::testing
