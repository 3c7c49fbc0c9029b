// IDX, the format of MNIST: 00 00, a type (08: unsigned bytes), the rank, the sizes as big-endian 32-bit numbers, data.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/files/gzip_reader.h"
#include "descent/v1/job.pb.h"
#include "worker/data/label_rule.h"
#include "worker/data/source.h"

namespace descent {
namespace {

class IdxFile {
 public:
  static absl::StatusOr<std::unique_ptr<IdxFile>> Open(const SourceFile& file) {
    auto idx = std::make_unique<IdxFile>();
    idx->name_ = file.name;
    DESCENT_ASSIGN_OR_RETURN(idx->file_, GzipReader::Open(file.path, file.name));
    unsigned char head[4];
    DESCENT_ASSIGN_OR_RETURN(const size_t n, idx->file_->Read(reinterpret_cast<char*>(head), 4));
    if (n == 0) return absl::InvalidArgumentError(absl::StrCat(file.name, ": the file is empty"));
    if (n < 4 || head[0] != 0 || head[1] != 0 || head[2] != 8 || head[3] == 0) {
      std::string bytes;
      for (size_t i = 0; i < n; ++i) absl::StrAppend(&bytes, i > 0 ? " " : "", absl::Hex(head[i], absl::kZeroPad2));
      return absl::InvalidArgumentError(absl::StrCat(file.name, ": not an IDX file of unsigned bytes: it begins with ",
                                                     bytes, ", expected 00 00 08 and the number of dimensions"));
    }
    for (int d = 0; d < head[3]; ++d) {
      unsigned char size[4];
      DESCENT_ASSIGN_OR_RETURN(const size_t got, idx->file_->Read(reinterpret_cast<char*>(size), 4));
      if (got < 4) return absl::DataLossError(absl::StrCat(file.name, ": truncated: the file ends in its header"));
      idx->sizes_.push_back(uint64_t{size[0]} << 24 | uint64_t{size[1]} << 16 | uint64_t{size[2]} << 8 | size[3]);
    }
    for (size_t d = 1; d < idx->sizes_.size(); ++d) {
      if (__builtin_mul_overflow(idx->width_, idx->sizes_[d], &idx->width_) || idx->width_ > UINT32_MAX ||
          idx->width_ == 0) {
        return absl::InvalidArgumentError(absl::StrCat(file.name, ": an image of ",
                                                       absl::StrJoin(idx->sizes_.begin() + 1, idx->sizes_.end(), " x "),
                                                       " bytes: expected 1 to ", UINT32_MAX, " bytes"));
      }
    }
    return idx;
  }

  size_t rank() const { return sizes_.size(); }
  uint64_t count() const { return sizes_[0]; }
  uint64_t width() const { return width_; }

  absl::Status Record(uint64_t record, uint8_t* to) {
    DESCENT_ASSIGN_OR_RETURN(const size_t n, file_->Read(reinterpret_cast<char*>(to), width_));
    if (n < width_) {
      return absl::DataLossError(absl::StrCat(name_, ": truncated: its header says ", count(), " records of ", width_,
                                              " bytes, the data end in record ", record));
    }
    return absl::OkStatus();
  }

  absl::Status End(DataFileInfo* info) {
    char byte;
    DESCENT_ASSIGN_OR_RETURN(const size_t n, file_->Read(&byte, 1));
    if (n > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(name_, ": data go on behind the ", count(), " records its header says"));
    }
    *info = {name_, file_->disk_bytes(), count(), file_->disk_crc32c()};
    return absl::OkStatus();
  }

 private:
  std::string name_;
  std::unique_ptr<GzipReader> file_;
  std::vector<uint64_t> sizes_;
  uint64_t width_ = 1;
};

}  // namespace

absl::Status ReadIdx(const v1::Idx& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                     ShardCutter* cutter, std::vector<DataFileInfo>* infos) {
  DESCENT_ASSIGN_OR_RETURN(auto images, IdxFile::Open(files[0]));
  DESCENT_ASSIGN_OR_RETURN(auto labels, IdxFile::Open(files[1]));
  if (images->rank() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(files[0].name, ": 1 dimension, expected images of 2 or more"));
  }
  if (labels->rank() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(files[1].name, ": ", labels->rank(), " dimensions, expected labels of 1"));
  }
  if (images->count() != labels->count()) {
    return absl::InvalidArgumentError(absl::StrCat(files[0].name, " has ", images->count(), " images, but ",
                                                   files[1].name, " has ", labels->count(), " labels"));
  }
  if (images->count() == 0) return absl::InvalidArgumentError(absl::StrCat(files[0].name, ": the file has no images"));

  cutter->Begin({ShardKind::kBytes, images->width(), static_cast<float>(spec.scale())});
  LabelRule rule(options.labels, options.classes);
  for (uint64_t record = 0; record < images->count(); ++record) {
    DESCENT_RETURN_IF_ERROR(images->Record(record, cutter->builder().AddBytes()));
    uint8_t number;
    DESCENT_RETURN_IF_ERROR(labels->Record(record, &number));
    float label = 0;
    if (!rule.Accept(number, &label)) {
      return absl::InvalidArgumentError(
          absl::StrCat(files[1].name, ": record ", record, ": ", rule.Refusal(absl::StrCat(number))));
    }
    DESCENT_RETURN_IF_ERROR(cutter->EndRow(label));
  }
  DESCENT_RETURN_IF_ERROR(images->End(&infos->emplace_back()));
  return labels->End(&infos->emplace_back());
}

}  // namespace descent
