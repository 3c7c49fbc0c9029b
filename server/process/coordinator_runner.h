// The coordinator's half of the first server: ticks the machine, on a thread that does nothing else; prints its log,
// writes its records into the run directory, does its disk work, saves the model when training is over, writes the
// summary.
//
// Thread-safety: Run is called once, on a thread of its own; Stop from any thread.
#ifndef DESCENT_SERVER_PROCESS_COORDINATOR_RUNNER_H_
#define DESCENT_SERVER_PROCESS_COORDINATOR_RUNNER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/base/time_source.h"
#include "descent/v1/job.pb.h"
#include "server/coordinator/coordinator_service.h"
#include "server/process/checkpointing.h"
#include "server/process/run_directory.h"
#include "server/rpc/checkpoint_store_service.h"

namespace descent {

class CoordinatorRunner {
 public:
  // `job` is resolved and valid. `log` and `time` outlive the runner.
  // resumed: another process has coordinated this run before.
  static absl::StatusOr<std::unique_ptr<CoordinatorRunner>> Create(const v1::JobSpec& job, RunId run, bool resumed,
                                                                   std::unique_ptr<RunDirectory> directory,
                                                                   const Logger* log, const TimeSource* time);

  CoordinatorHost& host() { return host_; }
  // The coordinator's, and the checkpoint folder's for servers that don't reach it.
  std::vector<grpc::Service*> services() { return {host_.service(), checkpoint_store_.service()}; }

  // Returns when the run has ended and every member has heard of it. The phase it ended with.
  v1::Phase Run();
  // Asks the run to save and end, as `descent stop` does.
  void Stop(int signal);
  int stop_signal();

 private:
  CoordinatorRunner(const v1::JobSpec& job, std::unique_ptr<Coordinator> coordinator,
                    std::unique_ptr<RunDirectory> directory, std::unique_ptr<Checkpointing> checkpointing,
                    const Logger* log, const TimeSource* time)
      : job_(job),
        host_(std::move(coordinator), time),
        directory_(std::move(directory)),
        checkpointing_(std::move(checkpointing)),
        checkpoint_store_(checkpointing_->storage(),
                          [this](const std::string& folder, ServerId server) { return PartWanted(folder, server); }),
        log_(log) {}

  v1::Phase Serve();
  bool PartWanted(const std::string& folder, ServerId server);
  void Drain();
  void CountMembers();
  void Save();

  const v1::JobSpec job_;
  CoordinatorHost host_;
  const std::unique_ptr<RunDirectory> directory_;
  const std::unique_ptr<Checkpointing> checkpointing_;
  CheckpointStoreService checkpoint_store_;
  const Logger* const log_;
  RunSummary summary_;
  bool disk_complained_ = false;
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_COORDINATOR_RUNNER_H_
