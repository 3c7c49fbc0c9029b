#include "server/rpc/checkpoint_store_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/net/grpc_channel.h"
#include "descent/v1/checkpoint.grpc.pb.h"
#include "server/checkpoint/cut_id.h"

namespace descent {
namespace {

constexpr uint64_t kMostAtOnce = uint64_t{1} << 20;

// The folder of a cut's part file; INVALID_ARGUMENT for any other path.
absl::StatusOr<std::string> FolderOfPart(const std::string& path) {
  const size_t slash = path.find('/');
  if (slash == std::string::npos || !ParseCutFolderName(path.substr(0, slash)).has_value() ||
      !ParsePartFileName(path.substr(slash + 1)).has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "': expected cut-<number>-g<generation>/server-<id>.part"));
  }
  return path.substr(0, slash);
}

}  // namespace

class CheckpointStoreService::Impl final : public v1::CheckpointStore::Service {
 public:
  Impl(Storage* storage, Wanted wanted) : storage_(storage), wanted_(std::move(wanted)) {}

  grpc::Status WritePart(grpc::ServerContext*, grpc::ServerReader<v1::WritePartRequest>* reader,
                         v1::WritePartReply* reply) override {
    if (uploads_.fetch_add(1) >= kMaxUploads) {
      uploads_.fetch_sub(1);
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many parts come at once");
    }
    const absl::Status written = Write(reader, reply);
    uploads_.fetch_sub(1);
    return ToGrpc(written);
  }

  grpc::Status ReadFile(grpc::ServerContext*, const v1::ReadFileRequest* request, v1::ReadFileReply* reply) override {
    const auto read = [&]() -> absl::Status {
      DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, storage_->Open(request->path()));
      reply->set_size(file->size());
      if (request->offset() >= file->size()) return absl::OkStatus();
      std::string* data = reply->mutable_data();
      data->resize(std::min({request->bytes(), kMostAtOnce, file->size() - request->offset()}));
      DESCENT_ASSIGN_OR_RETURN(const size_t n, file->ReadAt(request->offset(), data->data(), data->size()));
      data->resize(n);
      return absl::OkStatus();
    };
    return ToGrpc(read());
  }

  grpc::Status ListFolder(grpc::ServerContext*, const v1::ListFolderRequest* request,
                          v1::ListFolderReply* reply) override {
    absl::StatusOr<std::vector<std::string>> names = storage_->List(request->path());
    if (!names.ok()) return ToGrpc(names.status());
    for (std::string& name : *names) reply->add_name(std::move(name));
    return grpc::Status::OK;
  }

 private:
  absl::Status Write(grpc::ServerReader<v1::WritePartRequest>* reader, v1::WritePartReply* reply) {
    v1::WritePartRequest request;
    if (!reader->Read(&request)) return absl::InvalidArgumentError("a part file without a path");
    DESCENT_ASSIGN_OR_RETURN(const std::string folder, FolderOfPart(request.path()));
    if (!wanted_(folder, *ParsePartFileName(request.path().substr(folder.size() + 1)))) {
      return absl::FailedPreconditionError(absl::StrCat("'", request.path(), "' is of no cut that is being taken"));
    }
    DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, storage_->Create(request.path()));
    uint64_t bytes = 0;
    bool last = false;
    do {
      DESCENT_RETURN_IF_ERROR(file->Append(request.data()));
      bytes += request.data().size();
      last = request.last();
    } while (!last && reader->Read(&request));
    // A sender that died leaves half a file, in a cut that never becomes one.
    if (!last) return absl::AbortedError(absl::StrCat(request.path(), ": the sender is gone"));
    DESCENT_RETURN_IF_ERROR(file->Sync());
    DESCENT_RETURN_IF_ERROR(storage_->SyncFolder(folder));
    reply->set_bytes(bytes);
    return file->Close();
  }

  Storage* const storage_;
  const Wanted wanted_;
  std::atomic<int> uploads_ = 0;
};

CheckpointStoreService::CheckpointStoreService(Storage* storage, Wanted wanted)
    : impl_(std::make_unique<Impl>(storage, std::move(wanted))) {}
CheckpointStoreService::~CheckpointStoreService() = default;
grpc::Service* CheckpointStoreService::service() { return impl_.get(); }

}  // namespace descent
