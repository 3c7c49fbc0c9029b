#include "common/saved_model/zip_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

constexpr size_t kBuffer = 256 << 10;
constexpr size_t kLocalHeader = 30;
constexpr size_t kLocalExtra = 20;
constexpr size_t kCrcInLocalHeader = 14;
constexpr uint16_t kVersionZip64 = 45;
constexpr uint16_t kNameIsUtf8 = 1 << 11;
constexpr uint16_t kDate = (0 << 9) | (1 << 5) | 1;  // 1980-01-01: the same model gives the same file

template <typename Int>
void PutInt(std::string* out, Int value) {
  for (size_t i = 0; i < sizeof(Int); ++i) out->push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

// What local header and directory entry have in common, from the version to the lengths of name and extra field.
void PutCommon(std::string* out, uint32_t crc, const std::string& name, uint16_t extra) {
  PutInt<uint16_t>(out, kVersionZip64);
  PutInt<uint16_t>(out, kNameIsUtf8);
  PutInt<uint16_t>(out, 0);  // stored
  PutInt<uint16_t>(out, 0);  // time
  PutInt<uint16_t>(out, kDate);
  PutInt<uint32_t>(out, crc);
  PutInt<uint32_t>(out, 0xffffffff);  // sizes are in the extra field
  PutInt<uint32_t>(out, 0xffffffff);
  PutInt<uint16_t>(out, static_cast<uint16_t>(name.size()));
  PutInt<uint16_t>(out, extra);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ZipWriter>> ZipWriter::Create(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
  return absl::WrapUnique(new ZipWriter(std::move(file), path));
}

absl::Status ZipWriter::Put(absl::string_view bytes) {
  written_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBuffer) DESCENT_RETURN_IF_ERROR(Flush());
  if (bytes.size() > kBuffer) return WriteFully(file_.get(), bytes.data(), bytes.size(), path_);
  buffer_.append(bytes.data(), bytes.size());
  return absl::OkStatus();
}

absl::Status ZipWriter::Flush() {
  DESCENT_RETURN_IF_ERROR(WriteFully(file_.get(), buffer_.data(), buffer_.size(), path_));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status ZipWriter::PatchAt(uint64_t offset, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus(n < 0 ? errno : EIO, path_);
    bytes.remove_prefix(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status ZipWriter::BeginMember(absl::string_view name, size_t prefix) {
  DESCENT_CHECK(prefix_ == 0 && prefix > 0);
  if (name.size() > 0xffff) return absl::InvalidArgumentError(absl::StrCat(path_, ": a member's name is too long"));
  Member member;
  member.name = std::string(name);
  member.offset = written_;
  std::string header;
  PutInt<uint32_t>(&header, 0x04034b50);
  PutCommon(&header, 0, member.name, kLocalExtra);
  header += member.name;
  header.append(kLocalExtra + prefix, '\0');
  DESCENT_RETURN_IF_ERROR(Put(header));
  members_.push_back(std::move(member));
  prefix_ = prefix;
  body_crc_ = static_cast<uint32_t>(crc32_z(0, nullptr, 0));
  body_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status ZipWriter::Append(const void* data, size_t bytes) {
  DESCENT_CHECK(prefix_ > 0);
  if (bytes == 0) return absl::OkStatus();
  body_crc_ = static_cast<uint32_t>(crc32_z(body_crc_, static_cast<const Bytef*>(data), bytes));
  body_bytes_ += bytes;
  return Put(absl::string_view(static_cast<const char*>(data), bytes));
}

absl::Status ZipWriter::EndMember(absl::string_view prefix) {
  DESCENT_CHECK(prefix_ > 0 && prefix.size() == prefix_);
  Member& member = members_.back();
  const uLong prefix_crc = crc32_z(0, reinterpret_cast<const Bytef*>(prefix.data()), prefix.size());
  member.crc = static_cast<uint32_t>(crc32_combine(prefix_crc, body_crc_, static_cast<z_off_t>(body_bytes_)));
  member.bytes = prefix_ + body_bytes_;
  prefix_ = 0;
  DESCENT_RETURN_IF_ERROR(Flush());
  std::string crc;
  PutInt<uint32_t>(&crc, member.crc);
  std::string rest;
  PutInt<uint16_t>(&rest, 1);  // zip64
  PutInt<uint16_t>(&rest, kLocalExtra - 4);
  PutInt<uint64_t>(&rest, member.bytes);
  PutInt<uint64_t>(&rest, member.bytes);
  rest.append(prefix.data(), prefix.size());
  DESCENT_RETURN_IF_ERROR(PatchAt(member.offset + kCrcInLocalHeader, crc));
  return PatchAt(member.offset + kLocalHeader + member.name.size(), rest);
}

absl::Status ZipWriter::Finish() {
  DESCENT_CHECK(prefix_ == 0);
  const uint64_t directory = written_;
  for (const Member& member : members_) {
    std::string entry;
    PutInt<uint32_t>(&entry, 0x02014b50);
    PutInt<uint16_t>(&entry, 3 << 8 | kVersionZip64);  // made by: Unix
    PutCommon(&entry, member.crc, member.name, 28);
    PutInt<uint16_t>(&entry, 0);               // comment
    PutInt<uint16_t>(&entry, 0);               // disk
    PutInt<uint16_t>(&entry, 0);               // internal attributes
    PutInt<uint32_t>(&entry, 0100644u << 16);  // a plain file, rw-r--r--
    PutInt<uint32_t>(&entry, 0xffffffff);      // the offset is in the extra field
    entry += member.name;
    PutInt<uint16_t>(&entry, 1);
    PutInt<uint16_t>(&entry, 24);
    PutInt<uint64_t>(&entry, member.bytes);
    PutInt<uint64_t>(&entry, member.bytes);
    PutInt<uint64_t>(&entry, member.offset);
    DESCENT_RETURN_IF_ERROR(Put(entry));
  }
  const uint64_t end = written_;
  std::string tail;
  PutInt<uint32_t>(&tail, 0x06064b50);  // zip64 end of central directory
  PutInt<uint64_t>(&tail, 44);
  PutInt<uint16_t>(&tail, 3 << 8 | kVersionZip64);
  PutInt<uint16_t>(&tail, kVersionZip64);
  PutInt<uint32_t>(&tail, 0);
  PutInt<uint32_t>(&tail, 0);
  PutInt<uint64_t>(&tail, members_.size());
  PutInt<uint64_t>(&tail, members_.size());
  PutInt<uint64_t>(&tail, end - directory);
  PutInt<uint64_t>(&tail, directory);
  PutInt<uint32_t>(&tail, 0x07064b50);  // its locator
  PutInt<uint32_t>(&tail, 0);
  PutInt<uint64_t>(&tail, end);
  PutInt<uint32_t>(&tail, 1);
  // The old end record says "see above" only where its fields are too small: some readers ask for that.
  const auto count = static_cast<uint16_t>(std::min<uint64_t>(members_.size(), 0xffff));
  PutInt<uint32_t>(&tail, 0x06054b50);
  PutInt<uint16_t>(&tail, 0);
  PutInt<uint16_t>(&tail, 0);
  PutInt<uint16_t>(&tail, count);
  PutInt<uint16_t>(&tail, count);
  PutInt<uint32_t>(&tail, static_cast<uint32_t>(std::min<uint64_t>(end - directory, 0xffffffff)));
  PutInt<uint32_t>(&tail, static_cast<uint32_t>(std::min<uint64_t>(directory, 0xffffffff)));
  PutInt<uint16_t>(&tail, 0);
  DESCENT_RETURN_IF_ERROR(Put(tail));
  DESCENT_RETURN_IF_ERROR(Flush());
  if (fsync(file_.get()) != 0) return ErrnoStatus(errno, absl::StrCat(path_, ": fsync"));
  file_.Close();
  return absl::OkStatus();
}

}  // namespace descent
