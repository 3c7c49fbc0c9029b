// The text of a job, with a place for every error.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/job/field_names.h"
#include "common/job/job.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"

namespace descent {
namespace {

constexpr size_t kMostErrors = 20;
constexpr size_t kMostBytes = size_t{4} << 20;

// The text between the first two quotes after `position`.
absl::string_view Quoted(absl::string_view message, size_t position) {
  const size_t begin = message.find('"', position);
  if (begin == absl::string_view::npos) return "";
  const size_t end = message.find('"', begin + 1);
  if (end == absl::string_view::npos) return "";
  return message.substr(begin + 1, end - begin - 1);
}

class Errors : public google::protobuf::io::ErrorCollector {
 public:
  Errors(absl::string_view text, absl::string_view file) : text_(text), file_(file) {
    line_begin_.push_back(0);
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') line_begin_.push_back(i + 1);
    }
  }

  void AddError(int line, int column, const std::string& message) override { Add(Offset(line, column), message); }
  // Unknown fields come as warnings (see ParseJob), so that the first one does not hide the others.
  void AddWarning(int line, int column, const std::string& message) override { AddError(line, column, message); }

  const std::vector<std::string>& lines() const { return lines_; }

 private:
  void Add(size_t offset, absl::string_view message) {
    if (lines_.size() >= kMostErrors) return;
    std::string text(absl::StripSuffix(message, "."));
    constexpr absl::string_view kNoField = "has no field named";
    constexpr absl::string_view kNoValue = "Unknown enumeration value of";
    if (const size_t at = message.find(kNoField); at != absl::string_view::npos) {
      const absl::string_view name = Quoted(message, at);
      const absl::string_view type = Quoted(message, 0);
      const auto* descriptor =
          v1::JobSpec::descriptor()->file()->pool()->FindMessageTypeByName(std::string(type.data(), type.size()));
      if (descriptor != nullptr) {
        offset = BackTo(name, offset);
        text = absl::StrCat("unknown field `", name, "` in ", descriptor->name(), "; ",
                            Suggestion(name, FieldNames(*descriptor)));
      }
    } else if (const size_t at = message.find(kNoValue); at != absl::string_view::npos) {
      const absl::string_view value = Quoted(message, at);
      const absl::string_view field = Quoted(message, message.find("for field"));
      offset = BackTo(value, offset);
      if (const auto* type = EnumOf(field); type != nullptr) {
        text = absl::StrCat("unknown value `", value, "` of `", field, "`; ", Suggestion(value, ValueNames(*type)));
      }
    }
    const size_t line = std::upper_bound(line_begin_.begin(), line_begin_.end(), offset) - line_begin_.begin() - 1;
    lines_.push_back(absl::StrCat(file_, ":", line + 1, ":", offset - line_begin_[line] + 1, ": ", text));
  }

  // The parser has read one token too far when it finds a name unknown.
  size_t BackTo(absl::string_view name, size_t offset) const {
    const size_t at = text_.substr(0, std::min(text_.size(), offset + name.size())).rfind(name);
    return at == absl::string_view::npos ? offset : at;
  }

  // The parser says which field, not of which message: names of enum fields are unique among those that have a type.
  static const google::protobuf::EnumDescriptor* EnumOf(absl::string_view field) {
    const auto* file = v1::JobSpec::descriptor()->file();
    for (int i = 0; i < file->message_type_count(); ++i) {
      const auto* found = file->message_type(i)->FindFieldByName(std::string(field.data(), field.size()));
      if (found != nullptr && found->enum_type() != nullptr) return found->enum_type();
    }
    return nullptr;
  }

  // The tokenizer counts from 0 and advances tabs to multiples of 8.
  size_t Offset(int line, int column) const {
    if (line < 0 || static_cast<size_t>(line) >= line_begin_.size()) return text_.size();
    size_t offset = line_begin_[line];
    for (int at = 0; offset < text_.size() && text_[offset] != '\n' && at < column; ++offset) {
      at = text_[offset] == '\t' ? (at / 8 + 1) * 8 : at + 1;
    }
    return offset;
  }

  const absl::string_view text_;
  const absl::string_view file_;
  std::vector<size_t> line_begin_;
  std::vector<std::string> lines_;
};

}  // namespace

absl::StatusOr<v1::JobSpec> ParseJob(absl::string_view text, absl::string_view file) {
  if (text.size() > kMostBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", text.size(), " bytes; a job file has at most ", kMostBytes));
  }
  Errors errors(text, file);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.AllowUnknownField(true);
  parser.SetRecursionLimit(64);
  v1::JobSpec job;
  google::protobuf::io::ArrayInputStream input(text.data(), static_cast<int>(text.size()));
  const bool parsed = parser.Parse(&input, &job);
  if (!errors.lines().empty()) return absl::InvalidArgumentError(absl::StrJoin(errors.lines(), "\n"));
  if (!parsed) return absl::InvalidArgumentError(absl::StrCat(file, ": not a job in protobuf text format"));
  return job;
}

absl::StatusOr<v1::JobSpec> ReadJobFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    const std::string what = absl::StrCat("job file ", path, ": ", std::strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(what) : absl::NotFoundError(what);
  }
  if (S_ISDIR(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat("job file ", path, ": is a folder"));
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    const std::string what = absl::StrCat("job file ", path, ": ", std::strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(what) : absl::NotFoundError(what);
  }
  std::string text(kMostBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return ParseJob(text, path);
}

}  // namespace descent
