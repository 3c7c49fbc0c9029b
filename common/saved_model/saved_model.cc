#include "common/saved_model/saved_model.h"

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
#include "common/saved_model/npz_reader.h"

namespace descent {
namespace {

// An array member, compared with what the description says before anything is allocated for it.
absl::StatusOr<NpzMember> FindArray(NpzReader* archive, const std::string& member, const char* type,
                                    absl::Span<const uint64_t> shape, uint64_t bytes) {
  absl::StatusOr<NpzMember> found = archive->Find(member);
  if (absl::IsNotFound(found.status())) return absl::DataLossError(found.status().message());
  if (!found.ok()) return found.status();
  const std::string where = absl::StrCat(archive->path(), ": member ", member);
  const NpyArray& array = found->array();
  if (array.type != type || array.column_major || absl::MakeConstSpan(array.shape) != shape) {
    return absl::DataLossError(absl::StrCat(where, ": its header differs from what model.json says"));
  }
  if (found->bytes() != bytes) {
    return absl::DataLossError(
        absl::StrCat(where, ": elements of ", bytes, " bytes were expected, it has ", found->bytes()));
  }
  return found;
}

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
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<NpzReader> archive, NpzReader::Open(path));
  CanonicalHash hash;
  const auto& specs = model->manifest_.description.specs;
  model->tensors_.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[i];
    Tensor& tensor = model->tensors_[i];
    const uint64_t rows = model->manifest_.rows[i];
    const uint64_t per_row = spec.sparse ? spec.dim() : 1;
    // Members are stored, so a length beyond the file's is false, and must not be allocated.
    if (rows > archive->file_bytes() / sizeof(float) / per_row ||
        (!spec.sparse && spec.elements() > archive->file_bytes() / sizeof(float))) {
      return absl::DataLossError(absl::StrCat(path, ": too short for tensor \"", spec.name, "\""));
    }
    tensor.size = spec.sparse ? rows * per_row : spec.elements();
    const std::vector<uint64_t> shape = spec.sparse ? std::vector<uint64_t>{rows, per_row} : spec.shape;
    const std::string member = spec.name + (spec.sparse ? ".rows.npy" : ".npy");
    const size_t bytes = tensor.size * sizeof(float);
    DESCENT_ASSIGN_OR_RETURN(NpzMember reader, FindArray(archive.get(), member, kNpyFloat32, shape, bytes));
    tensor.values.reset(static_cast<float*>(::operator new[](bytes, std::align_val_t(64))));
    DESCENT_RETURN_IF_ERROR(reader.Read(tensor.values.get(), bytes));
    DESCENT_RETURN_IF_ERROR(reader.ReadEnd());
    hash.Begin(spec);
    if (!spec.sparse) {
      hash.Floats(absl::MakeConstSpan(tensor.values.get(), tensor.size));
      continue;
    }
    DESCENT_ASSIGN_OR_RETURN(NpzMember key_reader,
                             FindArray(archive.get(), spec.name + ".keys.npy", kNpyUint64,
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
