#include "common/job/batch_norm_spec.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

v1::JobSpec Resolved(const std::string& model, const std::string& more = "") {
  auto job = ParseJob(
      absl::StrCat("name: 'a' data { root: '/x' train { libsvm { path: 'a' features: 4 } } } model { ", model, " } ",
                   absl::StrContains(more, "optimizer") ? "" : "learning_rate { constant: 0.1 } ", more),
      "job");
  EXPECT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  return *std::move(job);
}
std::string ErrorOf(const std::string& model, const std::string& more = "") {
  return std::string(ValidateJob(Resolved(model, more)).message());
}

constexpr char kNet[] = "mlp { hidden: 8 classes: 3 batch_norm: true }";

TEST(BatchNormSpec, EveryNetMayHaveIt) {
  for (const std::string model :
       {kNet, "mlp { hidden: 8 hidden: 8 classes: 3 batch_norm: true batch_norm_decay: 0 residual: true dropout: 0.1 }",
        "autoencoder { hidden: 2 batch_norm: true }",
        "convolution { height: 2 width: 2 layer { filters: 3 kernel: 2 } top { classes: 3 batch_norm: true } }",
        "wide_deep { embedding: 4 deep { hidden: 8 batch_norm: true } }"}) {
    EXPECT_EQ(ErrorOf(model), "") << model;
    for (const char* more : {"consistency { mode: ASYNC }", "averaging {}", "clip { global_norm: 1 }",
                             "optimizer { lamb {} } learning_rate { constant: 0.1 }", "batch_size: 2"}) {
      if (model.find("wide") == std::string::npos) {
        EXPECT_EQ(ErrorOf(model, more), "") << model << more;
      }
    }
  }
}

TEST(BatchNormSpec, DecayHasADefaultWhereItMeansSomething) {
  EXPECT_EQ(Resolved(kNet).model().mlp().batch_norm_decay(), 0.99);
  EXPECT_FALSE(Resolved("mlp { hidden: 8 classes: 3 }").model().mlp().has_batch_norm_decay());
  EXPECT_EQ(StatisticDecayOf(Resolved(kNet).model()), 0.99);
  EXPECT_EQ(StatisticDecayOf(Resolved("linear {}").model()), 0.99);
  for (const char* model : {"autoencoder { hidden: 2 batch_norm: true batch_norm_decay: 0.5 }",
                            "convolution { height: 2 width: 2 layer { filters: 3 kernel: 2 } "
                            "top { classes: 3 batch_norm: true batch_norm_decay: 0.5 } }",
                            "wide_deep { embedding: 4 deep { hidden: 8 batch_norm: true batch_norm_decay: 0.5 } }"}) {
    EXPECT_EQ(StatisticDecayOf(Resolved(model).model()), 0.5) << model;
  }
}

TEST(BatchNormSpec, ContradictionsAreRefused) {
  EXPECT_EQ(ErrorOf("mlp { hidden: 8 classes: 3 batch_norm_decay: 0.9 }"),
            "model.mlp.batch_norm_decay: is for batch_norm");
  EXPECT_EQ(ErrorOf("mlp { hidden: 8 classes: 3 batch_norm: true layer_norm: true batch_norm_decay: 1 }"),
            "model.mlp.batch_norm_decay: 1 is not from 0 to below 1\n"
            "model.mlp.batch_norm: and layer_norm are both set: a layer has one of them");
  EXPECT_EQ(ErrorOf(kNet, "batch_size: 1"),
            "batch_size: 1, but model.mlp.batch_norm needs examples to compare: at least 2");
  EXPECT_EQ(ErrorOf(kNet, "encoding: BF16"),
            "encoding: BF16 does not go with model.mlp.batch_norm, whose running statistics need the digits of F32");
  EXPECT_EQ(ErrorOf("convolution { height: 2 width: 2 layer { filters: 3 kernel: 2 } "
                    "top { classes: 3 batch_norm: true } }",
                    "batch_size: 1"),
            "batch_size: 1, but model.convolution.top.batch_norm needs examples to compare: at least 2");
  EXPECT_NE(ErrorOf(kNet, "local_training { steps: 4 learning_rate: 0.1 }")
                .find("local_training: does not go with model.mlp.batch_norm"),
            std::string::npos);
  EXPECT_NE(ErrorOf(kNet, "optimizer { lbfgs {} }").find("its objective is not convex"), std::string::npos);
}

}  // namespace
}  // namespace descent
