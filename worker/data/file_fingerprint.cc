#include "worker/data/file_fingerprint.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/files/crc32c.h"
#include "common/files/file.h"
#include "common/tensor/tensor_spec.h"

namespace descent {
namespace {

// A file changed so shortly after it was read may keep all its times: file systems count them in ticks.
constexpr absl::Duration kSettled = absl::Seconds(2);

std::string Absolute(const std::string& path) {
  std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  return real != nullptr ? std::string(real.get()) : path;
}

std::string MemoryFile(const std::string& folder, const std::string& absolute) {
  uint64_t hash = absolute.size();
  for (const char c : absolute) hash = HashKey(hash ^ static_cast<unsigned char>(c));
  return absl::StrCat(folder, "/", absl::Hex(hash, absl::kZeroPad16));
}

std::string Describe(const FileIdentity& identity, const std::string& absolute) {
  return absl::StrCat(identity.bytes, " ", identity.modified, " ", identity.changed, " ", identity.inode, " ",
                      identity.device, " ", absolute);
}

}  // namespace

absl::StatusOr<FileFingerprint> FingerprintFile(const std::string& path, const std::string& name,
                                                const std::string& memory_folder) {
  absl::StatusOr<FileDescriptor> fd = OpenFile(path, O_RDONLY);
  if (absl::IsNotFound(fd.status())) {
    return absl::NotFoundError(absl::StrCat(name, ": no such file (looked for ", path, ")"));
  }
  if (!fd.ok()) return fd.status();
  DESCENT_ASSIGN_OR_RETURN(const FileIdentity identity, IdentifyFile(path));
  const std::string absolute = Absolute(path);
  const std::string memory = MemoryFile(memory_folder, absolute);
  const std::string description = Describe(identity, absolute);
  FileFingerprint fingerprint;
  if (!memory_folder.empty()) {
    if (const auto text = ReadFile(memory); text.ok()) {
      const std::vector<absl::string_view> parts = absl::StrSplit(*text, absl::MaxSplits('\n', 1));
      if (parts.size() == 2 && parts[1] == description && absl::SimpleHexAtoi(parts[0], &fingerprint.crc32c)) {
        fingerprint.bytes = identity.bytes;
        return fingerprint;
      }
    }
  }
  std::vector<char> buffer(1 << 20);
  fingerprint = {};
  while (true) {
    DESCENT_ASSIGN_OR_RETURN(const size_t n, ReadUpTo(fd->get(), buffer.data(), buffer.size(), name));
    fingerprint.crc32c = ExtendCrc32c(fingerprint.crc32c, buffer.data(), n);
    fingerprint.bytes += n;
    if (n < buffer.size()) break;
  }
  const absl::Time newest = absl::FromUnixNanos(std::max(identity.modified, identity.changed));
  if (!memory_folder.empty() && fingerprint.bytes == identity.bytes && absl::Now() - newest > kSettled) {
    // Best effort: without it the file is read again next time.
    WriteFileAtomically(memory, absl::StrCat(absl::Hex(fingerprint.crc32c, absl::kZeroPad8), "\n", description))
        .IgnoreError();
  }
  return fingerprint;
}

}  // namespace descent
