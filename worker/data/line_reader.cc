#include "worker/data/line_reader.h"

#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {
constexpr size_t kBufferBytes = 1 << 20;
constexpr size_t kLongestLine = 256 << 20;
constexpr absl::string_view kByteOrderMark = "\xef\xbb\xbf";
}  // namespace

LineReader::LineReader(std::unique_ptr<GzipReader> file, std::string name)
    : file_(std::move(file)), name_(std::move(name)), buffer_(kBufferBytes) {}

absl::StatusOr<std::unique_ptr<LineReader>> LineReader::Open(const std::string& path, const std::string& name) {
  DESCENT_ASSIGN_OR_RETURN(auto file, GzipReader::Open(path, name));
  auto reader = absl::WrapUnique(new LineReader(std::move(file), name));
  DESCENT_ASSIGN_OR_RETURN(reader->limit_, reader->file_->Read(reader->buffer_.data(), reader->buffer_.size()));
  if (reader->limit_ == 0) return absl::InvalidArgumentError(absl::StrCat(name, ": the file is empty"));
  if (absl::StartsWith(absl::string_view(reader->buffer_.data(), reader->limit_), kByteOrderMark)) {
    reader->next_ = kByteOrderMark.size();
  }
  return reader;
}

const void* LineReader::LineEnd(size_t from) const { return std::memchr(buffer_.data() + from, '\n', limit_ - from); }

absl::StatusOr<bool> LineReader::NextSlow(absl::string_view* line) {
  while (true) {
    const size_t kept = limit_ - next_;
    if (end_) {
      if (kept == 0) return false;
      *line = absl::string_view(buffer_.data() + next_, kept);  // the last line lacks its end
      next_ = limit_;
      ++number_;
      return true;
    }
    std::memmove(buffer_.data(), buffer_.data() + next_, kept);
    next_ = 0;
    limit_ = kept;
    if (kept == buffer_.size()) {
      if (kept >= kLongestLine) {
        return absl::InvalidArgumentError(
            absl::StrCat(name_, ":", number_ + 1, ": the line is longer than ", kLongestLine, " bytes"));
      }
      buffer_.resize(2 * kept);
    }
    DESCENT_ASSIGN_OR_RETURN(const size_t n, file_->Read(buffer_.data() + kept, buffer_.size() - kept));
    limit_ += n;
    end_ = n == 0;
    if (const void* end = LineEnd(kept); end != nullptr) {
      *line = absl::string_view(buffer_.data(), static_cast<size_t>(static_cast<const char*>(end) - buffer_.data()));
      next_ = line->size() + 1;
      ++number_;
      return true;
    }
  }
}

}  // namespace descent
