// A Storage in memory that behaves as badly as a disk may. Until it is synced, a file's tail may be lost from any byte
// on, and each change of a folder (a file made, renamed, removed) may be lost or kept without regard to the others;
// which of them, an injected random function decides when Crash is called. A file whose sync failed once stays lost
// even if a later sync says OK, as on Linux.
//
// Thread-safety: none.
#ifndef DESCENT_TESTS_SUPPORT_SIMULATED_DISK_H_
#define DESCENT_TESTS_SUPPORT_SIMULATED_DISK_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/ids.h"
#include "common/storage/storage.h"

namespace descent::testing {

// CreateExclusive is kCreate, kAppend, kSync, kClose, kSyncFolder.
enum class DiskOperation { kMakeFolder, kCreate, kAppend, kSync, kClose, kRename, kRemove, kSyncFolder, kOpen, kList };
inline constexpr size_t kDiskOperations = 10;

struct DiskCounters {
  std::array<uint64_t, kDiskOperations> operations = {};  // begun, with those that failed
  std::array<uint64_t, kDiskOperations> failures = {};    // injected by Fail
  uint64_t changes = 0;                                   // operations but for kOpen and kList
  uint64_t crashes = 0;
  uint64_t torn_files = 0;    // of whose unsynced tail a crash kept a part
  uint64_t lost_files = 0;    // of whose unsynced tail it kept nothing
  uint64_t lost_changes = 0;  // of folders
  uint64_t full_disk = 0;     // appends that did not fit

  uint64_t operation(DiskOperation which) const { return operations[static_cast<size_t>(which)]; }
  uint64_t failure(DiskOperation which) const { return failures[static_cast<size_t>(which)]; }
};

class SimulatedDisk final : public Storage {
 public:
  // random(n) draws from [0, n).
  explicit SimulatedDisk(std::function<uint64_t(uint64_t)> random);
  ~SimulatedDisk() override;

  absl::Status MakeFolder(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::Status CreateExclusive(const std::string& path, absl::string_view contents) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  absl::Status SyncFolder(const std::string& path) override;

  // So many more changes are carried out; then the power is out and everything is UNAVAILABLE until Crash.
  void CutPowerAfter(uint64_t changes) { power_left_ = changes; }
  // The machine has stopped and started again. What was not synced may be lost; open files are of no use any more.
  void Crash();
  // The operation fails with UNAVAILABLE once, the `nth` time from now (1: the next).
  void Fail(DiskOperation which, uint64_t nth = 1) { fail_[static_cast<size_t>(which)] = nth; }
  // What files may take together.
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }
  uint64_t used() const;

  // A file with these contents, old or new, all of it lasting: for tests that damage what is there. With its folders.
  void Put(const std::string& path, std::string contents);

  const DiskCounters& counters() const { return counters_; }

 private:
  struct Node;
  class Writer;
  class Reader;
  struct Place {
    Node* folder = nullptr;
    std::string name;
  };

  absl::Status Begin(DiskOperation which, absl::string_view path);
  absl::StatusOr<std::shared_ptr<Node>> Find(const std::string& path, bool folder) const;
  absl::StatusOr<Place> Locate(const std::string& path) const;  // the folder that holds it, and its name there
  void CrashFolder(Node* folder);
  void CrashFile(Node* file);

  const std::function<uint64_t(uint64_t)> random_;
  std::shared_ptr<Node> root_;
  std::array<uint64_t, kDiskOperations> fail_ = {};  // 0: not asked for
  uint64_t power_left_ = kUnbounded;
  bool power_out_ = false;
  uint64_t capacity_ = kUnbounded;
  DiskCounters counters_;
};

}  // namespace descent::testing

#endif  // DESCENT_TESTS_SUPPORT_SIMULATED_DISK_H_
