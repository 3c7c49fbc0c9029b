// That one run at a time keeps its checkpoints in a folder. Its coordinator holds a lock (flock(2)) on the file
// coordinator.lock there for as long as it lives, and the file names it. The kernel lets go of the lock when the
// process dies, however it does, so nothing has to be cleaned up.
//
// A second coordinator of the same run is let in without the lock: it is there because somebody took the first for
// dead, which may be stopped or cut off, and generations keep the two apart (server/checkpoint/checkpoint_folder.h). A
// file system without locks lets everybody in.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_PROCESS_FOLDER_LOCK_H_
#define DESCENT_SERVER_PROCESS_FOLDER_LOCK_H_

#include <string>

#include "absl/status/status.h"
#include "common/base/ids.h"

namespace descent {

class FolderLock {
 public:
  // `folder` need not be there yet. `run`: whose lock this is.
  FolderLock(std::string folder, RunId run);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // Takes the lock where it is free; again: tries again where it was not. FAILED_PRECONDITION: another run's
  // coordinator has it, and is named. UNAVAILABLE: the file can't be made or read.
  absl::Status Take();
  bool held() const { return file_ >= 0; }

 private:
  const std::string path_;
  const RunId run_;
  int file_ = -1;
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_FOLDER_LOCK_H_
