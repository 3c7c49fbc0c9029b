// Lines of a plain or gzip file, with their numbers. Use from one thread at a time.
#ifndef DESCENT_WORKER_DATA_LINE_READER_H_
#define DESCENT_WORKER_DATA_LINE_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/files/gzip_reader.h"

namespace descent {

class LineReader {
 public:
  // INVALID_ARGUMENT: the file is empty.
  static absl::StatusOr<std::unique_ptr<LineReader>> Open(const std::string& path, const std::string& name);

  // False at the end. The line lacks its '\n', a byte order mark before the first, and is valid until the next call;
  // a '\r' stays. Errors as GzipReader, and INVALID_ARGUMENT for a line of more than 256 MiB.
  absl::StatusOr<bool> Next(absl::string_view* line) {
    if (const void* end = LineEnd(next_); end != nullptr) {
      const auto* stop = static_cast<const char*>(end);
      *line = absl::string_view(buffer_.data() + next_, static_cast<size_t>(stop - buffer_.data()) - next_);
      next_ += line->size() + 1;
      ++number_;
      return true;
    }
    return NextSlow(line);
  }
  uint64_t number() const { return number_; }  // of the line last returned, from 1
  const std::string& name() const { return name_; }
  const GzipReader& file() const { return *file_; }

 private:
  LineReader(std::unique_ptr<GzipReader> file, std::string name);
  const void* LineEnd(size_t from) const;
  absl::StatusOr<bool> NextSlow(absl::string_view* line);

  std::unique_ptr<GzipReader> file_;
  const std::string name_;
  std::vector<char> buffer_;
  size_t next_ = 0;
  size_t limit_ = 0;
  uint64_t number_ = 0;
  bool end_ = false;
};

// Without trailing '\r'.
inline absl::string_view WithoutReturn(absl::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_LINE_READER_H_
