#include "server/process/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace descent {
namespace {

absl::Status Failed(const std::string& path, absl::string_view what) {
  const int error = errno;
  return absl::UnavailableError(
      absl::StrCat(path, ": ", what, ": ", absl::ErrnoToStatus(error, "").message(), " (errno ", error, ")"));
}

std::string HostName() {
  char name[256] = "unknown";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

FolderLock::FolderLock(std::string folder, RunId run) : path_(std::move(folder) + "/coordinator.lock"), run_(run) {}

FolderLock::~FolderLock() {
  if (held()) close(file_);
}

absl::Status FolderLock::Take() {
  if (held()) return absl::OkStatus();
  const std::string mine = absl::StrFormat("run %016x", run_.value);
  const int file = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return Failed(path_, "can't be opened");
  if (flock(file, LOCK_EX | LOCK_NB) == 0) {
    const std::string text = absl::StrCat(mine, ", process ", getpid(), " on host ", HostName(), "\n");
    // On a full disk the lock holds without a name.
    const bool named = ftruncate(file, 0) == 0 && pwrite(file, text.data(), text.size(), 0) >= 0;
    if (!named && errno != ENOSPC && errno != EDQUOT) {
      const absl::Status failed = Failed(path_, "can't be written");
      close(file);
      return failed;
    }
    file_ = file;
    return absl::OkStatus();
  }
  if (errno != EWOULDBLOCK) {  // no locks here
    close(file);
    return absl::OkStatus();
  }
  char text[512];
  const ssize_t bytes = pread(file, text, sizeof text, 0);
  close(file);
  if (bytes < 0) return Failed(path_, "can't be read");
  const absl::string_view holder = absl::StripSuffix(absl::string_view(text, static_cast<size_t>(bytes)), "\n");
  if (absl::StartsWith(holder, mine)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the checkpoint folder is in use by ", holder.empty() ? "another run" : holder, ", which holds ", path_,
      "; this is ", mine, ": wait until that one is over, or name another folder (checkpoint.path)"));
}

}  // namespace descent
