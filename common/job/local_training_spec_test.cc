#include "common/job/local_training_spec.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "model { softmax { classes: 3 } }";
constexpr char kLocal[] = "local_training { steps: 8 learning_rate: 0.1 }";

v1::JobSpec Job(const std::string& more, const std::string& model = kModel, const std::string& local = kLocal) {
  auto job = ParseJob(absl::StrCat("name: 'a' ranks: 4 batch_size: 10 learning_rate { constant: 1 } ",
                                   "data { train { libsvm { path: 'a' features: 9 } } } ", model, local, more),
                      "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(2, 1, "/jobs", &*job).ok());
  return *std::move(job);
}

std::string ErrorOf(const std::string& more, const std::string& model = kModel, const std::string& local = kLocal) {
  return std::string(ValidateJob(Job(more, model, local)).message());
}

TEST(LocalTrainingSpec, GoodOnesPass) {
  EXPECT_EQ(ErrorOf(""), "");
  EXPECT_EQ(ErrorOf("optimizer { momentum { momentum: 0.5 } } l2: 1e-4 clip { global_norm: 1 } encoding: BF16"), "");
  EXPECT_EQ(ErrorOf("optimizer { adam {} } averaging {} replicas: 1"), "");
  EXPECT_EQ(ErrorOf("optimizer { adamw {} }"), "");
  EXPECT_EQ(ErrorOf("optimizer { sgd {} proximal { lower: -1 upper: 1 } }"), "");
  EXPECT_EQ(ErrorOf("consistency { backup_ranks: 1 } record_order: true"), "");
  EXPECT_EQ(ErrorOf("consistency { mode: CUSTOM }"), "");  // rounds without staleness
  EXPECT_EQ(ErrorOf("", kModel, "local_training { steps: 1677721 learning_rate: 1 }"), "");
}

TEST(LocalTrainingSpec, Ranges) {
  const auto error = [](const std::string& local) { return ErrorOf("", kModel, "local_training {" + local + "}"); };
  EXPECT_EQ(error(""),
            "local_training.steps: 0 is not from 1 to 16777216\n"
            "local_training.learning_rate: 0 is not above 0");
  EXPECT_EQ(error("steps: 2 learning_rate: -1"), "local_training.learning_rate: -1 is not above 0");
  EXPECT_EQ(error("steps: 2 learning_rate: 1e-60"), "local_training.learning_rate: 1e-60 is beyond float32");
  EXPECT_EQ(error("steps: 2 learning_rate: nan"), "local_training.learning_rate: nan is not a finite number");
  EXPECT_EQ(
      error("steps: 1677722 learning_rate: 1"),
      "local_training.steps: 1677722 steps with batch_size 10 take 16777220 examples of a rank and clock; at most "
      "16777216");
}

TEST(LocalTrainingSpec, RefusesWhatHasNoMeaningBesideIt) {
  constexpr char kMode[] =
      "consistency.mode: local_training averages copies that all began with the same parameters, which SYNC gives";
  EXPECT_EQ(ErrorOf("consistency { mode: ASYNC }"), kMode);
  EXPECT_EQ(ErrorOf("consistency { mode: BOUNDED staleness: 2 }"), kMode);
  EXPECT_EQ(ErrorOf("consistency { mode: CUSTOM staleness: 1 }"), kMode);
  EXPECT_EQ(ErrorOf("consistency { reduce: SUM }"),
            "consistency.reduce: local_training averages copies, and a sum is no average: leave it out");
  EXPECT_EQ(ErrorOf("optimizer { ftrl {} }"),
            "optimizer.ftrl: solves for a sum of gradients, and what comes with local_training is how far copies went");
  for (const char* rule : {"lars", "lamb"}) {
    EXPECT_EQ(ErrorOf(absl::StrCat("optimizer { ", rule, " {} }")),
              absl::StrCat("optimizer.", rule, ": takes its rate from the norms of a gradient, and what comes with ",
                           "local_training is how far copies went"));
  }
  EXPECT_THAT(ErrorOf("optimizer { lbfgs {} }"),
              HasSubstr("optimizer.lbfgs: takes the gradient of all data, and what comes with local_training is"));
  for (const char* penalty : {"l1", "l2", "group_lasso"}) {
    EXPECT_EQ(ErrorOf(absl::StrCat("optimizer { sgd {} proximal { ", penalty, ": 0.1 } }")),
              absl::StrCat("optimizer.proximal.", penalty,
                           ": does not go with local_training, under which the rate that a penalty goes by is not how ",
                           "far a gradient goes; bounds go with it"));
  }
  EXPECT_EQ(ErrorOf("", "model { logistic { sparse_table: true } }"),
            "local_training: a rank trains a copy of the whole model, and of a sparse_table a worker has some rows "
            "alone: set features, and no sparse_table");
  auto job =
      ParseJob(absl::StrCat("name: 'a' rounds: 3 learning_rate { constant: 1 } model { quadratic {} }", kLocal), "job");
  ASSERT_TRUE(job.ok() && ResolveJob(1, 1, "/jobs", &*job).ok());
  EXPECT_EQ(ValidateJob(*job).message(), "local_training: the model reads no data, so it has no mini-batches");
}

TEST(LocalTrainingSpec, AClockTakesAllItsSteps) {
  const v1::JobSpec local = Job("epochs: 3");
  EXPECT_EQ(RowsPerClock(local), 80u);
  // 1,001 rows are 251 for the longest share.
  EXPECT_EQ(ClocksPerEpoch(local, 1001), 4u);
  EXPECT_EQ(ClocksOf(local, 4), 12u);
  const v1::JobSpec plain = Job("epochs: 3", kModel, "");
  EXPECT_EQ(RowsPerClock(plain), 10u);
  EXPECT_EQ(ClocksPerEpoch(plain, 1001), 26u);
  EXPECT_NE(JobFingerprint(local), JobFingerprint(plain));
}

}  // namespace
}  // namespace descent
