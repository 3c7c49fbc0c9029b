// The checkpoints are written here, so that the program itself is run on them: exit statuses are part of what it says.
#include "cli/inspect.h"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files/file.h"
#include "common/storage/storage.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/checkpoint/manifest.h"
#include "server/checkpoint/part_file.h"

namespace descent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class InspectTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/inspect_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    run_ = pattern;
    storage_ = MakePosixStorage(checkpoints());
    folder_ = std::make_unique<CheckpointFolder>(storage_.get());
    ASSERT_TRUE(folder_->BeginGeneration(RunId(7)).ok());
    WriteCut(500, v1::ROUND);
    WriteCut(900, v1::ROUND);
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(run_).ok()); }

  std::string checkpoints() const { return run_ + "/checkpoints"; }

  // One tensor of four elements, two ranks.
  void WriteCut(uint64_t number, v1::Apply apply) {
    const CutId cut{RunId(7), Generation(1), number};
    ASSERT_TRUE(folder_->Prepare(cut).ok());
    v1::CutManifest manifest;
    manifest.set_format(kCutFormat);
    manifest.set_run(7);
    manifest.set_generation(1);
    manifest.set_number(number);
    manifest.set_apply(apply);
    manifest.add_restart_clock(number);
    manifest.add_restart_clock(apply == v1::PUSH ? number + 3 : number);
    v1::TensorSpec* w = manifest.add_tensor();
    w->set_name("w");
    w->add_shape(4);
    manifest.set_block_elements(4);
    manifest.set_slots(1);
    manifest.add_blocks(1);
    manifest.set_metric_name("loss");
    manifest.set_metric(0.25);
    manifest.set_created_unix_micros(1700000000000000);
    BlockExport block;
    block.version = number;
    static constexpr float kValues[4] = {1, 2, 3, 4};
    block.payload.Append(kValues, sizeof(kValues), nullptr);
    const auto writer = PartFileWriter::Create(storage_.get(), folder_->CutPath(cut), cut, ServerId(0));
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(block, 0, {manifest.restart_clock(0), manifest.restart_clock(1)}).ok());
    *manifest.add_part() = (*writer)->Finish().value();
    ASSERT_TRUE(folder_->Commit(manifest).ok());
  }
  void Damage(const std::string& path) {
    std::string bytes = ReadFile(checkpoints() + "/" + path).value();
    bytes[bytes.size() - 6] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(checkpoints() + "/" + path, bytes).ok());
  }
  // Exit status and standard output of `descent inspect ...`.
  static std::pair<int, std::string> Run(const std::string& arguments) {
    const char* bin = std::getenv("DESCENT_BINARY_DIR");
    const std::string command = absl::StrCat(bin == nullptr ? "." : bin, "/descent inspect ", arguments, " 2>&1");
    std::FILE* pipe = ::popen(command.c_str(), "r");
    std::string out;
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) out.append(buffer, n);
    const int status = ::pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, out};
  }

  std::string run_;
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<CheckpointFolder> folder_;
};

TEST_F(InspectTest, TakesARunAFolderAndACut) {
  for (const std::string& path : {run_, run_ + "/", checkpoints()}) {
    const auto [status, out] = Run(path);
    EXPECT_EQ(status, 0) << out;
    EXPECT_THAT(out, HasSubstr("  cut-000000000900-g1  good  number 900, generation 1, clock 900, 1 blocks, "));
    EXPECT_THAT(out, HasSubstr(" from 1 servers, 2023-11-14 22:13:20 UTC, loss 0.25\n  cut-000000000500-g1  good"));
  }
  const auto [status, out] = Run(checkpoints() + "/cut-000000000500-g1/.");
  EXPECT_EQ(status, 0) << out;
  EXPECT_THAT(out, HasSubstr("cut-000000000500-g1  good"));
  EXPECT_THAT(out, Not(HasSubstr("cut-000000000900-g1")));
}

TEST_F(InspectTest, NamesWhatIsBad) {
  Damage("cut-000000000900-g1/server-0.part");
  Damage("cut-000000000500-g1/MANIFEST");
  const auto [status, out] = Run(run_);
  EXPECT_EQ(status, 1) << out;
  EXPECT_THAT(out, HasSubstr("  cut-000000000900-g1  BAD  number 900"));
  EXPECT_THAT(out, HasSubstr("\n    cut-000000000900-g1/server-0.part: record 1, payload at byte "));
  EXPECT_THAT(out, HasSubstr("  cut-000000000500-g1  BAD\n    cut-000000000500-g1/MANIFEST: crc32c is "));

  const auto [json_status, text] = Run(run_ + " --json");
  EXPECT_EQ(json_status, 1);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["good"], false);
  EXPECT_EQ(json["cuts"][0]["good"], false);
  EXPECT_THAT(json["cuts"][0]["reason"].get<std::string>(), HasSubstr("server-0.part"));
  EXPECT_EQ(json["cuts"][0]["number"], 900);
  EXPECT_EQ(json["cuts"][1]["number"], 500);
  EXPECT_FALSE(json["cuts"][1].contains("bytes"));
}

TEST_F(InspectTest, AsJson) {
  ASSERT_TRUE(storage_->Remove("cut-000000000900-g1").ok());
  ASSERT_TRUE(folder_->Prepare(CutId{RunId(7), Generation(1), 901}).ok());
  const auto [status, text] = Run("--json " + run_);
  EXPECT_EQ(status, 0) << text;
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["folder"], checkpoints());
  EXPECT_EQ(json["not_committed"], nlohmann::json::parse(R"(["cut-000000000901-g1"])"));
  ASSERT_EQ(json["cuts"].size(), 1u);
  nlohmann::json cut = json["cuts"][0];
  EXPECT_GT(cut["bytes"], 16);
  cut.erase("bytes");
  EXPECT_EQ(cut, nlohmann::json::parse(R"({"name": "cut-000000000500-g1", "number": 500, "generation": 1, "good": true,
      "run": "0000000000000007", "job_fingerprint": "0000000000000000", "apply": "ROUND", "ranks": 2,
      "least_clock": 500, "most_clock": 500, "blocks": 1, "servers": 1, "time": 1.7e9, "metric_name": "loss",
      "metric": 0.25})"));
}

TEST_F(InspectTest, UnderPushClocksDiffer) {
  WriteCut(901, v1::PUSH);
  const auto [status, out] = Run(run_);
  EXPECT_EQ(status, 0) << out;
  EXPECT_THAT(out, HasSubstr("number 901, generation 1, clock 901-904, "));
}

TEST_F(InspectTest, ACutThatWasNotCommittedIsNoFaultOfTheFolder) {
  ASSERT_TRUE(folder_->Prepare(CutId{RunId(7), Generation(1), 901}).ok());
  auto [status, out] = Run(run_);
  EXPECT_EQ(status, 0) << out;
  EXPECT_THAT(out, HasSubstr("  cut-000000000901-g1  not committed"));
  std::tie(status, out) = Run(checkpoints() + "/cut-000000000901-g1");
  EXPECT_EQ(status, 1) << out;
  EXPECT_THAT(out, HasSubstr("never committed"));
}

TEST_F(InspectTest, NothingThere) {
  auto [status, out] = Run(run_ + "/none");
  EXPECT_EQ(status, 2);
  EXPECT_EQ(out, absl::StrCat("descent: ", run_, "/none: No such file or directory\n"));
  std::tie(status, out) = Run(checkpoints() + "/generation-1");
  EXPECT_EQ(status, 2);
  EXPECT_THAT(out, HasSubstr("is a file, not a folder"));
  EXPECT_EQ(Run("").first, 2);
  ASSERT_TRUE(RemoveTree(checkpoints()).ok());
  std::tie(status, out) = Run(run_);
  EXPECT_EQ(status, 1);
  EXPECT_THAT(out, HasSubstr("no checkpoints"));
}

}  // namespace
}  // namespace descent
