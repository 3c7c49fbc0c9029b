// Asks the coordinator for its status again and again on a thread of its own, so that a slow answer delays no signal.
// Thread-safe.
#ifndef DESCENT_CLI_STATUS_POLLER_H_
#define DESCENT_CLI_STATUS_POLLER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/cluster_control.h"
#include "common/base/mutex.h"
#include "common/files/file.h"

namespace descent {

class StatusPoller {
 public:
  StatusPoller(std::unique_ptr<ClusterControl> control, absl::Duration interval);
  ~StatusPoller();  // waits for the call under way

  // Readable when there is news. Take clears it.
  int fd() const { return event_.get(); }
  struct News {
    std::optional<absl::StatusOr<v1::StatusReply>> status;  // the latest
    std::optional<absl::Status> stop;                       // the answer to a Stop
    uint64_t asked = 0;                                     // Wake calls that `status` came after
  };
  News Take();

  // The next status is asked for now; its News::asked is at least the number returned.
  uint64_t Wake();
  void Stop(int signal);
  void ReportFailure(v1::FailureReport report);

 private:
  void Loop();
  void Notify();

  const std::unique_ptr<ClusterControl> control_;
  const absl::Duration interval_;
  FileDescriptor event_;
  Mutex mu_;
  CondVar changed_;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t wakes_ ABSL_GUARDED_BY(mu_) = 0;
  int stop_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<v1::FailureReport> reports_ ABSL_GUARDED_BY(mu_);
  News news_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace descent

#endif  // DESCENT_CLI_STATUS_POLLER_H_
