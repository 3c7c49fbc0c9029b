// That one coordinator at a time keeps its checkpoints in a folder. It holds a lock (flock(2)) on the file
// coordinator.lock there for as long as it lives, and the file names it. The kernel lets go of the lock when the
// process dies, however it does, so nothing has to be cleaned up, and whoever is refused is refused by the living: a
// process that is stopped lives, one that was killed does not, as soon as the kernel has taken it down. On a file
// system that several hosts share, a host that is cut off holds its lock until the file server gives it up.
//
// A file system without locks lets everybody in; coordinators of one run are then kept apart by their generations
// alone (server/checkpoint/checkpoint_folder.h).
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_PROCESS_FOLDER_LOCK_H_
#define DESCENT_SERVER_PROCESS_FOLDER_LOCK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"

namespace descent {

class FolderLock {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(2);

  // `folder` need not be there yet. `run`: whose lock this is. `patience`: how long one that holds the lock may take to
  // die; it is waited for.
  FolderLock(std::string folder, RunId run, absl::Duration patience = kPatience);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // Takes the lock; again: nothing. FAILED_PRECONDITION: another process has it, of this run or of another; it is named
  // with its host and pid where it could write them (on a full disk it could not). UNAVAILABLE: the file can't be made
  // or read.
  absl::Status Take();
  bool held() const { return file_ >= 0; }

 private:
  const std::string path_;
  const RunId run_;
  const absl::Duration patience_;
  int file_ = -1;
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_FOLDER_LOCK_H_
