// What `descent run` says at the end. Reads the run directory's summary.json.
#ifndef DESCENT_CLI_RUN_REPORT_H_
#define DESCENT_CLI_RUN_REPORT_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

struct RunEnd {
  std::string result;  // "finished", "failed", ...
  std::string run_dir;
  absl::Duration wall;
  v1::StatusReply status;  // the last that was heard
  // Of a failed run: the coordinator's word, or else that of summary.json, or else the supervisor's own.
  std::string coordinator_cause, own_cause;
  std::string culprit;         // the process whose end was noticed first: "worker 2 on host b (pid 9)"
  std::string culprit_ending;  // "ended with exit code 1"; "": it had not ended
  std::vector<std::string> culprit_log;
  std::string culprit_log_path;
};

// Metrics, the model's place, its hash and the time; of a failed run the culprit's last words, and on the last lines
// the first cause.
std::vector<std::string> RunReport(const RunEnd& end);

}  // namespace descent

#endif  // DESCENT_CLI_RUN_REPORT_H_
