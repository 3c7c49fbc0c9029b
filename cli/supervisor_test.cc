#include "cli/supervisor.h"

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/supervisor_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

TEST_F(SupervisorTest, FinishesWithItsProcesses) {
  SetPhase(v1::FINISHED);
  Programs("await 0", "await 0", EndNow());
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, HasSubstr("coordinator 127.0.0.1:1; 2 servers, 2 workers\n"));
  EXPECT_THAT(out_, HasSubstr("finished after"));
}

TEST_F(SupervisorTest, OffATerminalThatItIsOverIsToldOnce) {
  SetPhase(v1::FINISHED);
  script_.end_after_polls = 5;  // and at each of them its numbers have changed
  EXPECT_EQ(Run(), 0);
  EXPECT_EQ(Count("finished | "), 1u) << out_;
}

TEST_F(SupervisorTest, PassesTheAgreedArguments) {
  SetPhase(v1::FINISHED);
  options_.base_port = 4000;
  Programs("echo \"$*\"; await 0", "echo \"$*\"; await 0", "echo \"$*\"; " + EndNow());
  EXPECT_EQ(Run(), 0);
  EXPECT_EQ(FirstLine("server-0.log"),
            absl::StrCat("--job ", folder_, "/job.textproto --bind 127.0.0.1:4000 --port-file ", folder_,
                         "/coordinator.address --run-dir ", folder_));
  EXPECT_EQ(FirstLine("server-1.log"), "--coordinator 127.0.0.1:1 --bind 127.0.0.1:4001");
  EXPECT_EQ(FirstLine("worker-1.log"), "--coordinator 127.0.0.1:1");
}

TEST_F(SupervisorTest, AServerThatFailsFailsTheRunAndIsNamedLast) {
  Programs("await 1", "echo dying; exit 1", "await 1");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, HasSubstr("  dying\n"));
  EXPECT_THAT(out_, ContainsRegex("first cause: server 1 on host [^ ]+ \\(pid [0-9]+\\) ended with exit code "
                                  "1\n$"));
  MutexLock lock(&script_.mu);
  ASSERT_GE(script_.reports.size(), 1u);
  EXPECT_EQ(script_.reports[0].cause(), "ended with exit code 1") << "the coordinator says whose it is";
  EXPECT_TRUE(script_.reports[0].own());
}

TEST_F(SupervisorTest, TheFirstServersOwnFailureNeedsNobodyToReportTo) {
  Programs("exit 1", "await 1", "await 1");
  options_.end_grace = options_.fail_grace = absl::ZeroDuration();
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, HasSubstr("server 0 on host"));
}

TEST_F(SupervisorTest, AServerThatNeverListensFailsTheRun) {
  Program("server", "#!/bin/sh\necho port taken; exit 1\n");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, HasSubstr("  port taken\n"));
  EXPECT_THAT(out_, ContainsRegex("first cause: server 0 on host [^ ]+ \\(pid [0-9]+\\) ended with exit code 1\n$"));
}

TEST_F(SupervisorTest, AWorkerThatRefusesToStartFailsTheRun) {
  SetPhase(v1::STARTING);
  Programs("await 1", "await 1", "echo no such file; exit 1");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, HasSubstr("  no such file\n"));
  EXPECT_THAT(out_, ContainsRegex("first cause: worker [01] on host .* ended with exit code 1\n$"));
}

TEST_F(SupervisorTest, AWorkersFailureLeavesTheOthersAtWork) {
  script_.end_on_report = false;
  Programs("await 0", "await 0",
           absl::StrCat("mkdir ", folder_, "/lock && exit 1; while ! grep -q 'its ranks' ", folder_,
                        "/shown; do sleep 0.01; done; touch ", folder_, "/end"));
  Display::Options display;
  display.write = [this](absl::string_view text) {
    out_.append(text.data(), text.size());
    std::ofstream(folder_ + "/shown", std::ios::app) << std::string(text.data(), text.size());
  };
  std::ofstream(folder_ + "/shown") << "";
  Display shown(std::move(display));
  EXPECT_EQ(Supervisor(
                options_, [this](const std::string&) { return std::make_unique<ScriptedControl>(&script_); }, &shown)
                .Run(),
            0);
  EXPECT_THAT(out_, HasSubstr("ended with exit code 1; its ranks go to the other workers"));
}

TEST_F(SupervisorTest, TheCoordinatorsCauseComesFirst) {
  options_.end_grace = absl::Milliseconds(1);
  {
    MutexLock lock(&script_.mu);
    script_.status.set_phase(v1::FAILED);
    script_.status.set_first_cause("worker on host b: rank 3: a gradient is not finite");
  }
  Programs("await 1", "await 1", "exit 1");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, testing::EndsWith("first cause: worker on host b: rank 3: a gradient is not finite\n"));
}

// A process of the cluster sends its parent, the supervisor, the signal.
TEST_F(SupervisorTest, ASignalStopsThroughTheCoordinator) {
  for (const int signal : {SIGINT, SIGTERM}) {
    SetUp();
    options_.workers = 1;
    Programs(absl::StrCat("await ", 128 + signal), "await 0", absl::StrCat("kill -", signal, " $PPID; await 0"));
    EXPECT_EQ(Run(), 128 + signal);
    MutexLock lock(&script_.mu);
    EXPECT_EQ(script_.stopped, signal);
    EXPECT_THAT(out_, ContainsRegex("stopped by SIG(INT|TERM) after"));
  }
}

TEST_F(SupervisorTest, ASecondSignalStopsAtOnce) {
  options_.workers = 1;
  script_.end_file = folder_ + "/nobody-looks";
  Programs("await 0", "await 0",
           absl::StrCat("trap '' TERM; kill -2 $PPID; while [ ! -e ", folder_,
                        "/nobody-looks ]; do sleep 0.01; done; kill -15 $PPID; await 0"));
  EXPECT_EQ(Run(), 143);
  EXPECT_THAT(out_, HasSubstr("SIGTERM again: stopping at once"));
}

TEST_F(SupervisorTest, ProcessesThatOutstayTheEndAreKilled) {
  SetPhase(v1::FINISHED);
  options_.end_grace = absl::Milliseconds(1);
  EXPECT_EQ(Run(), 0);
}

}  // namespace
}  // namespace descent
