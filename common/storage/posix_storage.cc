// Storage on the file system.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/storage/storage.h"

namespace descent {
namespace {

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return std::string(".");
  return slash == 0 ? std::string("/") : path.substr(0, slash);
}

absl::Status FolderMeant(int errno_value, const std::string& path) {
  if (errno_value == ENOTDIR) return absl::FailedPreconditionError(absl::StrCat(path, ": is a file, not a folder"));
  return ErrnoStatus(errno_value, path);
}

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(FileDescriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  absl::Status Append(absl::string_view bytes) override {
    return WriteFully(fd_.get(), bytes.data(), bytes.size(), path_);
  }
  absl::Status Sync() override {
    if (::fsync(fd_.get()) != 0) return ErrnoStatus(errno, path_);
    return absl::OkStatus();
  }
  absl::Status Close() override {
    if (::close(fd_.Release()) != 0) return ErrnoStatus(errno, path_);
    return absl::OkStatus();
  }

 private:
  FileDescriptor fd_;
  const std::string path_;
};

class PosixReadableFile final : public ReadableFile {
 public:
  PosixReadableFile(FileDescriptor fd, std::string path, uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), size_(size) {}
  absl::StatusOr<size_t> ReadAt(uint64_t offset, void* to, size_t bytes) override {
    size_t done = 0;
    while (done < bytes) {
      const ssize_t n =
          ::pread(fd_.get(), static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoStatus(errno, path_);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }
  uint64_t size() const override { return size_; }

 private:
  FileDescriptor fd_;
  const std::string path_;
  const uint64_t size_;
};

class PosixStorage final : public Storage {
 public:
  explicit PosixStorage(std::string root) : root_(std::move(root)) {}

  absl::Status MakeFolder(const std::string& path) override {
    DESCENT_RETURN_IF_ERROR(MakeRoot());
    if (path.empty()) return absl::OkStatus();
    DESCENT_ASSIGN_OR_RETURN(const std::string full, Full(path));
    return MakeDirs(full);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    DESCENT_ASSIGN_OR_RETURN(const std::string full, Full(path));
    DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(full, O_WRONLY | O_CREAT | O_EXCL));
    return std::make_unique<PosixWritableFile>(std::move(fd), full);
  }

  absl::Status CreateExclusive(const std::string& path, absl::string_view contents) override {
    DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, Create(path));
    DESCENT_RETURN_IF_ERROR(file->Append(contents));
    DESCENT_RETURN_IF_ERROR(file->Sync());
    DESCENT_RETURN_IF_ERROR(file->Close());
    return descent::SyncFolder(ParentOf(JoinPath(root_, path)));
  }

  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override {
    DESCENT_ASSIGN_OR_RETURN(const std::string full, Full(path));
    // Without O_NONBLOCK a named pipe would be waited for.
    DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(full, O_RDONLY | O_NONBLOCK));
    struct stat info;
    if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, full);
    if (!S_ISREG(info.st_mode)) return absl::FailedPreconditionError(absl::StrCat(full, ": is no regular file"));
    return std::make_unique<PosixReadableFile>(std::move(fd), full, static_cast<uint64_t>(info.st_size));
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    DESCENT_ASSIGN_OR_RETURN(const std::string full_from, Full(from));
    DESCENT_ASSIGN_OR_RETURN(const std::string full_to, Full(to));
    if (::rename(full_from.c_str(), full_to.c_str()) != 0) return ErrnoStatus(errno, full_from);
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    DESCENT_ASSIGN_OR_RETURN(const std::string full, Full(path));
    return RemoveTree(full);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    DESCENT_ASSIGN_OR_RETURN(const std::string full, Full(path));
    DESCENT_RETURN_IF_ERROR(CheckFolder(full));
    return ListFolder(full);
  }

  absl::Status SyncFolder(const std::string& path) override {
    DESCENT_ASSIGN_OR_RETURN(const std::string full, Full(path));
    DESCENT_RETURN_IF_ERROR(CheckFolder(full));
    return descent::SyncFolder(full);
  }

 private:
  absl::StatusOr<std::string> Full(const std::string& path) const {
    DESCENT_RETURN_IF_ERROR(CheckStoragePath(path));
    return path.empty() ? root_ : JoinPath(root_, path);
  }

  static absl::Status CheckFolder(const std::string& full) {
    struct stat info;
    if (::stat(full.c_str(), &info) != 0) return FolderMeant(errno, full);
    return S_ISDIR(info.st_mode) ? absl::OkStatus() : FolderMeant(ENOTDIR, full);
  }

  // Every folder that was missing is synced into its parent.
  absl::Status MakeRoot() const {
    std::vector<std::string> missing;
    for (std::string path = root_; ::access(path.c_str(), F_OK) != 0 && errno == ENOENT; path = ParentOf(path)) {
      missing.push_back(path);
      if (path == ParentOf(path)) break;
    }
    DESCENT_RETURN_IF_ERROR(MakeDirs(root_));
    for (const std::string& path : missing) DESCENT_RETURN_IF_ERROR(descent::SyncFolder(ParentOf(path)));
    return absl::OkStatus();
  }

  const std::string root_;
};

}  // namespace

std::unique_ptr<Storage> MakePosixStorage(const std::string& root) {
  std::string trimmed = root.empty() ? std::string(".") : root;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  return std::make_unique<PosixStorage>(std::move(trimmed));
}

}  // namespace descent
