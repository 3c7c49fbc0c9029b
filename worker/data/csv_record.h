// Records of a CSV file: RFC 4180, with any delimiter, line ends LF or CRLF, fields with quotes, doubled quotes and
// line ends in them. Blank lines are passed over. Use from one thread at a time.
#ifndef DESCENT_WORKER_DATA_CSV_RECORD_H_
#define DESCENT_WORKER_DATA_CSV_RECORD_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "worker/data/line_reader.h"

namespace descent {

class CsvRecords {
 public:
  CsvRecords(std::unique_ptr<LineReader> lines, char delimiter) : lines_(std::move(lines)), delimiter_(delimiter) {}

  // False at the end. Fields are valid until the next call.
  absl::StatusOr<bool> Next() {
    absl::string_view line;
    do {
      DESCENT_ASSIGN_OR_RETURN(const bool more, lines_->Next(&line));
      if (!more) return false;
    } while (WithoutReturn(line).empty());
    number_ = lines_->number();
    fields_.clear();
    if (std::memchr(line.data(), '"', line.size()) != nullptr) return NextQuoted(line);
    line = WithoutReturn(line);
    while (true) {
      const void* end = std::memchr(line.data(), delimiter_, line.size());
      if (end == nullptr) break;
      const auto size = static_cast<size_t>(static_cast<const char*>(end) - line.data());
      fields_.push_back(line.substr(0, size));
      line.remove_prefix(size + 1);
    }
    fields_.push_back(line);
    return true;
  }
  const std::vector<absl::string_view>& fields() const { return fields_; }
  uint64_t number() const { return number_; }  // of the line the record begins in
  const LineReader& lines() const { return *lines_; }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(lines_->name(), ":", number_, ": ", what));
  }

  absl::StatusOr<bool> NextQuoted(absl::string_view line) {
    text_.clear();
    ends_.clear();
    size_t at = 0;
    while (true) {  // one field each
      if (at < line.size() && line[at] == '"') {
        ++at;
        while (true) {  // the quoted part
          const size_t quote = line.find('"', at);
          if (quote == absl::string_view::npos) {
            text_.append(line.data() + at, line.size() - at);
            text_.push_back('\n');
            DESCENT_ASSIGN_OR_RETURN(const bool more, lines_->Next(&line));
            if (!more) return Error(absl::StrCat("the quotes of field ", ends_.size() + 1, " never end"));
            at = 0;
            continue;
          }
          text_.append(line.data() + at, quote - at);
          at = quote + 1;
          if (at >= line.size() || line[at] != '"') break;
          text_.push_back('"');
          ++at;
        }
        const absl::string_view rest = line.substr(at);
        if (!rest.empty() && rest[0] != delimiter_ && rest != "\r") {
          return Error(absl::StrCat("text behind the quotes of field ", ends_.size() + 1));
        }
        if (rest == "\r") at = line.size();
      } else {
        size_t end = line.find(delimiter_, at);
        absl::string_view field = line.substr(at, end == absl::string_view::npos ? end : end - at);
        at += field.size();
        if (end == absl::string_view::npos) field = WithoutReturn(field);
        text_.append(field.data(), field.size());
      }
      ends_.push_back(text_.size());
      if (at >= line.size()) break;
      ++at;  // the delimiter
    }
    size_t begin = 0;
    for (const size_t end : ends_) {
      fields_.push_back(absl::string_view(text_).substr(begin, end - begin));
      begin = end;
    }
    return true;
  }

  std::unique_ptr<LineReader> lines_;
  const char delimiter_;
  uint64_t number_ = 0;
  std::vector<absl::string_view> fields_;
  std::string text_;  // with quotes: the fields one after another, and where each ends
  std::vector<size_t> ends_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_CSV_RECORD_H_
