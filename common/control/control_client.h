// Blocking client of the coordinator, on a connection of its own, so that no bulk transfer delays a heartbeat.
//
// Thread-safe; calls from several threads run side by side. Status codes of every call: those of the coordinator;
// DEADLINE_EXCEEDED or UNAVAILABLE name the coordinator's address; CANCELLED after Cancel.
#ifndef DESCENT_COMMON_CONTROL_CONTROL_CLIENT_H_
#define DESCENT_COMMON_CONTROL_CONTROL_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

struct ControlClientOptions {
  std::string address;  // host:port
  absl::Duration call_timeout = absl::Seconds(5);
  // Told while WaitForJob waits: after the first second, then every few seconds. May be null.
  std::function<void(const std::string& line)> progress;
};

class ControlClient {
 public:
  static std::unique_ptr<ControlClient> Create(ControlClientOptions options);
  virtual ~ControlClient() = default;

  // Waits until the coordinator answers, reporting "waiting 3 s for the coordinator at HOST:PORT: Connection refused".
  // DEADLINE_EXCEEDED after `timeout`, with the last error; FAILED_PRECONDITION: it speaks another protocol version.
  virtual absl::StatusOr<v1::GetJobReply> WaitForJob(absl::Duration timeout) = 0;

  virtual absl::StatusOr<v1::GetJobReply> GetJob() = 0;
  // A nonce is filled in where there is none: one per client, so that a call that is sent again registers once. A lost
  // connection is tried again until call_timeout is over. FAILED_PRECONDITION: refused, a line per mismatch.
  // UNAVAILABLE, of a server: all servers are there, as far as the coordinator knows; try again.
  virtual absl::StatusOr<v1::RegisterReply> RegisterServer(v1::RegisterServerRequest request) = 0;
  virtual absl::StatusOr<v1::RegisterReply> RegisterWorker(v1::RegisterWorkerRequest request) = 0;
  // As RegisterWorker tries again. FAILED_PRECONDITION: refused.
  virtual absl::StatusOr<v1::ShareStatisticsReply> ShareStatistics(const v1::ShareStatisticsRequest& request) = 0;
  // After its lease is over a process registers as a new one: the next registration draws a new nonce.
  virtual void ForgetRegistration() = 0;
  virtual absl::StatusOr<v1::HeartbeatReply> Heartbeat(const v1::HeartbeatRequest& request) = 0;
  virtual absl::Status Leave(uint64_t member, const std::string& why) = 0;
  virtual absl::StatusOr<v1::StatusReply> Status() = 0;
  virtual absl::Status Stop(int signal, bool at_once) = 0;
  virtual absl::Status ReportFailure(const v1::FailureReport& report) = 0;
  virtual absl::StatusOr<v1::ScalarTotals> AgreeScalars(const v1::ScalarPartials& partials) = 0;

  // Calls under way and all to come return CANCELLED, soon. For the way out.
  virtual void Cancel() = 0;
};

}  // namespace descent

#endif  // DESCENT_COMMON_CONTROL_CONTROL_CLIENT_H_
