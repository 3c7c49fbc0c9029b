#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"
#include "server/checkpoint/part_file.h"

namespace descent {
namespace {

constexpr size_t kBufferBytes = size_t{64} << 10;

}  // namespace

PartFileReader::PartFileReader(std::unique_ptr<ReadableFile> file, size_t max_header)
    : file_(std::move(file)), max_header_(max_header), buffer_(std::min<uint64_t>(kBufferBytes, file_->size())) {}

absl::StatusOr<std::unique_ptr<PartFileReader>> PartFileReader::Open(Storage* storage, const std::string& path,
                                                                     size_t max_header) {
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, storage->Open(path));
  std::unique_ptr<PartFileReader> reader(new PartFileReader(std::move(file), max_header));
  std::string magic(std::min<uint64_t>(kPartMagic.size(), reader->size()), '\0');
  DESCENT_RETURN_IF_ERROR(reader->Read(magic.data(), magic.size()));
  if (magic != kPartMagic) {
    return absl::DataLossError(
        absl::StrCat("begins with '", absl::CHexEscape(magic), "', expected '", kPartMagic, "'"));
  }
  return reader;
}

absl::Status PartFileReader::Read(void* to, size_t bytes) {
  DESCENT_CHECK(bytes <= remaining());
  auto* out = static_cast<char*>(to);
  size_t left = bytes;
  while (left > 0) {
    if (next_ == limit_ && left < buffer_.size()) {
      DESCENT_ASSIGN_OR_RETURN(limit_, file_->ReadAt(offset_, buffer_.data(), buffer_.size()));
      next_ = 0;
    }
    size_t n = 0;
    if (next_ < limit_) {
      n = std::min(left, limit_ - next_);
      std::memcpy(out, buffer_.data() + next_, n);
      next_ += n;
    } else {
      DESCENT_ASSIGN_OR_RETURN(n, file_->ReadAt(offset_, out, left));
    }
    if (n == 0) return absl::DataLossError(absl::StrCat("ends at byte ", offset_, " while it is read"));
    out += n;
    offset_ += n;
    left -= n;
  }
  file_crc_ = ExtendCrc32c(file_crc_, to, bytes);
  return absl::OkStatus();
}

absl::StatusOr<bool> PartFileReader::NextHeader(v1::CutRecord* header) {
  if (remaining() == 0) return false;
  const uint64_t record = ++records_;
  const auto lost = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("record ", record, " at byte ", offset_, ": ", what));
  };
  uint32_t length = 0, crc = 0;
  if (remaining() < sizeof(length)) return lost(absl::StrCat("the file ends after ", remaining(), " bytes"));
  DESCENT_RETURN_IF_ERROR(Read(&length, sizeof(length)));
  if (length > max_header_) return lost(absl::StrCat("a header of ", length, " bytes, at most ", max_header_));
  if (remaining() < length + sizeof(crc)) {
    return lost(absl::StrCat("a header of ", length, " bytes, the file ends after ", remaining()));
  }
  header_.resize(length);
  DESCENT_RETURN_IF_ERROR(Read(header_.data(), length));
  if (!header->ParseFromString(header_)) return lost("its header is no descent.v1.CutRecord");
  if (header->payload_bytes() > remaining() - sizeof(crc)) {
    return lost(absl::StrCat("a payload of ", header->payload_bytes(), " bytes, the file ends after ", remaining()));
  }
  payload_bytes_ = header->payload_bytes();
  record_crc_ = ExtendCrc32c(ExtendCrc32c(0, &length, sizeof(length)), header_.data(), length);
  return true;
}

absl::StatusOr<Payload> PartFileReader::TakePayload() {
  const uint64_t begin = offset_;
  const auto bytes = std::make_shared_for_overwrite<std::byte[]>(payload_bytes_);
  DESCENT_RETURN_IF_ERROR(Read(bytes.get(), payload_bytes_));
  uint32_t expected = 0;
  DESCENT_RETURN_IF_ERROR(Read(&expected, sizeof(expected)));
  const uint32_t crc = ExtendCrc32c(record_crc_, bytes.get(), payload_bytes_);
  if (crc != expected) {
    return absl::DataLossError(absl::StrFormat("record %u, payload at byte %u: crc32c is %08x, expected %08x", records_,
                                               begin, crc, expected));
  }
  Payload payload;
  payload.Append(bytes.get(), payload_bytes_, bytes);
  return payload;
}

void PartFileReader::SkipPayload() {
  const uint64_t bytes = payload_bytes_ + sizeof(uint32_t);
  offset_ += bytes;
  const uint64_t buffered = std::min<uint64_t>(bytes, limit_ - next_);
  next_ += buffered;
}

BlockExport ImageOf(const v1::CutRecord& header, const Payload& payload) {
  BlockExport image;
  image.id = BlockId{TensorId(header.tensor()), header.index()};
  image.version = header.version();
  image.steps = header.steps();
  image.keys = header.keys();
  image.state_slots = header.state_slots();
  image.skipped.assign(header.skipped().begin(), header.skipped().end());
  image.order = header.order();
  image.method = header.method();
  image.payload = payload;
  return image;
}

}  // namespace descent
