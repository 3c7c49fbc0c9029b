// A process's way to the disk of the coordinator's host. The process may die between any two changes, may be cut off,
// and may have one of the seeded bugs of storing. What it has written stays as the disk has it.
#ifndef DESCENT_TESTS_SIMULATION_PROCESS_STORAGE_H_
#define DESCENT_TESTS_SIMULATION_PROCESS_STORAGE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/storage/storage.h"
#include "tests/simulation/cluster_scenario.h"

namespace descent::simulation {

class ProcessStorage final : public Storage {
 public:
  // `reached`: whether the disk is, now. `disk` outlives this, and this its files.
  // `later`: carries something out after a while.
  ProcessStorage(Storage* disk, ClusterFault fault, std::function<bool()> reached,
                 std::function<void(std::function<void()>)> later)
      : disk_(disk), fault_(fault), reached_(std::move(reached)), later_(std::move(later)) {}

  // So many more changes are made; the next kills the process.
  void DieAfter(uint64_t changes) { left_ = changes; }
  bool dying() const { return left_ != kUnbounded; }
  bool dead() const { return dead_; }

  absl::Status MakeFolder(const std::string& path) override {
    return Change([&] { return disk_->MakeFolder(path); });
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::Status CreateExclusive(const std::string& path, absl::string_view contents) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override {
    if (absl::Status there = There(); !there.ok()) return there;
    return disk_->Open(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return Change([&] { return disk_->Rename(from, to); });
  }
  absl::Status Remove(const std::string& path) override {
    return Change([&] { return disk_->Remove(path); });
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    if (absl::Status there = There(); !there.ok()) return there;
    return disk_->List(path);
  }
  absl::Status SyncFolder(const std::string& path) override {
    return Change([&] { return disk_->SyncFolder(path); });
  }

 private:
  class File;
  absl::Status There() const;
  absl::Status Change(const std::function<absl::Status()>& change);

  Storage* const disk_;
  const ClusterFault fault_;
  const std::function<bool()> reached_;
  const std::function<void(std::function<void()>)> later_;
  uint64_t left_ = kUnbounded;
  bool dead_ = false;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_PROCESS_STORAGE_H_
