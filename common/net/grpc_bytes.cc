#include "common/net/grpc_bytes.h"

#include <utility>
#include <vector>

namespace descent {

grpc::ByteBuffer ToByteBuffer(EncodedMessage message, std::shared_ptr<const void> held) {
  struct Owners {
    std::shared_ptr<const void> piece, held;
  };
  std::vector<grpc::Slice> slices;
  slices.reserve(1 + message.payload.pieces().size());
  slices.emplace_back(message.header.data(), message.header.size());
  for (const Payload::Piece& piece : message.payload.pieces()) {
    slices.emplace_back(
        const_cast<std::byte*>(piece.data), piece.size, [](void* owners) { delete static_cast<Owners*>(owners); },
        new Owners{piece.owner, held});
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

Payload FromByteBuffer(grpc::ByteBuffer* buffer) {
  Payload out;
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  if (!buffer->Valid() || !buffer->Dump(slices.get()).ok()) return out;
  buffer->Clear();
  for (const grpc::Slice& slice : *slices) out.Append(slice.begin(), slice.size(), slices);
  return out;
}

}  // namespace descent
