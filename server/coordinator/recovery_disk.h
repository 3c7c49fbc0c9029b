// What a coordinator has on its disk for recovery: generations, cuts, primaries and backups; and what it does there,
// step by step. Without threads, locks and waits, so that server/process/checkpointing and the simulator run the same.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_RECOVERY_DISK_H_
#define DESCENT_SERVER_COORDINATOR_RECOVERY_DISK_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/storage.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "server/coordinator/coordinator.h"

namespace descent {

class RecoveryDisk {
 public:
  struct Options {
    RunId run;
    uint64_t job_fingerprint = 0;
    Geometry geometry;
    uint32_t ranks = 1;
    bool apply_push = false;
    uint32_t keep_last = 1;
    uint32_t keep_best = 0;
  };
  // `storage`: the checkpoint folder; outlives this. `warn`: what went wrong without being in the way.
  RecoveryDisk(Storage* storage, const Options& options, std::function<void(std::string)> warn)
      : storage_(storage), options_(options), warn_(std::move(warn)), folder_(storage) {}

  struct Beginning {
    Generation generation;
    std::optional<RestoreFrom> restore;
    std::optional<CutId> from;              // that `restore` is of
    std::vector<Cut> bad;                   // newer cuts, which can't be used
    std::optional<v1::ReplicaViews> views;  // that the coordinator of this run before has made lasting
  };
  // A generation that nobody else has, made lasting, and the newest good cut of this run to go on from, unless the run
  // is to begin with the initial values. `number`: rather the cut with this number, if it is good; 0: none.
  // FAILED_PRECONDITION: it is to begin with them, and there are cuts, of another run.
  absl::StatusOr<Beginning> Begin(bool restore, std::optional<uint64_t> number = std::nullopt);

  // Makes them lasting. FAILED_PRECONDITION: a later generation has begun. On a full disk old cuts make room.
  absl::Status KeepViews(const v1::ReplicaViews& views);

  // The folder of a cut is made, and its manifest written: as CheckpointFolder says. What a cut that was given up has
  // left goes before the next, and cuts that are not kept once there is a newer one.
  absl::Status Prepare(const CutId& cut);
  // The manifest of the cut that the coordinator is committing: all but when and by whom it was made, and of which
  // job's text.
  v1::CutManifest ManifestOf(Coordinator& coordinator) const;
  absl::Status Commit(const v1::CutManifest& manifest);
  // The last cut that was prepared has not been committed.
  bool given_up() const { return given_up_; }
  CheckpointFolder& folder() { return folder_; }

 private:
  void Prune(Generation generation);

  Storage* const storage_;
  const Options options_;
  const std::function<void(std::string)> warn_;
  CheckpointFolder folder_;
  bool given_up_ = false;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_RECOVERY_DISK_H_
