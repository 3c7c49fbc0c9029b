#include "common/saved_model/start_from.h"

#include <fcntl.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/saved_model/npz_reader.h"
#include "descent/v1/job.pb.h"

namespace descent {
namespace {

absl::StatusOr<std::string> ArchiveOf(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(const FileIdentity identity, IdentifyFile(path));
  return identity.folder ? JoinPath(path, "model.npz") : path;
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor file, OpenFile(path, O_RDONLY));
  const std::unique_ptr<EVP_MD_CTX, Free> context(EVP_MD_CTX_new());
  DESCENT_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<char> buffer(size_t{1} << 20);
  while (true) {
    DESCENT_ASSIGN_OR_RETURN(const size_t got, ReadUpTo(file.get(), buffer.data(), buffer.size(), path));
    if (got == 0) break;
    DESCENT_CHECK(EVP_DigestUpdate(context.get(), buffer.data(), got) == 1);
  }
  std::string digest(32, '\0');
  unsigned int length = 0;
  DESCENT_CHECK(EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(digest.data()), &length) == 1);
  return absl::BytesToHexString(digest.substr(0, length));
}

absl::Status OtherFile(const std::string& path, const std::string& found, const std::string& expected) {
  return absl::FailedPreconditionError(absl::StrCat("start_from: ", path,
                                                    " is not the model that the job starts from: ", "its SHA-256 is ",
                                                    found, "; expected ", expected));
}

std::string ShapeText(const std::vector<uint64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// One tensor's values. The archive is open no longer than that takes.
class TensorReader {
 public:
  TensorReader(NpzReader* archive, bool partial, const std::function<void(const std::string&)>& note)
      : archive_(archive), partial_(partial), note_(note) {}

  absl::StatusOr<std::optional<TensorValues>> Read(const TensorSpec& spec) {
    const std::string member = spec.name + (spec.sparse ? ".rows.npy" : ".npy");
    if (!archive_->Has(member)) return Without(spec, absl::StrCat("has none: it has ", Tensors()));
    DESCENT_ASSIGN_OR_RETURN(NpzMember floats, archive_->Find(member));
    std::vector<uint64_t> shape = spec.shape;
    const std::vector<uint64_t>& found = floats.array().shape;
    if (spec.sparse && !found.empty()) shape.insert(shape.begin(), found[0]);
    if (found != shape) {
      return Without(
          spec, spec.sparse
                    ? absl::StrCat("has rows of the shape ", ShapeText(found), "; expected ", spec.dim(), " columns")
                    : absl::StrCat("has the shape ", ShapeText(found), "; expected ", ShapeText(spec.shape)));
    }
    TensorValues out;
    DESCENT_RETURN_IF_ERROR(Take(&floats, member, kNpyFloat32, &out.values));
    const auto bad = std::find_if_not(out.values.begin(), out.values.end(), [](float v) { return std::isfinite(v); });
    if (bad != out.values.end()) {
      return absl::FailedPreconditionError(absl::StrCat("start_from: ", archive_->path(), ": tensor '", spec.name,
                                                        "', element ", bad - out.values.begin(), " is ", *bad,
                                                        "; expected a finite number"));
    }
    if (!spec.sparse) return out;
    DESCENT_ASSIGN_OR_RETURN(NpzMember keys, archive_->Find(spec.name + ".keys.npy"));
    if (keys.array().shape != std::vector<uint64_t>{found[0]}) {
      return absl::DataLossError(absl::StrCat("start_from: ", archive_->path(), ": table '", spec.name, "' has ",
                                              found[0], " rows and keys of the shape ", ShapeText(keys.array().shape)));
    }
    DESCENT_RETURN_IF_ERROR(Take(&keys, spec.name + ".keys.npy", kNpyUint64, &out.keys));
    absl::flat_hash_set<uint64_t> seen;
    seen.reserve(out.keys.size());
    for (const uint64_t key : out.keys) {
      if (seen.insert(key).second) continue;
      return absl::DataLossError(
          absl::StrCat("start_from: ", archive_->path(), ": table '", spec.name, "': key ", key, " is there twice"));
    }
    return out;
  }

 private:
  // A tensor that is not there as it is wanted.
  absl::StatusOr<std::optional<TensorValues>> Without(const TensorSpec& spec, const std::string& what) {
    const std::string text = absl::StrCat("start_from: ", spec.sparse ? "table '" : "tensor '", spec.name,
                                          "': ", archive_->path(), " ", what);
    if (!partial_) return absl::FailedPreconditionError(absl::StrCat(text, " (start_from_partial allows for that)"));
    note_(absl::StrCat(text, "; it begins as the model says"));
    return std::nullopt;
  }

  template <typename T>
  absl::Status Take(NpzMember* member, const std::string& name, const char* type, std::vector<T>* out) {
    const std::string where = absl::StrCat("start_from: ", archive_->path(), ": member ", name);
    if (member->array().type != type || member->array().column_major) {
      return absl::FailedPreconditionError(absl::StrCat(where, " is an array of ", member->array().type,
                                                        member->array().column_major ? " in Fortran order" : "",
                                                        "; expected ", type, " in C order"));
    }
    // Deflate makes bytes at most 1,032 times fewer: what is told is not allocated unless it can be.
    uint64_t elements = 1;
    for (const uint64_t n : member->array().shape) {
      if (n != 0 && elements > UINT64_MAX / n / sizeof(T)) elements = UINT64_MAX / sizeof(T);
      elements *= n;
    }
    if (member->bytes() != elements * sizeof(T) || member->bytes() / 1100 > archive_->file_bytes()) {
      return absl::DataLossError(absl::StrCat(where, ": the shape ", ShapeText(member->array().shape), " takes ",
                                              elements * sizeof(T), " bytes, it has ", member->bytes()));
    }
    out->resize(elements);
    DESCENT_RETURN_IF_ERROR(member->Read(out->data(), elements * sizeof(T)));
    return member->ReadEnd();
  }

  std::string Tensors() const {
    std::vector<std::string> names;
    for (absl::string_view member : archive_->Members()) {
      if (!absl::ConsumeSuffix(&member, ".npy")) continue;
      if (absl::ConsumeSuffix(&member, ".keys")) continue;
      const bool table = absl::ConsumeSuffix(&member, ".rows");
      names.push_back(absl::StrCat(table ? "table '" : "'", member, "'"));
    }
    return names.empty() ? "no tensors" : absl::StrJoin(names, ", ");
  }

  NpzReader* const archive_;
  const bool partial_;
  const std::function<void(const std::string&)>& note_;
};

}  // namespace

absl::Status ResolveStartFrom(const std::string& folder, v1::JobSpec* job) {
  if (job->start_from().empty()) return absl::OkStatus();
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(JoinPath(folder, job->start_from()), error);
  job->set_start_from(path.lexically_normal().string());
  DESCENT_ASSIGN_OR_RETURN(const std::string archive, ArchiveOf(job->start_from()));
  DESCENT_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(archive));
  if (!job->start_from_sha256().empty() && job->start_from_sha256() != hash) {
    return OtherFile(archive, hash, job->start_from_sha256());
  }
  job->set_start_from_sha256(hash);
  return absl::OkStatus();
}

absl::StatusOr<StartValues> OpenStart(const v1::JobSpec& job, std::function<void(const std::string&)> note) {
  DESCENT_ASSIGN_OR_RETURN(const std::string archive, ArchiveOf(job.start_from()));
  DESCENT_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(archive));
  if (hash != job.start_from_sha256()) return OtherFile(archive, hash, job.start_from_sha256());
  return [archive, partial = job.start_from_partial(),
          note = std::move(note)](const TensorSpec& spec) -> absl::StatusOr<std::optional<TensorValues>> {
    DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<NpzReader> reader, NpzReader::Open(archive));
    return TensorReader(reader.get(), partial, note).Read(spec);
  };
}

}  // namespace descent
