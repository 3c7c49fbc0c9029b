#include "cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"

namespace descent {
namespace {

// In the child between fork and exec: async-signal-safe calls only. Returns only on failure, errno set.
void Become(char* const* argv, int log, int null, pid_t parent) {
  setpgid(0, 0);
  // Closes the window in which the parent died before the kernel was told to watch it.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(127);
  struct sigaction action;
  std::memset(&action, 0, sizeof action);
  action.sa_handler = SIG_DFL;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE}) sigaction(signal, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) return;
  close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
  execv(argv[0], argv);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(ChildSpec spec) {
  DESCENT_CHECK(!spec.arguments.empty());
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor log, OpenFile(spec.log, O_WRONLY | O_CREAT | O_APPEND));
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor null, OpenFile("/dev/null", O_RDONLY));
  int failure[2];  // carries errno of an exec that failed; closed by one that didn't
  if (pipe2(failure, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  std::vector<char*> argv;
  for (const std::string& argument : spec.arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    Become(argv.data(), log.get(), null.get(), parent);
    const int error = errno;
    const ssize_t written = write(failure[1], &error, sizeof error);
    _exit(written > 0 ? 127 : 126);
  }
  close(failure[1]);
  if (pid < 0) {
    close(failure[0]);
    return ErrnoStatus(errno, absl::StrCat("can't start ", spec.arguments[0]));
  }
  setpgid(pid, pid);  // both sides do, so that it holds from here on
  int error = 0;
  ssize_t got;
  do {
    got = read(failure[0], &error, sizeof error);
  } while (got < 0 && errno == EINTR);
  close(failure[0]);
  if (got == static_cast<ssize_t>(sizeof error)) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return ErrnoStatus(error, spec.arguments[0]);
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(std::move(spec), pid));
}

ChildProcess::~ChildProcess() {
  if (!running_) return;
  Signal(SIGKILL);
  while (waitpid(pid_, &wait_status_, 0) < 0 && errno == EINTR) {
  }
}

std::string ChildProcess::name() const { return absl::StrCat(spec_.role, " ", spec_.index); }

bool ChildProcess::Reap() {
  if (!running_) return false;
  const pid_t ended = waitpid(pid_, &wait_status_, WNOHANG);
  if (ended != pid_) return false;
  running_ = false;
  return true;
}

void ChildProcess::Signal(int signal) {
  if (running_) kill(-pid_, signal);
}

bool ChildProcess::killed_by_signal() const { return WIFSIGNALED(wait_status_); }

int ChildProcess::code() const {
  return WIFSIGNALED(wait_status_) ? 128 + WTERMSIG(wait_status_) : WEXITSTATUS(wait_status_);
}

std::string ChildProcess::Ending() const {
  if (!WIFSIGNALED(wait_status_)) return absl::StrCat("exit code ", WEXITSTATUS(wait_status_));
  const int signal = WTERMSIG(wait_status_);
  const char* name = sigabbrev_np(signal);
  return absl::StrCat("signal ", signal, name == nullptr ? "" : absl::StrCat(" (SIG", name, ")"));
}

std::vector<std::string> ChildProcess::LogTail(size_t lines) const {
  constexpr std::streamoff kMost = 16384;
  std::ifstream in(spec_.log, std::ios::binary | std::ios::ate);
  if (!in) return {};
  const std::streamoff size = in.tellg();
  std::string text(static_cast<size_t>(std::min(size, kMost)), '\0');
  in.seekg(size - static_cast<std::streamoff>(text.size()));
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  std::vector<std::string> all = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  if (all.size() > lines) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(lines));
  return all;
}

}  // namespace descent
