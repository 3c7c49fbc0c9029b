#include "server/process/folder_lock.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

class FolderLockTest : public testing::Test {
 protected:
  FolderLockTest() : folder_(testing::TempDir() + absl::StrCat("/folder-lock-", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~FolderLockTest() override { std::filesystem::remove_all(folder_); }

  const std::string folder_;
};

TEST_F(FolderLockTest, AnotherRunIsRefusedWhileTheFirstLives) {
  auto first = std::make_unique<FolderLock>(folder_, RunId(0x11));
  ASSERT_TRUE(first->Take().ok());
  EXPECT_TRUE(first->held());
  EXPECT_TRUE(first->Take().ok());
  FolderLock other(folder_, RunId(0x22));
  const absl::Status refused = other.Take();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr(absl::StrCat("in use by run 0000000000000011, process ", getpid())));
  EXPECT_THAT(refused.message(), HasSubstr("this is run 0000000000000022"));
  EXPECT_FALSE(other.held());
  first.reset();
  EXPECT_TRUE(other.Take().ok());
  EXPECT_TRUE(other.held());
  EXPECT_FALSE(FolderLock(folder_, RunId(0x11)).Take().ok()) << "the file names who has it now";
}

TEST_F(FolderLockTest, TheSameRunIsLetInAndTakesTheLockOnceItIsFree) {
  auto stopped = std::make_unique<FolderLock>(folder_, RunId(0x11));
  ASSERT_TRUE(stopped->Take().ok());
  FolderLock next(folder_, RunId(0x11));
  EXPECT_TRUE(next.Take().ok());
  EXPECT_FALSE(next.held());
  stopped.reset();
  EXPECT_TRUE(next.Take().ok());
  EXPECT_TRUE(next.held());
}

TEST_F(FolderLockTest, AFolderThatIsNotThereIsNamed) {
  EXPECT_THAT(FolderLock(folder_ + "/none", RunId(1)).Take().message(), HasSubstr("/none/coordinator.lock"));
}

}  // namespace
}  // namespace descent
