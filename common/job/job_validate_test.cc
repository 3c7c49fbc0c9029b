#include <string>

#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

constexpr char kMlp[] = R"(
  name: "a" learning_rate { constant: 0.1 }
  data { root: "/x" train { idx { images: "i" labels: "l" } } validation { idx { images: "i" labels: "l" } } }
  model { mlp { hidden: 8 classes: 10 } })";
constexpr char kSparse[] = R"(
  name: "a" learning_rate { constant: 0.1 }
  data { root: "/x" train { libsvm { path: "a" } } validation { libsvm { path: "b" } } }
  model { logistic { sparse_table: true } })";
constexpr char kQuadratic[] = R"(name: "a" rounds: 3 learning_rate { constant: 0.1 } model { quadratic {} })";
constexpr char kCsv[] = R"(
  name: "a" learning_rate { constant: 0.1 } data { train { csv { path: "a" } } } model { linear {} })";

// The messages about a job, changed by --set assignments.
std::string ErrorOf(const std::string& text, std::initializer_list<const char*> changes = {}) {
  auto job = ParseJob(text, "job");
  EXPECT_TRUE(job.ok()) << job.status();
  for (const char* change : changes) {
    const absl::Status changed = OverrideJob(change, &*job);
    EXPECT_TRUE(changed.ok()) << changed;
  }
  EXPECT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  const absl::Status status = ValidateJob(*job);
  EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ValidateJob, GoodJobsPass) {
  EXPECT_EQ(ErrorOf(kMlp), "");
  EXPECT_EQ(ErrorOf(kSparse), "");
  EXPECT_EQ(ErrorOf(kQuadratic), "");
  EXPECT_EQ(ErrorOf(kCsv), "");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=BOUNDED", "consistency.staleness=4"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=ASYNC"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=CUSTOM", "consistency.staleness=2"}), "");
  EXPECT_EQ(ErrorOf(kQuadratic, {"model.custom.name=mine", "model.custom.no_data=true"}), "");
}

TEST(ValidateJob, ListsEverythingAtOnce) {
  EXPECT_EQ(ErrorOf("l2: -1 slots: 3 rounds: 0"),
            "rounds: 0 is not from 1 to 281474976710656\n"
            "l2: -1 is below 0\n"
            "slots: 3 is not a power of two\n"
            "model: missing: one of linear, logistic, softmax, mlp, quadratic, custom\n"
            "learning_rate.constant: missing: how far a step goes");
}

TEST(ValidateJob, Ranges) {
  EXPECT_EQ(ErrorOf(kMlp, {"ranks=65537"}), "ranks: 65537 is not from 1 to 65536");
  EXPECT_EQ(ErrorOf(kMlp, {"epochs=0"}), "epochs: 0 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"epochs=-2"}), "epochs: -2 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"epochs=nan"}), "epochs: nan is not a finite number");
  EXPECT_EQ(ErrorOf(kMlp, {"block_elements=262145"}), "block_elements: 262145 is not from 1 to 262144");
  EXPECT_EQ(ErrorOf(kMlp, {"data.shard_rows=65537"}), "data.shard_rows: 65537 is not from 1 to 65536");
  EXPECT_EQ(ErrorOf(kMlp, {"cluster.lease_seconds=-1"}), "cluster.lease_seconds: -1 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"name=a/b"}),
            "name: `a/b` names folders, so it takes 1 to 100 letters, digits, `-`, `_` and `.`, and begins with "
            "neither `.` nor `-`");
}

TEST(ValidateJob, Rates) {
  EXPECT_EQ(ErrorOf(kMlp, {"learning_rate.constant=0"}), "learning_rate.constant: missing: how far a step goes");
  EXPECT_EQ(ErrorOf(kMlp, {"learning_rate.constant=inf"}), "learning_rate.constant: inf is not a finite number");
  EXPECT_EQ(ErrorOf(kMlp, {"learning_rate.constant=-0.1"}), "learning_rate.constant: -0.1 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"learning_rate.constant=1e300"}), "learning_rate.constant: 1e+300 is beyond float32");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.momentum.momentum=1"}),
            "optimizer.momentum.momentum: 1 is not from 0 to below 1");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.adam.beta2=-0.5", "optimizer.adam.epsilon=0"}),
            "optimizer.adam.beta2: -0.5 is not from 0 to below 1\noptimizer.adam.epsilon: 0 is not above 0");
}

TEST(ValidateJob, Models) {
  EXPECT_EQ(ErrorOf(kMlp, {"model.mlp.classes=0"}), "model.mlp.classes: the number of classes is missing");
  EXPECT_EQ(ErrorOf(kMlp, {"model.softmax.classes=1"}), "model.softmax.classes: 1 is not from 2 to 65536");
  EXPECT_EQ(ErrorOf(kMlp, {"model.mlp.hidden="}), "model.mlp.hidden: no hidden layer; without one it is softmax");
  EXPECT_EQ(ErrorOf(kMlp, {"model.mlp.hidden=8,0"}), "model.mlp.hidden[1]: 0 is not from 1 to 16777216");
  EXPECT_EQ(ErrorOf("learning_rate { constant: 1 } model { quadratic {} }"),
            "rounds: the length is missing: the model reads no data, so it has no epochs");
  EXPECT_EQ(ErrorOf(kQuadratic, {"epochs=1"}), "epochs: the model reads no data, so it has no epochs: set rounds");
  EXPECT_EQ(ErrorOf(kQuadratic, {"data.train.csv.path=a"}), "data: the model reads no data");
}

TEST(ValidateJob, DataThatTheModelNeeds) {
  EXPECT_EQ(ErrorOf("learning_rate { constant: 1 } model { linear {} }"),
            "data.train: missing: the model trains on data");
  EXPECT_EQ(ErrorOf(kMlp, {"data.train.idx.labels="}), "data.train.idx.labels: missing: a file");
  EXPECT_EQ(ErrorOf(kMlp, {"data.train={}"}), "data.train: missing: one of idx, libsvm, csv");
  EXPECT_EQ(ErrorOf(kSparse, {"model.logistic.sparse_table=false", "data.validation.libsvm.features=3"}),
            "data.train.libsvm.features: missing: how many there are (only a sparse_table does without)\n"
            "data.validation.libsvm.features: 3, but data.train.libsvm.features is 0");
  EXPECT_EQ(ErrorOf(kMlp, {"model={ softmax { classes: 10 sparse_table: true } }"}),
            "data.train: dense data, but the model's weights are a sparse_table, which takes libsvm\n"
            "data.validation: dense data, but the model's weights are a sparse_table, which takes libsvm");
  EXPECT_EQ(ErrorOf(kSparse, {"data.train.libsvm.path="}), "data.train.libsvm.path: missing: a file or a pattern");
}

TEST(ValidateJob, Csv) {
  EXPECT_EQ(ErrorOf(kCsv, {"data.train.csv.delimiter=;;"}),
            "data.train.csv.delimiter: `;;` is not one character other than a quote or a line's end");
  EXPECT_EQ(ErrorOf(kCsv, {"data.train.csv.label=price"}),
            "data.train.csv.label: `price` is a name, but there is no header: a column's number from 0");
  EXPECT_EQ(ErrorOf(kCsv, {"model.softmax.classes=3", "data.train.csv.label_map[x]=3"}),
            "data.train.csv.label_map[x]: 3 is no class from 0 to 2");
  EXPECT_EQ(ErrorOf(kCsv, {"model={ logistic {} }", "data.train.csv.log_label=true"}),
            "data.train.csv.log_label: the labels are classes");
}

TEST(ValidateJob, ConsistencyContradictions) {
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=BOUNDED"}),
            "consistency.staleness: missing: BOUNDED needs a bound of at least 1 (mode CUSTOM takes 0)");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.staleness=4"}),
            "consistency.staleness: 4 contradicts mode SYNC, whose reads are never stale");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=ASYNC", "consistency.staleness=4"}),
            "consistency.staleness: 4 contradicts mode ASYNC, which has no bound");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.apply=PUSH"}),
            "consistency.apply: PUSH contradicts mode SYNC, which applies by round");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.unbounded=true"}), "consistency.unbounded: is for mode CUSTOM, not SYNC");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=CUSTOM", "consistency.unbounded=true"}),
            "consistency.unbounded: rounds need a bound: a server holds the contributions of every open round");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=ASYNC", "consistency.reduce=SUM"}),
            "consistency.reduce: SUM is for apply ROUND: with PUSH nothing is reduced");
  EXPECT_EQ(ErrorOf(kMlp, {"ranks=4", "consistency.backup_ranks=3", "consistency.late=FINISH"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"ranks=4", "consistency.backup_ranks=4"}),
            "consistency.backup_ranks: 4 is not below the number of ranks, 4");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=BOUNDED", "consistency.staleness=4", "consistency.backup_ranks=1"}),
            "consistency.backup_ranks: is for mode SYNC, not BOUNDED");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.late=FINISH"}),
            "consistency.late: FINISH is for jobs with consistency.backup_ranks: no rank is late without them");
  EXPECT_EQ(ErrorOf("consistency { mode: 9 }" + std::string(kMlp)),
            "consistency.mode: 9 is none of SYNC, BOUNDED, ASYNC, CUSTOM");
}

TEST(ValidateJob, Replicas) {
  EXPECT_EQ(ErrorOf(kMlp, {"replicas=1"}),
            "replicas: a backup is another server: cluster.servers is 1; expected at least 2");
  EXPECT_EQ(ErrorOf(kMlp, {"replicas=2"}),
            "replicas: 2 is above 1: a server has one backup or none\n"
            "replicas: a backup is another server: cluster.servers is 1; expected at least 2");
}

TEST(ValidateJob, Evaluation) {
  EXPECT_EQ(ErrorOf(kCsv, {"evaluation.every_epochs=1"}),
            "evaluation: nothing to evaluate: neither data.validation nor evaluation.objective is there");
  EXPECT_EQ(ErrorOf(kMlp, {"evaluation.every_rounds=0"}),
            "evaluation.every_rounds: 0 is not from 1 to 281474976710656");
  EXPECT_EQ(ErrorOf(kQuadratic, {"evaluation.every_epochs=1"}),
            "evaluation.every_epochs: the model reads no data, so it has no epochs");
}

}  // namespace
}  // namespace descent
