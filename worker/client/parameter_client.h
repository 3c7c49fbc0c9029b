// The worker's view of the servers: push a gradient, pull parameters, asynchronously. Splits by the partition map, cuts
// into messages, retries what was lost, writes what arrives straight into the caller's buffers.
//
// Thread-safe. Buffers named in a PushSpec or PullSpec belong to the caller and must stay valid, and unchanged, until
// the ticket is waited for (or the client is destroyed).
#ifndef DESCENT_WORKER_CLIENT_PARAMETER_CLIENT_H_
#define DESCENT_WORKER_CLIENT_PARAMETER_CLIENT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/base/time_source.h"
#include "common/net/transport.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/frame.h"
#include "common/wire/half.h"

namespace descent {

// Keys of one table, unique, in the order (slot, key), and a row for each: keys.size() x dim floats.
struct TableGradient {
  TensorId table;
  absl::Span<const uint64_t> keys;
  const float* rows = nullptr;
};
struct TableRows {
  TensorId table;
  absl::Span<const uint64_t> keys;
  float* rows = nullptr;
};

struct PushSpec {
  Rank rank;
  uint32_t span = 1;  // power of two; rank is a multiple of it
  Incarnation incarnation;
  Clock clock;
  Clock read_clock;
  std::vector<double> weight;       // per rank of the span that exists
  std::vector<const float*> dense;  // per tensor, its sum of gradients; empty: the ranks' batches were empty
  std::vector<TableGradient> sparse;
  std::string read;  // where the order is recorded: what it was computed from (common/wire/read_vector.h)
};

// What a part of a pull was when it was read.
struct PartVersion {
  BlockId id;
  uint64_t version = 0;
  uint64_t steps = 0;  // of a slot, where the order is recorded
};

struct PullSpec {
  Rank rank;                  // the one with the lowest clock of those that share the read
  Clock clock;                // about to be computed
  std::vector<float*> dense;  // per tensor, the buffer to fill; null entries (tables) and an empty vector: not wanted
  std::vector<TableRows> sparse;
  bool averaged = false;                         // dense tensors: the averages, where the job keeps them
  std::vector<PartVersion>* versions = nullptr;  // if not null, gets one for each part, in the order of arrival
};

using Ticket = uint64_t;

struct ClientOptions {
  Envelope envelope;
  std::vector<TensorSpec> tensors;
  Geometry geometry;
  PartitionMap map;
  absl::Duration resend_after = absl::Seconds(5);  // a request without any answer, Waiting included
  size_t max_payload_bytes = kMaxPayloadBytes;     // messages are filled up to this
  WireEncoding encoding = WireEncoding::kF32;      // of gradients and parameters
  bool backup_ranks = false;                       // rounds may close without a rank of ours
};

struct ClientStats {
  uint64_t payload_bytes_out = 0, payload_bytes_in = 0, resends = 0, duplicates = 0;
  uint64_t payload_bytes_copied = 0;
};

class ParameterClient {
 public:
  // `transport` is not started yet; the client starts and stops it. Both pointers outlive the client.
  static std::unique_ptr<ParameterClient> Create(ClientOptions options, ClientTransport* transport,
                                                 const TimeSource* time);
  virtual ~ParameterClient() = default;

  // Push and pull in one: the pull is asked for first, so that every block comes back as soon as it is ready. Either
  // may be absent. The ticket is done when the push is complete on every server and the pull is in the buffers.
  virtual Ticket Exchange(const std::optional<PushSpec>& push, const std::optional<PullSpec>& pull) = 0;

  // Blocks until the ticket is done, the deadline has passed (DEADLINE_EXCEEDED: whom the servers wait for, since when,
  // as last told; the ticket goes on) or it failed:
  //   ABORTED            fenced; or the server belongs to another generation, map or run, or has none yet: wait for the
  //                      coordinator's word; or the rank has moved on since its expected clock was asked for (its older
  //                      holder was still at work): ask again
  //   INVALID_ARGUMENT   refused by a server, with its text; or keys out of order
  //   RESOURCE_EXHAUSTED one slot's keys and rows exceed a message: more slots are needed
  //   DATA_LOSS          a server's reply does not fit what was asked for
  //   CANCELLED          Cancel was called
  // and with backup ranks, where the rank is behind and is to go on at its expected clock:
  //   OUT_OF_RANGE       the push has come too late on every server: it counts nowhere
  //   NOT_FOUND          the push, if there is one, counts, but a server is past the clock of the pull
  // A ticket is waited for once (FAILED_PRECONDITION afterwards). When Wait returns, nobody reads or writes its
  // buffers.
  virtual absl::Status Wait(Ticket ticket, absl::Time deadline) = 0;

  // Every ticket, present and future, ends with CANCELLED. For the way out.
  virtual void Cancel() = 0;

  // The next clock that the servers expect of a rank: the least over its blocks on all servers. For a lease just taken.
  virtual absl::StatusOr<Clock> ExpectedClock(Rank rank, absl::Time deadline) = 0;

  // For whom the servers said they wait, last.
  virtual std::optional<WaitingNotice> LastWaiting() const = 0;
  virtual ClientStats stats() const = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_CLIENT_PARAMETER_CLIENT_H_
