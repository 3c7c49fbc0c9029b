#include "server/checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "server/checkpoint/cut_reader.h"
#include "server/checkpoint/manifest.h"

namespace descent {
namespace {

bool Newer(const Cut& a, const Cut& b) {
  return std::tie(a.id.generation, a.id.number) > std::tie(b.id.generation, b.id.number);
}

}  // namespace

CheckpointFolder::CheckpointFolder(Storage* storage, std::string path) : storage_(storage), path_(std::move(path)) {}

std::string CheckpointFolder::PathOf(absl::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, "/", name);
}

std::string CheckpointFolder::CutPath(const CutId& cut) const { return PathOf(CutFolderName(cut)); }

absl::StatusOr<Generation> CheckpointFolder::HighestGeneration() {
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> names, storage_->List(path_));
  Generation highest;
  for (const std::string& name : names) {
    if (const auto of = ParseGenerationFileName(name); of.has_value()) highest = std::max(highest, *of);
    if (const auto id = ParseCutFolderName(name); id.has_value()) highest = std::max(highest, id->generation);
  }
  return highest;
}

absl::StatusOr<Generation> CheckpointFolder::BeginGeneration(RunId run) {
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(path_));
  for (size_t end = path_.size(); !path_.empty() && end != std::string::npos; end = path_.rfind('/', end - 1)) {
    const size_t slash = path_.rfind('/', end - 1);
    DESCENT_RETURN_IF_ERROR(storage_->SyncFolder(slash == std::string::npos ? "" : path_.substr(0, slash)));
  }
  while (true) {
    DESCENT_ASSIGN_OR_RETURN(Generation next, HighestGeneration());
    if (next.value == kUnbounded) return absl::ResourceExhaustedError(absl::StrCat(path_, ": out of generations"));
    ++next;
    const absl::Status made = storage_->CreateExclusive(PathOf(GenerationFileName(next)), GenerationText(run));
    if (made.ok()) return next;
    if (!absl::IsAlreadyExists(made)) return made;  // else another coordinator was faster
  }
}

absl::Status CheckpointFolder::CheckGeneration(Generation generation) {
  DESCENT_ASSIGN_OR_RETURN(const Generation highest, HighestGeneration());
  if (highest <= generation) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("no cuts of generation ", generation.value, ": generation ", highest.value, " has begun"));
}

absl::Status CheckpointFolder::Prepare(const CutId& cut) {
  const std::string folder = CutPath(cut);
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(path_));
  DESCENT_RETURN_IF_ERROR(CheckGeneration(cut.generation));
  const auto size = storage_->Size(absl::StrCat(folder, "/", kManifestName));
  if (size.ok()) return absl::AlreadyExistsError(absl::StrCat(folder, ": is committed"));
  if (!absl::IsNotFound(size.status())) return size.status();
  DESCENT_RETURN_IF_ERROR(storage_->Remove(folder));
  DESCENT_RETURN_IF_ERROR(storage_->MakeFolder(folder));
  return storage_->SyncFolder(path_);
}

absl::Status CheckpointFolder::Commit(const v1::CutManifest& manifest) {
  DESCENT_ASSIGN_OR_RETURN(const CutLayout layout, CheckManifest(manifest));
  DESCENT_RETURN_IF_ERROR(CheckGeneration(layout.id.generation));
  const std::string folder = CutPath(layout.id);
  const std::string temporary = absl::StrCat(folder, "/", kManifestTemporaryName);
  DESCENT_RETURN_IF_ERROR(storage_->Remove(temporary));
  DESCENT_ASSIGN_OR_RETURN(std::vector<std::string> names, storage_->List(folder));
  if (std::find(names.begin(), names.end(), kManifestName) != names.end()) {
    return absl::AlreadyExistsError(absl::StrCat(folder, ": is committed"));
  }
  for (const v1::PartFile& part : manifest.part()) {
    const std::string path = absl::StrCat(folder, "/", part.name());
    const auto found = std::find(names.begin(), names.end(), part.name());
    if (found == names.end()) {
      return absl::FailedPreconditionError(absl::StrCat(
          path, ": is not there, though its server has finished it: do all of them write to this folder?"));
    }
    names.erase(found);
    DESCENT_ASSIGN_OR_RETURN(const uint64_t bytes, storage_->Size(path));
    if (bytes != part.bytes()) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": has ", bytes, " bytes, but its server has written ", part.bytes()));
    }
  }
  if (!names.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(folder, "/", names[0], ": is not in the manifest"));
  }
  {
    DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, storage_->Create(temporary));
    DESCENT_RETURN_IF_ERROR(file->Append(EncodeManifest(manifest)));
    DESCENT_RETURN_IF_ERROR(file->Sync());
    DESCENT_RETURN_IF_ERROR(file->Close());
  }
  // The names of the parts, too, are to last before that of the manifest.
  DESCENT_RETURN_IF_ERROR(storage_->SyncFolder(folder));
  DESCENT_RETURN_IF_ERROR(storage_->Rename(temporary, absl::StrCat(folder, "/", kManifestName)));
  return storage_->SyncFolder(folder);
}

Cut CheckpointFolder::LookAt(const std::string& name, const CutId& id) {
  Cut cut;
  cut.name = name;
  cut.id = id;
  const auto reader = CutReader::Open(storage_, PathOf(name));
  cut.status = reader.status();
  cut.committed = !absl::IsNotFound(reader.status());
  if (reader.ok()) {
    cut.manifest = (*reader)->manifest();
    cut.id = (*reader)->layout().id;
  }
  return cut;
}

absl::StatusOr<std::vector<Cut>> CheckpointFolder::List() {
  const auto names = storage_->List(path_);
  if (absl::IsNotFound(names.status())) return std::vector<Cut>();
  if (!names.ok()) return names.status();
  std::vector<Cut> cuts;
  for (const std::string& name : *names) {
    if (const auto id = ParseCutFolderName(name); id.has_value()) cuts.push_back(LookAt(name, *id));
  }
  std::sort(cuts.begin(), cuts.end(), Newer);
  return cuts;
}

absl::Status CheckpointFolder::Verify(const Cut& cut) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> reader, CutReader::Open(storage_, PathOf(cut.name)));
  return reader->Verify();
}

absl::StatusOr<NewestCut> CheckpointFolder::FindNewestGood(std::optional<RunId> run,
                                                           std::optional<uint64_t> job_fingerprint,
                                                           std::optional<uint64_t> number) {
  DESCENT_ASSIGN_OR_RETURN(std::vector<Cut> cuts, List());
  if (number.has_value()) std::erase_if(cuts, [&](const Cut& cut) { return cut.id.number != *number; });
  NewestCut found;
  for (Cut& cut : cuts) {
    const auto other = [&](absl::string_view what, uint64_t came, uint64_t expected) {
      return absl::FailedPreconditionError(
          absl::StrFormat("%s: is of %s %016x, expected %016x", PathOf(cut.name), what, came, expected));
    };
    if (cut.status.ok() && run.has_value() && cut.id.run != *run)
      cut.status = other("run", cut.id.run.value, run->value);
    if (cut.status.ok() && job_fingerprint.has_value() && cut.manifest.job_fingerprint() != *job_fingerprint) {
      cut.status = other("the job with fingerprint", cut.manifest.job_fingerprint(), *job_fingerprint);
    }
    if (cut.status.ok()) cut.status = Verify(cut);
    if (cut.status.ok()) {
      found.good = std::move(cut);
      break;
    }
    found.bad.push_back(std::move(cut));
  }
  return found;
}

}  // namespace descent
