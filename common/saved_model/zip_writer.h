// Writes a zip archive of stored (not compressed) members as a stream, in zip64 form throughout, so that members and
// archives of any size are written the same way. Format: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7-4.3.16 and 4.5.3.
// A member's first bytes may be given last: an array's header holds its length, which a stream learns at its end.
// Not thread-safe. Errors name the file.
#ifndef DESCENT_COMMON_SAVED_MODEL_ZIP_WRITER_H_
#define DESCENT_COMMON_SAVED_MODEL_ZIP_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/files/file.h"

namespace descent {

class ZipWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ZipWriter>> Create(const std::string& path);

  // Begins a member whose first `prefix` bytes EndMember will give. One at a time.
  absl::Status BeginMember(absl::string_view name, size_t prefix);
  absl::Status Append(const void* data, size_t bytes);
  // `prefix` has the length announced.
  absl::Status EndMember(absl::string_view prefix);
  // Writes the directory, syncs and closes.
  absl::Status Finish();

 private:
  struct Member {
    std::string name;
    uint64_t offset = 0;  // of the local header
    uint64_t bytes = 0;   // with the prefix
    uint32_t crc = 0;
  };
  ZipWriter(FileDescriptor file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  absl::Status Put(absl::string_view bytes);
  absl::Status Flush();
  absl::Status PatchAt(uint64_t offset, absl::string_view bytes);

  FileDescriptor file_;
  const std::string path_;
  std::string buffer_;
  uint64_t written_ = 0;  // bytes of the archive, with those in buffer_
  std::vector<Member> members_;
  size_t prefix_ = 0;
  uint32_t body_crc_ = 0;
  uint64_t body_bytes_ = 0;
};

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_ZIP_WRITER_H_
