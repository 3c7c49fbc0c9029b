#include "cli/inspect.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "cli/status_text.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/storage/storage.h"

namespace descent {
namespace {

using Json = nlohmann::ordered_json;

// A manifest that was not read has no format.
bool HasManifest(const Cut& cut) { return cut.manifest.format() != 0; }

uint64_t BlocksOf(const Cut& cut) {
  uint64_t blocks = 0;
  for (const uint64_t n : cut.manifest.blocks()) blocks += n;
  return blocks;
}

uint64_t BytesOf(const Cut& cut) {
  uint64_t bytes = 0;
  for (const v1::PartFile& part : cut.manifest.part()) bytes += part.bytes();
  return bytes;
}

std::pair<uint64_t, uint64_t> ClocksOf(const Cut& cut) {
  const auto& clocks = cut.manifest.restart_clock();
  const auto [least, most] = std::minmax_element(clocks.begin(), clocks.end());
  return {*least, *most};
}

std::string ClockText(const Cut& cut) {
  const auto [least, most] = ClocksOf(cut);
  return least == most ? absl::StrCat(least) : absl::StrCat(least, "-", most);
}

}  // namespace

bool Inspection::good() const {
  return !cuts.empty() && std::all_of(cuts.begin(), cuts.end(), [](const Cut& cut) { return cut.status.ok(); });
}

absl::StatusOr<Inspection> InspectCheckpoints(const std::string& path) {
  std::error_code error;
  // Without symbolic links, "." and "..", so that the name of a cut's folder shows.
  const std::filesystem::path place = std::filesystem::canonical(path, error);
  if (error) return ErrnoStatus(error.value(), path);
  if (!std::filesystem::is_directory(place, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a file, not a folder"));
  }
  const std::string name = place.filename().string();
  const bool one = ParseCutFolderName(name).has_value();
  Inspection inspection;
  inspection.folder = path;
  std::filesystem::path root = one ? place.parent_path() : place;
  if (!one && std::filesystem::is_directory(place / "checkpoints", error)) {
    root = place / "checkpoints";
    inspection.folder = JoinPath(path, "checkpoints");
  }
  const std::unique_ptr<Storage> storage = MakePosixStorage(root.string());
  CheckpointFolder folder(storage.get());
  DESCENT_ASSIGN_OR_RETURN(std::vector<Cut> cuts, folder.List());
  for (Cut& cut : cuts) {
    if (one && cut.name != name) continue;
    if (!one && !cut.committed) {
      inspection.uncommitted.push_back(cut.name);
      continue;
    }
    if (cut.status.ok()) cut.status = folder.Verify(cut);
    inspection.cuts.push_back(std::move(cut));
  }
  return inspection;
}

std::string InspectionText(const Inspection& inspection) {
  std::string out = absl::StrCat(Printable(inspection.folder), "\n");
  if (inspection.cuts.empty()) absl::StrAppend(&out, "  no checkpoints\n");
  for (const Cut& cut : inspection.cuts) {
    absl::StrAppendFormat(&out, "  %s  %s", cut.name, cut.status.ok() ? "good" : "BAD");
    if (HasManifest(cut)) {
      const absl::Time created = absl::FromUnixMicros(cut.manifest.created_unix_micros());
      absl::StrAppendFormat(&out, "  number %u, generation %u, clock %s, %u blocks, %s from %d servers, %s",
                            cut.id.number, cut.id.generation.value, ClockText(cut), BlocksOf(cut),
                            Bytes(static_cast<double>(BytesOf(cut))), cut.manifest.part_size(),
                            absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", created, absl::UTCTimeZone()));
      if (!cut.manifest.metric_name().empty()) {
        absl::StrAppendFormat(&out, ", %s %.6g", Printable(cut.manifest.metric_name()), cut.manifest.metric());
      }
    }
    absl::StrAppend(&out, "\n");
    if (!cut.status.ok()) absl::StrAppend(&out, "    ", Printable(cut.status.message()), "\n");
  }
  for (const std::string& name : inspection.uncommitted) {
    absl::StrAppend(&out, "  ", name, "  not committed: being made, or given up\n");
  }
  return out;
}

std::string InspectionJson(const Inspection& inspection) {
  Json json;
  json["folder"] = inspection.folder;
  json["good"] = inspection.good();
  json["cuts"] = Json::array();
  for (const Cut& cut : inspection.cuts) {
    Json entry;
    entry["name"] = cut.name;
    entry["number"] = cut.id.number;
    entry["generation"] = cut.id.generation.value;
    entry["good"] = cut.status.ok();
    if (!cut.status.ok()) entry["reason"] = std::string(cut.status.message());
    if (HasManifest(cut)) {
      const auto [least, most] = ClocksOf(cut);
      entry["run"] = absl::StrFormat("%016x", cut.manifest.run());
      entry["job_fingerprint"] = absl::StrFormat("%016x", cut.manifest.job_fingerprint());
      entry["apply"] = cut.manifest.apply() == v1::PUSH ? "PUSH" : "ROUND";
      entry["ranks"] = cut.manifest.restart_clock_size();
      entry["least_clock"] = least;
      entry["most_clock"] = most;
      entry["blocks"] = BlocksOf(cut);
      entry["bytes"] = BytesOf(cut);
      entry["servers"] = cut.manifest.part_size();
      entry["time"] = static_cast<double>(cut.manifest.created_unix_micros()) / 1e6;
      if (!cut.manifest.metric_name().empty()) {
        entry["metric_name"] = cut.manifest.metric_name();
        // A number that JSON does not have is null.
        entry["metric"] = cut.manifest.metric();
      }
    }
    json["cuts"].push_back(std::move(entry));
  }
  json["not_committed"] = inspection.uncommitted;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace descent
