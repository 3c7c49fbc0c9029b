// The file whose presence makes a cut: what the cut is of, what must be in it, and the size and checksum of each part
// file. Bytes: "DESCMF01", the length of the message (uint64, little-endian), the message (v1::CutManifest), the
// CRC-32C of all that (uint32). Pure; thread-safe.
#ifndef DESCENT_SERVER_CHECKPOINT_MANIFEST_H_
#define DESCENT_SERVER_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/checkpoint.pb.h"
#include "server/checkpoint/cut_id.h"

namespace descent {

inline constexpr uint32_t kCutFormat = 1;
inline constexpr uint64_t kMaxManifestBytes = uint64_t{1} << 30;

// What a manifest says of the model, in the terms of the rest of the program.
struct CutLayout {
  CutId id;
  bool apply_push = false;
  std::vector<Clock> restart;  // per rank
  std::vector<TensorSpec> tensors;
  Geometry geometry;
  uint64_t blocks = 0;  // and slots, of all tensors
};

std::string EncodeManifest(const v1::CutManifest& manifest);
// DATA_LOSS: not these bytes; says at which byte, what was expected and what came.
absl::StatusOr<v1::CutManifest> DecodeManifest(absl::string_view bytes);

// INVALID_ARGUMENT names the field that makes no sense: another format, tensors or geometry that can't be, blocks that
// are not those of the geometry, restart clocks that are not the cut's (apply: ROUND), part files with odd names, twice
// or too small for their records.
absl::StatusOr<CutLayout> CheckManifest(const v1::CutManifest& manifest);

// Bytes of a block's or slot's payload: parameters and `state_slots` optimizer vectors; a slot's `keys` as well.
uint64_t PayloadBytes(const CutLayout& layout, BlockId id, uint32_t keys, uint32_t state_slots);
inline constexpr uint32_t kMaxStateSlots = 64;

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_MANIFEST_H_
