#include "common/wire/read_vector.h"

#include "absl/strings/str_cat.h"
#include "common/wire/varint.h"

namespace descent {

std::optional<uint64_t> ReadVector::VersionOf(BlockId slot) const {
  const auto it =
      std::lower_bound(slots.begin(), slots.end(), slot, [](const Slot& s, BlockId wanted) { return s.id < wanted; });
  return it == slots.end() || it->id != slot ? std::nullopt : std::optional<uint64_t>(it->version);
}

std::string EncodeRead(const ReadVector& read) {
  std::string runs;
  uint64_t count = 0, before = 0;
  for (size_t i = 0; i < read.dense.size(); ++count) {
    size_t end = i + 1;
    while (end < read.dense.size() && read.dense[end] == read.dense[i]) ++end;
    PutVarint(end - i, &runs);
    PutDelta(before, read.dense[i], &runs);
    before = read.dense[i];
    i = end;
  }
  std::string out;
  PutVarint(count, &out);
  out += runs;
  PutVarint(read.slots.size(), &out);
  ReadVector::Slot last;
  for (const ReadVector::Slot& slot : read.slots) {
    if (slot.id.tensor != last.id.tensor) last.id.index = 0;
    PutDelta(last.id.tensor.value, slot.id.tensor.value, &out);
    PutDelta(last.id.index, slot.id.index, &out);
    PutDelta(last.version, slot.version, &out);
    PutDelta(last.steps, slot.steps, &out);
    last = slot;
  }
  return out;
}

absl::StatusOr<ReadVector> DecodeRead(absl::string_view bytes, uint64_t most) {
  const auto malformed = [](size_t at, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("read vector: byte ", at, ": ", what));
  };
  VarintReader reader(bytes);
  ReadVector out;
  uint64_t runs = 0, version = 0;
  if (!reader.Get(&runs)) return malformed(reader.at(), "no number of runs");
  for (uint64_t i = 0; i < runs; ++i) {
    uint64_t length = 0;
    if (!reader.Get(&length) || !reader.GetDelta(&version)) return malformed(reader.at(), "a run is cut off");
    if (length == 0 || length > most - out.dense.size()) {
      return malformed(reader.at(), absl::StrCat("a run of ", length, " blocks after ", out.dense.size()));
    }
    out.dense.insert(out.dense.end(), length, version);
  }
  uint64_t slots = 0;
  if (!reader.Get(&slots)) return malformed(reader.at(), "no number of slots");
  uint64_t tensor = 0, index = 0;
  ReadVector::Slot slot;
  for (uint64_t i = 0; i < slots; ++i) {
    const uint64_t table = tensor;
    if (!reader.GetDelta(&tensor)) return malformed(reader.at(), "a slot is cut off");
    if (tensor != table) index = 0;
    if (!reader.GetDelta(&index) || !reader.GetDelta(&slot.version) || !reader.GetDelta(&slot.steps)) {
      return malformed(reader.at(), "a slot is cut off");
    }
    if (tensor > UINT32_MAX || index > UINT32_MAX) return malformed(reader.at(), "a slot that cannot be");
    const BlockId id{TensorId(static_cast<uint32_t>(tensor)), static_cast<uint32_t>(index)};
    if (i > 0 && id <= slot.id) return malformed(reader.at(), "slots that do not ascend");
    slot.id = id;
    out.slots.push_back(slot);
  }
  if (!reader.done()) return malformed(reader.at(), "more bytes than it has");
  return out;
}

uint32_t ReadDigest(absl::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return static_cast<uint32_t>(hash ^ (hash >> 32));
}

}  // namespace descent
