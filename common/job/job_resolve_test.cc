#include <string>

#include "common/job/job.h"
#include "common/job/model_spec.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

v1::JobSpec Resolved(const std::string& text, uint32_t servers = 2, uint32_t workers = 3) {
  auto job = ParseJob(text, "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(servers, workers, "/jobs", &*job).ok());
  return *job;
}

TEST(ResolveJob, WritesEveryDefaultOut) {
  const std::string text = JobText(Resolved(R"(
    data {
      root: "data"
      train { idx { images: "i" labels: "l" } }
      validation { csv { path: "x.csv" } }
    }
    model { mlp { hidden: 8 classes: 10 } }
    optimizer { adam {} }
    learning_rate { constant: 0.5 })"));
  EXPECT_EQ(text,
            R"(name: "job"
ranks: 12
batch_size: 32
epochs: 1
data {
  root: "/jobs/data"
  train {
    idx {
      images: "i"
      labels: "l"
      scale: 0.00392156862745098
    }
  }
  validation {
    csv {
      path: "x.csv"
      delimiter: ","
    }
  }
  cache_bytes: 8589934592
  shard_rows: 65536
  window_shards: 4
}
model {
  mlp {
    hidden: 8
    classes: 10
    initialization: HE
    loss {
      softmax {
      }
    }
  }
  max_bytes: 68719476736
}
consistency {
  mode: SYNC
}
optimizer {
  adam {
    beta1: 0.9
    beta2: 0.999
    epsilon: 1e-08
  }
}
learning_rate {
  constant: 0.5
}
evaluation {
  every_epochs: 1
  batch_size: 1024
}
cluster {
  servers: 2
  workers: 3
  lease_seconds: 10
  start_timeout_seconds: 600
  stall_timeout_seconds: 600
}
metrics {
  every_rounds: 50
}
block_elements: 65536
slots: 1024
)");
}

TEST(ResolveJob, SyncSaidOrNotIsTheSameJob) {
  v1::JobSpec said = Resolved("ranks: 5");
  EXPECT_TRUE(said.consistency().has_mode());
  const uint64_t fingerprint = JobFingerprint(said);
  said.mutable_consistency()->clear_mode();
  EXPECT_EQ(JobFingerprint(said), fingerprint);
  said.mutable_consistency()->set_mode(v1::ASYNC);
  EXPECT_NE(JobFingerprint(said), fingerprint);
}

TEST(ResolveJob, DampeningOfZeroSaidOrNotIsTheSameJob) {
  v1::JobSpec said = Resolved("ranks: 5 optimizer { momentum { momentum: 0.9 } }");
  EXPECT_TRUE(said.optimizer().momentum().has_dampening());
  const uint64_t fingerprint = JobFingerprint(said);
  said.mutable_optimizer()->mutable_momentum()->clear_dampening();  // as jobs were resolved before there was any
  EXPECT_EQ(JobFingerprint(said), fingerprint);
  said.mutable_optimizer()->mutable_momentum()->set_dampening(0.5);
  EXPECT_NE(JobFingerprint(said), fingerprint);
}

TEST(ResolveJob, TheUsualLossSaidOrNotIsTheSameJob) {
  v1::JobSpec linear = Resolved("ranks: 5 model { linear {} }");
  EXPECT_TRUE(linear.model().linear().loss().has_squared());
  uint64_t fingerprint = JobFingerprint(linear);
  linear.mutable_model()->mutable_linear()->clear_loss();  // as jobs were resolved before there was any
  EXPECT_EQ(JobFingerprint(linear), fingerprint);
  linear.mutable_model()->mutable_linear()->mutable_loss()->mutable_absolute();
  EXPECT_NE(JobFingerprint(linear), fingerprint);
  v1::JobSpec mlp = Resolved("ranks: 5 model { mlp { hidden: 3 classes: 2 } }");
  EXPECT_TRUE(mlp.model().mlp().loss().has_softmax());
  fingerprint = JobFingerprint(mlp);
  mlp.mutable_model()->mutable_mlp()->clear_loss();
  EXPECT_EQ(JobFingerprint(mlp), fingerprint);
  mlp.mutable_model()->mutable_mlp()->mutable_loss()->mutable_softmax()->set_focal_gamma(2);
  EXPECT_NE(JobFingerprint(mlp), fingerprint);
}

TEST(ResolveJob, Models) {
  EXPECT_EQ(Resolved("model { linear { loss { huber {} } } }").model().linear().loss().huber().delta(), 1);
  const v1::Mlp elu = Resolved("model { mlp { activation: ELU } }").model().mlp();
  EXPECT_EQ(elu.activation_alpha(), 1);
  EXPECT_EQ(elu.initialization(), v1::HE);
  EXPECT_EQ(Resolved("model { autoencoder { activation: LEAKY_RELU } }").model().autoencoder().activation_alpha(),
            0.01);
  EXPECT_EQ(Resolved("model { mlp { initialization: ORTHOGONAL } }").model().mlp().initial_scale(), 1);
  EXPECT_TRUE(Resolved("model { factorization_machine {} }").model().factorization_machine().loss().has_logistic());
  const v1::Convolution convolution =
      Resolved("model { convolution { layer { pool: MAX_POOL } layer {} } }").model().convolution();
  EXPECT_EQ(convolution.channels(), 1u);
  EXPECT_EQ(convolution.layer(0).stride(), 1u);
  EXPECT_EQ(convolution.layer(0).pool_size(), 2u);
  EXPECT_EQ(convolution.layer(1).pool_size(), 0u);
  // What a saved model says of its data, whose first tensor has a row for each number that a layer reads at a time.
  EXPECT_EQ(FeaturesOf(Resolved("model { convolution { height: 4 width: 3 } }").model(), 2), 12u);
  EXPECT_EQ(FeaturesOf(Resolved("model { recurrent { steps: 5 } }").model(), 2), 10u);
  EXPECT_EQ(FeaturesOf(Resolved("model { linear {} }").model(), 2), 2u);
}

TEST(ResolveJob, RanksFollowTheWorkersUnlessSaid) {
  EXPECT_EQ(Resolved("", 1, 1).ranks(), 8u);
  EXPECT_EQ(Resolved("", 1, 3).ranks(), 12u);
  EXPECT_EQ(Resolved("ranks: 5", 1, 3).ranks(), 5u);
  EXPECT_EQ(Resolved("cluster { workers: 4 servers: 2 }", 0, 0).ranks(), 16u);
  EXPECT_EQ(Resolved("cluster { workers: 4 servers: 2 }", 0, 0).cluster().servers(), 2u);
  EXPECT_EQ(Resolved("cluster { workers: 4 }", 1, 2).cluster().workers(), 2u);
  v1::JobSpec job;
  EXPECT_FALSE(ResolveJob(1, 4294967295u, "/", &job).ok());
}

TEST(ResolveJob, RelativeRootsStartAtTheJobFile) {
  EXPECT_EQ(Resolved("data {}").data().root(), "/jobs");
  EXPECT_EQ(Resolved("data { root: '../x' }").data().root(), "/jobs/../x");
  EXPECT_EQ(Resolved("data { root: '/x' }").data().root(), "/x");
}

TEST(ResolveJob, RulesAndLengths) {
  EXPECT_TRUE(Resolved("").optimizer().has_sgd());
  EXPECT_EQ(Resolved("optimizer { momentum {} }").optimizer().momentum().momentum(), 0.9);
  EXPECT_EQ(Resolved("optimizer { momentum { momentum: 0 } }").optimizer().momentum().momentum(), 0);
  EXPECT_EQ(Resolved("optimizer { adagrad {} }").optimizer().adagrad().epsilon(), 1e-10);
  EXPECT_EQ(Resolved("rounds: 7").length_case(), v1::JobSpec::kRounds);
  EXPECT_EQ(Resolved("model { quadratic {} }").length_case(), v1::JobSpec::LENGTH_NOT_SET);
  EXPECT_EQ(Resolved("model { mlp { activation: TANH } }").model().mlp().initialization(), v1::XAVIER);
  EXPECT_EQ(Resolved("checkpoint { every_rounds: 9 }").checkpoint().keep(), 3u);
  EXPECT_EQ(Resolved("").evaluation().every_case(), v1::Evaluation::EVERY_NOT_SET);
  EXPECT_EQ(Resolved("evaluation { objective: true }").evaluation().every_epochs(), 1);
}

TEST(ResolveJob, EveryNumberOfEveryRuleHasADefault) {
  const auto* rules = v1::Optimizer::descriptor()->FindOneofByName("rule");
  for (int i = 0; i < rules->field_count(); ++i) {
    const v1::JobSpec job = Resolved("optimizer { " + std::string(rules->field(i)->name()) + " {} }");
    const auto* reflection = job.optimizer().GetReflection();
    const auto& rule = reflection->GetMessage(job.optimizer(), rules->field(i));
    for (int j = 0; j < rule.GetDescriptor()->field_count(); ++j) {
      const auto* field = rule.GetDescriptor()->field(j);
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) continue;
      if (!field->has_presence()) continue;  // its default is 0
      EXPECT_TRUE(rule.GetReflection()->HasField(rule, field)) << field->full_name();
    }
  }
}

TEST(ResolveJob, Rates) {
  const v1::LearningRate cycle = Resolved("learning_rate { one_cycle { peak: 2 } }").learning_rate();
  EXPECT_EQ(cycle.one_cycle().initial(), 0.2);
  EXPECT_EQ(cycle.one_cycle().final(), 0.002);
  EXPECT_EQ(cycle.one_cycle().rise(), 0.45);
  EXPECT_EQ(Resolved("learning_rate { step { initial: 1 } }").learning_rate().step().factor(), 0.1);
  EXPECT_EQ(Resolved("learning_rate { cosine { initial: 1 } }").learning_rate().cosine().growth(), 1u);
}

TEST(ResolveJob, IsIdempotentAndItsTextReadsBack) {
  v1::JobSpec job = Resolved(
      "l2: 1e-4 model { softmax { classes: 3 } } data { train { csv { path: 'a' "
      "label_map { key: 'z' value: 1 } label_map { key: 'b' } } } }");
  const std::string text = JobText(job);
  ASSERT_TRUE(ResolveJob(0, 0, "/elsewhere", &job).ok());
  EXPECT_EQ(JobText(job), text);
  const auto again = ParseJob(text, "job");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(JobText(*again), text);
  EXPECT_EQ(JobFingerprint(*again), JobFingerprint(job));
}

TEST(JobFingerprint, CountsWhatDecidesAResultAndNothingElse) {
  const v1::JobSpec job = Resolved("ranks: 4 data { train { csv { path: 'a' } } }");
  const uint64_t before = JobFingerprint(job);
  for (const char* same : {"cluster.servers=9", "cluster.workers=9", "limits.server_bytes=1", "data.root=/y",
                           "data.cache_dir=/z", "data.cache_bytes=5", "cluster.lease_seconds=3"}) {
    v1::JobSpec changed = job;
    ASSERT_TRUE(OverrideJob(same, &changed).ok());
    EXPECT_EQ(JobFingerprint(changed), before) << same;
  }
  for (const char* other : {"seed=1", "ranks=5", "batch_size=1", "l2=1e-9", "data.shard_rows=5", "block_elements=64",
                            "optimizer.adam={}", "data.train.csv.path=b", "consistency.mode=ASYNC", "epochs=2"}) {
    v1::JobSpec changed = job;
    ASSERT_TRUE(OverrideJob(other, &changed).ok());
    EXPECT_NE(JobFingerprint(changed), before) << other;
  }
}

TEST(JobFingerprint, IsPinned) {
  // Processes of different builds compare it: a change of this number is a change of the protocol.
  EXPECT_EQ(JobFingerprint(v1::JobSpec()), 0xcbf29ce484222325u);
  v1::JobSpec job;
  job.set_seed(1);
  EXPECT_EQ(JobFingerprint(job), [] {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : std::string("seed: 1\n")) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return hash;
  }());
}

TEST(ConsistencyOf, ReadsTheTwoSwitches) {
  EXPECT_EQ(ConsistencyOf(Resolved("")), (Consistency{0, false, false}));
  EXPECT_EQ(ConsistencyOf(Resolved("consistency { reduce: SUM }")), (Consistency{0, false, true}));
  EXPECT_EQ(ConsistencyOf(Resolved("consistency { mode: BOUNDED staleness: 4 }")), (Consistency{4, true, false}));
  EXPECT_EQ(ConsistencyOf(Resolved("consistency { mode: ASYNC }")), (Consistency{kUnbounded, true, false}));
  EXPECT_EQ(ConsistencyOf(Resolved("consistency { mode: CUSTOM staleness: 2 }")), (Consistency{2, false, false}));
  EXPECT_EQ(ConsistencyOf(Resolved("consistency { mode: CUSTOM apply: PUSH unbounded: true }")),
            (Consistency{kUnbounded, true, false}));
}

TEST(GeometryOf, ReadsBlocksAndSlots) {
  const Geometry geometry = GeometryOf(Resolved("block_elements: 128 slots: 16"));
  EXPECT_EQ(geometry.block_elements, 128u);
  EXPECT_EQ(geometry.slots, 16u);
}

}  // namespace
}  // namespace descent
