#include "worker/data/shard.h"

#include <fcntl.h>

#include <bit>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"
#include "common/files/file.h"

namespace descent {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[8] = {'D', 'S', 'H', 'A', 'R', 'D', '0', '1'};
constexpr size_t kAlignment = 64;
enum Section {
  kLabel,
  kRowBegin,
  kColumn,
  kValue,
  kSections
};  // kLabel: the labels, then the weights if there are any

struct Header {
  char magic[8];
  uint32_t crc;  // of everything behind it
  uint32_t index;
  uint64_t dataset;
  uint64_t size;  // of the image
  uint64_t features;
  ShardKind kind;
  uint32_t rows;
  float scale;
  uint8_t wide;
  uint8_t unit;
  uint8_t unused[2];
  uint64_t at[kSections];
  uint64_t bytes[kSections];
};
static_assert(sizeof(Header) == 120);
constexpr size_t kCrcBegin = 12;
constexpr size_t kHeaderBytes = 128;

const Header& HeaderOf(const char* image) { return *reinterpret_cast<const Header*>(image); }

template <typename T>
absl::Span<const T> SectionOf(const char* image, Section section) {
  const Header& header = HeaderOf(image);
  return {reinterpret_cast<const T*>(image + header.at[section]), header.bytes[section] / sizeof(T)};
}

}  // namespace

void Shard::Free::operator()(char* p) const { ::operator delete[](p, std::align_val_t(kAlignment)); }

std::unique_ptr<char[], Shard::Free> Shard::Allocate(size_t bytes) {
  return std::unique_ptr<char[], Free>(static_cast<char*>(::operator new[](bytes, std::align_val_t(kAlignment))));
}

absl::StatusOr<std::shared_ptr<const Shard>> Shard::FromFile(const std::string& path, uint64_t dataset,
                                                             uint32_t index) {
  DESCENT_ASSIGN_OR_RETURN(const FileIdentity identity, IdentifyFile(path));
  if (identity.bytes < kHeaderBytes) return absl::DataLossError(absl::StrCat(path, ": damaged: too short"));
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(path, O_RDONLY));
  auto image = Allocate(identity.bytes);
  DESCENT_ASSIGN_OR_RETURN(const size_t n, ReadUpTo(fd.get(), image.get(), identity.bytes, path));
  const Header& header = HeaderOf(image.get());
  if (n != identity.bytes || std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.size != n) {
    return absl::DataLossError(absl::StrCat(path, ": damaged: not a whole data shard"));
  }
  const uint32_t crc = ExtendCrc32c(0, image.get() + kCrcBegin, n - kCrcBegin);
  if (crc != header.crc) {
    return absl::DataLossError(absl::StrCat(path, ": damaged: its CRC32C is ", absl::Hex(crc, absl::kZeroPad8),
                                            ", expected ", absl::Hex(header.crc, absl::kZeroPad8)));
  }
  if (header.dataset != dataset || header.index != index) {
    return absl::DataLossError(absl::StrCat(path, ": shard ", header.index, " of another data set"));
  }
  return std::shared_ptr<const Shard>(new Shard(std::move(image), n));
}

uint32_t Shard::crc32c() const { return HeaderOf(image_.get()).crc; }
uint32_t Shard::rows() const { return HeaderOf(image_.get()).rows; }
ShardKind Shard::kind() const { return HeaderOf(image_.get()).kind; }
float Shard::scale() const { return HeaderOf(image_.get()).scale; }
uint64_t Shard::features() const { return HeaderOf(image_.get()).features; }
bool Shard::wide() const { return HeaderOf(image_.get()).wide != 0; }
bool Shard::unit_values() const { return HeaderOf(image_.get()).unit != 0; }

absl::Span<const float> Shard::label() const { return SectionOf<float>(image_.get(), kLabel).subspan(0, rows()); }
absl::Span<const float> Shard::weight() const { return SectionOf<float>(image_.get(), kLabel).subspan(rows()); }
absl::Span<const uint32_t> Shard::row_begin() const { return SectionOf<uint32_t>(image_.get(), kRowBegin); }
absl::Span<const uint32_t> Shard::column() const { return SectionOf<uint32_t>(image_.get(), kColumn); }
absl::Span<const uint64_t> Shard::wide_column() const { return SectionOf<uint64_t>(image_.get(), kColumn); }
const float* Shard::value() const { return SectionOf<float>(image_.get(), kValue).data(); }
const float* Shard::dense() const { return SectionOf<float>(image_.get(), kValue).data(); }
const uint8_t* Shard::byte_values() const { return SectionOf<uint8_t>(image_.get(), kValue).data(); }

void ShardBuilder::Widen() {
  wide_column_.assign(column_.begin(), column_.end());
  column_.clear();
  wide_ = true;
}

std::shared_ptr<const Shard> ShardBuilder::Finish(uint64_t dataset, uint32_t index) {
  const uint32_t rows = this->rows();
  label_.insert(label_.end(), weight_.begin(), weight_.end());
  const void* from[kSections] = {label_.data(), row_begin_.data(), nullptr, nullptr};
  size_t bytes[kSections] = {label_.size() * sizeof(float), 0, 0, 0};
  switch (shape_.kind) {
    case ShardKind::kSparse:
      bytes[kRowBegin] = row_begin_.size() * sizeof(uint32_t);
      from[kColumn] = wide_ ? static_cast<const void*>(wide_column_.data()) : column_.data();
      bytes[kColumn] = wide_ ? wide_column_.size() * sizeof(uint64_t) : column_.size() * sizeof(uint32_t);
      from[kValue] = value_.data();
      bytes[kValue] = unit_ ? 0 : value_.size() * sizeof(float);
      break;
    case ShardKind::kDense:
      from[kValue] = dense_.data();
      bytes[kValue] = dense_.size() * sizeof(float);
      break;
    case ShardKind::kBytes:
      from[kValue] = bytes_.data();
      bytes[kValue] = bytes_.size();
      break;
  }
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.index = index;
  header.dataset = dataset;
  header.features = shape_.features;
  header.kind = shape_.kind;
  header.rows = rows;
  header.scale = shape_.scale;
  header.wide = wide_;
  header.unit = unit_;
  size_t size = kHeaderBytes;
  for (int s = 0; s < kSections; ++s) {
    header.at[s] = size;
    header.bytes[s] = bytes[s];
    size = (size + bytes[s] + kAlignment - 1) / kAlignment * kAlignment;
  }
  header.size = size;
  auto image = Shard::Allocate(size);
  std::memset(image.get(), 0, kHeaderBytes);
  for (int s = 0; s < kSections; ++s) {
    char* to = image.get() + header.at[s];
    if (bytes[s] > 0) std::memcpy(to, from[s], bytes[s]);
    const size_t end = s + 1 < kSections ? header.at[s + 1] : size;
    std::memset(to + bytes[s], 0, end - header.at[s] - bytes[s]);
  }
  std::memcpy(image.get(), &header, sizeof(header));
  header.crc = ExtendCrc32c(0, image.get() + kCrcBegin, size - kCrcBegin);
  std::memcpy(image.get(), &header, sizeof(header));
  label_.clear();
  weight_.clear();
  row_begin_.assign(1, 0);
  column_.clear();
  wide_column_.clear();
  value_.clear();
  dense_.clear();
  bytes_.clear();
  wide_ = false;
  unit_ = true;
  return std::shared_ptr<const Shard>(new Shard(std::move(image), size));
}

}  // namespace descent
