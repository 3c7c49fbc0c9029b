// Requests and replies as bytes of the protobuf messages v1::ExchangeRequest and v1::ExchangeReply, and back. The
// payload (field 15) is never copied: its tag and length are written by hand behind the serialised rest, and what is
// decoded shares the received pieces. What is on the wire stays a valid protobuf message, byte for byte what the
// generated class writes.
//
// Pure and thread-safe. Decoding trusts nothing: lengths are checked against what is there; memory taken is a constant
// times the message's size. INVALID_ARGUMENT: the bytes are no such message; the text says at which byte, or which
// field.
#ifndef DESCENT_COMMON_WIRE_CODEC_H_
#define DESCENT_COMMON_WIRE_CODEC_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/wire/frame.h"
#include "common/wire/payload.h"

namespace google::protobuf {
class MessageLite;
}
namespace descent::v1 {
class ExchangeReply;
class ExchangeRequest;
}  // namespace descent::v1

namespace descent {

// The message is `header` followed by the payload's pieces.
struct EncodedMessage {
  std::string header;
  Payload payload;
  size_t size() const { return header.size() + payload.size(); }
};

// `slot`: where the payload lies already, in memory that the receiver shares; the message has that in its place.
EncodedMessage Encode(const Request& request, std::optional<uint32_t> slot = std::nullopt);
EncodedMessage Encode(const Reply& reply, std::optional<uint32_t> slot = std::nullopt);

// Appends the payload of `size` bytes in a slot of shared memory.
using SharedPayloads = std::function<absl::Status(uint32_t slot, uint64_t size, Payload* out)>;

// `*out` shares the owners of `bytes`' pieces. On an error it is left in an unspecified state. `shared`: null where no
// memory is shared; its errors are passed on.
absl::Status Decode(const Payload& bytes, Request* out, const SharedPayloads* shared = nullptr);
absl::Status Decode(const Payload& bytes, Reply* out, const SharedPayloads* shared = nullptr);

// The same for any message whose `bytes payload` is field 15 and its highest; `message` has no payload set.
EncodedMessage EncodeWithPayload(const google::protobuf::MessageLite& message, Payload payload);
// Splits the bytes into the message without its payload, and the payload. The last payload wins where there are
// several, unknown fields are skipped, as protobuf does.
absl::Status DecodeWithPayload(const Payload& bytes, google::protobuf::MessageLite* message, Payload* payload);

}  // namespace descent

#endif  // DESCENT_COMMON_WIRE_CODEC_H_
