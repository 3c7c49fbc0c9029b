// A lock between processes of a host, and between threads: flock(2) on a file of its own, released by the kernel when
// its holder dies. The file says who holds it exclusively.
#ifndef DESCENT_COMMON_FILES_FILE_LOCK_H_
#define DESCENT_COMMON_FILES_FILE_LOCK_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/files/file.h"

namespace descent {

// Released by the destructor. Use from one thread at a time.
class FileLock {
 public:
  enum class Kind { kShared, kExclusive };

  // Waits as long as the holder shows progress (see Progress) at least every `patience`: DEADLINE_EXCEEDED names the
  // holder. A patience of zero tries once.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::string& path, Kind kind, absl::Duration patience);
  ~FileLock() = default;

  // Tells those who wait that the holder is at work.
  void Progress();

 private:
  explicit FileLock(FileDescriptor fd) : fd_(std::move(fd)) {}
  FileDescriptor fd_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_FILES_FILE_LOCK_H_
