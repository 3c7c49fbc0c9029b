#include "cli/supervisor.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

// A coordinator whose word the test decides. The processes are shell scripts that end when it says so, by a file.
struct Script {
  Mutex mu;
  v1::StatusReply status ABSL_GUARDED_BY(mu);
  std::vector<std::string> reports ABSL_GUARDED_BY(mu);
  int stopped ABSL_GUARDED_BY(mu) = 0;
  std::string end_file;  // made on Stop and on a failure report: the scripts end
  bool end_on_report = true;
};

class ScriptedControl : public ClusterControl {
 public:
  explicit ScriptedControl(Script* script) : script_(script) {}
  absl::StatusOr<v1::StatusReply> Status() override {
    MutexLock lock(&script_->mu);
    return script_->status;
  }
  absl::Status Stop(int signal, bool at_once) override {
    MutexLock lock(&script_->mu);
    script_->stopped = signal;
    script_->status.set_phase(v1::STOPPED);
    std::ofstream(script_->end_file) << "end";
    return absl::OkStatus();
  }
  absl::Status ReportFailure(const v1::FailureReport& report) override {
    MutexLock lock(&script_->mu);
    script_->reports.push_back(report.cause());
    if (script_->end_on_report) {
      script_->status.set_phase(v1::FAILED);
      std::ofstream(script_->end_file) << "end";
    }
    return absl::OkStatus();
  }

 private:
  Script* const script_;
};

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/superviseXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    mkdir((folder_ + "/logs").c_str(), 0755);
    script_.end_file = folder_ + "/end";
    {
      MutexLock lock(&script_.mu);
      script_.status.set_phase(v1::RUNNING);
    }
    options_.run_dir = folder_;
    options_.servers = 2;
    options_.workers = 2;
    options_.restart_after = absl::Milliseconds(1);
    options_.poll_interval = absl::Milliseconds(5);
    // $role: by --job, --bind or neither; waits for the end file, with a bound.
    Programs("await 0", "await 0", "await 0");
  }
  void TearDown() override { ASSERT_EQ(system(("rm -r " + folder_).c_str()), 0); }

  // What server 0, other servers and workers do once they are up. `await N` ends with N when the test says so.
  void Programs(const std::string& first_server, const std::string& server, const std::string& worker) {
    const std::string head =
        absl::StrCat("#!/bin/sh\nawait() { i=0; while [ ! -e ", folder_, "/end ] && [ $i -lt 6000 ]; do sleep 0.01; ",
                     "i=$((i+1)); done; exit $1; }\n");
    Program("server",
            absl::StrCat(head, "case \"$*\" in *--job*) echo 127.0.0.1:1 > ", folder_, "/address; mv ", folder_,
                         "/address ", folder_, "/coordinator.address; ", first_server, ";; *) ", server, ";; esac\n"));
    Program("worker", head + worker + "\n");
    options_.server_binary = folder_ + "/server";
    options_.worker_binary = folder_ + "/worker";
  }
  void Program(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    ASSERT_EQ(chmod((folder_ + "/" + name).c_str(), 0755), 0);
  }
  void SetPhase(v1::Phase phase) {
    MutexLock lock(&script_.mu);
    script_.status.set_phase(phase);
  }
  // What a script says to end them all.
  std::string EndNow() const { return absl::StrCat("touch ", folder_, "/end"); }

  int Run() {
    Display::Options display;
    display.write = [this](absl::string_view text) { out_.append(text.data(), text.size()); };
    Display shown(std::move(display));
    const int status =
        Supervisor(
            options_, [this](const std::string&) { return std::make_unique<ScriptedControl>(&script_); }, &shown)
            .Run();
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    return status;
  }

  std::string folder_, out_;
  Script script_;
  SupervisorOptions options_;
};

TEST_F(SupervisorTest, FinishesWithItsProcesses) {
  SetPhase(v1::FINISHED);
  Programs("await 0", "await 0", EndNow());
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, HasSubstr("coordinator 127.0.0.1:1; 2 servers, 2 workers\n"));
  EXPECT_THAT(out_, HasSubstr("finished after"));
}

TEST_F(SupervisorTest, PassesTheAgreedArguments) {
  SetPhase(v1::FINISHED);
  options_.base_port = 4000;
  Programs("echo \"$*\"; await 0", "echo \"$*\"; await 0", "echo \"$*\"; " + EndNow());
  EXPECT_EQ(Run(), 0);
  const auto log = [this](const std::string& name) {
    std::ifstream in(folder_ + "/logs/" + name);
    std::string line;
    std::getline(in, line);
    return line;
  };
  EXPECT_EQ(log("server-0.log"), absl::StrCat("--job ", folder_, "/job.textproto --bind 127.0.0.1:4000 --port-file ",
                                              folder_, "/coordinator.address --run-dir ", folder_));
  EXPECT_EQ(log("server-1.log"), "--coordinator 127.0.0.1:1 --bind 127.0.0.1:4001");
  EXPECT_EQ(log("worker-1.log"), "--coordinator 127.0.0.1:1");
}

TEST_F(SupervisorTest, ADeadServerFailsTheRunAndIsNamedLast) {
  Programs("await 1", "echo dying; kill -9 $$", "await 1");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, HasSubstr("  dying\n"));
  EXPECT_THAT(out_, ContainsRegex("first cause: server 1 on host [^ ]+ \\(pid [0-9]+\\) ended with signal 9 "
                                  "\\(SIGKILL\\)\n$"));
  MutexLock lock(&script_.mu);
  ASSERT_GE(script_.reports.size(), 1u);
  EXPECT_THAT(script_.reports[0], HasSubstr("ended with signal 9 (SIGKILL)"));
}

TEST_F(SupervisorTest, TheFirstServersOwnDeathNeedsNobodyToReportTo) {
  Programs("kill -9 $$", "await 1", "await 1");
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

TEST_F(SupervisorTest, AKilledWorkerIsStartedAgain) {
  // Killed the first two times; the third time it ends the run.
  script_.end_on_report = false;
  options_.workers = 1;
  Programs("await 0", "await 0",
           absl::StrCat("echo x >> ", folder_, "/tries; [ $(wc -l < ", folder_, "/tries) -gt 2 ] || kill -9 $$; ",
                        "touch ", folder_, "/end"));
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, HasSubstr("ended with signal 9 (SIGKILL); starting it again in 1ms (1 of 3)"));
  EXPECT_THAT(out_, HasSubstr("starting it again in 2ms (2 of 3)"));
  MutexLock lock(&script_.mu);
  EXPECT_EQ(script_.reports.size(), 2u) << "so that its ranks move at once";
}

TEST_F(SupervisorTest, AWorkerThatKeepsDyingFailsTheRunOnceNoOtherIsLeft) {
  script_.end_on_report = false;
  options_.workers = 1;
  options_.restarts = 1;
  options_.fail_grace = absl::ZeroDuration();
  Programs("await 0", "await 0", "kill -9 $$");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, HasSubstr("(1 of 1)"));
  EXPECT_THAT(out_, ContainsRegex("first cause: worker 0 .* ended with signal 9 \\(SIGKILL\\)\n$"));
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
