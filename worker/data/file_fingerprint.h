// What a data file is, told without reading it again: size and CRC32C of the bytes on disk, remembered in a folder
// until the file's size, times or inode change. Thread-safe.
#ifndef DESCENT_WORKER_DATA_FILE_FINGERPRINT_H_
#define DESCENT_WORKER_DATA_FILE_FINGERPRINT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace descent {

struct FileFingerprint {
  uint64_t bytes = 0;
  uint32_t crc32c = 0;
  bool operator==(const FileFingerprint&) const = default;
};

// `memory_folder` may be empty, and need not be writable. `name` is what errors call the file.
absl::StatusOr<FileFingerprint> FingerprintFile(const std::string& path, const std::string& name,
                                                const std::string& memory_folder);

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_FILE_FINGERPRINT_H_
