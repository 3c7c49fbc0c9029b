#include "tests/simulation/process_storage.h"

#include "absl/strings/match.h"
#include "common/base/status_macros.h"

namespace descent::simulation {

class ProcessStorage::File final : public WritableFile {
 public:
  File(ProcessStorage* storage, std::shared_ptr<WritableFile> file, ClusterFault fault)
      : storage_(storage), file_(std::move(file)), fault_(fault) {}
  absl::Status Append(absl::string_view bytes) override {
    return storage_->Change([&] { return file_->Append(bytes); });
  }
  absl::Status Sync() override {
    return storage_->Change([&] {
      if (fault_ == ClusterFault::kSyncSkipped) return absl::OkStatus();
      if (fault_ != ClusterFault::kManifestBeforeParts) return file_->Sync();
      storage_->later_([file = file_] { file->Sync().IgnoreError(); });
      return absl::OkStatus();
    });
  }
  absl::Status Close() override {
    return storage_->Change([&] { return file_->Close(); });
  }

 private:
  ProcessStorage* const storage_;
  const std::shared_ptr<WritableFile> file_;
  const ClusterFault fault_;
};

absl::Status ProcessStorage::There() const {
  if (dead_) return absl::UnavailableError("the process is dead");
  if (!reached_()) return absl::UnavailableError("the host of the checkpoint folder is not reached");
  return absl::OkStatus();
}

absl::Status ProcessStorage::Change(const std::function<absl::Status()>& change) {
  if (left_ == 0) dead_ = true;
  DESCENT_RETURN_IF_ERROR(There());
  if (left_ != kUnbounded) --left_;
  return change();
}

absl::StatusOr<std::unique_ptr<WritableFile>> ProcessStorage::Create(const std::string& path) {
  std::unique_ptr<WritableFile> file;
  DESCENT_RETURN_IF_ERROR(Change([&]() -> absl::Status {
    DESCENT_ASSIGN_OR_RETURN(file, disk_->Create(path));
    return absl::OkStatus();
  }));
  const ClusterFault fault = absl::EndsWith(path, ".part") ? fault_ : ClusterFault::kNone;
  return std::make_unique<File>(this, std::move(file), fault);
}

absl::Status ProcessStorage::CreateExclusive(const std::string& path, absl::string_view contents) {
  if (fault_ == ClusterFault::kGenerationNotDurable && absl::StartsWith(path, "generation-")) {
    DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, Create(path));
    return file->Append(contents);
  }
  return Change([&] { return disk_->CreateExclusive(path, contents); });
}

}  // namespace descent::simulation
