// A process of the cluster on this machine: in a process group of its own (the terminal's Ctrl-C reaches only the
// supervisor), killed by the kernel when the supervisor dies, its output in a log file. Not thread-safe: one thread
// starts and reaps all children, and lives as long as they shall (the kernel's kill is tied to that thread).
#ifndef DESCENT_CLI_CHILD_PROCESS_H_
#define DESCENT_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace descent {

struct ChildSpec {
  std::string role;  // "server", "worker"
  uint32_t index = 0;
  std::vector<std::string> arguments;  // [0] is the binary's path
  std::string log;                     // standard output and error are appended here
};

class ChildProcess {
 public:
  // Returns when the binary runs. NOT_FOUND and the like name the binary, or the log file.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(ChildSpec spec);
  // Kills and reaps what still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  const ChildSpec& spec() const { return spec_; }
  std::string name() const;  // "worker 1"
  pid_t pid() const { return pid_; }
  bool running() const { return running_; }

  // True if it has ended since the last call. Does not block.
  bool Reap();
  // To the whole process group; nothing once it has ended.
  void Signal(int signal);

  // Of one that has ended.
  bool killed_by_signal() const;
  int code() const;            // exit code, or 128 + signal
  std::string Ending() const;  // "exit code 1", "signal 9 (SIGKILL)"
  // Last lines of its log, without empty ones.
  std::vector<std::string> LogTail(size_t lines) const;

 private:
  ChildProcess(ChildSpec spec, pid_t pid) : spec_(std::move(spec)), pid_(pid) {}

  const ChildSpec spec_;
  const pid_t pid_;
  bool running_ = true;
  int wait_status_ = 0;
};

}  // namespace descent

#endif  // DESCENT_CLI_CHILD_PROCESS_H_
