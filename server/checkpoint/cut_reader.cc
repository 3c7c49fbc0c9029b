#include "server/checkpoint/cut_reader.h"

#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

// Fields of a CutRecord but for its marks, generously.
constexpr size_t kHeaderBytes =
    1 << 20;  // beside marks; rounds without any weight take most of it, where there are any
constexpr size_t kMarkBytes = 10;
// Where the order of pushes is recorded, of one block's. Bytes are taken only where the file has as many.
constexpr size_t kOrderBytes = size_t{1} << 30;

absl::Status Lost(absl::string_view what) { return absl::DataLossError(what); }

absl::Status Named(absl::string_view file, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
}
absl::Status LostIn(absl::string_view file, absl::string_view what) { return Named(file, Lost(what)); }

absl::Status Differs(absl::string_view what, uint64_t came, uint64_t expected) {
  return Lost(absl::StrCat(what, " ", came, ", expected ", expected));
}
std::string RunText(uint64_t run) { return absl::StrFormat("%016x", run); }

std::string BaseName(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

struct CutReader::Progress {
  std::vector<bool> seen;
  std::optional<v1::CutRecord> open;  // a slot of which further rows must follow
};

absl::StatusOr<std::unique_ptr<CutReader>> CutReader::Open(Storage* storage, const std::string& folder) {
  std::unique_ptr<CutReader> reader(new CutReader(storage, folder));
  const std::string path = absl::StrCat(folder, "/", kManifestName);
  const auto bytes = storage->ReadFile(path, kMaxManifestBytes);
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(absl::StrCat(path, ": is not there, so the cut was never committed"));
  }
  if (absl::IsOutOfRange(bytes.status())) return absl::DataLossError(bytes.status().message());
  if (!bytes.ok()) return bytes.status();
  auto manifest = DecodeManifest(*bytes);
  if (!manifest.ok()) return Named(path, manifest.status());
  reader->manifest_ = *std::move(manifest);
  auto layout = CheckManifest(reader->manifest_);
  if (!layout.ok()) return LostIn(path, layout.status().message());
  reader->layout_ = *std::move(layout);
  if (const std::string name = CutFolderName(reader->layout_.id); name != BaseName(folder)) {
    return LostIn(path, absl::StrCat("is of ", name));
  }
  if (absl::Status status = reader->LookAtFiles(); !status.ok()) {
    // NOT_FOUND means one thing here. Files that go while they are looked at are something else.
    return absl::IsNotFound(status) ? Lost(status.message()) : status;
  }
  uint64_t blocks = 0;
  for (const uint64_t n : reader->manifest_.blocks()) {
    reader->first_block_.push_back(blocks);
    blocks += n;
  }
  return reader;
}

absl::Status CutReader::LookAtFiles() const {
  absl::flat_hash_map<std::string, uint64_t> expected;
  for (const v1::PartFile& part : manifest_.part()) expected[part.name()] = part.bytes();
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> names, storage_->List(folder_));
  for (const std::string& name : names) {
    if (name == kManifestName) continue;
    const std::string path = absl::StrCat(folder_, "/", absl::CHexEscape(name));
    const auto found = expected.find(name);
    if (found == expected.end()) return LostIn(path, "is not in the manifest");
    DESCENT_ASSIGN_OR_RETURN(const uint64_t bytes, storage_->Size(absl::StrCat(folder_, "/", name)));
    if (bytes != found->second) return LostIn(path, absl::StrCat("has ", bytes, " bytes, expected ", found->second));
    expected.erase(found);
  }
  for (const v1::PartFile& part : manifest_.part()) {
    if (expected.contains(part.name())) {
      return LostIn(absl::StrCat(folder_, "/", part.name()),
                    absl::StrCat("is not there, expected ", part.bytes(), " bytes"));
    }
  }
  return absl::OkStatus();
}

std::string CutReader::NameOf(BlockId id) const {
  const TensorSpec& spec = layout_.tensors[id.tensor.value];
  return absl::StrCat(spec.sparse ? "slot " : "block ", id.index, " of tensor '", absl::CHexEscape(spec.name), "'");
}

// What a header says against what it must. It may be garbage still.
absl::Status CutReader::CheckHeader(const v1::CutRecord& header) const {
  if (header.run() != manifest_.run()) {
    return Lost(absl::StrCat("of run ", RunText(header.run()), ", expected ", RunText(manifest_.run())));
  }
  if (header.generation() != manifest_.generation()) {
    return Differs("of generation", header.generation(), manifest_.generation());
  }
  if (header.cut() != manifest_.number()) return Differs("of cut", header.cut(), manifest_.number());
  if (header.tensor() >= layout_.tensors.size()) {
    return Lost(absl::StrCat("tensor ", header.tensor(), ", expected one of ", layout_.tensors.size()));
  }
  const TensorSpec& spec = layout_.tensors[header.tensor()];
  const uint64_t blocks = manifest_.blocks(static_cast<int>(header.tensor()));
  const BlockId id{TensorId(header.tensor()), header.index()};
  if (header.index() >= blocks) return Lost(absl::StrCat(NameOf(id), ", expected one of ", blocks));
  if (header.state_slots() > kMaxStateSlots) {
    return Lost(
        absl::StrCat(NameOf(id), ": ", header.state_slots(), " optimizer vectors, expected at most ", kMaxStateSlots));
  }
  if (!spec.sparse && (header.keys() != 0 || header.more())) return Lost(absl::StrCat(NameOf(id), " has keys"));
  const uint64_t bytes = PayloadBytes(layout_, id, header.keys(), header.state_slots());
  if (header.payload_bytes() != bytes) {
    return Lost(absl::StrCat(NameOf(id), ": a payload of ", header.payload_bytes(), " bytes, expected ", bytes));
  }
  if (!layout_.apply_push && header.version() != manifest_.number()) {
    return Lost(
        absl::StrCat(NameOf(id), ": version ", header.version(), ", expected the cut's clock ", manifest_.number()));
  }
  if (static_cast<size_t>(header.mark_size()) != layout_.restart.size()) {
    return Lost(
        absl::StrCat(NameOf(id), ": marks of ", header.mark_size(), " ranks, expected ", layout_.restart.size()));
  }
  for (int r = 0; r < header.mark_size(); ++r) {
    // A mark below the clock that the rank goes on with would wait for ever for what is missing; under ROUND one above
    // it would take the rank's next contribution for a duplicate.
    const uint64_t restart = layout_.restart[r].value, mark = header.mark(r);
    if (mark < restart || (!layout_.apply_push && mark > restart)) {
      return Lost(absl::StrCat(NameOf(id), ": mark of rank ", r, " is ", mark, ", expected ",
                               layout_.apply_push ? "at least " : "", restart));
    }
  }
  return absl::OkStatus();
}

// A verified record takes its place among the others.
absl::Status CutReader::Enter(const v1::CutRecord& header, Progress* progress) const {
  const BlockId id{TensorId(header.tensor()), header.index()};
  if (progress->open.has_value()) {
    const v1::CutRecord& before = *progress->open;
    const BlockId expected{TensorId(before.tensor()), before.index()};
    if (id != expected || header.version() != before.version() || header.steps() != before.steps() ||
        header.state_slots() != before.state_slots()) {
      return Lost(
          absl::StrCat(NameOf(id), ", expected further rows of ", NameOf(expected), " at version ", before.version()));
    }
  } else {
    std::vector<bool>::reference seen = progress->seen[first_block_[header.tensor()] + header.index()];
    if (seen) return Lost(absl::StrCat(NameOf(id), " is there twice"));
    seen = true;
  }
  progress->open.reset();
  if (header.more()) progress->open = header;
  return absl::OkStatus();
}

absl::Status CutReader::ReadPart(const v1::PartFile& part, absl::FunctionRef<bool(BlockId)> wanted, Sink sink,
                                 Extent extent, Progress* progress) const {
  const std::string path = absl::StrCat(folder_, "/", part.name());
  const size_t order = absl::StrContains(manifest_.job_text(), "record_order: true") ? kOrderBytes : 0;
  auto opened = PartFileReader::Open(storage_, path, kHeaderBytes + kMarkBytes * layout_.restart.size() + order);
  if (absl::IsDataLoss(opened.status())) return Named(path, opened.status());
  if (!opened.ok()) return opened.status();
  PartFileReader& file = **opened;
  const auto in_record = [&](const absl::Status& status) {
    return LostIn(path, absl::StrCat("record ", file.records(), ": ", status.message()));
  };
  v1::CutRecord header;
  while (true) {
    const auto more = file.NextHeader(&header);
    if (absl::IsDataLoss(more.status())) return Named(path, more.status());
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (absl::Status status = CheckHeader(header); !status.ok()) return in_record(status);
    const bool want = wanted(BlockId{TensorId(header.tensor()), header.index()});
    if (!want && extent == Extent::kWanted && !progress->open.has_value()) {
      file.SkipPayload();
      continue;
    }
    const auto payload = file.TakePayload();
    if (absl::IsDataLoss(payload.status())) return Named(path, payload.status());
    if (!payload.ok()) return payload.status();
    if (absl::Status status = Enter(header, progress); !status.ok()) return in_record(status);
    if (want) DESCENT_RETURN_IF_ERROR(sink(header, *payload));
  }
  if (progress->open.has_value()) return LostIn(path, "ends where further rows of a slot were to follow");
  if (extent == Extent::kWanted) return absl::OkStatus();
  if (file.records() != part.records()) {
    return LostIn(path, absl::StrCat("has ", file.records(), " records, expected ", part.records()));
  }
  if (file.crc32c() != part.crc32c()) {
    return LostIn(path, absl::StrFormat("crc32c is %08x, expected %08x", file.crc32c(), part.crc32c()));
  }
  return absl::OkStatus();
}

absl::Status CutReader::ForEach(absl::FunctionRef<bool(BlockId)> wanted, Sink sink, Extent extent) const {
  Progress progress;
  progress.seen.resize(layout_.blocks);
  for (const v1::PartFile& part : manifest_.part()) {
    DESCENT_RETURN_IF_ERROR(ReadPart(part, wanted, sink, extent, &progress));
  }
  for (uint32_t t = 0; t < layout_.tensors.size(); ++t) {
    for (uint32_t i = 0; i < manifest_.blocks(static_cast<int>(t)); ++i) {
      const BlockId id{TensorId(t), i};
      if (!progress.seen[first_block_[t] + i] && (extent == Extent::kEverything || wanted(id))) {
        return LostIn(folder_, absl::StrCat(NameOf(id), " is in none of the part files"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CutReader::Verify() const {
  return ForEach([](BlockId) { return false; }, [](const v1::CutRecord&, const Payload&) { return absl::OkStatus(); });
}

}  // namespace descent
