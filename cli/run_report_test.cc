#include "cli/run_report.h"

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

class RunReportTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/reportXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    end_.run_dir = pattern;
    end_.wall = absl::Seconds(65);
  }
  void TearDown() override { ASSERT_EQ(system(("rm -r " + end_.run_dir).c_str()), 0); }
  std::string Report() {
    std::string text = absl::StrJoin(RunReport(end_), "\n");
    for (size_t at; (at = text.find(end_.run_dir)) != std::string::npos;) text.replace(at, end_.run_dir.size(), "RUN");
    return text;
  }
  RunEnd end_;
};

TEST_F(RunReportTest, Finished) {
  end_.result = "finished";
  mkdir((end_.run_dir + "/model").c_str(), 0755);
  std::ofstream(end_.run_dir + "/summary.json")
      << R"({"clocks": 4690, "training_loss": 0.25, "loss": 0.3, "accuracy": 0.88, "examples_per_second": 120000.0,
             "parameters_sha256": "abc"})";
  EXPECT_EQ(Report(),
            "finished after 1:05: 4690 rounds, 120k examples/s\n"
            "training loss 0.25, loss 0.3, accuracy 0.88\n"
            "model RUN/model\n"
            "parameters_sha256 abc\n"
            "run directory RUN");
}

TEST_F(RunReportTest, MetricsOfOneNumberAreToldInTheirOrder) {
  end_.result = "finished";
  std::ofstream(end_.run_dir + "/summary.json")
      << R"({"clocks": 10, "loss": 0.3, "metrics": {"roc_auc": 0.75, "f1_macro": 0.5, "f1_per_class": [0.25, 0.75]}})";
  EXPECT_EQ(Report(), "finished after 1:05: 10 rounds\nloss 0.3, roc_auc 0.75, f1_macro 0.5\nrun directory RUN");
}

TEST_F(RunReportTest, FailedEndsWithTheFirstCause) {
  end_.result = "failed";
  end_.own_cause = "worker 2 ended";
  end_.coordinator_cause = "worker 2 on host b: train.csv:7: `x` is not a number";
  end_.culprit = "worker 2 on host b (pid 9)";
  end_.culprit_ending = "ended with exit code 1";
  end_.culprit_log = {"one", "two\x1b"};
  end_.culprit_log_path = "RUN/logs/worker-2.log";
  EXPECT_EQ(Report(),
            "failed after 1:05: no round was finished\n"
            "logs RUN/logs\n"
            "last lines of RUN/logs/worker-2.log:\n"
            "  one\n"
            "  two \n"
            "ended first: worker 2 on host b (pid 9) ended with exit code 1\n"
            "first cause: worker 2 on host b: train.csv:7: `x` is not a number");
}

TEST_F(RunReportTest, WhatTheFirstCauseTellsIsNotToldTwice) {
  end_.result = "failed";
  end_.coordinator_cause = "worker 4 on host b (pid 9): ended with exit code 1";
  end_.culprit = "worker 2 on host b (pid 9)";
  end_.culprit_ending = "ended with exit code 1";
  EXPECT_EQ(Report(),
            "failed after 1:05: no round was finished\n"
            "logs RUN/logs\n"
            "first cause: worker 4 on host b (pid 9): ended with exit code 1");
}

TEST_F(RunReportTest, ADamagedSummaryIsNoSummary) {
  end_.result = "finished";
  std::ofstream(end_.run_dir + "/summary.json") << "{ not json";
  EXPECT_EQ(Report(), "finished after 1:05: no round was finished\nrun directory RUN");
}

}  // namespace
}  // namespace descent
