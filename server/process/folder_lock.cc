#include "server/process/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace descent {
namespace {

constexpr absl::Duration kKnock = absl::Milliseconds(10);

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

std::string RunText(RunId run) { return absl::StrFormat("run %016x", run.value); }

// Whether the lock was taken; false: another has it. An errno other than EWOULDBLOCK: there are no locks here.
bool TryUntil(int file, absl::Time deadline) {
  while (flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK || absl::Now() >= deadline) return false;
    absl::SleepFor(kKnock);
  }
  return true;
}

}  // namespace

FolderLock::FolderLock(std::string folder, RunId run, absl::Duration patience)
    : path_(std::move(folder) + "/coordinator.lock"), run_(run), patience_(patience) {}

FolderLock::~FolderLock() {
  if (held()) close(file_);
}

absl::Status FolderLock::Take() {
  if (held()) return absl::OkStatus();
  const std::string mine = RunText(run_);
  const int file = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return Failed(path_, "can't be opened");
  if (TryUntil(file, absl::Now() + patience_)) {
    const std::string text = absl::StrCat(mine, ", process ", getpid(), " on host ", HostName(), "\n");
    // On a full disk the lock holds without a name, or with a part of it that has no end of line.
    const bool named = ftruncate(file, 0) == 0 && pwrite(file, text.data(), text.size(), 0) >= 0;
    if (!named && errno != ENOSPC && errno != EDQUOT) {
      const absl::Status failed = Failed(path_, "can't be written");
      close(file);
      return failed;
    }
    file_ = file;
    return absl::OkStatus();
  }
  if (errno != EWOULDBLOCK) {
    close(file);
    return absl::OkStatus();
  }
  char text[512];
  const ssize_t bytes = pread(file, text, sizeof text, 0);
  const absl::Status unread = bytes < 0 ? Failed(path_, "can't be read") : absl::OkStatus();
  close(file);
  if (!unread.ok()) return unread;
  absl::string_view name(text, static_cast<size_t>(bytes));
  const bool whole = absl::ConsumeSuffix(&name, "\n");
  const std::string holder = whole ? absl::CHexEscape(name) : "a process whose name did not fit onto the disk";
  const std::string lives = absl::StrCat(holder, ", which lives and holds ", path_);
  if (whole && absl::StartsWith(name, mine)) {
    return absl::FailedPreconditionError(absl::StrCat("this run has a coordinator: ", lives,
                                                      "; a second one beside it is refused until that one is over"));
  }
  return absl::FailedPreconditionError(absl::StrCat("the checkpoint folder is in use by ", lives, "; this is ", mine,
                                                    ": wait until that one is over, or name another folder "
                                                    "(checkpoint.path)"));
}

}  // namespace descent
