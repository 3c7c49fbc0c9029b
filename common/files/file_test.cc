#include "common/files/file.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/files/file_lock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/files_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }
  std::string folder_;
};

TEST_F(FileTest, WritesAtomicallyAndReadsBack) {
  const std::string path = absl::StrCat(folder_, "/a");
  ASSERT_TRUE(WriteFileAtomically(path, "first").ok());
  ASSERT_TRUE(WriteFileAtomically(path, std::string(200000, 'x')).ok());
  EXPECT_EQ(*ReadFile(path), std::string(200000, 'x'));
  EXPECT_THAT(*ListFolder(folder_), ElementsAre("a"));
}

TEST_F(FileTest, ErrorsNameTheFile) {
  const std::string path = absl::StrCat(folder_, "/none");
  const absl::Status status = ReadFile(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), absl::StrCat(path, ": No such file or directory"));
  EXPECT_EQ(WriteFileAtomically(absl::StrCat(folder_, "/no/where"), "").code(), absl::StatusCode::kNotFound);
}

TEST_F(FileTest, MakesFoldersOnceAndTwice) {
  const std::string path = absl::StrCat(folder_, "/x/y/z");
  EXPECT_TRUE(MakeDirs(path).ok());
  EXPECT_TRUE(MakeDirs(path).ok());
  EXPECT_TRUE(IdentifyFile(path)->folder);
  ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder_, "/f"), "").ok());
  EXPECT_EQ(MakeDirs(absl::StrCat(folder_, "/f/g")).message(), absl::StrCat(folder_, "/f: is a file, not a folder"));
}

TEST_F(FileTest, ListsByPatternInByteOrder) {
  for (const char* name : {"b.svm", "B.svm", "a.svm", "a.csv"}) {
    ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder_, "/", name), "").ok());
  }
  EXPECT_THAT(
      *ListMatching(absl::StrCat(folder_, "/*.svm")),
      ElementsAre(absl::StrCat(folder_, "/B.svm"), absl::StrCat(folder_, "/a.svm"), absl::StrCat(folder_, "/b.svm")));
  EXPECT_THAT(*ListMatching(absl::StrCat(folder_, "/*.idx")), IsEmpty());
}

TEST_F(FileTest, IdentityTellsAReplacedFile) {
  const std::string path = absl::StrCat(folder_, "/a");
  ASSERT_TRUE(WriteFileAtomically(path, "one").ok());
  const FileIdentity before = *IdentifyFile(path);
  EXPECT_EQ(before, *IdentifyFile(path));
  EXPECT_EQ(before.bytes, 3u);
  ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder_, "/b"), "two").ok());
  EXPECT_FALSE(before == *IdentifyFile(absl::StrCat(folder_, "/b")));
}

TEST_F(FileTest, JoinsPaths) {
  EXPECT_EQ(JoinPath("", "a"), "a");
  EXPECT_EQ(JoinPath("/r", "a"), "/r/a");
  EXPECT_EQ(JoinPath("/r/", "a"), "/r/a");
  EXPECT_EQ(JoinPath("/r", "/a"), "/a");
}

TEST_F(FileTest, LockExcludesAndNamesItsHolder) {
  const std::string path = absl::StrCat(folder_, "/lock");
  auto held = FileLock::Acquire(path, FileLock::Kind::kExclusive, absl::ZeroDuration());
  ASSERT_TRUE(held.ok()) << held.status();
  for (FileLock::Kind kind : {FileLock::Kind::kShared, FileLock::Kind::kExclusive}) {
    const absl::Status status = FileLock::Acquire(path, kind, absl::ZeroDuration()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    char host[64] = {};
    ASSERT_EQ(::gethostname(host, sizeof(host) - 1), 0);
    EXPECT_EQ(status.message(), absl::StrCat(path, ": locked by process ", ::getpid(), " on ", host,
                                             ", which has shown no progress for 0"));
  }
  held->reset();
  auto first = FileLock::Acquire(path, FileLock::Kind::kShared, absl::ZeroDuration());
  auto second = FileLock::Acquire(path, FileLock::Kind::kShared, absl::ZeroDuration());
  EXPECT_TRUE(first.ok() && second.ok());
  EXPECT_FALSE(FileLock::Acquire(path, FileLock::Kind::kExclusive, absl::ZeroDuration()).ok());
}

}  // namespace
}  // namespace descent
