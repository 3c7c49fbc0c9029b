#include "server/checkpoint/replica_views_file.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"

namespace descent {
namespace {

constexpr char kName[] = "replica-views";
constexpr char kTemporary[] = "replica-views.new";
constexpr size_t kMostBytes = size_t{1} << 20;

std::string Checksum(absl::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(crc >> shift));
  return out;
}

}  // namespace

absl::Status WriteReplicaViews(Storage* storage, const v1::ReplicaViews& views) {
  const std::string bytes = views.SerializeAsString();
  DESCENT_RETURN_IF_ERROR(storage->Remove(kTemporary));
  {
    DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, storage->Create(kTemporary));
    DESCENT_RETURN_IF_ERROR(file->Append(absl::StrCat(Checksum(bytes), bytes)));
    DESCENT_RETURN_IF_ERROR(file->Sync());
    DESCENT_RETURN_IF_ERROR(file->Close());
  }
  DESCENT_RETURN_IF_ERROR(storage->Rename(kTemporary, kName));
  return storage->SyncFolder("");
}

absl::StatusOr<v1::ReplicaViews> ReadReplicaViews(Storage* storage) {
  DESCENT_ASSIGN_OR_RETURN(const std::string file, storage->ReadFile(kName, kMostBytes));
  const absl::string_view bytes = absl::string_view(file).substr(std::min<size_t>(4, file.size()));
  v1::ReplicaViews views;
  if (file.size() < 4 || file.substr(0, 4) != Checksum(bytes) || !views.ParseFromString(std::string(bytes))) {
    return absl::DataLossError(absl::StrCat(kName, ": its checksum and its ", file.size(), " bytes do not agree"));
  }
  return views;
}

}  // namespace descent
