// Holds docs/job-file.md and job.proto together: a table for every message and enum, a row for every field and value,
// no row for what does not exist, and every example parses. And docs/training.md: its examples parse, and the fields
// and tests that it names are there.
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

std::string Source(const std::string& path) {
  const char* source = std::getenv("DESCENT_SOURCE_DIR");
  return absl::StrCat(source == nullptr ? "." : source, "/", path);
}

std::string Document(const std::string& path = "docs/job-file.md") {
  std::ifstream in(Source(path));
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

// Parses every example, and validates those that are whole jobs; how many there are of each.
void CheckExamples(const std::string& document, int* blocks, int* whole) {
  std::string block;
  bool code = false;
  int line_number = 0;
  *blocks = *whole = 0;
  for (const absl::string_view line : absl::StrSplit(Document(document), '\n')) {
    ++line_number;
    if (code && line == "```") {
      code = false;
      ++*blocks;
      auto job = ParseJob(block, absl::StrCat(document, ", block that ends at line ", line_number));
      ASSERT_TRUE(job.ok()) << job.status();
      if (job->name().empty()) continue;
      ++*whole;
      ASSERT_TRUE(ResolveJob(1, 1, "/jobs", &*job).ok());
      EXPECT_TRUE(ValidateJob(*job).ok()) << ValidateJob(*job) << " before line " << line_number;
    } else if (code) {
      absl::StrAppend(&block, line, "\n");
    } else if (line == "```textproto") {
      code = true;
      block.clear();
    }
  }
}

TEST(JobFileDocument, ExamplesParseAndWholeJobsAreValid) {
  int blocks, whole;
  CheckExamples("docs/job-file.md", &blocks, &whole);
  EXPECT_GE(blocks, 15);
  EXPECT_GE(whole, 2);
}

// "optimizer.adam.beta1", from the job on.
bool IsField(absl::string_view path) {
  const google::protobuf::Descriptor* message = v1::JobSpec::descriptor();
  for (const absl::string_view name : absl::StrSplit(path, '.')) {
    const auto* field = message == nullptr ? nullptr : message->FindFieldByName(std::string(name));
    if (field == nullptr) return false;
    message = field->message_type();
  }
  return true;
}

TEST(TrainingDocument, ExamplesParseAndFieldsAndTestsExist) {
  int blocks, whole;
  CheckExamples("docs/training.md", &blocks, &whole);
  EXPECT_GE(blocks, 2);
  int fields = 0, tests = 0;
  for (const absl::string_view line : absl::StrSplit(Document("docs/training.md"), '\n')) {
    const std::vector<std::string> columns = absl::StrSplit(line, " | ");
    if (columns.size() < 4 || !absl::StartsWith(line, "| ")) continue;  // not of the tables of what is there
    const std::vector<std::string> named = absl::StrSplit(columns[1], '`');
    for (size_t i = 1; i < named.size(); i += 2) {
      // An example; a command.
      if (absl::StrContains(named[i], ": ") || absl::StartsWith(named[i], "descent ")) continue;
      EXPECT_TRUE(IsField(named[i]) || named[i] == "sparse_table") << named[i] << " in " << line;
      ++fields;
    }
    const std::vector<std::string> held = absl::StrSplit(columns[2], '`');
    for (size_t i = 1; i < held.size(); i += 2) {
      EXPECT_TRUE(std::ifstream(Source(held[i])).good()) << held[i] << " in " << line;
      ++tests;
    }
  }
  EXPECT_GE(fields, 25);
  EXPECT_GE(tests, 25);
}

}  // namespace
}  // namespace descent
