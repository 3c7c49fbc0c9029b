#include "server/checkpoint/manifest.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/files/crc32c.h"

namespace descent {
namespace {

constexpr absl::string_view kMagic = "DESCMF01";
constexpr size_t kFront = 8 + sizeof(uint64_t);
constexpr size_t kAround = kFront + sizeof(uint32_t);
constexpr uint64_t kMaxModelBytes = uint64_t{1} << 50;
constexpr uint64_t kLeastRecordBytes = 8;  // length and checksum

template <typename Int>
void AppendInt(Int value, std::string* out) {
  char bytes[sizeof(Int)];
  std::memcpy(bytes, &value, sizeof(Int));
  out->append(bytes, sizeof(Int));
}
template <typename Int>
Int ReadInt(absl::string_view bytes, size_t at) {
  Int value;
  std::memcpy(&value, bytes.data() + at, sizeof(Int));
  return value;
}

absl::Status Senseless(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::Status CheckRestart(const v1::CutManifest& manifest, CutLayout* layout) {
  if (manifest.restart_clock().empty()) return Senseless("restart_clock: there are no ranks");
  for (int r = 0; r < manifest.restart_clock_size(); ++r) {
    const uint64_t clock = manifest.restart_clock(r);
    if (!layout->apply_push && clock != manifest.number()) {
      return Senseless(
          absl::StrCat("restart_clock of rank ", r, " is ", clock, ", expected the cut's clock ", manifest.number()));
    }
    layout->restart.push_back(Clock(clock));
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const v1::CutManifest& manifest, CutLayout* layout) {
  DESCENT_ASSIGN_OR_RETURN(layout->tensors, SpecsFromMessage(manifest.tensor()));
  DESCENT_RETURN_IF_ERROR(ValidateSpecs(layout->tensors, kMaxModelBytes));
  layout->geometry = Geometry{manifest.block_elements(), manifest.slots()};
  if (manifest.block_elements() == 0) return Senseless("block_elements is 0");
  if (manifest.slots() == 0 || (manifest.slots() & (manifest.slots() - 1)) != 0) {
    return Senseless(absl::StrCat("slots is ", manifest.slots(), ", expected a power of two"));
  }
  if (manifest.blocks_size() != manifest.tensor_size()) {
    return Senseless(
        absl::StrCat("blocks of ", manifest.blocks_size(), " tensors, but there are ", manifest.tensor_size()));
  }
  for (int t = 0; t < manifest.blocks_size(); ++t) {
    const TensorSpec& spec = layout->tensors[t];
    if (!spec.sparse && (spec.elements() - 1) / manifest.block_elements() >= std::numeric_limits<uint32_t>::max()) {
      return Senseless(absl::StrCat("tensor ", Describe(spec), " has too many blocks"));
    }
    const uint64_t expected = layout->geometry.blocks(spec);
    if (manifest.blocks(t) != expected) {
      return Senseless(
          absl::StrCat("blocks of tensor ", Describe(spec), ": ", manifest.blocks(t), ", expected ", expected));
    }
    layout->blocks += expected;
  }
  return absl::OkStatus();
}

absl::Status CheckParts(const v1::CutManifest& manifest, const CutLayout& layout) {
  absl::flat_hash_set<std::string> names;
  uint64_t records = 0;
  for (const v1::PartFile& part : manifest.part()) {
    if (!ParsePartFileName(part.name()).has_value()) {
      return Senseless(absl::StrCat("part '", absl::CHexEscape(part.name()), "': expected server-<id>.part"));
    }
    if (!names.insert(part.name()).second) return Senseless(absl::StrCat("part ", part.name(), " is listed twice"));
    if (part.records() > part.bytes() / kLeastRecordBytes) {
      return Senseless(
          absl::StrCat("part ", part.name(), ": ", part.records(), " records in ", part.bytes(), " bytes"));
    }
    if (__builtin_add_overflow(records, part.records(), &records)) return Senseless("too many records");
  }
  // So that what is kept per block is bounded by the size of the files.
  if (records < layout.blocks) {
    return Senseless(
        absl::StrCat("the parts have ", records, " records, but the model has ", layout.blocks, " blocks and slots"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeManifest(const v1::CutManifest& manifest) {
  const std::string message = manifest.SerializeAsString();
  DESCENT_CHECK(message.size() + kAround <= kMaxManifestBytes);
  std::string bytes(kMagic);
  AppendInt<uint64_t>(message.size(), &bytes);
  bytes += message;
  AppendInt<uint32_t>(Crc32c(bytes), &bytes);
  return bytes;
}

absl::StatusOr<v1::CutManifest> DecodeManifest(absl::string_view bytes) {
  if (bytes.size() < kAround) {
    return absl::DataLossError(absl::StrCat("has ", bytes.size(), " bytes, expected at least ", kAround));
  }
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError(
        absl::StrCat("begins with '", absl::CHexEscape(bytes.substr(0, kMagic.size())), "', expected '", kMagic, "'"));
  }
  const auto length = ReadInt<uint64_t>(bytes, kMagic.size());
  if (length != bytes.size() - kAround) {
    return absl::DataLossError(absl::StrCat("has ", bytes.size() - kAround, " bytes of message, expected ", length));
  }
  const auto expected = ReadInt<uint32_t>(bytes, bytes.size() - sizeof(uint32_t));
  const uint32_t crc = Crc32c(bytes.substr(0, bytes.size() - sizeof(uint32_t)));
  if (crc != expected) {
    return absl::DataLossError(absl::StrFormat("crc32c is %08x, expected %08x", crc, expected));
  }
  v1::CutManifest manifest;
  if (!manifest.ParseFromArray(bytes.data() + kFront, static_cast<int>(length))) {
    return absl::DataLossError("is no descent.v1.CutManifest");
  }
  return manifest;
}

absl::StatusOr<CutLayout> CheckManifest(const v1::CutManifest& manifest) {
  if (manifest.format() != kCutFormat) {
    return Senseless(absl::StrCat("format ", manifest.format(), ", expected ", kCutFormat));
  }
  CutLayout layout;
  layout.id = CutId{RunId(manifest.run()), Generation(manifest.generation()), manifest.number()};
  if (!v1::Apply_IsValid(manifest.apply())) {
    return Senseless(absl::StrCat("apply ", static_cast<int>(manifest.apply()), ": expected 0 (ROUND) or 1 (PUSH)"));
  }
  layout.apply_push = manifest.apply() == v1::PUSH;
  DESCENT_RETURN_IF_ERROR(CheckRestart(manifest, &layout));
  DESCENT_RETURN_IF_ERROR(CheckModel(manifest, &layout));
  DESCENT_RETURN_IF_ERROR(CheckParts(manifest, layout));
  return layout;
}

uint64_t PayloadBytes(const CutLayout& layout, BlockId id, uint32_t keys, uint32_t state_slots) {
  DESCENT_CHECK(state_slots <= kMaxStateSlots);
  const TensorSpec& spec = layout.tensors[id.tensor.value];
  const uint64_t vectors = 1 + uint64_t{state_slots};
  if (spec.sparse) return keys * (sizeof(uint64_t) + vectors * spec.dim() * sizeof(float));
  return layout.geometry.block_size(spec, id.index) * vectors * sizeof(float);
}

}  // namespace descent
