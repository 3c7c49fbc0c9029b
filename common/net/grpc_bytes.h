// Between payloads and gRPC's byte buffers, without a copy. Includes gRPC: for .cc files of the adapters only.
#ifndef DESCENT_COMMON_NET_GRPC_BYTES_H_
#define DESCENT_COMMON_NET_GRPC_BYTES_H_

#include <grpcpp/support/byte_buffer.h>

#include <memory>

#include "common/wire/codec.h"
#include "common/wire/payload.h"

namespace descent {

// Of a stream over a local socket: a client's offer of shared memory (shared_slots.h), and the server's word that it
// takes it.
inline constexpr char kSlotsKey[] = "descent-slots";

// The header is copied, the payload's pieces become slices that hold their owners, and `held`, until gRPC drops them,
// on whatever thread that happens.
grpc::ByteBuffer ToByteBuffer(EncodedMessage message, std::shared_ptr<const void> held = nullptr);

// The received slices as pieces with one owner together. Empties the buffer.
Payload FromByteBuffer(grpc::ByteBuffer* buffer);

}  // namespace descent

#endif  // DESCENT_COMMON_NET_GRPC_BYTES_H_
