#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace descent {
namespace {

class ChildProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/childXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { ASSERT_EQ(system(("rm -r " + folder_).c_str()), 0); }

  std::unique_ptr<ChildProcess> Shell(const std::string& script) {
    auto child = ChildProcess::Start({"worker", 1, {"/bin/sh", "-c", script}, folder_ + "/log"});
    EXPECT_TRUE(child.ok()) << child.status();
    return *std::move(child);
  }
  // Blocks until the child has ended, without reaping it.
  static void AwaitEnd(ChildProcess* child) {
    siginfo_t info;
    while (waitid(P_PID, static_cast<id_t>(child->pid()), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
  }

  std::string folder_;
};

TEST_F(ChildProcessTest, ExitCode) {
  auto child = Shell("exit 3");
  AwaitEnd(child.get());
  EXPECT_TRUE(child->Reap());
  EXPECT_FALSE(child->Reap()) << "an end is reported once";
  EXPECT_FALSE(child->running());
  EXPECT_FALSE(child->killed_by_signal());
  EXPECT_EQ(child->code(), 3);
  EXPECT_EQ(child->Ending(), "exit code 3");
  EXPECT_EQ(child->name(), "worker 1");
}

TEST_F(ChildProcessTest, Signal) {
  auto child = Shell("exec sleep 1000");
  EXPECT_FALSE(child->Reap());
  EXPECT_TRUE(child->running());
  child->Signal(SIGKILL);
  AwaitEnd(child.get());
  EXPECT_TRUE(child->Reap());
  EXPECT_TRUE(child->killed_by_signal());
  EXPECT_EQ(child->code(), 137);
  EXPECT_EQ(child->Ending(), "signal 9 (SIGKILL)");
}

TEST_F(ChildProcessTest, OutputGoesToTheLogInputIsEmpty) {
  auto child = Shell("cat; echo out; echo err >&2; echo; for i in 1 2 3; do echo $i; done");
  AwaitEnd(child.get());
  ASSERT_TRUE(child->Reap());
  EXPECT_EQ(child->code(), 0);
  EXPECT_EQ(child->LogTail(10), (std::vector<std::string>{"out", "err", "1", "2", "3"}));
  EXPECT_EQ(child->LogTail(2), (std::vector<std::string>{"2", "3"}));
}

TEST_F(ChildProcessTest, RunsInAGroupOfItsOwnWithNoSignalBlocked) {
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, &old);
  auto child = Shell("exec sleep 1000");
  EXPECT_EQ(getpgid(child->pid()), child->pid());
  child->Signal(SIGTERM);
  AwaitEnd(child.get());
  ASSERT_TRUE(child->Reap());
  EXPECT_EQ(child->Ending(), "signal 15 (SIGTERM)");
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

TEST_F(ChildProcessTest, AMissingBinaryIsNamed) {
  const auto child = ChildProcess::Start({"worker", 1, {"/nonexistent/worker"}, folder_ + "/log"});
  EXPECT_EQ(child.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(child.status().message(), "/nonexistent/worker: No such file or directory");
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "the process that could not become it is reaped";
}

TEST_F(ChildProcessTest, TheDestructorLeavesNobody) {
  pid_t pid;
  {
    auto child = Shell("sleep 1000 & exec sleep 1000");
    pid = child->pid();
  }
  EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), -1);
}

TEST_F(ChildProcessTest, TheKernelKillsItWhenTheSupervisorIsKilled) {
  // The pipe's write end is held by the child alone (as its log): it is at its end once the child is gone.
  const std::string fifo = folder_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const int reader = open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  const pid_t supervisor = fork();
  if (supervisor == 0) {
    auto child = ChildProcess::Start({"worker", 1, {"/bin/sh", "-c", "echo up; exec sleep 1000"}, fifo});
    if (!child.ok()) _exit(1);
    while (true) pause();
  }
  struct pollfd fd = {reader, POLLIN, 0};
  char text[8];
  ASSERT_EQ(poll(&fd, 1, 60000), 1);
  ASSERT_EQ(read(reader, text, sizeof text), 3);  // "up\n"
  ASSERT_EQ(kill(supervisor, SIGKILL), 0);
  int status;
  ASSERT_EQ(waitpid(supervisor, &status, 0), supervisor);
  ASSERT_EQ(poll(&fd, 1, 60000), 1) << "the child outlives its supervisor";
  EXPECT_EQ(read(reader, text, sizeof text), 0);
  close(reader);
}

}  // namespace
}  // namespace descent
