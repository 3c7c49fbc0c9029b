#include "common/saved_model/npz_reader.h"

#include <zip.h>

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"

namespace descent {

void NpzMember::Close::operator()(zip_file* file) const { zip_fclose(file); }
void NpzReader::Discard::operator()(zip* archive) const { zip_discard(archive); }

std::string NpzMember::Why() const { return zip_error_strerror(zip_file_get_error(file_.get())); }

absl::Status NpzMember::Read(void* to, size_t bytes) {
  char* out = static_cast<char*>(to);
  while (bytes > 0) {
    const zip_int64_t n = zip_fread(file_.get(), out, bytes);
    if (n <= 0) return absl::DataLossError(absl::StrCat(where_, ": ", n == 0 ? "ends early" : Why()));
    out += n;
    bytes -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

// libzip compares the checksum when it meets the end.
absl::Status NpzMember::ReadEnd() {
  char extra;
  const zip_int64_t n = zip_fread(file_.get(), &extra, 1);
  if (n == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(where_, ": ", n > 0 ? "is too long" : Why()));
}

absl::StatusOr<std::unique_ptr<NpzReader>> NpzReader::Open(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(const FileIdentity identity, IdentifyFile(path));
  auto reader = absl::WrapUnique(new NpzReader());
  reader->path_ = path;
  reader->file_bytes_ = identity.bytes;
  int error = 0;
  reader->zip_.reset(zip_open(path.c_str(), ZIP_RDONLY, &error));
  if (reader->zip_ == nullptr) {
    zip_error_t zip_error;
    zip_error_init_with_code(&zip_error, error);
    const std::string why = zip_error_strerror(&zip_error);
    zip_error_fini(&zip_error);
    return absl::DataLossError(absl::StrCat(path, ": no zip archive, or a damaged one: ", why));
  }
  return reader;
}

std::vector<std::string> NpzReader::Members() const {
  std::vector<std::string> members;
  const zip_int64_t count = zip_get_num_entries(zip_.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* name = zip_get_name(zip_.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_UTF_8);
    if (name != nullptr) members.emplace_back(name);
  }
  return members;
}

bool NpzReader::Has(const std::string& member) const {
  return zip_name_locate(zip_.get(), member.c_str(), ZIP_FL_ENC_UTF_8) >= 0;
}

absl::StatusOr<NpzMember> NpzReader::Find(const std::string& member) {
  NpzMember out;
  out.where_ = absl::StrCat(path_, ": member ", member);
  zip_stat_t stat;
  zip_stat_init(&stat);
  if (zip_stat(zip_.get(), member.c_str(), ZIP_FL_ENC_UTF_8, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
    return absl::NotFoundError(absl::StrCat(out.where_, " is missing"));
  }
  out.file_.reset(zip_fopen_index(zip_.get(), stat.index, 0));
  if (out.file_ == nullptr) return absl::DataLossError(absl::StrCat(out.where_, ": ", zip_strerror(zip_.get())));
  std::string header(kNpyMagicBytes, '\0');
  DESCENT_RETURN_IF_ERROR(out.Read(header.data(), header.size()));
  absl::StatusOr<size_t> length = NpyHeaderBytes(header);
  if (!length.ok()) return absl::DataLossError(absl::StrCat(out.where_, ": ", length.status().message()));
  // The header is text of a few hundred bytes: a longer one than the member is false.
  if (*length > stat.size || *length < header.size())
    return absl::DataLossError(absl::StrCat(out.where_, ": ends early"));
  header.resize(*length);
  DESCENT_RETURN_IF_ERROR(out.Read(header.data() + kNpyMagicBytes, *length - kNpyMagicBytes));
  absl::StatusOr<NpyArray> array = ParseNpyHeader(header);
  if (!array.ok()) return absl::DataLossError(absl::StrCat(out.where_, ": ", array.status().message()));
  out.array_ = *std::move(array);
  out.bytes_ = stat.size - *length;
  return out;
}

}  // namespace descent
