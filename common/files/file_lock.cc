#include "common/files/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

std::string HolderOf(int fd) {
  char text[128];
  const ssize_t n = ::pread(fd, text, sizeof(text), 0);
  const absl::string_view holder =
      absl::StripAsciiWhitespace(absl::string_view(text, n > 0 ? static_cast<size_t>(n) : 0));
  return holder.empty() ? "an unknown process" : std::string(holder);
}

void WriteHolder(int fd) {
  char host[64] = "?";
  ::gethostname(host, sizeof(host) - 1);
  const std::string text = absl::StrCat("process ", ::getpid(), " on ", host, "\n");
  // Only for messages: a full disk must not keep anyone from locking.
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, text.data(), text.size(), 0) < 0) return;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::string& path, Kind kind,
                                                            absl::Duration patience) {
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(path, O_RDWR | O_CREAT, 0666));
  absl::Time deadline = absl::Now() + patience;
  timespec last = {};
  while (true) {
    if (::flock(fd.get(), (kind == Kind::kShared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) break;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, path);
    struct stat info;
    if (::fstat(fd.get(), &info) == 0 && (info.st_mtim.tv_sec != last.tv_sec || info.st_mtim.tv_nsec != last.tv_nsec)) {
      last = info.st_mtim;
      deadline = absl::Now() + patience;
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(path, ": locked by ", HolderOf(fd.get()),
                                                      ", which has shown no progress for ",
                                                      absl::FormatDuration(patience)));
    }
    absl::SleepFor(absl::Milliseconds(20));  // flock has no wait with a deadline
  }
  if (kind == Kind::kExclusive) WriteHolder(fd.get());
  return absl::WrapUnique(new FileLock(std::move(fd)));
}

void FileLock::Progress() { ::futimens(fd_.get(), nullptr); }

}  // namespace descent
