// The coordinator's disk work for recovery: makes generations lasting, finds the cut to go on from, makes cuts'
// folders, writes their manifests, removes what is not kept. Thread-safety: none; the coordinator's thread owns it.
#ifndef DESCENT_SERVER_PROCESS_CHECKPOINTING_H_
#define DESCENT_SERVER_PROCESS_CHECKPOINTING_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/numerics/fingerprint.h"
#include "common/storage/storage.h"
#include "descent/v1/job.pb.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "server/coordinator/coordinator_service.h"
#include "server/process/folder_lock.h"

namespace descent {

class Checkpointing {
 public:
  // `folder` is made where it is not there. `log` outlives this.
  Checkpointing(std::string folder, const v1::JobSpec& job, RunId run, const Logger* log);

  struct Beginning {
    Generation generation;
    std::optional<RestoreFrom> restore;
    std::optional<v1::ReplicaViews> views;  // that the coordinator of this run before has made lasting
  };
  // A generation of this run that nobody else has, made lasting, and the newest good cut to go on from, unless the run
  // is to begin with the initial values. `number`: rather that cut, if it is good. Cuts that can't be used are logged by
  // name. FAILED_PRECONDITION: the folder is another run's.
  absl::StatusOr<Beginning> Begin(bool restore, std::optional<uint64_t> number = std::nullopt);

  // Whatever the coordinator waits for: a generation, a cut's folder, its manifest. Called a few times a second.
  void Tend(CoordinatorHost* host);

  const std::string& folder() const { return root_; }
  Storage* storage() { return storage_.get(); }

 private:
  void KeepViews(CoordinatorHost* host);
  void Prepare(CoordinatorHost* host);
  void Commit(CoordinatorHost* host);
  void Prune(Generation generation, std::optional<CutId> in_progress);

  const std::string root_;
  const v1::JobSpec job_;
  const RunId run_;
  const Logger* const log_;
  const std::unique_ptr<Storage> storage_;
  FolderLock lock_;
  CheckpointFolder folder_;
  const NumericsFingerprint numerics_;
  bool given_up_ = false;  // the last cut that was prepared has not been committed
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_CHECKPOINTING_H_
