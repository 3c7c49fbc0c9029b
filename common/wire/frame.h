// The parameter service's messages as plain structs: what the cores, the stores and the simulator speak. codec.h turns
// them into the protobuf messages of proto/descent/v1/parameter.proto and back; field meanings are told there.
#ifndef DESCENT_COMMON_WIRE_FRAME_H_
#define DESCENT_COMMON_WIRE_FRAME_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/tensor/global_scalars.h"
#include "common/wire/half.h"
#include "common/wire/payload.h"

namespace descent {

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kMaxPayloadBytes = size_t{1} << 19;     // what senders fill a message up to
inline constexpr size_t kMaxPulledPartBytes = size_t{3} << 20;  // rows of one slot, pulled
inline constexpr size_t kMaxMessageBytes = size_t{4} << 20;     // what receivers accept

struct Envelope {
  uint32_t protocol = kProtocolVersion;
  uint64_t job = 0;
  RunId run;
  Generation generation;
  uint64_t map_epoch = 0;
  bool operator==(const Envelope&) const = default;
};

struct DensePart {
  BlockId id;
  uint64_t version = 0;  // in replies
  bool operator==(const DensePart&) const = default;
};

struct SparsePart {
  BlockId id;  // table, slot
  uint32_t keys = 0;
  uint64_t version = 0;
  uint64_t steps = 0;  // in replies, where the order of pushes is recorded
  bool operator==(const SparsePart&) const = default;
};

struct PushFrame {
  Rank rank;
  uint32_t span = 1;
  Incarnation incarnation;
  Clock clock;
  Clock read_clock;
  std::vector<double> weight;  // span of them, or fewer where the span reaches past the last rank
  std::vector<DensePart> dense;
  std::vector<SparsePart> sparse;
  WireEncoding encoding = WireEncoding::kF32;
  uint32_t contributions = 0;  // announced to this server for (rank, clock), all messages together
  std::string read;            // where the order is recorded: versions that the gradient was computed from
};

struct PullFrame {
  Rank rank;
  Clock clock;  // about to be computed
  bool all_dense = false;
  std::vector<DensePart> dense;
  std::vector<SparsePart> sparse;
  bool ungated = false;
  bool averaged = false;  // of dense blocks: the averages
};

// From a primary to its backup: an image, the engine's state, a fence, a clock's scalars, or (none of them) the
// request's push.
struct ReplicaImage {
  BlockId id;
  uint64_t version = 0, steps = 0;
  std::vector<uint64_t> marks;
  uint32_t keys = 0, state_slots = 0;
  bool more = false;  // further rows of this slot follow
  std::vector<uint64_t> skipped;
  std::string order, method;
  std::vector<uint32_t> ahead;
  bool operator==(const ReplicaImage&) const = default;
};
struct ReplicaFence {
  Rank rank;
  Incarnation incarnation;
  bool operator==(const ReplicaFence&) const = default;
};
struct ReplicaFrame {
  uint64_t view = 0;
  uint64_t sequence = 0;
  std::optional<ReplicaImage> image;  // the payload is the request's
  std::optional<std::string> engine;  // empty: images follow
  std::optional<ReplicaFence> fence;
  std::optional<ScalarTotals> scalars;
  bool operator==(const ReplicaFrame&) const = default;
};

struct Request {
  Envelope envelope;
  uint64_t id = 0;
  std::optional<PushFrame> push;
  std::optional<PullFrame> pull;
  std::vector<Rank> expected_of;
  std::optional<ReplicaFrame> replica;
  Payload payload;  // push dense, push sparse (keys, rows each), pull sparse keys
};

enum class Outcome : uint8_t {
  kApplied = 0,
  kDuplicate = 1,
  kFenced = 2,
  kStaleGeneration = 3,
  kWrongMap = 4,
  kTooLate = 5,
  kRefused = 6,
  kTooEarly = 7,
};

struct PushAck {
  Outcome outcome = Outcome::kApplied;
  Rank rank;
  uint32_t span = 1;
  Clock clock;
  uint32_t admitted = 0;
  bool complete = false;
  Clock expected;
  std::string message;
};

struct WaitingNotice {
  std::vector<Rank> ranks;
  absl::Duration since;
  std::string why;
  // Not on the wire: of the one rank of ServerNode::Waiting, the clocks that it has completed on this server, and the
  // last request that came from it, in words.
  uint64_t clock = 0;
  std::string last_rpc{};
};

struct Reply {
  Envelope envelope;
  uint64_t id = 0;
  std::optional<PushAck> ack;
  std::vector<DensePart> dense;
  std::vector<SparsePart> sparse;
  bool pull_done = false;
  Clock done_below;
  std::optional<WaitingNotice> waiting;
  absl::Status refusal;         // OK: none
  std::vector<Clock> expected;  // per rank of expected_of
  uint64_t replicated = 0;      // to a primary: all up to this sequence number is held
  Payload payload;              // dense blocks, then sparse rows
};

}  // namespace descent

#endif  // DESCENT_COMMON_WIRE_FRAME_H_
