// A file's contents as a stream, plain or gzip (RFC 1952, told by its magic number; members one after another are one
// stream), with the CRC-32C of the bytes as they lie on disk. Use from one thread at a time.
#ifndef DESCENT_COMMON_FILES_GZIP_READER_H_
#define DESCENT_COMMON_FILES_GZIP_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/files/file.h"

struct z_stream_s;

namespace descent {

class GzipReader {
 public:
  // `name` is what errors call the file. NOT_FOUND: no such file.
  static absl::StatusOr<std::unique_ptr<GzipReader>> Open(const std::string& path, const std::string& name);
  ~GzipReader();

  // Up to `bytes` bytes, fewer only at the end; 0 at the end. DATA_LOSS names file and offset: a stream that ends too
  // early, damaged data, or bytes behind the end that are not zero padding.
  absl::StatusOr<size_t> Read(char* to, size_t bytes);

  // Of the file on disk, so far; of all of it once Read has returned 0.
  uint64_t disk_bytes() const { return disk_bytes_; }
  uint32_t disk_crc32c() const { return crc32c_; }
  bool compressed() const { return compressed_; }

 private:
  GzipReader(FileDescriptor fd, std::string name);
  absl::Status Refill();
  absl::StatusOr<size_t> ReadPlain(char* to, size_t bytes);
  absl::StatusOr<size_t> ReadGzip(char* to, size_t bytes);
  // Between two members: true if another follows.
  absl::StatusOr<bool> NextMember();
  uint64_t offset() const { return disk_bytes_ - (limit_ - next_); }

  FileDescriptor fd_;
  const std::string name_;
  std::vector<char> input_;
  size_t next_ = 0;  // unread input: [next_, limit_)
  size_t limit_ = 0;
  uint64_t disk_bytes_ = 0;
  uint32_t crc32c_ = 0;
  bool end_of_file_ = false;
  bool compressed_ = false;
  bool in_member_ = false;
  std::unique_ptr<z_stream_s> stream_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_FILES_GZIP_READER_H_
