// What tests of data share: a folder of their own, files in it, batches as text.
#ifndef DESCENT_WORKER_DATA_DATA_TEST_UTIL_H_
#define DESCENT_WORKER_DATA_DATA_TEST_UTIL_H_

#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/files/file.h"
#include "descent/v1/job.pb.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "worker/data/dataset.h"

namespace descent {

class DataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/data_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.root = folder_;
    options_.cache_dir = absl::StrCat(folder_, "/cache");
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }

  void Write(const std::string& name, absl::string_view contents) {
    ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder_, "/", name), contents).ok());
  }

  absl::StatusOr<std::unique_ptr<Dataset>> Open(const std::string& spec) {
    v1::Dataset message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(spec, &message)) << spec;
    return Dataset::Open(message, options_);
  }

  // "CODE: message" of an Open that must fail.
  std::string Failure(const std::string& spec) {
    const auto data = Open(spec);
    if (data.ok()) return "opened";
    return absl::StrCat(absl::StatusCodeToString(data.status().code()), ": ", data.status().message());
  }

  static Batch ReadAll(const Dataset& data) {
    std::vector<uint64_t> rows(data.rows());
    std::iota(rows.begin(), rows.end(), 0);
    Batch batch;
    const absl::Status status = data.Read(rows, &batch);
    EXPECT_TRUE(status.ok()) << status;
    return batch;
  }

  // "label: column=value ...; ..." or "label: value ...; ..."
  static std::string Text(const Batch& batch) {
    std::string text;
    for (size_t i = 0; i < batch.rows; ++i) {
      absl::StrAppend(&text, i > 0 ? "; " : "", batch.label[i], ":");
      if (batch.sparse) {
        for (uint32_t e = batch.row_begin[i]; e < batch.row_begin[i + 1]; ++e) {
          absl::StrAppend(&text, " ", batch.column[e], "=", batch.value[e]);
        }
      } else {
        for (uint64_t j = 0; j < batch.features; ++j) absl::StrAppend(&text, " ", batch.dense[i * batch.features + j]);
      }
    }
    return text;
  }

  std::string Contents(const std::string& spec) {
    const auto data = Open(spec);
    if (!data.ok()) return std::string(data.status().message());
    return Text(ReadAll(**data));
  }

  std::string folder_;
  DatasetOptions options_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_DATA_TEST_UTIL_H_
