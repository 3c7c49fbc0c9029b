// What the supervisor does when processes crash.
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/supervisor_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

class SupervisorRestartTest : public SupervisorTest {
 protected:
  void SetUp() override {
    SupervisorTest::SetUp();
    script_.end_on_report = false;
    options_.workers = 1;
  }
  // Runs `again` once `first` has been run `times` times.
  std::string FirstTimes(int times, const std::string& first, const std::string& again) const {
    const std::string tries = folder_ + "/tries";
    return absl::StrCat("echo x >> ", tries, "; if [ $(wc -l < ", tries, ") -le ", times, " ]; then ", first, "; else ",
                        again, "; fi");
  }
  std::string Await(const std::string& name) const {
    return absl::StrCat("while [ ! -e ", folder_, "/", name, " ]; do sleep 0.01; done");
  }
};

TEST_F(SupervisorRestartTest, AKilledWorkerIsStartedAgain) {
  Programs("await 0", "await 0", FirstTimes(2, "kill -9 $$", EndNow()));
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, ContainsRegex("worker 0 on host [^ ]+ \\(pid [0-9]+\\) ended with signal 9 \\(SIGKILL\\); started "
                                  "again as pid [0-9]+ \\(restart 1 of 100\\)\n"));
  EXPECT_THAT(out_, HasSubstr("(restart 2 of 100)"));
  MutexLock lock(&script_.mu);
  ASSERT_EQ(script_.reports.size(), 2u) << "so that its ranks move at once";
  EXPECT_EQ(script_.reports[0].role(), "worker");
  EXPECT_FALSE(script_.reports[0].own());
}

TEST_F(SupervisorRestartTest, ACrashMayBeAnExitCodeThatTheProgramsDoNotHave) {
  Programs("await 0", "await 0", FirstTimes(1, "exit 134", EndNow()));
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, HasSubstr("ended with exit code 134; started again as pid"));
}

TEST_F(SupervisorRestartTest, AKilledServerIsStartedAgainAsItWas) {
  options_.base_port = 4000;
  Programs("await 0", "echo \"$*\" >> $0.arguments; " + FirstTimes(1, "kill -9 $$", EndNow() + "; await 0"), "await 0");
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, ContainsRegex("server 1 on host .* ended with signal 9 \\(SIGKILL\\); started again as pid"));
  std::ifstream in(folder_ + "/server.arguments");
  for (int start = 0; start < 2; ++start) {
    std::string line;
    std::getline(in, line);
    EXPECT_EQ(line, "--coordinator 127.0.0.1:1 --bind 127.0.0.1:4001");
  }
  MutexLock lock(&script_.mu);
  ASSERT_EQ(script_.reports.size(), 1u);
  EXPECT_EQ(script_.reports[0].role(), "server");
  EXPECT_FALSE(script_.reports[0].own());
  EXPECT_EQ(script_.reports[0].cause(), "ended with signal 9 (SIGKILL)");
}

// Its backups may do for it: the coordinator judges.
TEST_F(SupervisorRestartTest, AServerWithABackupThatIsKilledDuringAStopFailsNothing) {
  for (const bool replicated : {true, false}) {
    if (!replicated) SetUp();
    {
      MutexLock lock(&script_.mu);
      script_.stop_takes_a_death = true;
      script_.reports.clear();
      script_.status.clear_server();
      if (replicated) script_.status.add_server()->set_synced(true);
    }
    Programs("await 130", Await("end-soon") + "; kill -9 $$", "kill -2 $PPID; await 0");
    EXPECT_EQ(Run(), replicated ? 130 : 1) << out_;
    MutexLock lock(&script_.mu);
    ASSERT_EQ(script_.reports.size(), 1u);
    EXPECT_EQ(script_.reports[0].role(), "server");
    EXPECT_NE(script_.reports[0].own(), replicated);
  }
}

TEST_F(SupervisorRestartTest, AKilledCoordinatorGoesOnAtItsAddress) {
  {
    MutexLock lock(&script_.mu);
    script_.away = absl::UnavailableError("connection refused");
  }
  // That it is away is shown, and no error by itself.
  on_output_ = [this](absl::string_view text) {
    if (!absl::StrContains(text, "started again")) return;
    MutexLock lock(&script_.mu);
    script_.away = absl::OkStatus();
  };
  Programs(absl::StrCat("case \"$*\" in *--resume*) echo \"$*\" > ", folder_, "/resumed; ", EndNow(),
                        "; await 0;; esac; ", Await("up"), "; kill -9 $$"),
           "await 0", absl::StrCat("touch ", folder_, "/up; await 0"));
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, HasSubstr("\ncoordinator restarting\n"));
  EXPECT_THAT(out_,
              ContainsRegex("server 0 on host .* ended with signal 9 \\(SIGKILL\\); started again with --resume as "
                            "pid [0-9]+ \\(restart 1 of 100\\)"));
  std::ifstream in(folder_ + "/resumed");
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, absl::StrCat("--job ", folder_, "/job.textproto --bind 127.0.0.1:1 --port-file ", folder_,
                               "/coordinator.address --run-dir ", folder_, " --resume --servers 2 --workers 1"));
  MutexLock lock(&script_.mu);
  EXPECT_TRUE(script_.reports.empty()) << "there is nobody to tell";
}

TEST_F(SupervisorRestartTest, AResumedRunDoesNotTakeTheFormerCoordinatorsAddress) {
  SetPhase(v1::FINISHED);
  options_.resume = true;
  std::ofstream(folder_ + "/coordinator.address") << "127.0.0.1:999\n";
  Programs("echo \"$*\"; await 0", "await 0", EndNow());
  EXPECT_EQ(Run(), 0);
  EXPECT_THAT(out_, HasSubstr("coordinator 127.0.0.1:1;"));
  EXPECT_THAT(FirstLine("server-0.log"),
              testing::EndsWith(absl::StrCat("--run-dir ", folder_, " --resume --servers 2 --workers 1")));
}

TEST_F(SupervisorRestartTest, TheRunFailsWhenTheRestartsAreUsedUp) {
  options_.restarts.most = 2;
  Programs("await 1", "kill -9 $$", "await 1");
  EXPECT_EQ(Run(), 1);
  EXPECT_EQ(Count("; started again as pid"), 2u);
  EXPECT_THAT(out_,
              ContainsRegex("first cause: server 1 .* ended with signal 9 \\(SIGKILL\\); this run's 2 restarts are "
                            "used up\n$"));
  MutexLock lock(&script_.mu);
  ASSERT_EQ(script_.reports.size(), 3u) << "the last one is not a loss that others could make good";
  EXPECT_TRUE(script_.reports[2].own());
}

TEST_F(SupervisorRestartTest, ACoordinatorThatKeepsDyingFailsTheRunToo) {
  options_.restarts.most = 1;
  Programs("kill -9 $$", "await 0", "await 0");
  EXPECT_EQ(Run(), 1);
  EXPECT_THAT(out_, ContainsRegex("first cause: server 0 .* this run's 1 restarts are used up\n$"));
}

TEST_F(SupervisorRestartTest, AStopWhileAServerIsDownEndsEverything) {
  options_.restarts.first = absl::Hours(1);
  script_.on_report = [] { kill(getpid(), SIGINT); };
  Programs("await 130", "kill -9 $$", "await 0");
  EXPECT_EQ(Run(), 130);
  EXPECT_THAT(out_, HasSubstr("; not started again\n"));
  EXPECT_THAT(out_, HasSubstr("stopped by SIGINT (nothing since the last checkpoint was saved) after"));
  MutexLock lock(&script_.mu);
  EXPECT_EQ(script_.stopped, SIGINT);
}

TEST_F(SupervisorRestartTest, AStopWhileTheCoordinatorIsDownEndsEverything) {
  options_.restarts.first = absl::Hours(1);
  on_output_ = [](absl::string_view text) {
    if (absl::StrContains(text, "coordinator restarting")) kill(getpid(), SIGTERM);
  };
  Programs(Await("up") + "; kill -9 $$", "await 0", absl::StrCat("touch ", folder_, "/up; await 0"));
  EXPECT_EQ(Run(), 143);
  EXPECT_THAT(out_, HasSubstr("; not started again\n"));
  EXPECT_THAT(out_, Not(HasSubstr("started again with")));
  MutexLock lock(&script_.mu);
  EXPECT_EQ(script_.stopped, 0) << "there is nobody to ask";
}

}  // namespace
}  // namespace descent
