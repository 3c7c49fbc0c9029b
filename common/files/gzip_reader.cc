#include "common/files/gzip_reader.h"

#include <fcntl.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"

namespace descent {
namespace {
constexpr size_t kInputBytes = 256 << 10;
constexpr int kGzipWindow = 15 + 16;  // zlib: the largest window, with a gzip header
}  // namespace

GzipReader::GzipReader(FileDescriptor fd, std::string name)
    : fd_(std::move(fd)), name_(std::move(name)), input_(kInputBytes) {}

GzipReader::~GzipReader() {
  if (stream_ != nullptr) inflateEnd(stream_.get());
}

absl::StatusOr<std::unique_ptr<GzipReader>> GzipReader::Open(const std::string& path, const std::string& name) {
  absl::StatusOr<FileDescriptor> fd = OpenFile(path, O_RDONLY);
  if (absl::IsNotFound(fd.status())) {
    return absl::NotFoundError(absl::StrCat(name, ": no such file (looked for ", path, ")"));
  }
  if (!fd.ok()) return fd.status();
  ::posix_fadvise(fd->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  auto reader = absl::WrapUnique(new GzipReader(*std::move(fd), name));
  DESCENT_RETURN_IF_ERROR(reader->Refill());
  const auto* head = reinterpret_cast<const unsigned char*>(reader->input_.data());
  if (reader->limit_ >= 2 && head[0] == 0x1f && head[1] == 0x8b) {
    reader->compressed_ = true;
    reader->in_member_ = true;
    reader->stream_ = std::make_unique<z_stream_s>();
    std::memset(reader->stream_.get(), 0, sizeof(z_stream_s));
    if (inflateInit2(reader->stream_.get(), kGzipWindow) != Z_OK) {
      reader->stream_ = nullptr;
      return absl::ResourceExhaustedError(absl::StrCat(name, ": no memory to decompress it"));
    }
  }
  return reader;
}

absl::Status GzipReader::Refill() {
  if (end_of_file_) return absl::OkStatus();
  DESCENT_ASSIGN_OR_RETURN(const size_t n, ReadUpTo(fd_.get(), input_.data(), input_.size(), name_));
  end_of_file_ = n < input_.size();
  crc32c_ = ExtendCrc32c(crc32c_, input_.data(), n);
  disk_bytes_ += n;
  next_ = 0;
  limit_ = n;
  return absl::OkStatus();
}

absl::StatusOr<size_t> GzipReader::Read(char* to, size_t bytes) {
  return compressed_ ? ReadGzip(to, bytes) : ReadPlain(to, bytes);
}

absl::StatusOr<size_t> GzipReader::ReadPlain(char* to, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    if (next_ == limit_) {
      DESCENT_RETURN_IF_ERROR(Refill());
      if (next_ == limit_) break;
    }
    const size_t n = std::min(bytes - done, limit_ - next_);
    std::memcpy(to + done, input_.data() + next_, n);
    done += n;
    next_ += n;
  }
  return done;
}

absl::StatusOr<bool> GzipReader::NextMember() {
  while (true) {
    if (next_ == limit_) {
      DESCENT_RETURN_IF_ERROR(Refill());
      if (next_ == limit_) return false;
    }
    const auto byte = static_cast<unsigned char>(input_[next_]);
    if (byte == 0x1f) {
      inflateReset2(stream_.get(), kGzipWindow);
      in_member_ = true;
      return true;
    }
    if (byte != 0) {
      return absl::DataLossError(
          absl::StrCat(name_, ": damaged: bytes that are not gzip at byte ", offset(), ", behind the gzip stream"));
    }
    ++next_;
  }
}

absl::StatusOr<size_t> GzipReader::ReadGzip(char* to, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    if (!in_member_) {
      DESCENT_ASSIGN_OR_RETURN(const bool more, NextMember());
      if (!more) break;
    }
    if (next_ == limit_) {
      DESCENT_RETURN_IF_ERROR(Refill());
      if (next_ == limit_) {
        return absl::DataLossError(
            absl::StrCat(name_, ": truncated: the file ends at byte ", disk_bytes_, ", before the gzip stream does"));
      }
    }
    const size_t room = std::min(bytes - done, size_t{1} << 30);
    stream_->next_in = reinterpret_cast<Bytef*>(input_.data() + next_);
    stream_->avail_in = static_cast<uInt>(limit_ - next_);
    stream_->next_out = reinterpret_cast<Bytef*>(to + done);
    stream_->avail_out = static_cast<uInt>(room);
    const int result = inflate(stream_.get(), Z_NO_FLUSH);
    next_ = limit_ - stream_->avail_in;
    done += room - stream_->avail_out;
    if (result == Z_STREAM_END) {
      in_member_ = false;
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      return absl::DataLossError(absl::StrCat(name_, ": damaged gzip data near byte ", offset(), ": ",
                                              stream_->msg != nullptr ? stream_->msg : zError(result)));
    }
  }
  return done;
}

}  // namespace descent
