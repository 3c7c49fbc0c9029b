// Writes a model's folder as a stream, so that its writer never holds it whole:
//   model.npz   for numpy.load: a dense tensor is the member "<name>.npy" (float32, its shape, '/' in names kept), a
//               table the members "<name>.rows.npy" (float32 [rows x dim]) and "<name>.keys.npy" (uint64 [rows]), rows
//               in the order (slot, key)
//   model.json  what is in it: the job, tensors, parameters_sha256 (canonical_hash.h)
// The folder appears complete or not at all: it is written beside its place, synced and renamed; a folder that is there
// is exchanged for it. Not thread-safe.
#ifndef DESCENT_COMMON_SAVED_MODEL_MODEL_WRITER_H_
#define DESCENT_COMMON_SAVED_MODEL_MODEL_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/saved_model/canonical_hash.h"
#include "common/saved_model/model_description.h"

namespace descent {

class ZipWriter;

class ModelWriter {
 public:
  // Status codes of files (common/files/file.h), naming the file; INVALID_ARGUMENT: specs that are none.
  static absl::StatusOr<std::unique_ptr<ModelWriter>> Begin(const std::string& dir, ModelDescription description);
  ModelWriter(const ModelWriter&) = delete;
  ModelWriter& operator=(const ModelWriter&) = delete;
  // Removes what was written, if it was not finished.
  ~ModelWriter();

  // The next elements of a dense tensor; rows of a table, ascending in (slot, key). Tensors come in the order of their
  // specs. INVALID_ARGUMENT, naming the tensor: another order, elements too many or too few, keys twice.
  absl::Status AppendDense(TensorId tensor, absl::Span<const float> values);
  absl::Status AppendRows(TensorId table, absl::Span<const uint64_t> keys, absl::Span<const float> rows);
  // Makes the folder appear; returns parameters_sha256.
  absl::StatusOr<std::string> Finish();

 private:
  explicit ModelWriter(ModelDescription description);
  absl::Status MoveTo(uint32_t tensor);  // ends tensors before, begins this one; specs_.size() is the end
  absl::Status BeginTensor();
  absl::Status EndTensor();
  absl::Status Publish();

  std::string dir_;
  std::string temporary_;
  ModelManifest manifest_;
  std::unique_ptr<ZipWriter> zip_;
  CanonicalHash hash_;
  uint32_t current_ = 0;  // the tensor that is being written
  uint64_t count_ = 0;    // its elements, or rows, so far
  uint64_t last_key_ = 0;
  uint32_t last_slot_ = 0;
  size_t header_bytes_ = 0;
  std::unique_ptr<class KeySpool> keys_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_MODEL_WRITER_H_
