#include "common/saved_model/saved_model.h"

#include <zip.h>

#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"
#include "common/files/file.h"
#include "common/saved_model/canonical_hash.h"
#include "common/saved_model/npy_header.h"

namespace descent {
namespace {

struct CloseZip {
  void operator()(zip_t* zip) const { zip_discard(zip); }
};
struct CloseMember {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

// An array member, its header checked against what the description says, before anything is allocated for it.
class ArrayReader {
 public:
  static absl::StatusOr<ArrayReader> Open(zip_t* zip, const std::string& path, const std::string& member,
                                          const char* type, absl::Span<const uint64_t> shape, uint64_t bytes) {
    ArrayReader reader;
    reader.where_ = absl::StrCat(path, ": member ", member);
    zip_stat_t stat;
    zip_stat_init(&stat);
    if (zip_stat(zip, member.c_str(), ZIP_FL_ENC_UTF_8, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
      return absl::DataLossError(absl::StrCat(reader.where_, " is missing"));
    }
    reader.file_.reset(zip_fopen_index(zip, stat.index, 0));
    if (reader.file_ == nullptr) return absl::DataLossError(absl::StrCat(reader.where_, ": ", zip_strerror(zip)));
    char magic[10];
    DESCENT_RETURN_IF_ERROR(reader.Read(magic, sizeof(magic)));
    const size_t length =
        sizeof(magic) + static_cast<unsigned char>(magic[8]) + 256 * size_t{static_cast<unsigned char>(magic[9])};
    const std::string expected = NpyHeader(type, shape, length);
    std::string header(magic, sizeof(magic));
    if (length > sizeof(magic)) {
      header.resize(length);
      DESCENT_RETURN_IF_ERROR(reader.Read(header.data() + sizeof(magic), length - sizeof(magic)));
    }
    if (header != expected) {
      return absl::DataLossError(absl::StrCat(reader.where_, ": its header differs from what model.json says"));
    }
    if (stat.size - std::min<uint64_t>(stat.size, length) != bytes) {
      return absl::DataLossError(absl::StrCat(reader.where_, ": ", length + bytes, " bytes were expected, it has ",
                                              static_cast<uint64_t>(stat.size)));
    }
    return reader;
  }

  absl::Status Read(void* to, size_t bytes) {
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
  absl::Status ReadEnd() {
    char extra;
    const zip_int64_t n = zip_fread(file_.get(), &extra, 1);
    if (n == 0) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(where_, ": ", n > 0 ? "is too long" : Why()));
  }

 private:
  std::string Why() const { return zip_error_strerror(zip_file_get_error(file_.get())); }
  std::unique_ptr<zip_file_t, CloseMember> file_;
  std::string where_;
};

}  // namespace

void SavedModel::Free::operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }

absl::StatusOr<std::unique_ptr<SavedModel>> SavedModel::Load(const std::string& dir) {
  const std::string json_path = JoinPath(dir, "model.json");
  const std::string path = JoinPath(dir, "model.npz");
  auto model = absl::WrapUnique(new SavedModel());
  DESCENT_ASSIGN_OR_RETURN(const std::string text, ReadFile(json_path));
  DESCENT_ASSIGN_OR_RETURN(model->manifest_, ManifestFromJson(text, json_path));
  if (const std::optional<uint32_t> crc = model->manifest_.fitted_crc32c; crc.has_value()) {
    const std::string features = JoinPath(dir, kFeaturesFile);
    DESCENT_ASSIGN_OR_RETURN(model->manifest_.description.fitted, ReadFile(features));
    if (const uint32_t found = Crc32c(model->manifest_.description.fitted); found != *crc) {
      return absl::DataLossError(absl::StrCat(features, ": CRC32C is ", found, ", ", json_path, " says ", *crc));
    }
  }
  DESCENT_ASSIGN_OR_RETURN(const FileIdentity identity, IdentifyFile(path));
  int error = 0;
  std::unique_ptr<zip_t, CloseZip> zip(zip_open(path.c_str(), ZIP_RDONLY, &error));
  if (zip == nullptr) {
    zip_error_t zip_error;
    zip_error_init_with_code(&zip_error, error);
    const std::string why = zip_error_strerror(&zip_error);
    zip_error_fini(&zip_error);
    return absl::DataLossError(absl::StrCat(path, ": no zip archive, or a damaged one: ", why));
  }
  CanonicalHash hash;
  const auto& specs = model->manifest_.description.specs;
  model->tensors_.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[i];
    Tensor& tensor = model->tensors_[i];
    const uint64_t rows = model->manifest_.rows[i];
    const uint64_t per_row = spec.sparse ? spec.dim() : 1;
    // Members are stored, so a length beyond the file's is false, and must not be allocated.
    if (rows > identity.bytes / sizeof(float) / per_row ||
        (!spec.sparse && spec.elements() > identity.bytes / sizeof(float))) {
      return absl::DataLossError(absl::StrCat(path, ": too short for tensor \"", spec.name, "\""));
    }
    tensor.size = spec.sparse ? rows * per_row : spec.elements();
    const std::vector<uint64_t> shape = spec.sparse ? std::vector<uint64_t>{rows, per_row} : spec.shape;
    const std::string member = spec.name + (spec.sparse ? ".rows.npy" : ".npy");
    const size_t bytes = tensor.size * sizeof(float);
    DESCENT_ASSIGN_OR_RETURN(ArrayReader reader, ArrayReader::Open(zip.get(), path, member, kNpyFloat32, shape, bytes));
    tensor.values.reset(static_cast<float*>(::operator new[](bytes, std::align_val_t(64))));
    DESCENT_RETURN_IF_ERROR(reader.Read(tensor.values.get(), bytes));
    DESCENT_RETURN_IF_ERROR(reader.ReadEnd());
    hash.Begin(spec);
    if (!spec.sparse) {
      hash.Floats(absl::MakeConstSpan(tensor.values.get(), tensor.size));
      continue;
    }
    DESCENT_ASSIGN_OR_RETURN(ArrayReader key_reader,
                             ArrayReader::Open(zip.get(), path, spec.name + ".keys.npy", kNpyUint64,
                                               absl::MakeConstSpan(shape).subspan(0, 1), rows * sizeof(uint64_t)));
    tensor.keys.resize(rows);
    DESCENT_RETURN_IF_ERROR(key_reader.Read(tensor.keys.data(), rows * sizeof(uint64_t)));
    DESCENT_RETURN_IF_ERROR(key_reader.ReadEnd());
    tensor.row_of.reserve(rows);
    for (uint64_t r = 0; r < rows; ++r) {
      if (!tensor.row_of.emplace(tensor.keys[r], r).second) {
        return absl::DataLossError(
            absl::StrCat(path, ": table \"", spec.name, "\": key ", tensor.keys[r], " is there twice"));
      }
      hash.Key(tensor.keys[r]);
      hash.Floats(absl::MakeConstSpan(tensor.values.get() + r * per_row, per_row));
    }
  }
  const std::string found = hash.Finish();
  if (found != model->manifest_.parameters_sha256) {
    return absl::DataLossError(absl::StrCat(path, ": parameters_sha256 is ", found, ", ", json_path, " says ",
                                            model->manifest_.parameters_sha256));
  }
  return model;
}

absl::Span<const float> SavedModel::dense(TensorId tensor) const {
  return absl::MakeConstSpan(tensors_[tensor.value].values.get(), tensors_[tensor.value].size);
}

absl::Span<const float> SavedModel::rows(TensorId table) const { return dense(table); }

const float* SavedModel::FindRow(TensorId table, uint64_t key) const {
  const Tensor& tensor = tensors_[table.value];
  auto found = tensor.row_of.find(key);
  if (found == tensor.row_of.end()) return nullptr;
  return tensor.values.get() + found->second * description().specs[table.value].dim();
}

}  // namespace descent
