#include <string>

#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

std::string ErrorOf(absl::string_view assignment, v1::JobSpec job = {}) {
  const std::string before = JobText(job);
  const absl::Status status = OverrideJob(assignment, &job);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(JobText(job), before) << "an error must leave the job as it was";
  return std::string(status.message());
}

v1::JobSpec With(absl::string_view assignment, v1::JobSpec job = {}) {
  const absl::Status status = OverrideJob(assignment, &job);
  EXPECT_TRUE(status.ok()) << status;
  return job;
}

TEST(OverrideJob, EveryKindOfField) {
  EXPECT_EQ(With("seed=18446744073709551615").seed(), 18446744073709551615u);
  EXPECT_EQ(With("l2=1e-4").l2(), 1e-4);
  EXPECT_EQ(With("data.root=/a b=c").data().root(), "/a b=c");
  EXPECT_TRUE(With("evaluation.objective=true").evaluation().objective());
  EXPECT_EQ(With("consistency.mode=BOUNDED").consistency().mode(), v1::BOUNDED);
  EXPECT_EQ(With("consistency.mode=async").consistency().mode(), v1::ASYNC);
  EXPECT_EQ(With("optimizer.adam.beta1=0").optimizer().adam().has_beta1(), true);
  EXPECT_TRUE(With("optimizer.sgd={}").optimizer().has_sgd());
  EXPECT_EQ(With("optimizer={ momentum { momentum: 0.5 } }").optimizer().momentum().momentum(), 0.5);
}

TEST(OverrideJob, RepeatedFieldsAndMaps) {
  v1::JobSpec job = With("model.mlp.hidden=256,128");
  ASSERT_EQ(job.model().mlp().hidden_size(), 2);
  job = With("model.mlp.hidden[1]=64", job);
  EXPECT_EQ(job.model().mlp().hidden(1), 64u);
  job = With("model.mlp.hidden[2]=32", job);
  EXPECT_EQ(job.model().mlp().hidden_size(), 3);
  job = With("model.mlp.hidden=", job);
  EXPECT_EQ(job.model().mlp().hidden_size(), 0);

  job = With("data.train.csv.label_map[Very = Good.]=2");
  job = With("data.train.csv.label_map[Fair]=0", job);
  job = With("data.train.csv.label_map[Fair]=1", job);
  EXPECT_EQ(job.data().train().csv().label_map_size(), 2);
  EXPECT_EQ(job.data().train().csv().label_map().at("Very = Good."), 2);
  EXPECT_EQ(job.data().train().csv().label_map().at("Fair"), 1);
}

TEST(OverrideJob, AMemberOfAOneofClearsTheOthers) {
  v1::JobSpec job = With("rounds=10", With("epochs=3"));
  EXPECT_EQ(job.length_case(), v1::JobSpec::kRounds);
  job = With("optimizer.adam.beta2=0.9", With("optimizer.momentum.momentum=0.9"));
  EXPECT_FALSE(job.optimizer().has_momentum());
}

TEST(OverrideJob, Messages) {
  EXPECT_EQ(ErrorOf("epochs"), "--set epochs: expected path=value");
  EXPECT_EQ(ErrorOf("epoch=1"), "--set epoch: unknown field `epoch` in the job; did you mean `epochs`?");
  EXPECT_EQ(ErrorOf("optimizer.adam.beta=1"),
            "--set optimizer.adam.beta: unknown field `beta` in `optimizer.adam`; did you mean `beta1`?");
  EXPECT_EQ(ErrorOf("ranks=many"), "--set ranks: expected a whole number from 0 to 4294967295, got `many`");
  EXPECT_EQ(ErrorOf("ranks=-1"), "--set ranks: expected a whole number from 0 to 4294967295, got `-1`");
  EXPECT_EQ(ErrorOf("l2=small"), "--set l2: expected a number, got `small`");
  EXPECT_EQ(ErrorOf("evaluation.objective=si"), "--set evaluation.objective: expected true or false, got `si`");
  EXPECT_EQ(ErrorOf("consistency.mode=SYNCH"), "--set consistency.mode: unknown value `SYNCH`; did you mean `SYNC`?");
  EXPECT_EQ(ErrorOf("consistency=SYNC"),
            "--set consistency: is a group of fields: set one of them (mode, staleness, apply, reduce, unbounded, "
            "allow_mixed_numerics, backup_ranks, late, staleness_aware_rate, delay_compensation, change), or all with "
            "{ ... }");
  EXPECT_EQ(ErrorOf("model.mlp.hidden[3]=1"),
            "--set model.mlp.hidden[3]: has 0 elements: expected an index from 0 to 0, got `3`");
  EXPECT_EQ(ErrorOf("model.mlp.hidden=1,x"),
            "--set model.mlp.hidden: expected a whole number from 0 to 4294967295, got `x`");
  EXPECT_EQ(ErrorOf("seed.x=1"), "--set seed.x: `seed` has no fields of its own");
  EXPECT_EQ(ErrorOf("model..mlp=1"), "--set `model..mlp`: a field's name is missing");
  EXPECT_EQ(ErrorOf("a[1=2"), "--set a[1=2: expected path=value");
  EXPECT_EQ(ErrorOf("optimizer={ nosuch {} }"),
            "--set optimizer: Message type \"descent.v1.Optimizer\" has no field named \"nosuch\"");
}

}  // namespace
}  // namespace descent
