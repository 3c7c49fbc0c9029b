// What a gradient was computed from: the versions of all dense blocks of the model and of the slots whose rows it read.
// With rank and clock this names a gradient, to the bit: it is a function of these alone. The bytes travel with every
// push of a job that records the order of its pushes, and are kept as they are (server/node/order_log.h).
//
// Bytes: the number of runs of equal versions among the dense blocks, in (tensor, block) order, then for each run its
// length and its version; the number of slots, in (table, slot) order, then for each its table, its slot, its version
// and the steps of its table that the rows were caught up to. All as variable-length integers, each but the counts and
// the lengths as the difference from the one before of its kind (slots: within a table).
#ifndef DESCENT_COMMON_WIRE_READ_VECTOR_H_
#define DESCENT_COMMON_WIRE_READ_VECTOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/ids.h"

namespace descent {

inline constexpr size_t kMaxReadBytes = size_t{1} << 20;  // of one read vector

struct ReadVector {
  struct Slot {
    BlockId id;
    uint64_t version = 0;
    uint64_t steps = 0;
    bool operator==(const Slot&) const = default;
  };
  std::vector<uint64_t> dense;                            // per dense block of the model, in (tensor, block) order
  std::vector<Slot> slots;                                // ascending
  std::optional<uint64_t> VersionOf(BlockId slot) const;  // nullopt: it was not read
  bool operator==(const ReadVector&) const = default;
};

std::string EncodeRead(const ReadVector& read);
// INVALID_ARGUMENT: the bytes are none, or there are more blocks than `most`.
absl::StatusOr<ReadVector> DecodeRead(absl::string_view bytes, uint64_t most = uint64_t{1} << 32);

// Tells the read vectors of one (rank, clock) apart.
uint32_t ReadDigest(absl::string_view bytes);

}  // namespace descent

#endif  // DESCENT_COMMON_WIRE_READ_VECTOR_H_
