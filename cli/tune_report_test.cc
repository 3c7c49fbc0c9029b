#include "cli/tune_report.h"

#include "common/job/job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using testing::ElementsAre;

v1::JobSpec Job(const std::string& text) {
  auto job = ParseJob(text, "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(1, 1, "/", &*job).ok());
  return *job;
}

const char kClasses[] =
    "rounds: 1 data { train { csv { path: 't' } } validation { csv { path: 'v' } } } model { logistic {} } "
    "evaluation { metrics: ROC_AUC }";

Trial Of(uint32_t number, const std::string& rate, std::optional<double> value, const std::string& result) {
  Trial trial;
  trial.number = number;
  trial.fields = {{"learning_rate.constant", rate}};
  trial.result = result;
  trial.value = value;
  trial.seconds = 1.25;
  trial.run_dir = "/runs/trial-00" + std::to_string(number);
  return trial;
}

std::vector<uint32_t> Numbers(const std::vector<Trial>& trials) {
  std::vector<uint32_t> out;
  for (const Trial& trial : trials) out.push_back(trial.number);
  return out;
}

TEST(TuneReport, TheMetricIsWhatTheJobHas) {
  EXPECT_EQ(MetricOf(Job(kClasses), "")->name, "loss");
  const auto area = MetricOf(Job(kClasses), "roc_auc");
  ASSERT_TRUE(area.ok());
  EXPECT_TRUE(area->more_is_better);
  EXPECT_EQ(MetricOf(Job("rounds: 1 model { quadratic {} }"), "")->name, "training_loss");
  EXPECT_EQ(MetricOf(Job("rounds: 1 model { quadratic {} } evaluation { every_rounds: 1 }"), "")->name, "loss");
  const char objective[] =
      "rounds: 1 data { train { csv { path: 't' } } } model { linear {} } evaluation { objective: true }";
  EXPECT_EQ(MetricOf(Job(objective), "")->name, "objective");
  EXPECT_EQ(MetricOf(Job(kClasses), "f1").status().message(),
            "--metric f1: none of what this job's evaluations give: loss, accuracy, roc_auc, training_loss");
}

TEST(TuneReport, NumbersComeFromTheSummary) {
  Trial trial;
  ReadSummary(R"({"loss": 0.25, "training_loss": 0.5, "metrics": {"roc_auc": 0.75, "f1_per_class": [1]}})", "roc_auc",
              &trial);
  EXPECT_EQ(trial.value, 0.75);
  EXPECT_EQ(trial.training_loss, 0.5);
  ReadSummary(R"({"loss": 0.25})", "loss", &trial);
  EXPECT_EQ(trial.value, 0.25);
  EXPECT_EQ(trial.training_loss, std::nullopt);
  ReadSummary(R"({"loss": null, "first_cause": "rank 0: NaN"})", "loss", &trial);
  EXPECT_EQ(trial.value, std::nullopt);
  EXPECT_EQ(trial.cause, "rank 0: NaN");
  ReadSummary("{", "loss", &trial);  // of a torn file nothing is taken
}

TEST(TuneReport, TheBestIsFirstAndWhatIsNotFinishedLast) {
  const std::vector<Trial> trials = {Of(1, "1", std::nullopt, "failed"), Of(2, "0.1", 0.5, "finished"),
                                     Of(3, "0.2", 0.3, "finished"), Of(4, "0.3", 0.5, "finished"),
                                     Of(5, "0.4", 0.1, "stopped")};
  EXPECT_THAT(Numbers(Ranked(trials, {"loss", false})), ElementsAre(3, 2, 4, 1, 5));
  EXPECT_THAT(Numbers(Ranked(trials, {"accuracy", true})), ElementsAre(2, 4, 3, 1, 5));
}

TEST(TuneReport, Table) {
  std::vector<Trial> trials = {Of(2, "0.1", 0.5, "finished"), Of(1, "10", std::nullopt, "failed")};
  trials[0].training_loss = 0.75;
  EXPECT_THAT(TuneTable(trials, {"loss", false}),
              ElementsAre("trial           loss  training loss  seconds  fields",
                          "    2            0.5           0.75      1.2  learning_rate.constant=0.1",
                          "    1              -              -      1.2  learning_rate.constant=10  (failed)"));
}

TEST(TuneReport, LinesOfJson) {
  Trial trial = Of(3, "10", std::nullopt, "failed");
  trial.cause = "rank 0: \"w\" is NaN";
  EXPECT_EQ(TrialLine(trial, {"loss", false}),
            "{\"trial\":3,\"set\":{\"learning_rate.constant\":\"10\"},\"result\":\"failed\",\"metric\":\"loss\","
            "\"value\":null,\"first_cause\":\"rank 0: \\\"w\\\" is NaN\",\"seconds\":1.25,"
            "\"run_dir\":\"/runs/trial-003\"}\n");
}

TEST(TuneReport, FieldsAsACommandTakesThem) {
  const TrialFields fields = {{"model.mlp.hidden", "64,32"}, {"optimizer", "{ sgd {} }"}};
  EXPECT_EQ(FieldsText(fields, false), "model.mlp.hidden=64,32 optimizer={ sgd {} }");
  EXPECT_EQ(FieldsText(fields, true), "--set model.mlp.hidden=64,32 --set 'optimizer={ sgd {} }'");
  EXPECT_EQ(FieldsText({{"name", "it's"}}, true), "--set 'name=it'\\''s'");
}

}  // namespace
}  // namespace descent
