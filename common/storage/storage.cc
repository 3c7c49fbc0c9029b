#include "common/storage/storage.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace descent {

absl::StatusOr<std::string> Storage::ReadFile(const std::string& path, uint64_t most) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, Open(path));
  if (file->size() > most) {
    return absl::OutOfRangeError(absl::StrCat(path, ": has ", file->size(), " bytes, at most ", most, " are read"));
  }
  std::string contents(file->size(), '\0');
  DESCENT_ASSIGN_OR_RETURN(const size_t n, file->ReadAt(0, contents.data(), contents.size()));
  contents.resize(n);
  return contents;
}

absl::StatusOr<uint64_t> Storage::Size(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, Open(path));
  return file->size();
}

absl::Status CheckStoragePath(absl::string_view path) {
  if (path.empty()) return absl::OkStatus();
  for (const absl::string_view name : absl::StrSplit(path, '/')) {
    if (name.empty() || name == "." || name == "..") {
      return absl::InvalidArgumentError(absl::StrCat(path, ": expected a path relative to the storage's root"));
    }
  }
  return absl::OkStatus();
}

}  // namespace descent
