// What `descent inspect` finds out about a run's checkpoints, as text for people and as JSON. Reads files; changes
// none. Thread-safe: no state.
#ifndef DESCENT_CLI_INSPECT_H_
#define DESCENT_CLI_INSPECT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/checkpoint/checkpoint_folder.h"

namespace descent {

struct Inspection {
  std::string folder;  // of the cuts
  // Newest first, all bytes read: `status` says what came out.
  std::vector<Cut> cuts;
  // In a whole folder, cuts that have no manifest are no fault: one is being made, or was given up.
  std::vector<std::string> uncommitted;

  bool good() const;  // there are cuts, and all of them are good
};

// `path`: a cut's folder, a folder of cuts, or a run directory, whose cuts are in checkpoints/. NOT_FOUND,
// INVALID_ARGUMENT: no such folder.
absl::StatusOr<Inspection> InspectCheckpoints(const std::string& path);

std::string InspectionText(const Inspection& inspection);
std::string InspectionJson(const Inspection& inspection);

}  // namespace descent

#endif  // DESCENT_CLI_INSPECT_H_
