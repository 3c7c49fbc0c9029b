// How one push and one pull become messages: split by the partition map, packed up to kMaxPayloadBytes of payload and
// kMaxHeaderBytes of estimated header each, built from the caller's buffers and written back into them. Sparse parts
// smaller than a few KiB are gathered into one buffer per message; all else is sent from where it lies.
//
// Thread-safety: const after Make.
#ifndef DESCENT_WORKER_CLIENT_EXCHANGE_PLAN_H_
#define DESCENT_WORKER_CLIENT_EXCHANGE_PLAN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/frame.h"
#include "common/wire/half.h"
#include "worker/client/client_core.h"
#include "worker/client/parameter_client.h"

namespace descent {

inline constexpr size_t kMaxHeaderBytes = size_t{512} << 10;
inline constexpr size_t kMaxPartBytes = kMaxMessageBytes - (size_t{128} << 10);  // keys and rows of one slot, pushed

// The model as every exchange needs it. Const after construction.
struct ModelLayout {
  struct DenseBlock {
    BlockId id;
    uint64_t begin = 0;  // element of the tensor
    uint32_t size = 0;   // elements
  };
  ModelLayout(std::vector<TensorSpec> specs, Geometry geometry, PartitionMap map,
              size_t max_payload_bytes = kMaxPayloadBytes, WireEncoding encoding = WireEncoding::kF32);

  std::vector<TensorSpec> specs;
  Geometry geometry;
  PartitionMap map;
  size_t max_payload_bytes;
  WireEncoding encoding;
  size_t float_bytes;                          // on the wire
  std::vector<std::vector<DenseBlock>> dense;  // per server, ascending by id
};

// Where a reply's bytes go: `bytes` from `offset` of its payload to `to`.
struct PartWrite {
  size_t offset = 0;
  size_t bytes = 0;
  float* to = nullptr;
};
// Returns the bytes taken from the payload.
size_t WriteParts(const Payload& payload, const std::vector<PartWrite>& writes,
                  WireEncoding encoding = WireEncoding::kF32);

class ExchangePlan {
 public:
  // INVALID_ARGUMENT: keys out of order, unknown tensors, a table twice. RESOURCE_EXHAUSTED: a slot's part too large
  // for a message.
  static absl::StatusOr<std::shared_ptr<const ExchangePlan>> Make(std::shared_ptr<const ModelLayout> layout,
                                                                  const std::optional<PushSpec>& push,
                                                                  const std::optional<PullSpec>& pull);

  ClientCore::TicketSpec Spec() const;

  // `owner` keeps the caller's buffers; *copied grows by the bytes gathered.
  Request Build(const Envelope& envelope, const ClientCore::Send& send, const std::vector<Rank>& expected_of,
                const std::shared_ptr<const void>& owner, uint64_t* copied) const;

  // A reply to leg `leg`, before the core sees it: parts that exist on this server, key counts as asked, payload of the
  // right length. DATA_LOSS says what is wrong.
  absl::Status Check(uint32_t leg, const Reply& reply) const;
  // Of the parts that the core accepted, the places.
  std::vector<PartWrite> Writes(uint32_t leg, const Reply& reply, const std::vector<uint32_t>& accepted) const;
  // Tells their versions to the caller, if it wants them.
  void Versions(const Reply& reply, const std::vector<uint32_t>& accepted) const;

 private:
  struct DensePush {
    BlockId id;
    const float* from = nullptr;
    uint32_t size = 0;
  };
  struct SparsePush {
    BlockId id;
    const uint64_t* keys = nullptr;
    const float* rows = nullptr;
    uint32_t count = 0;
    uint32_t dim = 0;
  };
  struct Message {
    std::vector<DensePush> dense;
    std::vector<SparsePush> sparse;
    uint64_t bytes = 0, header = 0;
  };
  struct PullPartPlan {
    BlockId id;
    uint32_t chunk = 0;
    bool sparse = false;
    uint32_t count = 0;  // elements, or keys
    const uint64_t* keys = nullptr;
    float* to = nullptr;
    uint64_t bytes = 0;  // in the reply
  };
  struct Leg {
    ServerId server;
    bool push = false;
    std::vector<Message> messages;
    uint32_t contributions = 0;
    std::vector<PullPartPlan> parts;  // ascending by id
    uint32_t chunks = 0;
    bool all_dense = false;
    bool piggyback = false;
    uint64_t chunk_bytes = 0, chunk_header = 0;  // of the chunk being filled
    uint64_t first_bytes = 0, first_header = 0;  // of chunk 0
  };

  absl::Status AddPush(const PushSpec& push);
  absl::Status AddPull(const PullSpec& pull);
  absl::Status CheckTable(TensorId table, absl::Span<const uint64_t> keys, std::vector<bool>* seen) const;
  Message& Room(Leg& leg, uint64_t bytes) const;
  uint64_t PartBytes(BlockId id, uint32_t keys) const;

  std::shared_ptr<const ModelLayout> layout_;
  std::optional<PushFrame> push_;  // without parts
  std::optional<PullFrame> pull_;
  std::vector<PartVersion>* versions_ = nullptr;  // the caller's
  std::vector<Leg> legs_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_CLIENT_EXCHANGE_PLAN_H_
