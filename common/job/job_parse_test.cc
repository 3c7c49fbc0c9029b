#include <cstdio>
#include <fstream>
#include <string>

#include "common/job/field_names.h"
#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

std::string ErrorOf(const std::string& text) {
  const auto job = ParseJob(text, "job.textproto");
  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(job.status().message());
}

TEST(ParseJob, ReadsAJob) {
  const auto job = ParseJob("name: 'a' # comment\nepochs: 2.5 model { mlp { hidden: 8 hidden: 4 classes: 3 } }", "f");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name(), "a");
  EXPECT_EQ(job->epochs(), 2.5);
  EXPECT_EQ(job->model().mlp().hidden(1), 4u);
}

TEST(ParseJob, UnknownFieldsComeWithPlaceAndNearestName) {
  EXPECT_EQ(ErrorOf("seed: 1\nepoch: 3\n"),
            "job.textproto:2:1: unknown field `epoch` in JobSpec; did you mean `epochs`?");
  EXPECT_EQ(ErrorOf("model {\n\tmlp { hiden: 256 }\n}\n"),
            "job.textproto:2:8: unknown field `hiden` in Mlp; did you mean `hidden`?");
  EXPECT_EQ(ErrorOf("data { train { parquet { } } }"),
            "job.textproto:1:16: unknown field `parquet` in Dataset; known here: idx, libsvm, csv");
}

TEST(ParseJob, TheFirstUnknownFieldDoesNotHideTheSecond) {
  EXPECT_EQ(ErrorOf("epoch: 3\nbatchsize: 4\n"),
            "job.textproto:1:1: unknown field `epoch` in JobSpec; did you mean `epochs`?\n"
            "job.textproto:2:1: unknown field `batchsize` in JobSpec; did you mean `batch_size`?");
}

TEST(ParseJob, UnknownEnumValue) {
  EXPECT_EQ(ErrorOf("consistency { mode: SYNK }"),
            "job.textproto:1:21: unknown value `SYNK` of `mode`; did you mean `SYNC`?");
}

TEST(ParseJob, SyntaxAndTypes) {
  EXPECT_EQ(ErrorOf("seed: 1\nranks: -1\n"), "job.textproto:2:8: Expected integer, got: -");
  EXPECT_EQ(ErrorOf("ranks: 4294967296"), "job.textproto:1:8: Integer out of range (4294967296)");
  EXPECT_EQ(ErrorOf("name: \"a"), "job.textproto:1:9: Unexpected end of string");
  EXPECT_EQ(ErrorOf("model {"), "job.textproto:1:8: Expected identifier, got: ");
  EXPECT_EQ(ErrorOf("epochs: 1 rounds: 2"),
            "job.textproto:1:17: Field \"rounds\" is specified along with field \"epochs\", another member of oneof "
            "\"length\"");
  EXPECT_EQ(ErrorOf("seed: 1 seed: 2"), "job.textproto:1:13: Non-repeated field \"seed\" is specified multiple times");
}

TEST(ParseJob, GarbageAndDeepNestingAreErrors) {
  EXPECT_FALSE(ParseJob(std::string("\0\1\xff\xfe", 4), "f").ok());
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "x { ";
  EXPECT_FALSE(ParseJob(deep, "f").ok());
  EXPECT_FALSE(ParseJob(std::string(5 << 20, ' '), "f").ok());
}

TEST(ReadJobFile, NamesTheFile) {
  const auto missing = ReadJobFile("/nonexistent/job.textproto");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.status().message(), "job file /nonexistent/job.textproto: No such file or directory");
  EXPECT_EQ(ReadJobFile("/").status().message(), "job file /: is a folder");

  const std::string path = testing::TempDir() + "/job_parse_test.textproto";
  std::ofstream(path) << "seed: 7\nx: 1\n";
  EXPECT_EQ(ReadJobFile(path).status().message().substr(0, path.size() + 5), path + ":2:1:");
  std::remove(path.c_str());
}

TEST(EditDistance, CountsInsertionsChangesAndSwaps) {
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("epoch", "epochs"), 1u);
  EXPECT_EQ(EditDistance("rnaks", "ranks"), 1u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
}

}  // namespace
}  // namespace descent
