#include "common/saved_model/model_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/saved_model/npy_header.h"
#include "common/saved_model/zip_writer.h"

namespace descent {

// A table's keys wait in a file of their own until its rows have ended: a zip has one open member.
class KeySpool {
 public:
  static absl::StatusOr<std::unique_ptr<KeySpool>> Create(const std::string& path) {
    DESCENT_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
    if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, path);
    auto spool = std::make_unique<KeySpool>();
    spool->file_ = std::move(file);
    spool->path_ = path;
    return spool;
  }
  absl::Status Append(absl::Span<const uint64_t> keys) {
    buffer_.insert(buffer_.end(), keys.begin(), keys.end());
    return buffer_.size() < kBufferedKeys ? absl::OkStatus() : Flush();
  }
  absl::Status CopyTo(ZipWriter* zip) {
    DESCENT_RETURN_IF_ERROR(Flush());
    if (lseek(file_.get(), 0, SEEK_SET) != 0) return ErrnoStatus(errno, path_);
    buffer_.resize(kBufferedKeys);
    for (;;) {
      DESCENT_ASSIGN_OR_RETURN(const size_t n,
                               ReadUpTo(file_.get(), buffer_.data(), buffer_.size() * sizeof(uint64_t), path_));
      if (n == 0) return absl::OkStatus();
      DESCENT_RETURN_IF_ERROR(zip->Append(buffer_.data(), n));
    }
  }

 private:
  static constexpr size_t kBufferedKeys = 32768;
  absl::Status Flush() {
    DESCENT_RETURN_IF_ERROR(WriteFully(file_.get(), buffer_.data(), buffer_.size() * sizeof(uint64_t), path_));
    buffer_.clear();
    return absl::OkStatus();
  }
  FileDescriptor file_;
  std::string path_;
  std::vector<uint64_t> buffer_;
};

ModelWriter::ModelWriter(ModelDescription description) {
  manifest_.description = std::move(description);
  manifest_.rows.resize(manifest_.description.specs.size());
}

ModelWriter::~ModelWriter() {
  zip_.reset();
  keys_.reset();
  if (!temporary_.empty()) RemoveTree(temporary_).IgnoreError();
}

absl::StatusOr<std::unique_ptr<ModelWriter>> ModelWriter::Begin(const std::string& dir, ModelDescription description) {
  DESCENT_RETURN_IF_ERROR(ValidateSpecs(description.specs, std::numeric_limits<int64_t>::max()));
  if (description.specs.empty()) return absl::InvalidArgumentError("a model without tensors can't be saved");
  auto writer = absl::WrapUnique(new ModelWriter(std::move(description)));
  writer->dir_ = dir;
  while (writer->dir_.size() > 1 && writer->dir_.back() == '/') writer->dir_.pop_back();
  // Named by the process, so that two writers by mistake don't mix; one left by a killed process of that id goes first.
  const std::string temporary = absl::StrCat(writer->dir_, ".tmp-", getpid());
  DESCENT_RETURN_IF_ERROR(RemoveTree(temporary));
  writer->temporary_ = temporary;
  DESCENT_RETURN_IF_ERROR(MakeDirs(temporary));
  DESCENT_ASSIGN_OR_RETURN(writer->zip_, ZipWriter::Create(temporary + "/model.npz"));
  DESCENT_RETURN_IF_ERROR(writer->BeginTensor());
  return writer;
}

absl::Status ModelWriter::BeginTensor() {
  const TensorSpec& spec = manifest_.description.specs[current_];
  hash_.Begin(spec);
  count_ = 0;
  if (spec.sparse) {
    const uint64_t most[2] = {std::numeric_limits<uint64_t>::max(), spec.dim()};
    header_bytes_ = NpyHeader(kNpyFloat32, most).size();
    DESCENT_ASSIGN_OR_RETURN(keys_, KeySpool::Create(temporary_ + "/keys"));
    return zip_->BeginMember(spec.name + ".rows.npy", header_bytes_);
  }
  return zip_->BeginMember(spec.name + ".npy", NpyHeader(kNpyFloat32, spec.shape).size());
}

absl::Status ModelWriter::EndTensor() {
  const TensorSpec& spec = manifest_.description.specs[current_];
  if (!spec.sparse) {
    if (count_ != spec.elements()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", spec.name, "\": ", spec.elements(), " elements were expected, ", count_, " came"));
    }
    return zip_->EndMember(NpyHeader(kNpyFloat32, spec.shape));
  }
  manifest_.rows[current_] = count_;
  const uint64_t shape[2] = {count_, spec.dim()};
  DESCENT_RETURN_IF_ERROR(zip_->EndMember(NpyHeader(kNpyFloat32, shape, header_bytes_)));
  const std::string header = NpyHeader(kNpyUint64, absl::MakeConstSpan(shape, 1));
  DESCENT_RETURN_IF_ERROR(zip_->BeginMember(spec.name + ".keys.npy", header.size()));
  DESCENT_RETURN_IF_ERROR(keys_->CopyTo(zip_.get()));
  keys_.reset();
  return zip_->EndMember(header);
}

absl::Status ModelWriter::MoveTo(uint32_t tensor) {
  const auto& specs = manifest_.description.specs;
  if (tensor < current_ || tensor > specs.size()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor, " came after tensor ", current_, " of ",
                                                   specs.size(), "; the order of the specs was expected"));
  }
  while (current_ < tensor) {
    DESCENT_RETURN_IF_ERROR(EndTensor());
    if (++current_ < specs.size()) DESCENT_RETURN_IF_ERROR(BeginTensor());
  }
  return absl::OkStatus();
}

absl::Status ModelWriter::AppendDense(TensorId tensor, absl::Span<const float> values) {
  const auto& specs = manifest_.description.specs;
  if (tensor.value >= specs.size() || specs[tensor.value].sparse) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.value, " is no dense tensor of the model"));
  }
  DESCENT_RETURN_IF_ERROR(MoveTo(tensor.value));
  const TensorSpec& spec = specs[current_];
  if (values.size() > spec.elements() - count_) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", spec.name, "\": ", spec.elements(),
                                                   " elements were expected, ", count_ + values.size(), " came"));
  }
  count_ += values.size();
  hash_.Floats(values);
  return zip_->Append(values.data(), values.size() * sizeof(float));
}

absl::Status ModelWriter::AppendRows(TensorId table, absl::Span<const uint64_t> keys, absl::Span<const float> rows) {
  const auto& specs = manifest_.description.specs;
  if (table.value >= specs.size() || !specs[table.value].sparse) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", table.value, " is no sparse table of the model"));
  }
  DESCENT_RETURN_IF_ERROR(MoveTo(table.value));
  const TensorSpec& spec = specs[current_];
  const size_t dim = spec.dim();
  if (rows.size() / dim != keys.size() || rows.size() % dim != 0) {
    return absl::InvalidArgumentError(absl::StrCat("table \"", spec.name, "\": ", keys.size(), " rows of ", dim,
                                                   " floats were expected, ", rows.size(), " floats came"));
  }
  Geometry geometry;
  geometry.slots = manifest_.description.slots;
  for (size_t i = 0; i < keys.size(); ++i) {
    const uint32_t slot = geometry.slot(keys[i]);
    if (count_ > 0 && std::pair(slot, keys[i]) <= std::pair(last_slot_, last_key_)) {
      return absl::InvalidArgumentError(absl::StrCat("table \"", spec.name, "\": key ", keys[i], " of slot ", slot,
                                                     " came after key ", last_key_, " of slot ", last_slot_,
                                                     "; ascending (slot, key) was expected"));
    }
    last_slot_ = slot;
    last_key_ = keys[i];
    ++count_;
    hash_.Key(keys[i]);
    hash_.Floats(rows.subspan(i * dim, dim));
  }
  DESCENT_RETURN_IF_ERROR(keys_->Append(keys));
  return zip_->Append(rows.data(), rows.size() * sizeof(float));
}

absl::StatusOr<std::string> ModelWriter::Finish() {
  DESCENT_CHECK(zip_ != nullptr);
  DESCENT_RETURN_IF_ERROR(MoveTo(static_cast<uint32_t>(manifest_.description.specs.size())));
  DESCENT_RETURN_IF_ERROR(zip_->Finish());
  zip_.reset();
  manifest_.parameters_sha256 = hash_.Finish();
  if (const std::string& fitted = manifest_.description.fitted; !fitted.empty()) {
    DESCENT_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(temporary_, kFeaturesFile), fitted));
  }
  DESCENT_RETURN_IF_ERROR(WriteFileAtomically(temporary_ + "/model.json", ManifestToJson(manifest_)));
  DESCENT_RETURN_IF_ERROR(SyncFolder(temporary_));
  DESCENT_RETURN_IF_ERROR(Publish());
  return manifest_.parameters_sha256;
}

absl::Status ModelWriter::Publish() {
  if (rename(temporary_.c_str(), dir_.c_str()) == 0) {
    temporary_.clear();
  } else if (errno == ENOTEMPTY || errno == EEXIST) {
    // What was there ends up under the temporary name, which the destructor removes.
    if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, dir_.c_str(), RENAME_EXCHANGE) != 0) {
      if (errno != EINVAL && errno != ENOSYS) return ErrnoStatus(errno, dir_);
      // A file system without exchange.
      const std::string old = temporary_ + ".old";
      if (rename(dir_.c_str(), old.c_str()) != 0) return ErrnoStatus(errno, dir_);
      if (rename(temporary_.c_str(), dir_.c_str()) != 0) return ErrnoStatus(errno, dir_);
      temporary_ = old;
    }
  } else {
    return ErrnoStatus(errno, dir_);
  }
  const size_t slash = dir_.rfind('/');
  return SyncFolder(slash == std::string::npos ? "." : dir_.substr(0, slash + 1));
}

}  // namespace descent
