#include "common/files/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace descent {

absl::Status ErrnoStatus(int errno_value, absl::string_view what) {
  const std::string text = absl::StrCat(what, ": ", std::generic_category().message(errno_value));
  switch (errno_value) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(text);
    case EEXIST:
      return absl::AlreadyExistsError(text);
    default:
      return absl::UnavailableError(text);
  }
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = other.Release();
  }
  return *this;
}

int FileDescriptor::Release() { return std::exchange(fd_, -1); }

void FileDescriptor::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

absl::StatusOr<FileDescriptor> OpenFile(const std::string& path, int flags, int mode) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoStatus(errno, path);
  return FileDescriptor(fd);
}

absl::StatusOr<size_t> ReadUpTo(int fd, void* to, size_t bytes, absl::string_view name) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::read(fd, static_cast<char*>(to) + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, name);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

absl::Status WriteFully(int fd, const void* from, size_t bytes, absl::string_view name) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::write(fd, static_cast<const char*>(from) + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, name);
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(path, O_RDONLY));
  std::string contents;
  struct stat info;
  // Only a hint: files of /proc say 0.
  size_t chunk = ::fstat(fd.get(), &info) == 0 && info.st_size > 0 ? static_cast<size_t>(info.st_size) + 1 : 65536;
  while (true) {
    const size_t old = contents.size();
    contents.resize(old + chunk);
    DESCENT_ASSIGN_OR_RETURN(const size_t n, ReadUpTo(fd.get(), contents.data() + old, chunk, path));
    contents.resize(old + n);
    if (n < chunk) return contents;
    chunk = 65536;
  }
}

absl::Status SyncFolder(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(path.empty() ? "." : path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return ErrnoStatus(errno, path);
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view contents) {
  static std::atomic<uint64_t> counter{0};  // two threads may write the same file
  const std::string temporary = absl::StrCat(path, ".tmp-", ::getpid(), "-", counter.fetch_add(1));
  absl::Status status = [&]() -> absl::Status {
    DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC));
    DESCENT_RETURN_IF_ERROR(WriteFully(fd.get(), contents.data(), contents.size(), path));
    if (::fsync(fd.get()) != 0) return ErrnoStatus(errno, path);
    if (::close(fd.Release()) != 0) return ErrnoStatus(errno, path);
    if (::rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, path);
    const size_t slash = path.rfind('/');
    return SyncFolder(slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash));
  }();
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

absl::Status MakeDirs(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string folder = path.substr(0, end);
    if (!folder.empty() && ::mkdir(folder.c_str(), 0777) != 0) {
      const int error = errno;
      struct stat info;
      if (::stat(folder.c_str(), &info) != 0) return ErrnoStatus(error, folder);
      if (!S_ISDIR(info.st_mode)) return absl::AlreadyExistsError(absl::StrCat(folder, ": is a file, not a folder"));
    }
    if (end == std::string::npos) return absl::OkStatus();
  }
}

absl::Status RemoveTree(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  const int error = errno;
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, path);
  if (!S_ISDIR(info.st_mode)) return ErrnoStatus(error, path);
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(path));
  for (const std::string& name : names) DESCENT_RETURN_IF_ERROR(RemoveTree(absl::StrCat(path, "/", name)));
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, path);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListMatching(const std::string& pattern) {
  glob_t found = {};
  const int result = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> paths;
  if (result == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (result == GLOB_NOSPACE) return absl::ResourceExhaustedError(absl::StrCat(pattern, ": out of memory"));
  if (result == GLOB_ABORTED) return absl::UnavailableError(absl::StrCat(pattern, ": a folder can't be read"));
  std::sort(paths.begin(), paths.end());
  return paths;
}

absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& path) {
  DIR* folder = ::opendir(path.c_str());
  if (folder == nullptr) return ErrnoStatus(errno, path);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(folder)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  ::closedir(folder);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, path);
  FileIdentity identity;
  identity.bytes = static_cast<uint64_t>(info.st_size);
  identity.modified = int64_t{info.st_mtim.tv_sec} * 1000000000 + info.st_mtim.tv_nsec;
  identity.changed = int64_t{info.st_ctim.tv_sec} * 1000000000 + info.st_ctim.tv_nsec;
  identity.inode = info.st_ino;
  identity.device = info.st_dev;
  identity.folder = S_ISDIR(info.st_mode);
  return identity;
}

std::string JoinPath(absl::string_view folder, absl::string_view path) {
  if (folder.empty() || (!path.empty() && path[0] == '/')) return std::string(path);
  if (folder.back() == '/') return absl::StrCat(folder, path);
  return absl::StrCat(folder, "/", path);
}

}  // namespace descent
