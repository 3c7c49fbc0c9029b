#include "common/saved_model/start_from.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/saved_model/model_writer.h"
#include "common/saved_model/npy_header.h"
#include "common/saved_model/zip_writer.h"
#include "descent/v1/job.pb.h"

namespace descent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TensorSpec Dense(const std::string& name, std::vector<uint64_t> shape) {
  return {.name = name, .shape = std::move(shape), .initializer = {}};
}
TensorSpec Table(const std::string& name, uint64_t dim) {
  return {.name = name, .sparse = true, .shape = {dim}, .initializer = {}};
}

class StartFromTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "start-from-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }

  // A saved model: "layer/weights" 2 x 3, table "t" of dim 2 with the keys 7 and 9.
  void Save(float first = 1) {
    ModelDescription d;
    d.job_text = "name: \"x\"\n";
    d.slots = 1;
    d.specs = {Dense("layer/weights", {2, 3}), Table("t", 2)};
    auto writer = ModelWriter::Begin(folder_ + "/model", d);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->AppendDense(TensorId(0), {first, 2, 3, 4, 5, 6}).ok());
    ASSERT_TRUE((*writer)->AppendRows(TensorId(1), {7, 9}, {0.5f, 1.5f, 2.5f, 3.5f}).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  // An archive of members as they are given: header and contents.
  void Zip(const std::vector<std::pair<std::string, std::string>>& members) {
    auto writer = ZipWriter::Create(folder_ + "/own.npz");
    ASSERT_TRUE(writer.ok());
    for (const auto& [name, bytes] : members) {
      const size_t prefix = 8;
      ASSERT_TRUE((*writer)->BeginMember(name, prefix).ok());
      ASSERT_TRUE((*writer)->Append(bytes.data() + prefix, bytes.size() - prefix).ok());
      ASSERT_TRUE((*writer)->EndMember(bytes.substr(0, prefix)).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  template <typename T>
  static std::string Array(const std::string& header, const std::vector<T>& values) {
    return header + std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }

  v1::JobSpec Job(const std::string& start, bool partial = false) {
    v1::JobSpec job;
    job.set_start_from(start);
    job.set_start_from_partial(partial);
    const absl::Status resolved = ResolveStartFrom(folder_, &job);
    EXPECT_TRUE(resolved.ok()) << resolved;
    return job;
  }

  absl::StatusOr<std::optional<TensorValues>> Read(const v1::JobSpec& job, const TensorSpec& spec) {
    DESCENT_ASSIGN_OR_RETURN(const StartValues start,
                             OpenStart(job, [this](const std::string& note) { notes_.push_back(note); }));
    return start(spec);
  }
  std::string Error(const v1::JobSpec& job, const TensorSpec& spec) {
    const auto read = Read(job, spec);
    return read.ok() ? "read" : std::string(read.status().message());
  }

  std::string folder_;
  std::vector<std::string> notes_;
};

TEST_F(StartFromTest, TensorsByName) {
  ASSERT_NO_FATAL_FAILURE(Save());
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/model.npz", *ReadFile(folder_ + "/model/model.npz")).ok());
  for (const std::string start : {"model", "model/model.npz", folder_.c_str()}) {
    const v1::JobSpec job = Job(start);
    EXPECT_EQ(job.start_from()[0], '/');
    EXPECT_EQ(job.start_from_sha256().size(), 64u);
    const auto dense = Read(job, Dense("layer/weights", {2, 3}));
    ASSERT_TRUE(dense.ok()) << dense.status();
    EXPECT_THAT((*dense)->values, ElementsAre(1, 2, 3, 4, 5, 6));
    const auto table = Read(job, Table("t", 2));
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_THAT((*table)->keys, ElementsAre(7, 9));
    EXPECT_THAT((*table)->values, ElementsAre(0.5, 1.5, 2.5, 3.5));
  }
}

TEST_F(StartFromTest, WhatIsNotThereOrHasAnotherShape) {
  ASSERT_NO_FATAL_FAILURE(Save());
  const v1::JobSpec job = Job("model");
  EXPECT_EQ(Error(job, Dense("layer/bias", {3})), "start_from: tensor 'layer/bias': " + folder_ +
                                                      "/model/model.npz has none: it has 'layer/weights', table 't' "
                                                      "(start_from_partial allows for that)");
  EXPECT_EQ(Error(job, Dense("layer/weights", {3, 2})), "start_from: tensor 'layer/weights': " + folder_ +
                                                            "/model/model.npz has the shape [2, 3]; expected [3, 2] "
                                                            "(start_from_partial allows for that)");
  EXPECT_EQ(Error(job, Table("t", 3)), "start_from: table 't': " + folder_ +
                                           "/model/model.npz has rows of the shape [2, 2]; "
                                           "expected 3 columns (start_from_partial allows for that)");
  EXPECT_THAT(Error(job, Table("layer/weights", 3)), HasSubstr("table 'layer/weights'"));

  const v1::JobSpec partial = Job("model", true);
  const auto read = Read(partial, Dense("layer/weights", {2, 5}));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->has_value());
  EXPECT_THAT(notes_, ElementsAre("start_from: tensor 'layer/weights': " + folder_ +
                                  "/model/model.npz has the shape [2, 3]; "
                                  "expected [2, 5]; it begins as the model says"));
  EXPECT_TRUE((*Read(partial, Dense("layer/weights", {2, 3}))).has_value());
}

TEST_F(StartFromTest, AnotherFileIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Save());
  v1::JobSpec job = Job("model");
  const v1::JobSpec resolved = job;
  EXPECT_TRUE(ResolveStartFrom("/elsewhere", &job).ok()) << "a resolved job stays as it is";
  EXPECT_EQ(job.SerializeAsString(), resolved.SerializeAsString());
  ASSERT_NO_FATAL_FAILURE(Save(8));
  const std::string expected = "; expected " + job.start_from_sha256();
  EXPECT_THAT(Error(job, Dense("layer/weights", {2, 3})),
              AllOf(HasSubstr("is not the model that the job starts from: its SHA-256 is "), HasSubstr(expected)));
  EXPECT_THAT(ResolveStartFrom("/", &job).ToString(), HasSubstr(expected));
  job.set_start_from("/nowhere");
  EXPECT_EQ(ResolveStartFrom("/", &job).code(), absl::StatusCode::kNotFound);
  job.Clear();
  EXPECT_TRUE(ResolveStartFrom("/", &job).ok());
}

TEST_F(StartFromTest, ArraysOfOthers) {
  const std::string text = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }\n";
  std::string fortran("\x93NUMPY\x02\x00", 8);  // version 2: the header's length in four bytes
  fortran += std::string({static_cast<char>(text.size()), 0, 0, 0}) + text;
  std::string two = fortran;
  two.replace(two.find("True"), 4, "False");
  two[8] = static_cast<char>(text.size() + 1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ASSERT_NO_FATAL_FAILURE(Zip({{"fortran.npy", Array<float>(fortran, {1, 2, 3, 4})},
                               {"two.npy", Array<float>(two, {1, 2, 3, 4})},
                               {"double.npy", Array<double>(NpyHeader("<f8", {2}), {1, 2})},
                               {"short.npy", Array<float>(NpyHeader(kNpyFloat32, {3}), {1, 2})},
                               {"nan.npy", Array<float>(NpyHeader(kNpyFloat32, {2}), {1, nan})},
                               {"text.npy", "no array at all"},
                               {"t.rows.npy", Array<float>(NpyHeader(kNpyFloat32, {2, 1}), {1, 2})},
                               {"t.keys.npy", Array<uint64_t>(NpyHeader(kNpyUint64, {2}), {3, 3})},
                               {"e.rows.npy", Array<float>(NpyHeader(kNpyFloat32, {0, 4}), {})},
                               {"e.keys.npy", Array<uint64_t>(NpyHeader(kNpyUint64, {0}), {})}}));
  const v1::JobSpec job = Job("own.npz");
  EXPECT_THAT((*Read(job, Dense("two", {2, 2})))->values, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT((*Read(job, Table("e", 4)))->keys, IsEmpty());
  EXPECT_THAT(Error(job, Dense("fortran", {2, 2})),
              HasSubstr("member fortran.npy is an array of <f4 in Fortran order; expected <f4 in C order"));
  EXPECT_THAT(Error(job, Dense("double", {2})), HasSubstr("is an array of <f8; expected <f4"));
  EXPECT_THAT(Error(job, Dense("short", {3})), HasSubstr("the shape [3] takes 12 bytes, it has 8"));
  EXPECT_THAT(Error(job, Dense("nan", {2})), HasSubstr("tensor 'nan', element 1 is nan; expected a finite number"));
  EXPECT_THAT(Error(job, Dense("text", {2})), HasSubstr("member text.npy"));
  EXPECT_THAT(Error(job, Table("t", 1)), HasSubstr("table 't': key 3 is there twice"));
}

TEST(NpyHeaderTest, IsReadBack) {
  const std::string header = NpyHeader(kNpyUint64, {12, 3, 1});
  EXPECT_EQ(*NpyHeaderBytes(header.substr(0, kNpyMagicBytes)), header.size());
  const auto array = ParseNpyHeader(header);
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_EQ(array->type, kNpyUint64);
  EXPECT_FALSE(array->column_major);
  EXPECT_THAT(array->shape, ElementsAre(12, 3, 1));
  EXPECT_THAT(ParseNpyHeader(NpyHeader(kNpyFloat32, {}))->shape, IsEmpty());
  for (const char* word : {"'descr'", "'shape'", "False", "12,"}) {
    std::string bad = header;
    bad[bad.find(word) + 1] = '%';
    EXPECT_FALSE(ParseNpyHeader(bad).ok()) << word;
  }
  EXPECT_FALSE(NpyHeaderBytes("PK\x03\x04 and so on").ok());
}

}  // namespace
}  // namespace descent
