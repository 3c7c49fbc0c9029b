// What a cut is called, and its files. Pure; values.
#ifndef DESCENT_SERVER_CHECKPOINT_CUT_ID_H_
#define DESCENT_SERVER_CHECKPOINT_CUT_ID_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "common/base/ids.h"

namespace descent {

// An image of the whole model, taken by the servers of one generation.
struct CutId {
  RunId run;
  Generation generation;
  uint64_t number = 0;  // apply: ROUND: its clock; PUSH: 1, 2, ...
  constexpr auto operator<=>(const CutId&) const = default;
};

inline constexpr absl::string_view kManifestName = "MANIFEST";
inline constexpr absl::string_view kManifestTemporaryName = "MANIFEST.tmp";

std::string CutFolderName(const CutId& id);     // "cut-000000000500-g2"; the run is not in it
std::string PartFileName(ServerId server);      // "server-0.part"
std::string GenerationFileName(Generation of);  // "generation-2"
std::string GenerationText(RunId run);          // what that file holds

// The run is left 0. nullopt: no such name; what these return gives the name back, byte for byte.
std::optional<CutId> ParseCutFolderName(absl::string_view name);
std::optional<ServerId> ParsePartFileName(absl::string_view name);
std::optional<Generation> ParseGenerationFileName(absl::string_view name);

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_CUT_ID_H_
