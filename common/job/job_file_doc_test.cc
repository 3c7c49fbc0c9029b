// Holds docs/job-file.md and job.proto together: a table for every message and enum, a row for every field and value,
// no row for what does not exist, and every example parses.
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/job/field_names.h"
#include "common/job/job.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

std::string Document() {
  const char* source = std::getenv("DESCENT_SOURCE_DIR");
  std::ifstream in(std::string(source == nullptr ? "." : source) + "/docs/job-file.md");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The text between the first two backticks.
std::string Ticked(absl::string_view line) {
  const std::vector<std::string> parts = absl::StrSplit(line, '`');
  return parts.size() < 3 ? "" : parts[1];
}

// Names in the first columns of the tables below each heading that has a name in backticks.
std::map<std::string, std::set<std::string>> Tables(const std::string& text) {
  std::map<std::string, std::set<std::string>> tables;
  std::string type;
  bool code = false;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "```")) code = !code;
    if (code) continue;
    if (absl::StartsWith(line, "#")) {
      type = Ticked(line);
      if (!type.empty()) tables[type];
    } else if (!type.empty() && absl::StartsWith(line, "| `")) {
      tables[type].insert(Ticked(line));
    }
  }
  return tables;
}

TEST(JobFileDocument, HasEveryFieldAndValueAndNoOther) {
  const auto tables = Tables(Document());
  const auto* file = v1::JobSpec::descriptor()->file();
  std::map<std::string, std::set<std::string>> expected;
  for (int i = 0; i < file->message_type_count(); ++i) {
    const std::vector<std::string> names = FieldNames(*file->message_type(i));
    expected[file->message_type(i)->name()] = {names.begin(), names.end()};
  }
  for (int i = 0; i < file->enum_type_count(); ++i) {
    const std::vector<std::string> names = ValueNames(*file->enum_type(i));
    expected[file->enum_type(i)->name()] = {names.begin(), names.end()};
  }
  for (const auto& [type, names] : expected) {
    ASSERT_TRUE(tables.count(type)) << "docs/job-file.md has no section about " << type;
    EXPECT_EQ(tables.at(type), names) << type;
  }
  for (const auto& [type, names] : tables) {
    EXPECT_TRUE(expected.count(type)) << "docs/job-file.md has a section about " << type << ", which does not exist";
  }
}

TEST(JobFileDocument, ExamplesParseAndWholeJobsAreValid) {
  std::string block;
  bool code = false;
  int blocks = 0, whole = 0, line_number = 0;
  for (const absl::string_view line : absl::StrSplit(Document(), '\n')) {
    ++line_number;
    if (code && line == "```") {
      code = false;
      ++blocks;
      auto job = ParseJob(block, absl::StrCat("docs/job-file.md, block that ends at line ", line_number));
      ASSERT_TRUE(job.ok()) << job.status();
      if (job->name().empty()) continue;
      ++whole;
      ASSERT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
      EXPECT_TRUE(ValidateJob(*job).ok()) << ValidateJob(*job) << " before line " << line_number;
    } else if (code) {
      absl::StrAppend(&block, line, "\n");
    } else if (line == "```textproto") {
      code = true;
      block.clear();
    }
  }
  EXPECT_GE(blocks, 15);
  EXPECT_GE(whole, 2);
}

}  // namespace
}  // namespace descent
