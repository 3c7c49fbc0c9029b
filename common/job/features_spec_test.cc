#include <string>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

constexpr char kCsv[] = "csv { path: 'a' }", kLibsvm[] = "libsvm { path: 'a' features: 9 }",
               kIdx[] = "idx { images: 'i' labels: 'l' }";

absl::StatusOr<v1::JobSpec> Job(const std::string& format, const std::string& features, bool table = false) {
  auto job = ParseJob(absl::StrCat("learning_rate { constant: 0.1 } model { logistic { sparse_table: ", table,
                                   " } } data { train { ", format, " } features { ", features, " } }"),
                      "job");
  if (job.ok()) {
    EXPECT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
  }
  return job;
}

std::string ErrorOf(const std::string& format, const std::string& features, bool table = false) {
  const auto job = Job(format, features, table);
  return std::string((job.ok() ? ValidateJob(*job) : job.status()).message());
}

TEST(FeaturesSpec, GoodOnesPass) {
  EXPECT_EQ(ErrorOf(kCsv, "one_hot: '1' hashed: '2' missing { marker: 'NA' indicator: true } log: '*' standardize {}"),
            "");
  EXPECT_EQ(ErrorOf(kIdx, "min_max { low: -1 } row_norm: ROW_L2 pca: 50"), "");
  EXPECT_EQ(ErrorOf(kLibsvm, "hash_buckets: 64 max_abs {} unscaled: '3'"), "");
  EXPECT_EQ(ErrorOf(kLibsvm, "robust {} compare_shares: true"), "");
  EXPECT_EQ(ErrorOf(kLibsvm, "log: '*' row_norm: ROW_MAX", true), "");
}

TEST(FeaturesSpec, DefaultsAreWrittenOut) {
  const auto job = Job(kCsv, "one_hot: '1' hashed: '2' robust {}");
  ASSERT_TRUE(job.ok()) << job.status();
  const v1::Features& features = job->data().features();
  EXPECT_EQ(features.max_categories(), 1000u);
  EXPECT_EQ(features.hash_buckets(), 1024u);
  EXPECT_EQ(features.robust().lower(), 0.25);
  EXPECT_EQ(features.robust().upper(), 0.75);
  EXPECT_EQ(Job(kCsv, "min_max { low: -1 }")->data().features().min_max().high(), 1);
  EXPECT_EQ(Job(kCsv, "standardize {}")->data().features().hash_buckets(), 0u);
}

TEST(FeaturesSpec, WhatDataCannotHave) {
  EXPECT_EQ(ErrorOf(kIdx, "missing {} one_hot: '1' hashed: '2'"),
            "data.features.missing: only for data.train.csv\n"
            "data.features.one_hot: only for data.train.csv\n"
            "data.features.hashed: only for data.train.csv");
  EXPECT_EQ(ErrorOf(kLibsvm, "min_max {}"),
            "data.features.min_max: the data are sparse, and this would make something else of their zeros; max_abs "
            "keeps them");
  EXPECT_EQ(ErrorOf(kIdx, "hash_buckets: 3"),
            "data.features.hash_buckets: neither are the data sparse nor does data.features.hashed name columns");
  EXPECT_EQ(
      ErrorOf(kLibsvm, "standardize {} pca: 2 log: '3' hash_buckets: 4", true),
      "data.features.standardize: not here: the model's weights are a table, whose columns are any 64-bit keys: no "
      "statistics of them are kept\n"
      "data.features.hash_buckets: the model's weights are a table, which is hashed by itself\n"
      "data.features.pca: not here: the model's weights are a table, whose columns are any 64-bit keys: no "
      "statistics of them are kept\n"
      "data.features.log: the model's weights are a table: `*`, for all columns, is all it can be");
  auto job =
      ParseJob("rounds: 3 learning_rate { constant: 0.1 } model { quadratic {} } data { features { pca: 1 } }", "");
  ASSERT_TRUE(job.ok() && ResolveJob(1, 1, "/jobs", &*job).ok());
  EXPECT_EQ(ValidateJob(*job).message(), "data.features: the model reads no data");
}

TEST(FeaturesSpec, Ranges) {
  EXPECT_EQ(ErrorOf(kCsv, "min_max { low: 1 }"), "data.features.min_max: low 1 is not below high 1");
  EXPECT_EQ(ErrorOf(kCsv, "robust { lower: 0.9 }"),
            "data.features.robust: quantiles 0.9 and 0.75: expected 0 <= lower < upper <= 1");
  EXPECT_EQ(ErrorOf(kCsv, "min_max { low: nan }"), "data.features.min_max.low: nan is not a finite number");
  EXPECT_EQ(ErrorOf(kCsv, "unscaled: '1'"), "data.features.unscaled: there is no scaling");
  EXPECT_EQ(ErrorOf(kCsv, "log: '1' log: '1'"), "data.features.log: `1` twice");
  EXPECT_EQ(ErrorOf(kCsv, "one_hot: '1' hashed: '1'"), "data.features.hashed: `1` is in one_hot too");
  EXPECT_EQ(ErrorOf(kCsv, "one_hot: '1' max_categories: 2000000"),
            "data.features.max_categories: 2000000 is not from 1 to 1048576");
  EXPECT_EQ(ErrorOf(kCsv, "missing { constant: 3 }"), "data.features.missing.constant: only with fill: FILL_CONSTANT");
  EXPECT_EQ(ErrorOf(kIdx, "pca: 881"), "data.features.pca: 881 is not from 1 to 880");
  EXPECT_EQ(ErrorOf(kCsv, "standardize {} max_abs {}").substr(0, 4), "job:") << "one scaling";
}

}  // namespace
}  // namespace descent
