// CheckpointFolder::Prune: which cuts go, and how.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "server/checkpoint/checkpoint_folder.h"

namespace descent {
namespace {

constexpr uint64_t kMostGenerationBytes = 1024;

// Names of the best of these, newest first among equals.
std::vector<std::string> Best(const std::vector<const Cut*>& cuts, uint32_t keep, bool higher_is_better) {
  std::string metric;
  std::vector<const Cut*> rated;
  for (const Cut* cut : cuts) {
    if (metric.empty()) metric = cut->manifest.metric_name();
    if (metric.empty() || cut->manifest.metric_name() != metric || std::isnan(cut->manifest.metric())) continue;
    rated.push_back(cut);
  }
  std::stable_sort(rated.begin(), rated.end(), [&](const Cut* a, const Cut* b) {
    return higher_is_better ? a->manifest.metric() > b->manifest.metric() : a->manifest.metric() < b->manifest.metric();
  });
  std::vector<std::string> names;
  for (size_t i = 0; i < rated.size() && i < keep; ++i) names.push_back(rated[i]->name);
  return names;
}

}  // namespace

// Names of good cuts that are to go.
absl::StatusOr<std::vector<std::string>> CheckpointFolder::Surplus(const std::vector<Cut>& cuts,
                                                                   const PruneOptions& options) {
  std::vector<const Cut*> good;
  for (const Cut& cut : cuts) {
    if (cut.status.ok()) good.push_back(&cut);
  }
  absl::flat_hash_set<std::string> keep;
  for (size_t i = 0; i < good.size(); ++i) {
    if (i < options.keep_last || good[i]->id.generation > options.generation) keep.insert(good[i]->name);
  }
  for (std::string& name : Best(good, options.keep_best, options.higher_is_better)) keep.insert(std::move(name));
  for (const Cut* cut : good) {
    if (!keep.contains(cut->name)) continue;
    for (const uint64_t number : cut->manifest.needs_cut()) {
      const auto needed =
          std::find_if(good.begin(), good.end(), [&](const Cut* other) { return other->id.number == number; });
      if (needed != good.end()) keep.insert((*needed)->name);
    }
  }
  if (keep.size() == good.size()) return std::vector<std::string>();
  // What looks good may have bytes that are not. Something good must stay.
  for (const Cut* cut : good) {
    if (cut->name != verified_ && !Verify(*cut).ok()) {
      keep.insert(cut->name);  // damaged: for people to look at
      continue;
    }
    verified_ = cut->name;
    keep.insert(cut->name);
    break;
  }
  std::vector<std::string> surplus;
  for (const Cut* cut : good) {
    if (!keep.contains(cut->name)) surplus.push_back(cut->name);
  }
  return surplus;
}

bool CheckpointFolder::IsOf(const Cut& cut, RunId run) {
  if (cut.status.ok()) return cut.id.run == run;
  const auto text = storage_->ReadFile(PathOf(GenerationFileName(cut.id.generation)), kMostGenerationBytes);
  return text.ok() && *text == GenerationText(run);
}

absl::Status CheckpointFolder::RemoveCut(const Cut& cut) {
  const std::string folder = PathOf(cut.name);
  if (cut.committed) {
    // First what makes it a cut, so that a crash leaves no half of one.
    DESCENT_RETURN_IF_ERROR(storage_->Remove(absl::StrCat(folder, "/", kManifestName)));
    DESCENT_RETURN_IF_ERROR(storage_->SyncFolder(folder));
  }
  DESCENT_RETURN_IF_ERROR(storage_->Remove(folder));
  return storage_->SyncFolder(path_);
}

absl::StatusOr<std::vector<std::string>> CheckpointFolder::Prune(const PruneOptions& options) {
  DESCENT_ASSIGN_OR_RETURN(std::vector<Cut> cuts, List());
  if (options.run.has_value()) {
    std::erase_if(cuts, [&](const Cut& cut) { return !IsOf(cut, *options.run); });
  }
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> surplus, Surplus(cuts, options));
  const std::string busy = options.in_progress.has_value() ? CutFolderName(*options.in_progress) : std::string();
  std::vector<std::string> removed;
  absl::Status first_error;
  for (const Cut& cut : cuts) {
    const bool abandoned = !cut.committed && cut.name != busy && cut.id.generation <= options.generation;
    if (!abandoned && std::find(surplus.begin(), surplus.end(), cut.name) == surplus.end()) continue;
    if (absl::Status status = RemoveCut(cut); status.ok()) {
      removed.push_back(cut.name);
    } else if (first_error.ok()) {
      first_error = std::move(status);
    }
  }
  if (!first_error.ok()) return first_error;
  return removed;
}

}  // namespace descent
