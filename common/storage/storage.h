// Files and folders behind an interface, so that what must survive a crash is written once and tried on a disk that
// crashes on purpose. Paths are relative to a root, with '/' between names; "" is the root. Absolute paths and paths
// with empty, "." or ".." names are INVALID_ARGUMENT.
//
// What lasts. Bytes of a file last once Sync has returned OK; a name in a folder (a file made, renamed or removed, a
// folder made) once SyncFolder of that folder has. Before that a crash may keep any of it or none. A Sync that failed
// is final: the bytes may be gone whatever a later Sync says, so the file is to be given up.
//
// Status codes: NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk or quota full),
// FAILED_PRECONDITION (a folder where a file is meant, or the other way round), UNAVAILABLE (anything else). Messages
// begin with the path.
//
// Thread-safety: a Storage from many threads; a file from one at a time.
#ifndef DESCENT_COMMON_STORAGE_STORAGE_H_
#define DESCENT_COMMON_STORAGE_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace descent {

class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes it
  virtual absl::Status Append(absl::string_view bytes) = 0;
  virtual absl::Status Sync() = 0;
  virtual absl::Status Close() = 0;  // does not sync; nothing may follow
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  // As many bytes from `offset` on as there are up to `bytes`; fewer only at the end of the file.
  virtual absl::StatusOr<size_t> ReadAt(uint64_t offset, void* to, size_t bytes) = 0;
  virtual uint64_t size() const = 0;  // when it was opened
};

class Storage {
 public:
  virtual ~Storage() = default;

  // With its parents; one that is there already is no error. The root itself lasts at once.
  virtual absl::Status MakeFolder(const std::string& path) = 0;
  // A new file, open for writing. ALREADY_EXISTS: there is one.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) = 0;
  // A new file with these contents, name and bytes lasting when OK. ALREADY_EXISTS: there is one, perhaps half written.
  virtual absl::Status CreateExclusive(const std::string& path, absl::string_view contents) = 0;
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) = 0;
  // Within one folder; what is called `to` is replaced.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // A file, or a folder with all it holds; one that is not there is no error.
  virtual absl::Status Remove(const std::string& path) = 0;
  // Names in a folder, sorted.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual absl::Status SyncFolder(const std::string& path) = 0;

  // The whole file. OUT_OF_RANGE: it has more than `most` bytes; nothing was read.
  absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t most);
  absl::StatusOr<uint64_t> Size(const std::string& path);
};

// On the file system, below `root`, which need not be there yet: MakeFolder("") makes it.
std::unique_ptr<Storage> MakePosixStorage(const std::string& root);

// For implementations: INVALID_ARGUMENT as above.
absl::Status CheckStoragePath(absl::string_view path);

}  // namespace descent

#endif  // DESCENT_COMMON_STORAGE_STORAGE_H_
