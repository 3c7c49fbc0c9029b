#include "worker/data/dataset_cache.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"
#include "common/files/file.h"

namespace descent {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::string_view kHead = "descent data set 2";
constexpr absl::string_view kBuilding = ".building";

// Any text as one word.
std::string Word(absl::string_view text) { return absl::StrCat("x", absl::BytesToHexString(text)); }
bool ReadWord(absl::string_view word, std::string* text) {
  if (!absl::ConsumePrefix(&word, "x") || word.size() % 2 != 0) return false;
  *text = absl::HexStringToBytes(word);
  return true;
}

bool ReadColumn(absl::string_view line, DataColumn* column) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  uint32_t kind = 0;
  if (words.size() < 2 || !absl::SimpleAtoi(words[0], &kind) || kind > 2 || !ReadWord(words[1], &column->name)) {
    return false;
  }
  column->kind = static_cast<DataColumn::Kind>(kind);
  for (size_t i = 2; i < words.size(); ++i) {
    if (!ReadWord(words[i], &column->categories.emplace_back())) return false;
  }
  return true;
}

std::string ManifestText(const DatasetManifest& manifest, absl::string_view description) {
  std::string text = absl::StrCat(kHead, "\n", static_cast<uint32_t>(manifest.shape.kind), " ", manifest.shape.features,
                                  " ", std::bit_cast<uint32_t>(manifest.shape.scale), " ", manifest.files.size(), " ",
                                  manifest.shards.size(), " ", manifest.columns.size(), "\n");
  for (const DataFileInfo& file : manifest.files) {
    absl::StrAppend(&text, file.bytes, " ", file.rows, " ", file.crc32c, "\n");
  }
  for (const DatasetManifest::Shard& shard : manifest.shards) {
    absl::StrAppend(&text, shard.rows, " ", shard.bytes, " ", shard.crc32c, "\n");
  }
  for (const DataColumn& column : manifest.columns) {
    absl::StrAppend(&text, static_cast<int>(column.kind), " ", Word(column.name));
    for (const std::string& category : column.categories) absl::StrAppend(&text, " ", Word(category));
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(&text, description, "\n");
  absl::StrAppend(&text, absl::Hex(Crc32c(text), absl::kZeroPad8), "\n");
  return text;
}

// Of a text that ManifestText wrote, told by its checksum.
absl::StatusOr<DatasetManifest> ParseManifest(absl::string_view text, absl::string_view description) {
  const absl::Status bad = absl::NotFoundError("no whole manifest");
  constexpr size_t kSum = 9;  // eight digits and a line end
  uint32_t crc = 0;
  if (text.size() < kSum || !absl::SimpleHexAtoi(text.substr(text.size() - kSum, 8), &crc) ||
      crc != Crc32c(text.substr(0, text.size() - kSum))) {
    return bad;
  }
  text.remove_suffix(kSum);
  if (!absl::ConsumeSuffix(&text, absl::StrCat("\n", description, "\n"))) return bad;
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  std::vector<std::vector<uint64_t>> numbers;
  DatasetManifest manifest;
  for (size_t i = 1; i < lines.size(); ++i) {
    // The first line says how many lines there are of each kind.
    if (i > 1 && numbers[0].size() == 6 && i > 1 + numbers[0][3] + numbers[0][4]) {
      if (!ReadColumn(lines[i], &manifest.columns.emplace_back())) return bad;
      continue;
    }
    std::vector<uint64_t>& line = numbers.emplace_back();
    for (const absl::string_view word : absl::StrSplit(lines[i], ' ')) {
      if (!absl::SimpleAtoi(word, &line.emplace_back())) return bad;
    }
  }
  if (lines[0] != kHead || numbers.empty() || numbers[0].size() != 6) return bad;
  const uint64_t files = numbers[0][3];
  if (numbers.size() != 1 + files + numbers[0][4] || manifest.columns.size() != numbers[0][5]) return bad;
  manifest.shape.kind = static_cast<ShardKind>(numbers[0][0]);
  manifest.shape.features = numbers[0][1];
  manifest.shape.scale = std::bit_cast<float>(static_cast<uint32_t>(numbers[0][2]));
  for (size_t i = 1; i < numbers.size(); ++i) {
    if (numbers[i].size() != 3) return bad;
    if (i <= files) {
      manifest.files.push_back({"", numbers[i][0], numbers[i][1], static_cast<uint32_t>(numbers[i][2])});
    } else {
      manifest.shards.push_back(
          {static_cast<uint32_t>(numbers[i][0]), numbers[i][1], static_cast<uint32_t>(numbers[i][2])});
    }
  }
  return manifest;
}

absl::Status WriteShard(const std::string& path, const Shard& shard) {
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC));
  // Not synced: what a power cut damages, the checksum tells.
  DESCENT_RETURN_IF_ERROR(WriteFully(fd.get(), shard.bytes().data(), shard.bytes().size(), path));
  if (::close(fd.Release()) != 0) return ErrnoStatus(errno, path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> DatasetCache::Prepare(const std::string& folder) {
  for (const char* part : {"files", "locks", "sets"}) DESCENT_RETURN_IF_ERROR(MakeDirs(JoinPath(folder, part)));
  return JoinPath(folder, "files");
}

uint64_t DatasetCache::IdOf(absl::string_view description) {
  uint64_t id = description.size();
  for (const char c : description) id = HashKey(id ^ static_cast<unsigned char>(c));
  return id;
}

DatasetCache::DatasetCache(std::string folder, std::string description, uint64_t budget_bytes)
    : folder_(std::move(folder)),
      description_(std::move(description)),
      budget_bytes_(budget_bytes),
      id_(IdOf(description_)) {}

absl::StatusOr<std::unique_ptr<DatasetCache>> DatasetCache::Open(const std::string& folder,
                                                                 const std::string& description,
                                                                 uint64_t budget_bytes) {
  auto cache = absl::WrapUnique(new DatasetCache(folder, description, budget_bytes));
  DESCENT_ASSIGN_OR_RETURN(cache->in_use_, FileLock::Acquire(absl::StrCat(folder, "/locks/", cache->Name(), ".use"),
                                                             FileLock::Kind::kShared, kPatience));
  return cache;
}

std::string DatasetCache::Name() const { return absl::StrCat(absl::Hex(id_, absl::kZeroPad16)); }
std::string DatasetCache::Building() const { return absl::StrCat(folder_, "/sets/", Name(), kBuilding); }

std::string DatasetCache::ShardPath(uint32_t index) const {
  return absl::StrFormat("%s/sets/%s/%06d.shard", folder_, Name(), index);
}

absl::StatusOr<DatasetManifest> DatasetCache::Load() const {
  const std::string path = absl::StrCat(folder_, "/sets/", Name(), "/manifest");
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return absl::NotFoundError(text.status().message());
  DESCENT_ASSIGN_OR_RETURN(DatasetManifest manifest, ParseManifest(*text, description_));
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // when it was last opened
  return manifest;
}

absl::StatusOr<std::shared_ptr<const Shard>> DatasetCache::ReadShard(uint32_t index) const {
  return Shard::FromFile(ShardPath(index), id_, index);
}

absl::StatusOr<std::unique_ptr<FileLock>> DatasetCache::LockBuild() const {
  return FileLock::Acquire(absl::StrCat(folder_, "/locks/", Name(), ".build"), FileLock::Kind::kExclusive, kPatience);
}

absl::Status DatasetCache::BeginBuild() {
  own_bytes_ = others_bytes_ = 0;
  others_.clear();
  DESCENT_RETURN_IF_ERROR(RemoveTree(Building()));
  const std::string sets = JoinPath(folder_, "sets");
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(sets));
  for (const std::string& name : names) {
    if (name == Name()) continue;
    const std::string set = JoinPath(sets, name);
    Other other = {0, name, 0};
    const absl::StatusOr<std::vector<std::string>> parts = ListFolder(set);
    if (!parts.ok()) continue;  // evicted meanwhile
    for (const std::string& part : *parts) {
      const absl::StatusOr<FileIdentity> identity = IdentifyFile(JoinPath(set, part));
      if (!identity.ok()) continue;
      other.bytes += identity->bytes;
      if (part == "manifest") other.used = identity->modified;
    }
    others_bytes_ += other.bytes;
    others_.push_back(std::move(other));
  }
  std::sort(others_.begin(), others_.end(),
            [](const Other& a, const Other& b) { return a.used != b.used ? a.used > b.used : a.name < b.name; });
  return MakeDirs(Building());
}

bool DatasetCache::Evict(const std::string& name) const {
  const bool building = absl::EndsWith(name, kBuilding);
  const std::string lock =
      building ? absl::StrCat(absl::StripSuffix(name, kBuilding), ".build") : absl::StrCat(name, ".use");
  const auto held =
      FileLock::Acquire(absl::StrCat(folder_, "/locks/", lock), FileLock::Kind::kExclusive, absl::ZeroDuration());
  if (!held.ok()) return false;
  const std::string set = absl::StrCat(folder_, "/sets/", name);
  return RemoveTree(absl::StrCat(set, "/manifest")).ok() && RemoveTree(set).ok();
}

absl::Status DatasetCache::MakeRoom() {
  while (others_bytes_ + own_bytes_ > budget_bytes_ && !others_.empty()) {
    if (Evict(others_.back().name)) others_bytes_ -= others_.back().bytes;
    others_.pop_back();
  }
  if (others_bytes_ + own_bytes_ <= budget_bytes_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      folder_, ": over its budget of ", budget_bytes_, " bytes (data.cache_bytes)",
      others_bytes_ > 0 ? absl::StrCat(", of which data sets in use have ", others_bytes_) : std::string()));
}

absl::Status DatasetCache::Put(uint32_t index, const Shard& shard) {
  own_bytes_ += shard.bytes().size();
  DESCENT_RETURN_IF_ERROR(MakeRoom());
  return WriteShard(absl::StrFormat("%s/%06d.shard", Building(), index), shard);
}

absl::Status DatasetCache::Commit(const DatasetManifest& manifest) {
  DESCENT_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(Building(), "manifest"), ManifestText(manifest, description_)));
  const std::string set = absl::StrCat(folder_, "/sets/", Name());
  DESCENT_RETURN_IF_ERROR(RemoveTree(set));
  if (::rename(Building().c_str(), set.c_str()) != 0) return ErrnoStatus(errno, set);
  return absl::OkStatus();
}

void DatasetCache::AbandonBuild() { RemoveTree(Building()).IgnoreError(); }

absl::Status DatasetCache::ReplaceShard(uint32_t index, const Shard& shard) {
  const std::string path = ShardPath(index);
  const std::string fresh = path + ".new";
  DESCENT_RETURN_IF_ERROR(WriteShard(fresh, shard));
  if (::rename(fresh.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, path);
  return absl::OkStatus();
}

}  // namespace descent
