// Files and folders with errors that name them. Thread-safe: no state. Status codes: NOT_FOUND (no such file or
// folder), PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk or quota full), ALREADY_EXISTS, UNAVAILABLE (anything else the
// system reports).
#ifndef DESCENT_COMMON_FILES_FILE_H_
#define DESCENT_COMMON_FILES_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace descent {

// "<what>: <text of errno_value>" with the code that fits.
absl::Status ErrnoStatus(int errno_value, absl::string_view what);

// A file descriptor, closed at the end of its life.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.Release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor() { Close(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release();
  void Close();

 private:
  int fd_ = -1;
};

// Opens with O_CLOEXEC.
absl::StatusOr<FileDescriptor> OpenFile(const std::string& path, int flags, int mode = 0644);

// As many bytes as there are up to `bytes`, retrying short reads; fewer only at the end of the file.
absl::StatusOr<size_t> ReadUpTo(int fd, void* to, size_t bytes, absl::string_view name);
absl::Status WriteFully(int fd, const void* from, size_t bytes, absl::string_view name);

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Readers see the old file or the new one, also after a power cut: written beside it, synced, renamed, the folder
// synced.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view contents);
absl::Status SyncFolder(const std::string& path);

// With its parents; one that is there already is no error.
absl::Status MakeDirs(const std::string& path);
// A file, or a folder with all it holds; one that is not there is no error.
absl::Status RemoveTree(const std::string& path);

// Paths that match a shell pattern, sorted by bytes whatever the locale; none is no error.
absl::StatusOr<std::vector<std::string>> ListMatching(const std::string& pattern);
// Names in a folder, sorted, without "." and "..".
absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path);

// What tells that a file is still the one it was, without reading it. Times in nanoseconds since 1970.
struct FileIdentity {
  uint64_t bytes = 0;
  int64_t modified = 0;
  int64_t changed = 0;
  uint64_t inode = 0;
  uint64_t device = 0;
  bool folder = false;
  bool operator==(const FileIdentity&) const = default;
};
absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path);

// `path` itself where it is absolute or `folder` is empty.
std::string JoinPath(absl::string_view folder, absl::string_view path);

}  // namespace descent

#endif  // DESCENT_COMMON_FILES_FILE_H_
