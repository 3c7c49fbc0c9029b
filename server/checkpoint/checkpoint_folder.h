// The checkpoints of a run: a folder with a folder for each cut, and a file for each generation of the cluster.
//
//   generation-2                   made by the coordinator of generation 2 before it serves
//   cut-000000000500-g2/           a cut: at clock 500, taken by the servers of generation 2
//     server-0.part, ...           one of each server, written by it
//     MANIFEST                     written last, by the coordinator: from now on the cut exists
//
// Which cut is the newest. That of the highest generation; within it that of the highest number. A generation starts
// from the newest good cut that its coordinator finds, so its own cuts follow that one even where they have lower
// numbers than cuts of the generation before, which could not be read or were set aside. And a coordinator that others
// took for dead and that goes on writing cannot become the newest again, however far it gets.
//
// Thread-safety: none. Between processes: a coordinator owns its generation. Prepare and Commit of an older generation
// are refused once a newer one has begun; should both run at the very same moment, the order above decides.
// Errors of the storage are passed on; paths in messages are the storage's.
#ifndef DESCENT_SERVER_CHECKPOINT_CHECKPOINT_FOLDER_H_
#define DESCENT_SERVER_CHECKPOINT_CHECKPOINT_FOLDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/storage/storage.h"
#include "descent/v1/checkpoint.pb.h"
#include "server/checkpoint/cut_id.h"

namespace descent {

// What a cut's folder holds.
struct Cut {
  std::string name;        // of the folder
  CutId id;                // as the name says; the run as the manifest says, 0 without one
  bool committed = false;  // there is a MANIFEST, good or bad
  // OK, or why it can't be used: DATA_LOSS names the file. NOT_FOUND: never committed. FAILED_PRECONDITION: of another
  // run or job than is asked for.
  absl::Status status;
  v1::CutManifest manifest;  // where it could be read
};

struct NewestCut {
  std::optional<Cut> good;
  std::vector<Cut> bad;  // newer than that, newest first
};

struct PruneOptions {
  // Whose cuts these are: those of other runs are neither removed nor counted. One that was never committed is of the
  // run that its generation's file names. nullopt: all are of one run.
  std::optional<RunId> run;
  uint32_t keep_last = 1;
  uint32_t keep_best = 0;  // by the metric that the newest cut with one names; NaN is never best
  bool higher_is_better = false;
  Generation generation;             // whose coordinator asks; folders of later ones are left alone
  std::optional<CutId> in_progress;  // not committed yet, and to be kept
};

class CheckpointFolder {
 public:
  // `path`: within the storage; "" is its root. It need not be there yet.
  explicit CheckpointFolder(Storage* storage, std::string path = "");

  // Begins a generation, higher than any that left a trace here, and makes that last before it returns. No two callers
  // get the same number.
  absl::StatusOr<Generation> BeginGeneration(RunId run);

  // FAILED_PRECONDITION: a later one has begun.
  absl::Status CheckGeneration(Generation generation);

  // The path within the storage of a cut's folder, where servers write their parts.
  std::string CutPath(const CutId& cut) const;
  // Makes the cut's empty folder, lasting; what an earlier try has left there is removed. ALREADY_EXISTS: that cut is
  // committed. FAILED_PRECONDITION: a later generation has begun.
  absl::Status Prepare(const CutId& cut);
  // Makes the cut one, when every server has finished its part. INVALID_ARGUMENT: the manifest makes no sense (see
  // CheckManifest). FAILED_PRECONDITION: a part is missing, has another size, or one is there that is not listed; a
  // later generation has begun. ALREADY_EXISTS: committed before. After any other error the cut may be there or not,
  // wholly: List tells.
  absl::Status Commit(const v1::CutManifest& manifest);

  // All cuts, newest first, with those that were never committed. Manifests are read and sizes of part files compared;
  // their bytes are not read. A folder that is not there yet has none.
  absl::StatusOr<std::vector<Cut>> List();
  // Reads everything. The status as in Cut.
  absl::Status Verify(const Cut& cut);
  // The newest cut all of whose bytes are good, of this run and of the job with this fingerprint where they are given.
  // What is newer than that and can't be used is named. `number`: of those with this number alone.
  absl::StatusOr<NewestCut> FindNewestGood(std::optional<RunId> run, std::optional<uint64_t> job_fingerprint,
                                           std::optional<uint64_t> number = std::nullopt);

  // Removes good cuts beyond the last and the best to be kept and those that they need (CutManifest.needs_cut), but
  // never the newest whose bytes are good: it reads them to know (once; it remembers). Removes folders that were never
  // committed. Damaged cuts stay for people to look at. Returns the names removed; the first error, after it has tried
  // the others.
  absl::StatusOr<std::vector<std::string>> Prune(const PruneOptions& options);

 private:
  std::string PathOf(absl::string_view name) const;
  absl::StatusOr<Generation> HighestGeneration();
  Cut LookAt(const std::string& name, const CutId& id);
  absl::Status RemoveCut(const Cut& cut);
  bool IsOf(const Cut& cut, RunId run);
  absl::StatusOr<std::vector<std::string>> Surplus(const std::vector<Cut>& cuts, const PruneOptions& options);

  Storage* const storage_;
  const std::string path_;
  std::string verified_;  // the last cut that Prune has read and found good
};

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_CHECKPOINT_FOLDER_H_
