#include "server/rpc/remote_storage.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/net/grpc_channel.h"
#include "descent/v1/checkpoint.grpc.pb.h"

namespace descent {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr absl::Duration kCallTimeout = absl::Seconds(30);
constexpr absl::Duration kFileTimeout = absl::Hours(1);  // a part may have many gigabytes

void SetDeadline(grpc::ClientContext* context, absl::Duration timeout) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

absl::Status Unimplemented(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, " is the coordinator's"));
}

class PartUpload final : public WritableFile {
 public:
  PartUpload(v1::CheckpointStore::Stub* stub, const std::string& path) {
    SetDeadline(&context_, kFileTimeout);
    writer_ = stub->WritePart(&context_, &reply_);
    request_.set_path(path);
  }
  ~PartUpload() override {
    if (finished_) return;
    context_.TryCancel();
    writer_->Finish();
  }

  absl::Status Append(absl::string_view bytes) override {
    for (size_t at = 0; at < bytes.size();) {
      std::string* data = request_.mutable_data();
      const size_t n = std::min(kChunk - data->size(), bytes.size() - at);
      data->append(bytes.data() + at, n);
      at += n;
      if (data->size() == kChunk) DESCENT_RETURN_IF_ERROR(Send(/*last=*/false));
    }
    return absl::OkStatus();
  }
  // The file is whole and lasts; nothing may follow.
  absl::Status Sync() override {
    DESCENT_RETURN_IF_ERROR(Send(/*last=*/true));
    writer_->WritesDone();
    finished_ = true;
    return FromGrpc(writer_->Finish());
  }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  absl::Status Send(bool last) {
    request_.set_last(last);
    const bool sent = writer_->Write(request_);
    request_.Clear();
    if (sent || last) return absl::OkStatus();  // Finish tells why the last one failed
    finished_ = true;
    const absl::Status why = FromGrpc(writer_->Finish());
    return why.ok() ? absl::UnavailableError("the coordinator takes no more of this file") : why;
  }

  grpc::ClientContext context_;
  v1::WritePartReply reply_;
  std::unique_ptr<grpc::ClientWriter<v1::WritePartRequest>> writer_;
  v1::WritePartRequest request_;
  bool finished_ = false;
};

class RemoteFile final : public ReadableFile {
 public:
  RemoteFile(v1::CheckpointStore::Stub* stub, std::string path, uint64_t size)
      : stub_(stub), path_(std::move(path)), size_(size) {}
  absl::StatusOr<size_t> ReadAt(uint64_t offset, void* to, size_t bytes) override {
    size_t done = 0;
    while (done < bytes && offset + done < size_) {
      grpc::ClientContext context;
      SetDeadline(&context, kCallTimeout);
      v1::ReadFileRequest request;
      request.set_path(path_);
      request.set_offset(offset + done);
      request.set_bytes(std::min(bytes - done, kChunk));
      v1::ReadFileReply reply;
      DESCENT_RETURN_IF_ERROR(FromGrpc(stub_->ReadFile(&context, request, &reply)));
      if (reply.data().empty() || reply.data().size() > bytes - done) {
        return absl::DataLossError(absl::StrCat(path_, ": ", reply.data().size(), " bytes came where up to ",
                                                bytes - done, " were asked for"));
      }
      std::memcpy(static_cast<char*>(to) + done, reply.data().data(), reply.data().size());
      done += reply.data().size();
    }
    return done;
  }
  uint64_t size() const override { return size_; }

 private:
  v1::CheckpointStore::Stub* const stub_;
  const std::string path_;
  const uint64_t size_;
};

class RemoteStorage final : public Storage {
 public:
  explicit RemoteStorage(const std::string& coordinator)
      : stub_(v1::CheckpointStore::NewStub(MakeChannel(coordinator, Lane::kControl))) {}

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return std::make_unique<PartUpload>(stub_.get(), path);
  }
  absl::StatusOr<std::unique_ptr<ReadableFile>> Open(const std::string& path) override {
    grpc::ClientContext context;
    SetDeadline(&context, kCallTimeout);
    v1::ReadFileRequest request;
    request.set_path(path);
    v1::ReadFileReply reply;
    DESCENT_RETURN_IF_ERROR(FromGrpc(stub_->ReadFile(&context, request, &reply)));
    return std::make_unique<RemoteFile>(stub_.get(), path, reply.size());
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    grpc::ClientContext context;
    SetDeadline(&context, kCallTimeout);
    v1::ListFolderRequest request;
    request.set_path(path);
    v1::ListFolderReply reply;
    DESCENT_RETURN_IF_ERROR(FromGrpc(stub_->ListFolder(&context, request, &reply)));
    return std::vector<std::string>(reply.name().begin(), reply.name().end());
  }
  absl::Status SyncFolder(const std::string&) override { return absl::OkStatus(); }  // came with the file's Sync

  absl::Status MakeFolder(const std::string&) override { return Unimplemented("making folders"); }
  absl::Status CreateExclusive(const std::string&, absl::string_view) override { return Unimplemented("small files"); }
  absl::Status Rename(const std::string&, const std::string&) override { return Unimplemented("renaming"); }
  absl::Status Remove(const std::string&) override { return Unimplemented("removing"); }

 private:
  const std::unique_ptr<v1::CheckpointStore::Stub> stub_;
};

}  // namespace

std::unique_ptr<Storage> MakeRemoteStorage(const std::string& coordinator) {
  return std::make_unique<RemoteStorage>(coordinator);
}

}  // namespace descent
