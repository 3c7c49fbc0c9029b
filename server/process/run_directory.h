// What a run leaves on disk, in the coordinator's run directory: job.textproto (as resolved), run (its id),
// metrics.jsonl, checkpoints/, model/, summary.json. Files appear whole or not at all, but for metrics.jsonl, which
// grows by whole lines.
//
// Thread-safety: none; the coordinator's host thread owns it.
#ifndef DESCENT_SERVER_PROCESS_RUN_DIRECTORY_H_
#define DESCENT_SERVER_PROCESS_RUN_DIRECTORY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "descent/v1/coordinator.pb.h"
#include "descent/v1/job.pb.h"
#include "server/coordinator/metric_merge.h"

namespace descent {

// What summary.json says beyond the coordinator's status.
struct RunSummary {
  std::optional<MetricRecord> training;  // the last of each
  std::optional<MetricRecord> evaluation;
  std::optional<double> objective;  // of the saved model
  uint64_t payload_bytes = 0;       // moved by all servers, both ways
  uint32_t servers = 0;
  uint32_t workers = 0;
};

class RunDirectory {
 public:
  // Makes the folder where it is not there. ALREADY_EXISTS: it holds another run's metrics, model or summary.
  static absl::StatusOr<std::unique_ptr<RunDirectory>> Create(const std::string& path, const v1::JobSpec& job,
                                                              RunId run);
  // The run in this folder, as its job.textproto has it, to be gone on with. Nothing is touched: somebody may be at it
  // still. NOT_FOUND: there is none. DATA_LOSS: a file of it is damaged.
  struct Resumed {
    struct End {
      v1::Phase phase = v1::FINISHED;  // or STOPPED or FAILED
      std::string cause;               // of a failure
    };
    std::optional<End> end;  // as its summary has it; none: it has not ended
    std::unique_ptr<RunDirectory> directory;
    v1::JobSpec job;
    RunId run;
  };
  static absl::StatusOr<Resumed> Resume(const std::string& path);
  ~RunDirectory();

  // Before the first Append to a run that is gone on with: a line of metrics that was being written when the process
  // died is no line.
  absl::Status DropTornLine();
  absl::Status Append(const MetricRecord& record);
  absl::Status WriteSummary(const v1::StatusReply& status, const RunSummary& summary);

  const std::string& path() const { return path_; }
  std::string model_dir() const { return path_ + "/model"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }

 private:
  absl::Status Write(const std::string& line);
  explicit RunDirectory(std::string path) : path_(std::move(path)) {}

  const std::string path_;
  int metrics_ = -1;
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_RUN_DIRECTORY_H_
