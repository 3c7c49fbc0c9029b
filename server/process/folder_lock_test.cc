#include "server/process/folder_lock.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kNoPatience = absl::ZeroDuration();

class FolderLockTest : public testing::Test {
 protected:
  FolderLockTest() : folder_(testing::TempDir() + absl::StrCat("/folder-lock-", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~FolderLockTest() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/coordinator.lock"; }

  const std::string folder_;
};

// A process that holds a folder's lock, and does nothing else.
class Holder {
 public:
  Holder(const std::string& folder, RunId run) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      FolderLock lock(folder, run);
      const char taken = lock.Take().ok() && lock.held() ? 'y' : 'n';
      if (write(ready[1], &taken, 1) == 1) {
        while (true) pause();
      }
      _exit(1);
    }
    close(ready[1]);
    char taken = 'n';
    EXPECT_EQ(read(ready[0], &taken, 1), 1);
    EXPECT_EQ(taken, 'y');
    close(ready[0]);
  }
  ~Holder() {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  void Signal(int signal) { EXPECT_EQ(kill(pid_, signal), 0); }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

TEST_F(FolderLockTest, AnotherRunIsRefusedWhileTheFirstLives) {
  auto first = std::make_unique<FolderLock>(folder_, RunId(0x11));
  ASSERT_TRUE(first->Take().ok());
  EXPECT_TRUE(first->held());
  EXPECT_TRUE(first->Take().ok());
  FolderLock other(folder_, RunId(0x22), kNoPatience);
  const absl::Status refused = other.Take();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr(absl::StrCat("in use by run 0000000000000011, process ", getpid())));
  EXPECT_THAT(refused.message(), HasSubstr("this is run 0000000000000022"));
  EXPECT_FALSE(other.held());
  first.reset();
  EXPECT_TRUE(other.Take().ok());
  EXPECT_TRUE(other.held());
  EXPECT_FALSE(FolderLock(folder_, RunId(0x11), kNoPatience).Take().ok()) << "the file names who has it now";
}

TEST_F(FolderLockTest, ASecondCoordinatorOfTheRunIsRefusedByNameWhileTheFirstLives) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  Holder first(folder_, RunId(0x11));
  const auto refused = [&] {
    FolderLock second(folder_, RunId(0x11), kNoPatience);
    const absl::Status status = second.Take();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_FALSE(second.held());
    return std::string(status.message());
  };
  const std::string name =
      absl::StrCat("this run has a coordinator: run 0000000000000011, process ", first.pid(), " on host ", host);
  EXPECT_THAT(refused(), HasSubstr(name));
  first.Signal(SIGSTOP);
  EXPECT_THAT(refused(), HasSubstr(name)) << "one that is stopped may go on";
}

TEST_F(FolderLockTest, WhoWasKilledIsNotInTheWay) {
  Holder first(folder_, RunId(0x11));
  first.Signal(SIGSTOP);
  first.Signal(SIGKILL);  // and is not reaped
  FolderLock next(folder_, RunId(0x11), absl::Seconds(60));
  const absl::Status taken = next.Take();
  EXPECT_TRUE(taken.ok()) << taken;
  EXPECT_TRUE(next.held());
}

TEST_F(FolderLockTest, AHolderThatCouldNotWriteItsNameIsToldAsThat) {
  Holder first(folder_, RunId(0x11));
  for (const uintmax_t written : {0, 6, 30}) {  // what a full disk took of it
    std::filesystem::resize_file(path(), written);
    for (const RunId run : {RunId(0x11), RunId(0x22)}) {
      const absl::Status refused = FolderLock(folder_, run, kNoPatience).Take();
      EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(refused.message(),
                  AllOf(HasSubstr("in use by a process whose name did not fit onto the disk, which lives and holds "),
                        HasSubstr(path()), Not(HasSubstr("run 0000000000000011, process"))));
    }
  }
}

TEST_F(FolderLockTest, AFolderThatIsNotThereIsNamed) {
  EXPECT_THAT(FolderLock(folder_ + "/none", RunId(1)).Take().message(), HasSubstr("/none/coordinator.lock"));
}

}  // namespace
}  // namespace descent
