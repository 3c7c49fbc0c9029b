// For the supervisor's tests: shell scripts as processes, and a coordinator whose word the test decides.
#ifndef DESCENT_CLI_SUPERVISOR_FIXTURE_H_
#define DESCENT_CLI_SUPERVISOR_FIXTURE_H_

#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/supervisor.h"
#include "common/base/mutex.h"
#include "gtest/gtest.h"

namespace descent {

// A coordinator whose word the test decides. The processes are shell scripts that end when it says so, by a file.
struct Script {
  Mutex mu;
  v1::StatusReply status ABSL_GUARDED_BY(mu);
  absl::Status away ABSL_GUARDED_BY(mu);  // not OK: what it answers
  std::vector<v1::FailureReport> reports ABSL_GUARDED_BY(mu);
  std::function<void()> on_report;
  int stopped ABSL_GUARDED_BY(mu) = 0;
  bool stop_takes_a_death ABSL_GUARDED_BY(mu) = false;  // it is over with a failure report, not with the call
  std::string end_file;  // made on Stop and on a failure report (of the process's own, or any): the scripts end
  bool end_on_report = true;
  int end_after_polls = -1;
};

class ScriptedControl : public ClusterControl {
 public:
  explicit ScriptedControl(Script* script) : script_(script) {}
  absl::StatusOr<v1::StatusReply> Status() override {
    MutexLock lock(&script_->mu);
    if (!script_->away.ok()) return script_->away;
    if (script_->end_after_polls >= 0 && --script_->end_after_polls < 0) std::ofstream(script_->end_file) << "end";
    script_->status.set_examples_per_second(script_->status.examples_per_second() + 1000);
    return script_->status;
  }
  absl::Status Stop(int signal, bool at_once) override {
    MutexLock lock(&script_->mu);
    script_->stopped = signal;
    if (script_->stop_takes_a_death) {
      std::ofstream(script_->end_file + "-soon") << "";
      return absl::OkStatus();
    }
    script_->status.set_phase(v1::STOPPED);
    std::ofstream(script_->end_file) << "end";
    return absl::OkStatus();
  }
  absl::Status ReportFailure(const v1::FailureReport& report) override {
    MutexLock lock(&script_->mu);
    script_->reports.push_back(report);
    if (script_->on_report) script_->on_report();
    if (script_->stop_takes_a_death && !report.own()) {
      script_->status.set_phase(v1::STOPPED);
      std::ofstream(script_->end_file) << "end";
      return absl::OkStatus();
    }
    if (script_->end_on_report || report.own()) {
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
    options_.restarts.first = absl::Milliseconds(1);
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
    display.write = [this](absl::string_view text) {
      out_.append(text.data(), text.size());
      if (on_output_) on_output_(text);
    };
    Display shown(std::move(display));
    const int status =
        Supervisor(
            options_, [this](const std::string&) { return std::make_unique<ScriptedControl>(&script_); }, &shown)
            .Run();
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    return status;
  }

  // The first line of a process's log: scripts write their arguments there.
  std::string FirstLine(const std::string& log) const {
    std::ifstream in(folder_ + "/logs/" + log);
    std::string line;
    std::getline(in, line);
    return line;
  }
  size_t Count(const std::string& text) const {
    size_t count = 0;
    for (size_t at = 0; (at = out_.find(text, at)) != std::string::npos; at += text.size()) ++count;
    return count;
  }

  std::string folder_, out_;
  std::function<void(absl::string_view)> on_output_;
  Script script_;
  SupervisorOptions options_;
};

}  // namespace descent

#endif  // DESCENT_CLI_SUPERVISOR_FIXTURE_H_
