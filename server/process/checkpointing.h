// The coordinator's disk work for recovery (server/coordinator/recovery_disk.h), done when its coordinator waits for
// it, in a folder that is locked against other runs. Thread-safety: none; the coordinator's thread owns it.
#ifndef DESCENT_SERVER_PROCESS_CHECKPOINTING_H_
#define DESCENT_SERVER_PROCESS_CHECKPOINTING_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/numerics/fingerprint.h"
#include "common/storage/storage.h"
#include "descent/v1/job.pb.h"
#include "server/coordinator/coordinator_service.h"
#include "server/coordinator/recovery_disk.h"
#include "server/process/folder_lock.h"

namespace descent {

class Checkpointing {
 public:
  // `folder` is made where it is not there. `log` outlives this.
  Checkpointing(std::string folder, const v1::JobSpec& job, RunId run, const Logger* log);

  // RecoveryDisk::Begin, in a folder that no living coordinator of another run has. FAILED_PRECONDITION: the folder is
  // another run's.
  absl::StatusOr<RecoveryDisk::Beginning> Begin(bool restore, std::optional<uint64_t> number = std::nullopt);

  // Whatever the coordinator waits for: a generation, a cut's folder, its manifest. Called a few times a second.
  void Tend(CoordinatorHost* host);

  const std::string& folder() const { return root_; }
  Storage* storage() { return storage_.get(); }

 private:
  void KeepViews(CoordinatorHost* host);
  void Prepare(CoordinatorHost* host);
  void Commit(CoordinatorHost* host);

  const std::string root_;
  const v1::JobSpec job_;
  const RunId run_;
  const Logger* const log_;
  const std::unique_ptr<Storage> storage_;
  FolderLock lock_;
  RecoveryDisk disk_;
  const NumericsFingerprint numerics_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_CHECKPOINTING_H_
