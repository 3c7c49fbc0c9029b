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
            "model: missing: one of linear, logistic, softmax, svm, poisson, factorization_machine, mlp, autoencoder, "
            "wide_deep, convolution, recurrent, quadratic, custom\n"
            "learning_rate.constant: missing: how far a step goes");
}

TEST(ValidateJob, Ranges) {
  EXPECT_EQ(ErrorOf(kMlp, {"ranks=65537"}), "ranks: 65537 is not from 1 to 65536");
  EXPECT_EQ(ErrorOf(kMlp, {"epochs=0"}), "epochs: 0 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"epochs=-2"}), "epochs: -2 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"epochs=nan"}), "epochs: nan is not a finite number");
  EXPECT_EQ(ErrorOf(kMlp, {"block_elements=262145"}), "block_elements: 262145 is not from 1 to 262144");
  EXPECT_EQ(ErrorOf(kMlp, {"block_elements=262144", "optimizer={ adam {} }"}), "");
  EXPECT_EQ(
      ErrorOf(kMlp, {"ranks=4", "block_elements=262144", "optimizer={ amsgrad {} }"}),
      "block_elements: 262144 parameters with 3 further vectors of each are more than goes into a message: at most "
      "258045");
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

TEST(ValidateJob, Schedules) {
  const auto error = [](const std::string& rate, const char* text = kMlp) {
    return ErrorOf(text, {("learning_rate={ " + rate + " }").c_str()});
  };
  EXPECT_EQ(error("cosine { initial: 0.1 } warmup_rounds: 5"), "");
  EXPECT_EQ(error("warmup_rounds: 5"), "learning_rate.constant: missing: how far a step goes");
  EXPECT_EQ(error("step {}"),
            "learning_rate.step.initial: missing: how far a step goes\n"
            "learning_rate.step.every_rounds: missing, and every_epochs as well: how soon the rate falls");
  EXPECT_EQ(error("step { initial: 1 factor: 1.5 every_rounds: 0 }"),
            "learning_rate.step.factor: 1.5 is not from above 0 to 1\n"
            "learning_rate.step.every_rounds: 0 is not from 1 to 281474976710656");
  EXPECT_EQ(error("exponential { initial: 1e300 factor: 0 epochs: -1 }"),
            "learning_rate.exponential.initial: 1e+300 is beyond float32\n"
            "learning_rate.exponential.factor: 0 is not from above 0 to 1\n"
            "learning_rate.exponential.epochs: -1 is not above 0");
  EXPECT_EQ(error("inverse_time { initial: 1 }"),
            "learning_rate.inverse_time.rounds: missing, and epochs as well: how soon the rate falls");
  EXPECT_EQ(error("inverse_sqrt { initial: -1 rounds: 1 }"), "learning_rate.inverse_sqrt.initial: -1 is not above 0");
  EXPECT_EQ(error("polynomial { initial: 1 final: -1 power: 0 }"),
            "learning_rate.polynomial.final: -1 is below 0\nlearning_rate.polynomial.power: 0 is not above 0");
  EXPECT_EQ(error("cosine { initial: 1 growth: 2 }"),
            "learning_rate.cosine.growth: 2 is for cycles that follow: set restarts");
  EXPECT_EQ(error("one_cycle { peak: 1 rise: 0.6 } warmup_epochs: 0"),
            "learning_rate.one_cycle.rise: 0.6 is not from above 0 to 0.5: the fall takes as long\n"
            "learning_rate.warmup_epochs: 0 is not above 0");
  EXPECT_EQ(error("cosine { initial: 1 epochs: 1 }", kQuadratic),
            "learning_rate.cosine.epochs: the model reads no data, so it has no epochs: set rounds");
}

TEST(ValidateJob, Rules) {
  const auto error = [](const std::string& optimizer, const char* change = "seed=0") {
    return ErrorOf(kMlp, {("optimizer={ " + optimizer + " }").c_str(), change});
  };
  for (const char* rule :
       {"sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "amsgrad", "ftrl"}) {
    EXPECT_EQ(error(std::string(rule) + " {}"), "");
  }
  EXPECT_EQ(error("momentum { dampening: 1 }"), "optimizer.momentum.dampening: 1 is not from 0 to below 1");
  EXPECT_EQ(error("nesterov { momentum: -1 }"), "optimizer.nesterov.momentum: -1 is not from 0 to below 1");
  EXPECT_EQ(error("adagrad { initial_accumulator: -1 }"), "optimizer.adagrad.initial_accumulator: -1 is below 0");
  EXPECT_EQ(error("adadelta { rho: 1 epsilon: 0 }"),
            "optimizer.adadelta.rho: 1 is not from 0 to below 1\noptimizer.adadelta.epsilon: 0 is not above 0");
  EXPECT_EQ(
      error("rmsprop { decay: 2 momentum: 1 }"),
      "optimizer.rmsprop.decay: 2 is not from 0 to below 1\noptimizer.rmsprop.momentum: 1 is not from 0 to below 1");
  EXPECT_EQ(error("adamw { weight_decay: -1 }"), "optimizer.adamw.weight_decay: -1 is below 0");
  EXPECT_EQ(error("adamw {}", "l2=0.1"), "l2: 0.1 beside adamw, which decays by optimizer.adamw.weight_decay alone");
  EXPECT_EQ(error("amsgrad { epsilon: inf }"), "optimizer.amsgrad.epsilon: inf is not a finite number");
  EXPECT_EQ(error("ftrl { beta: 0 l1: -1 l2: 1e39 }"),
            "optimizer.ftrl.beta: 0 is not above 0\noptimizer.ftrl.l1: -1 is below 0\n"
            "optimizer.ftrl.l2: 1e+39 is beyond float32");
  EXPECT_EQ(error("ftrl {}", "learning_rate.warmup_rounds=5"),
            "learning_rate: ftrl takes a constant, its alpha: the rate of each parameter falls by itself");
}

TEST(ValidateJob, ProximalSteps) {
  const auto error = [](const std::string& optimizer) {
    return ErrorOf(kMlp, {("optimizer={ " + optimizer + " }").c_str()});
  };
  for (const char* rule : {"", "sgd {}", "momentum {}", "adagrad {}", "rmsprop {}", "adam {}", "amsgrad {}"}) {
    EXPECT_EQ(error(std::string(rule) + " proximal { l1: 1e-4 }"), "");
  }
  const std::string goes_with = "; it goes with sgd, momentum, adagrad, adam, amsgrad, and rmsprop without momentum";
  for (const std::string rule : {"nesterov", "adadelta", "adamw"}) {
    EXPECT_EQ(error(rule + " {} proximal { l1: 1 }"), "optimizer.proximal: has no meaning after " + rule + goes_with);
  }
  EXPECT_EQ(error("ftrl {} proximal { l1: 1 }"),
            "optimizer.proximal: has no meaning after ftrl, which has l1 and l2 of its own" + goes_with);
  EXPECT_EQ(error("rmsprop { momentum: 0.5 } proximal { l1: 1 }"),
            "optimizer.proximal: has no meaning after rmsprop with momentum 0.5, whose steps are of many scales");
  EXPECT_EQ(error("proximal {}"),
            "optimizer.proximal: does nothing: set l1, l2, group_lasso, lower, upper or non_negative");
  EXPECT_EQ(error("proximal { l1: -1 l2: nan }"),
            "optimizer.proximal.l2: nan is not a finite number\noptimizer.proximal.l1: -1 is below 0");
  EXPECT_EQ(error("proximal { lower: 0.5 upper: -0.5 }"),
            "optimizer.proximal.lower: 0.5 is above 0, which must be allowed\n"
            "optimizer.proximal.upper: -0.5 is below 0, which must be allowed");
  EXPECT_EQ(error("proximal { lower: 0 non_negative: true }"),
            "optimizer.proximal.lower: 0 beside non_negative, which is lower: 0");
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

// Of a model in the place of kMlp's.
std::string ModelError(const std::string& model, std::initializer_list<const char*> changes = {}) {
  std::string text = kMlp;
  text.replace(text.find("mlp { hidden: 8 classes: 10 }"), 29, model);
  return ErrorOf(text, changes);
}

TEST(ValidateJob, Losses) {
  EXPECT_EQ(ModelError("linear { loss { huber { delta: 2 } } }"), "");
  EXPECT_EQ(ModelError("linear { loss { huber { delta: 0 } } }"), "model.linear.loss.huber.delta: 0 is not above 0");
  EXPECT_EQ(ModelError("linear { loss { quantile {} } }"), "model.linear.loss.quantile.tau: 0 is not between 0 and 1");
  EXPECT_EQ(ModelError("linear { loss { epsilon_insensitive { epsilon: -1 } } }"),
            "model.linear.loss.epsilon_insensitive.epsilon: -1 is below 0");
  EXPECT_EQ(ModelError("linear { loss { hinge {} } }"),
            "model.linear.loss: hinge is not of a number; expected squared, absolute, quantile, huber or "
            "epsilon_insensitive (the kinds logistic, svm and poisson have losses of their own)");
  EXPECT_EQ(ModelError("logistic { focal_gamma: -1 }"), "model.logistic.focal_gamma: -1 is not from 0 to 100");
  EXPECT_EQ(ModelError("mlp { hidden: 3 loss { absolute {} } }"), "");
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 3 loss { absolute {} } }"),
            "model.mlp.classes: 3, but loss absolute is of a number");
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 2 loss { hinge {} } }"),
            "model.mlp.classes: 2, but loss hinge is of two classes: leave it out");
  EXPECT_EQ(ModelError("mlp { hidden: 3 loss { softmax {} } }"), "model.mlp.classes: the number of classes is missing");
}

TEST(ValidateJob, Nets) {
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 2 activation_alpha: 0.5 }"),
            "model.mlp.activation_alpha: is for LEAKY_RELU and ELU");
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 2 activation: LEAKY_RELU activation_alpha: 1 }"),
            "model.mlp.activation_alpha: 1 is not from 0 to below 1");
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 2 initialization: NORMAL }"),
            "model.mlp.initial_scale: 0 is not above 0");
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 2 initialization: CONSTANT }"),
            "model.mlp.initial_scale: missing: the value of CONSTANT (for 0 there is ZEROS)");
  EXPECT_EQ(ModelError("mlp { hidden: 3 classes: 2 initial_scale: 2 }"),
            "model.mlp.initial_scale: is for CONSTANT, UNIFORM, NORMAL and ORTHOGONAL");
  EXPECT_EQ(ModelError("mlp { hidden: 3 hidden: 4 classes: 2 residual: true dropout: 1 }"),
            "model.mlp.dropout: 1 is not from 0 to below 1\n"
            "model.mlp.residual: no hidden layer is as wide as the one below it");
  EXPECT_EQ(ModelError("autoencoder { classes: 2 loss { poisson {} } }"),
            "model.autoencoder.loss: poisson is not of a number; expected squared, absolute, quantile, huber or "
            "epsilon_insensitive (the kinds logistic, svm and poisson have losses of their own)\n"
            "model.autoencoder.classes: 2, but its target is its input\n"
            "model.autoencoder.hidden: no hidden layer: expected a code at least");
  EXPECT_EQ(ModelError("recurrent { units: 3 classes: 2 }"), "model.recurrent.steps: 0 is not from 1 to 65536");
}

TEST(ValidateJob, Convolutions) {
  EXPECT_EQ(ModelError("convolution { height: 28 width: 28 layer { filters: 4 kernel: 5 pool: MAX_POOL } "
                       "layer { filters: 4 kernel: 12 } top { classes: 10 } }"),
            "");
  EXPECT_EQ(
      ModelError("convolution { width: 28 top { classes: 10 } }"),
      "model.convolution.height: 0 is not from 1 to 65536\nmodel.convolution.layer: missing: without one it is an mlp");
  EXPECT_EQ(ModelError("convolution { height: 28 width: 28 layer { filters: 4 kernel: 5 pool: MAX_POOL } "
                       "layer { filters: 4 kernel: 13 } top { classes: 10 } }"),
            "model.convolution.layer[1].kernel: 13 does not fit 12 x 12");
  EXPECT_EQ(
      ModelError("convolution { height: 1 width: 9 layer { filters: 1 kernel: 3 pool: AVERAGE_POOL pool_size: 8 } "
                 "top { classes: 10 } }"),
      "model.convolution.layer[0].pool_size: 8 does not fit 1 x 7");
  EXPECT_EQ(
      ModelError("convolution { height: 9 width: 9 layer { kernel: 3 padding: 3 pool_size: 2 } top { classes: 10 } }"),
      "model.convolution.layer[0].filters: 0 is not from 1 to 65536\n"
      "model.convolution.layer[0].padding: 3 is not below the kernel's size, 3\n"
      "model.convolution.layer[0].pool_size: is for MAX_POOL and AVERAGE_POOL");
}

TEST(ValidateJob, FactorizationMachines) {
  EXPECT_EQ(ModelError("factorization_machine { deviation: 0 loss { softmax {} } }"),
            "model.factorization_machine.dim: missing: how many numbers a feature's vector has\n"
            "model.factorization_machine.loss: softmax is of many classes; the score is one number\n"
            "model.factorization_machine.deviation: 0 is not above 0");
  EXPECT_EQ(ModelError("factorization_machine { dim: 3 sparse_table: true }"),
            "data.train: dense data, but the model's weights are a sparse_table, which takes libsvm\n"
            "data.validation: dense data, but the model's weights are a sparse_table, which takes libsvm");
}

TEST(ValidateJob, ClassWeights) {
  EXPECT_EQ(ErrorOf(kMlp, {"class_weights.balanced=true"}), "");
  EXPECT_EQ(ErrorOf(kSparse, {"class_weights.weight=1,20"}), "");
  EXPECT_EQ(ErrorOf(kSparse, {"class_weights.weight=1,2,3"}),
            "class_weights.weight: 3 weights, but 2 classes; or set balanced");
  EXPECT_EQ(ErrorOf(kSparse, {"class_weights.weight=1,-2"}), "class_weights.weight[1]: -2 is below 0");
  EXPECT_EQ(ErrorOf(kSparse, {"class_weights.weight=1,2", "class_weights.balanced=true"}),
            "class_weights: both weight and balanced are set");
  EXPECT_EQ(ErrorOf(kCsv, {"class_weights.balanced=true"}), "class_weights: the model's labels are not classes");
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
  EXPECT_EQ(ErrorOf(kCsv, {"data.train.csv.weight=w"}),
            "data.train.csv.weight: `w` is a name, but there is no header: a column's number from 0");
  EXPECT_EQ(ErrorOf(kCsv, {"data.train.csv.label_map[x]=0"}),
            "data.train.csv.label_map: names classes, but the model's labels are numbers");
  EXPECT_EQ(ErrorOf(kCsv, {"model.softmax.classes=3", "data.train.csv.label_map[x]=3"}),
            "data.train.csv.label_map[x]: 3 is no class from 0 to 2");
  EXPECT_EQ(ErrorOf(kCsv, {"model={ logistic {} }", "data.train.csv.log_label=true"}),
            "data.train.csv.log_label: the labels are classes");
}

TEST(ValidateJob, ClippingNeedsWholeSteps) {
  EXPECT_EQ(ErrorOf(kMlp, {"clip.global_norm=1", "clip.norm=2", "clip.value=3"}), "");
  EXPECT_EQ(ErrorOf(kSparse, {"clip.global_norm=1"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=ASYNC", "clip.value=3"}), "");
  EXPECT_EQ(ErrorOf("clip {}" + std::string(kMlp)), "clip: does nothing: set value, norm or global_norm");
  EXPECT_EQ(ErrorOf(kMlp, {"clip.value=-1"}), "clip.value: -1 is below 0");
  EXPECT_EQ(
      ErrorOf(kMlp, {"consistency.mode=ASYNC", "clip.global_norm=1"}),
      "clip.global_norm: is of a whole step, which rounds have; with apply: PUSH each block makes its step as soon "
      "as its part of a push is there. clip.value goes with both");
  EXPECT_EQ(
      ErrorOf(kMlp, {"optimizer.lamb.beta1=0.9", "clip.norm=1"}),
      "clip.norm: does not go with lamb, whose ratio would have to be measured once more after it; clip.value does");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.lars.momentum=0.9", "clip.global_norm=1"}), "");
}

TEST(ValidateJob, LayerwiseRules) {
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.lars.trust=0.01", "l2=1e-4"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.lars.trust=0"}), "optimizer.lars.trust: 0 is not above 0");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.lamb.beta2=0.9", "l2=1e-4"}),
            "l2: 0.0001 beside lamb, which decays by optimizer.lamb.weight_decay alone");
  EXPECT_EQ(
      ErrorOf(kMlp, {"optimizer.lamb.beta1=0.9", "consistency.mode=BOUNDED", "consistency.staleness=2"}),
      "optimizer.lamb: needs the norms of whole tensors before any block makes its step, which rounds have; apply: "
      "PUSH has none");
  EXPECT_EQ(
      ErrorOf(kSparse, {"optimizer.lars.trust=0.01"}),
      "optimizer.lars: needs the norm of all parameters; of a sparse_table only the rows that occurred are there");
}

TEST(ValidateJob, NoiseAveragesAndGroups) {
  EXPECT_EQ(ErrorOf(kMlp, {"gradient_noise.eta=0.1", "averaging.from_epoch=0.5"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"gradient_noise.eta=0"}), "gradient_noise.eta: 0 is not above 0");
  EXPECT_EQ(ErrorOf(kSparse, {"gradient_noise.eta=0.1"}),
            "gradient_noise: is on every element of a gradient; of a sparse_table only the rows of the batch have one");
  EXPECT_EQ(ErrorOf(kMlp, {"gradient_noise.eta=0.1", "optimizer.ftrl.beta=1"}),
            "gradient_noise: does not go with ftrl, which takes a gradient of 0 as none");
  EXPECT_EQ(ErrorOf(kMlp, {"averaging.decay=1"}), "averaging.decay: 1 is not from 0 to below 1");
  EXPECT_EQ(ErrorOf(kSparse, {"averaging.decay=0.5"}),
            "averaging: does not go with a sparse_table: the averages of rows that no batch names move, too");
  EXPECT_EQ(ErrorOf(kQuadratic, {"averaging.from_epoch=1"}),
            "averaging.from_epoch: the model reads no data, so it has no epochs: set from_round");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.proximal.group_lasso=0.1"}), "");
  EXPECT_EQ(ErrorOf(kSparse, {"optimizer.momentum.momentum=0.5", "optimizer.proximal.group_lasso=0.1"}), "");
  EXPECT_EQ(
      ErrorOf(kMlp, {"optimizer.adam.beta1=0.9", "optimizer.proximal.group_lasso=0.1"}),
      "optimizer.proximal.group_lasso: goes with sgd and momentum: the step size must be the same for all of a row");
  EXPECT_EQ(
      ErrorOf(kMlp, {"optimizer.proximal.group_lasso=0.1", "optimizer.proximal.lower=-1"}),
      "optimizer.proximal.group_lasso: does not go with lower, upper and non_negative: no order of the two makes the "
      "stated step");
}

TEST(ValidateJob, HistogramsOfGradientsAreOfRounds) {
  EXPECT_EQ(ErrorOf(kMlp, {"metrics.gradient_histograms=true"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"metrics.gradient_histograms=true", "consistency.mode=ASYNC"}),
            "metrics.gradient_histograms: are of rounds: with apply PUSH there are none");
}

TEST(ValidateJob, DelaysAndChangesOfTheBound) {
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.mode=ASYNC", "consistency.staleness_aware_rate=true",
                           "consistency.delay_compensation.lambda=0.5"}),
            "");
  EXPECT_EQ(ErrorOf(kMlp, {"consistency.staleness_aware_rate=true"}),
            "consistency.staleness_aware_rate: is for apply: PUSH: in a round all gradients are of one staleness");
  EXPECT_EQ(
      ErrorOf(kSparse, {"consistency.mode=ASYNC", "consistency.staleness_aware_rate=true", "l2=0.1"}),
      "consistency.staleness_aware_rate: does not go with rows that make up for steps they missed, whose staleness is "
      "no longer known then: set l2_rows: TOUCHED");
  EXPECT_EQ(ErrorOf(kSparse, {"consistency.mode=ASYNC", "consistency.staleness_aware_rate=true"}), "");
  EXPECT_EQ(
      ErrorOf(kMlp, {"consistency.delay_compensation.lambda=0"}),
      "consistency.delay_compensation.lambda: 0 is not above 0\nconsistency.delay_compensation: is for apply: PUSH");
  const std::string compensated = std::string(kMlp) + "consistency { mode: ASYNC delay_compensation { lambda: 2 } }";
  EXPECT_EQ(ErrorOf(compensated, {"consistency.delay_compensation.mean_square_decay=0.95"}), "");
  EXPECT_EQ(ErrorOf(compensated, {"consistency.delay_compensation.mean_square_decay=1"}),
            "consistency.delay_compensation.mean_square_decay: 1 is not from 0 to below 1");
  EXPECT_EQ(ErrorOf(compensated, {"consistency.delay_compensation.mean_square_decay=-0.5"}),
            "consistency.delay_compensation.mean_square_decay: -0.5 is not from 0 to below 1");
  EXPECT_EQ(
      ErrorOf(kSparse, {"consistency.mode=ASYNC", "consistency.delay_compensation.lambda=1"}),
      "consistency.delay_compensation: needs the parameters that a push was computed from; of a sparse_table none "
      "are kept");
  const std::string bounded = std::string(kMlp) + "consistency { mode: BOUNDED staleness: 4 ";
  EXPECT_EQ(ErrorOf(bounded + "change { from_round: 10 staleness: 0 } change { from_round: 20 staleness: 9 } }"), "");
  EXPECT_EQ(ErrorOf(bounded + "change { from_round: 10 staleness: 0 } change { from_round: 10 staleness: 9 } }"),
            "consistency.change.from_round: 10 is not from 11 to 281474976710656");
  EXPECT_EQ(ErrorOf(std::string(kMlp) + "consistency { mode: ASYNC change { from_round: 10 staleness: 1 } }"),
            "consistency.change: is of a bound; mode ASYNC has none that could change");
}

TEST(ValidateJob, SchedulesOfMomentumAndScaling) {
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.momentum.momentum=0.5", "momentum_schedule.cosine.initial=0.9"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"momentum_schedule.cosine.initial=0.9"}),
            "momentum_schedule: is for momentum, nesterov, lars, and rmsprop with a momentum");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.nesterov.momentum=0.5", "momentum_schedule.cosine.initial=1.5"}),
            "momentum_schedule: reaches 1.5; a momentum is below 1");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.momentum.dampening=0.5", "momentum_schedule.constant=0.9"}),
            "momentum_schedule: does not go with dampening, which is for one momentum");
  EXPECT_EQ(ErrorOf(kMlp, {"optimizer.momentum.momentum=0.5", "momentum_schedule.cosine.initial=0.9",
                           "momentum_schedule.scaling=LINEAR"}),
            "momentum_schedule.scaling: is for rates");
  EXPECT_EQ(ErrorOf(kMlp, {"learning_rate.scaling=LINEAR", "learning_rate.scaled_from=4"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"learning_rate.scaled_from=4"}),
            "learning_rate.scaled_from: is for a rate with scaling: LINEAR or SQUARE_ROOT");
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

TEST(ValidateJob, TheBestCheckpointsAreOfModelsThatWereEvaluated) {
  EXPECT_EQ(ErrorOf(kMlp, {"checkpoint={ every_rounds: 10 keep_best: 1 }"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"checkpoint={ every_rounds: 10 keep_best: 1 }", "consistency.mode=ASYNC"}),
            "checkpoint.keep_best: is for mode SYNC: otherwise what was evaluated is not what a checkpoint has");
}

TEST(ValidateJob, Stopping) {
  EXPECT_EQ(ErrorOf(kMlp, {"stopping={ early { patience: 3 restore_best: true } seconds: 5 loss_change: 1e-3 }"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"stopping={ early { metric: \"f1\" } }"}),
            "stopping.early.metric: `f1` is none of what is evaluated: loss, accuracy\n"
            "stopping.early.patience: 0 is not from 1 to 1000000");
  EXPECT_EQ(ErrorOf(kMlp, {"stopping={ target { metric: \"f1_macro\" value: 0.5 } }", "evaluation.metrics=F1"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"stopping={ loss_change: -1 seconds: -1 }"}),
            "stopping.seconds: -1 is not above 0\nstopping.loss_change: -1 is not above 0");
  EXPECT_EQ(ErrorOf(kCsv, {"stopping.loss_change=1"}),
            "stopping: looks at evaluations, of which there are none: set evaluation.every_epochs or every_rounds");
  EXPECT_EQ(ErrorOf(kMlp, {"stopping={ early { patience: 3 restore_best: true } }", "consistency.mode=ASYNC"}),
            "stopping.early.restore_best: is for mode SYNC: otherwise what was evaluated is not what a checkpoint has");
  EXPECT_EQ(ErrorOf(kMlp, {"stopping={ gradient_norm: 1 }", "consistency.mode=ASYNC"}),
            "stopping.gradient_norm: is of rounds: with apply PUSH there are none");
  EXPECT_EQ(ErrorOf(kSparse, {"stopping={ parameter_change: 1 }"}),
            "stopping.parameter_change: is of dense tensors: rows of a table move without a round of theirs");
}

TEST(ValidateJob, ReduceOnPlateau) {
  EXPECT_EQ(ErrorOf(kMlp, {"reduce_on_plateau={ patience: 3 }"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"reduce_on_plateau={ patience: 3 factor: 1 min_factor: 2 }"}),
            "reduce_on_plateau.factor: 1 is not above 0 and at most 0.99\n"
            "reduce_on_plateau.min_factor: 2 is not from 1e-30 to below 1");
  EXPECT_EQ(ErrorOf(kMlp, {"reduce_on_plateau={ patience: 3 }", "record_order=true"}),
            "reduce_on_plateau: does not go with record_order: a replay has no evaluations");
  EXPECT_EQ(ErrorOf(kCsv, {"reduce_on_plateau={ patience: 3 }"}),
            "reduce_on_plateau: looks at evaluations, of which there are none: set evaluation.every_epochs or "
            "every_rounds");
}

TEST(ValidateJob, Divergence) {
  EXPECT_EQ(ErrorOf(kMlp, {"divergence={ loss_above: 20 }"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"divergence={ jump_factor: 3 action: ROLLBACK rate_factor: 0.1 max_rollbacks: 5 }"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"divergence={}"}),
            "divergence: neither loss_above nor jump_factor is set: nothing is a divergence");
  EXPECT_EQ(ErrorOf(kMlp, {"divergence={ metric: \"accuracy\" jump_factor: 1 rate_factor: 0.5 max_rollbacks: 1 }"}),
            "divergence.metric: `accuracy` is better the more it is: expected a loss or an error\n"
            "divergence.jump_factor: 1 is not above 1\n"
            "divergence.rate_factor: is for action ROLLBACK\n"
            "divergence.max_rollbacks: is for action ROLLBACK");
  EXPECT_EQ(ErrorOf(kMlp, {"divergence={ loss_above: 2 action: ROLLBACK rate_factor: 2 }", "consistency.mode=ASYNC",
                           "record_order=true"}),
            "divergence.rate_factor: 2 is not above 0 and at most 1\n"
            "divergence.action: ROLLBACK is for mode SYNC: otherwise what was evaluated is not what a checkpoint has\n"
            "divergence.action: ROLLBACK does not go with record_order: a replay has no evaluations");
  EXPECT_EQ(ErrorOf(kCsv, {"divergence={ loss_above: 2 metric: \"loss\" }"}),
            "divergence: looks at evaluations, of which there are none: set evaluation.every_epochs or every_rounds");
}

TEST(ValidateJob, SamplingByClass) {
  EXPECT_EQ(ErrorOf(kMlp, {"data.sampling=CLASS_BALANCED"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"data.resampling={ kind: SMOTE neighbours: 3 }"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"data.resampling={ kind: UNDERSAMPLE ratio: 0.1 }"}), "");
  EXPECT_EQ(ErrorOf(kCsv, {"data.sampling=CLASS_BALANCED", "data.resampling={}"}),
            "data.sampling: CLASS_BALANCED, but the model's labels are not classes\n"
            "data.resampling: the model's labels are not classes\n"
            "data.resampling: is for sampling WITHOUT_REPLACEMENT, not CLASS_BALANCED");
  EXPECT_EQ(ErrorOf(kMlp, {"data.resampling={ kind: OVERSAMPLE ratio: 1.5 neighbours: 2 }"}),
            "data.resampling.ratio: 1.5 is not above 0 and at most 1\n"
            "data.resampling.neighbours: is for SMOTE");
}

TEST(ValidateJob, StartFrom) {
  EXPECT_EQ(ErrorOf(kMlp, {"start_from=/runs/a/model", "start_from_partial=true"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"start_from_partial=true"}),
            "start_from: missing: the model that start_from_partial and start_from_sha256 are of");
}

TEST(ValidateJob, Metrics) {
  EXPECT_EQ(ErrorOf(kMlp, {"evaluation.metrics=CONFUSION,F1,TOP_K,CALIBRATION", "evaluation.top_k=1,3"}), "");
  EXPECT_EQ(ErrorOf(kMlp, {"evaluation.metrics=ROC_AUC,R2"}),
            "evaluation: ROC_AUC is of two classes, R2 is of numbers; the model predicts 10 classes");
  EXPECT_EQ(ErrorOf(kSparse, {"evaluation.metrics=ROC_AUC", "evaluation.exact_scores=1000000"}),
            "evaluation.exact_scores: 1000000 is not from 0 to 524288");
  EXPECT_EQ(ErrorOf(kSparse, {"evaluation.metrics=F1", "evaluation.exact_scores=10", "evaluation.top_k=2",
                              "evaluation.calibration_bins=3", "evaluation.threshold=2"}),
            "evaluation.top_k: is for the metric TOP_K\n"
            "evaluation.exact_scores: is for areas under curves and tune_threshold\n"
            "evaluation.calibration_bins: is for the metric CALIBRATION\n"
            "evaluation.threshold: 2 is no probability");
  EXPECT_EQ(ModelError("mlp { hidden: 3 loss { huber {} } }", {"evaluation.metrics=RMSE,MAE"}), "");
  EXPECT_EQ(ModelError("mlp { hidden: 3 loss { logistic {} } }", {"evaluation.metrics=ROC_AUC"}), "");
  EXPECT_EQ(ModelError("svm {}", {"evaluation.metrics=ROC_AUC,PRECISION"}), "");
  EXPECT_EQ(ModelError("poisson {}", {"evaluation.metrics=F1"}),
            "evaluation: F1 is of at most 512 classes; the model predicts a number");
  EXPECT_EQ(ModelError("autoencoder { hidden: 3 }", {"evaluation.metrics=RMSE"}),
            "evaluation: metrics are of labels, but an autoencoder's target is its input");
  EXPECT_EQ(ErrorOf(kMlp, {"evaluation.metrics=F1,F1"}), "evaluation.metrics: F1 is there twice");
  EXPECT_EQ(ErrorOf(kMlp, {"evaluation.metrics=TOP_K", "evaluation.top_k=0"}),
            "evaluation.top_k[0]: 0 is not from 1 to 65536");
  EXPECT_EQ(ErrorOf(kCsv, {"evaluation.metrics=RMSE"}), "evaluation.metrics: nothing is evaluated on data");
  EXPECT_EQ(ErrorOf(kCsv, {"evaluation.metrics=RMSE", "evaluation.objective=true"}), "");
  EXPECT_EQ(ErrorOf(kQuadratic, {"evaluation.metrics=RMSE", "evaluation.every_rounds=1"}),
            "evaluation.metrics: nothing is evaluated on data");
}

}  // namespace
}  // namespace descent
