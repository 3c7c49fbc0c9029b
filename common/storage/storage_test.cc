#include "common/storage/storage.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/files/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PosixStorageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/storage_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    root_ = absl::StrCat(folder_, "/a/b");
    storage_ = MakePosixStorage(root_ + "/");
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }

  std::string folder_, root_;
  std::unique_ptr<Storage> storage_;
};

TEST_F(PosixStorageTest, WritesAndReadsBack) {
  EXPECT_EQ(storage_->List("").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(storage_->MakeFolder("").ok());
  ASSERT_TRUE(storage_->MakeFolder("c/d").ok());
  ASSERT_TRUE(storage_->MakeFolder("c/d").ok());
  auto file = storage_->Create("c/f");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Append("first ").ok());
  ASSERT_TRUE((*file)->Append("second").ok());
  ASSERT_TRUE((*file)->Sync().ok());
  ASSERT_TRUE((*file)->Close().ok());
  ASSERT_TRUE(storage_->Rename("c/f", "c/g").ok());
  ASSERT_TRUE(storage_->SyncFolder("c").ok());
  EXPECT_THAT(*storage_->List("c"), ElementsAre("d", "g"));
  EXPECT_EQ(*storage_->ReadFile("c/g", 12), "first second");
  EXPECT_EQ(*storage_->Size("c/g"), 12u);
  EXPECT_EQ(*ReadFile(root_ + "/c/g"), "first second");

  const auto open = storage_->Open("c/g");
  ASSERT_TRUE(open.ok());
  char bytes[8] = {};
  EXPECT_EQ(*(*open)->ReadAt(6, bytes, 3), 3u);
  EXPECT_EQ(std::string(bytes), "sec");
  EXPECT_EQ(*(*open)->ReadAt(9, bytes, 8), 3u);
  EXPECT_EQ(*(*open)->ReadAt(12, bytes, 8), 0u);

  ASSERT_TRUE(storage_->Remove("c").ok());
  ASSERT_TRUE(storage_->Remove("c").ok());
  EXPECT_THAT(*storage_->List(""), IsEmpty());
}

TEST_F(PosixStorageTest, ErrorsNameThePath) {
  ASSERT_TRUE(storage_->MakeFolder("d").ok());
  ASSERT_TRUE(storage_->CreateExclusive("f", "12345").ok());
  EXPECT_EQ(storage_->ReadFile("f", 4).status(), absl::OutOfRangeError("f: has 5 bytes, at most 4 are read"));
  EXPECT_EQ(storage_->Create("f").status(), absl::AlreadyExistsError(root_ + "/f: File exists"));
  EXPECT_EQ(storage_->CreateExclusive("f", "other"), absl::AlreadyExistsError(root_ + "/f: File exists"));
  EXPECT_EQ(*storage_->ReadFile("f", 100), "12345");
  EXPECT_EQ(storage_->Open("none").status(), absl::NotFoundError(root_ + "/none: No such file or directory"));
  EXPECT_EQ(storage_->Open("d").status(), absl::FailedPreconditionError(root_ + "/d: is no regular file"));
  EXPECT_EQ(storage_->List("f").status(), absl::FailedPreconditionError(root_ + "/f: is a file, not a folder"));
  EXPECT_EQ(storage_->SyncFolder("f"), absl::FailedPreconditionError(root_ + "/f: is a file, not a folder"));
  EXPECT_EQ(storage_->Rename("none", "x").code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(::mkfifo((root_ + "/pipe").c_str(), 0600), 0);
  EXPECT_EQ(storage_->Open("pipe").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PosixStorageTest, StaysBelowItsRoot) {
  ASSERT_TRUE(storage_->MakeFolder("").ok());
  for (const char* path : {"/etc", "..", "../x", "a/../../x", "a//b", "a/", "./a"}) {
    EXPECT_EQ(storage_->Open(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(storage_->Remove(path).code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(storage_->CreateExclusive(path, "").code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(storage_->Rename("a", path).code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

}  // namespace
}  // namespace descent
