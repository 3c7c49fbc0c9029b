#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"
#include "server/checkpoint/part_file.h"
#include "server/store/image_slices.h"

namespace descent {
namespace {

absl::string_view BytesOf(const uint32_t& value) {
  return absl::string_view(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

PartFileWriter::PartFileWriter(Storage* storage, std::string folder, const CutId& cut, ServerId server)
    : storage_(storage), folder_(std::move(folder)), cut_(cut), pending_(kPartMagic) {
  summary_.set_name(PartFileName(server));
}

absl::StatusOr<std::unique_ptr<PartFileWriter>> PartFileWriter::Create(Storage* storage, const std::string& folder,
                                                                       const CutId& cut, ServerId server) {
  std::unique_ptr<PartFileWriter> writer(new PartFileWriter(storage, folder, cut, server));
  DESCENT_ASSIGN_OR_RETURN(writer->file_, storage->Create(absl::StrCat(folder, "/", writer->summary_.name())));
  return writer;
}

absl::Status PartFileWriter::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
  return status_;
}

absl::Status PartFileWriter::Write(absl::string_view bytes) {
  summary_.set_bytes(summary_.bytes() + bytes.size());
  summary_.set_crc32c(ExtendCrc32c(summary_.crc32c(), bytes.data(), bytes.size()));
  return file_->Append(bytes);
}

absl::Status PartFileWriter::Append(v1::CutRecord header, const Payload& payload) {
  if (!status_.ok()) return status_;
  header.set_run(cut_.run.value);
  header.set_generation(cut_.generation.value);
  header.set_cut(cut_.number);
  header.set_payload_bytes(payload.size());
  const auto length = static_cast<uint32_t>(header.ByteSizeLong());
  const size_t begin = pending_.size();
  absl::StrAppend(&pending_, BytesOf(length));
  header.AppendToString(&pending_);
  uint32_t crc = Crc32c(absl::string_view(pending_).substr(begin));
  if (absl::Status status = Write(pending_); !status.ok()) return Fail(std::move(status));
  for (const Payload::Piece& piece : payload.pieces()) {
    const absl::string_view bytes(reinterpret_cast<const char*>(piece.data), piece.size);
    crc = ExtendCrc32c(crc, bytes.data(), bytes.size());
    if (absl::Status status = Write(bytes); !status.ok()) return Fail(std::move(status));
  }
  pending_.assign(BytesOf(crc).data(), sizeof(crc));
  summary_.set_records(summary_.records() + 1);
  return absl::OkStatus();
}

absl::Status PartFileWriter::Append(const BlockExport& block, uint32_t dim, absl::Span<const uint64_t> marks) {
  v1::CutRecord header;
  header.set_tensor(block.id.tensor.value);
  header.set_index(block.id.index);
  header.set_version(block.version);
  header.set_steps(block.steps);
  header.set_state_slots(block.state_slots);
  header.mutable_mark()->Add(marks.begin(), marks.end());
  header.mutable_skipped()->Add(block.skipped.begin(), block.skipped.end());
  header.set_order(block.order);
  header.set_method(block.method);
  for (ImageSlice& slice : SliceImage(block, dim, kMaxSlotRecordBytes)) {
    header.set_keys(slice.keys);
    header.set_more(slice.more);
    DESCENT_RETURN_IF_ERROR(Append(header, slice.payload));
    header.clear_order();  // once is enough
    header.clear_method();
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::PartFile> PartFileWriter::Finish() {
  if (!status_.ok()) return status_;
  if (absl::Status status = Write(pending_); !status.ok()) return Fail(std::move(status));
  if (absl::Status status = file_->Sync(); !status.ok()) return Fail(std::move(status));
  if (absl::Status status = file_->Close(); !status.ok()) return Fail(std::move(status));
  // Before the manifest that names the part: a crash must not leave one without the other.
  if (absl::Status status = storage_->SyncFolder(folder_); !status.ok()) return Fail(std::move(status));
  status_ = absl::FailedPreconditionError(absl::StrCat(summary_.name(), " is finished"));
  return summary_;
}

}  // namespace descent
