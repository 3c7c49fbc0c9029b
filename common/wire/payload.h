// Bytes of a message's payload as a list of pieces, each kept alive by an owner: a received message's slices, a
// published block version, a worker's gradient buffer. Nothing is copied on its way from or to the wire. A piece may
// begin at any address and a float may straddle two pieces.
#ifndef DESCENT_COMMON_WIRE_PAYLOAD_H_
#define DESCENT_COMMON_WIRE_PAYLOAD_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "common/base/check.h"
#include "common/base/copy_bytes.h"

namespace descent {

class Payload {
 public:
  struct Piece {
    const std::byte* data = nullptr;
    size_t size = 0;
    std::shared_ptr<const void> owner;  // may be null: the caller guarantees the bytes until the message is sent
  };

  void Append(Piece piece) {
    if (piece.size == 0) return;
    size_ += piece.size;
    pieces_.push_back(std::move(piece));
  }
  void Append(const void* data, size_t size, std::shared_ptr<const void> owner) {
    Append(Piece{static_cast<const std::byte*>(data), size, std::move(owner)});
  }
  // The bytes of another payload behind these.
  void Append(const Payload& other) {
    for (const Piece& piece : other.pieces_) Append(piece);
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const absl::InlinedVector<Piece, 2>& pieces() const { return pieces_; }

  // Bytes [offset, offset + size), sharing owners. Both must lie within the payload.
  Payload Sub(size_t offset, size_t size) const;

  // Copies all bytes to `out`, which has room for size().
  void CopyTo(void* out) const {
    auto* to = static_cast<std::byte*>(out);
    for (const Piece& piece : pieces_) {
      CopyBytes(to, piece.data, piece.size);
      to += piece.size;
    }
  }

 private:
  absl::InlinedVector<Piece, 2> pieces_;
  size_t size_ = 0;
};

// Reads a payload front to back. Callers have checked the lengths.
class PayloadReader {
 public:
  explicit PayloadReader(const Payload& payload) : payload_(payload) {}

  size_t remaining() const { return payload_.size() - consumed_; }

  // The next `size` bytes as a payload of their own, sharing owners.
  Payload Take(size_t size) {
    DESCENT_CHECK(size <= remaining());
    Payload out;
    ForEach(size, [&](const Payload::Piece& piece, size_t offset, size_t n) {
      out.Append(Payload::Piece{piece.data + offset, n, piece.owner});
    });
    return out;
  }
  void CopyTo(void* out, size_t size) {
    DESCENT_CHECK(size <= remaining());
    auto* to = static_cast<std::byte*>(out);
    ForEach(size, [&](const Payload::Piece& piece, size_t offset, size_t n) {
      CopyBytes(to, piece.data + offset, n);
      to += n;
    });
  }
  void Skip(size_t size) {
    DESCENT_CHECK(size <= remaining());
    ForEach(size, [](const Payload::Piece&, size_t, size_t) {});
  }

 private:
  template <typename F>
  void ForEach(size_t size, F&& f) {
    while (size > 0) {
      const Payload::Piece& piece = payload_.pieces()[index_];
      const size_t n = std::min(size, piece.size - offset_);
      f(piece, offset_, n);
      offset_ += n;
      consumed_ += n;
      size -= n;
      if (offset_ == piece.size) {
        ++index_;
        offset_ = 0;
      }
    }
  }

  const Payload& payload_;
  size_t index_ = 0;
  size_t offset_ = 0;
  size_t consumed_ = 0;
};

inline Payload Payload::Sub(size_t offset, size_t size) const {
  PayloadReader reader(*this);
  reader.Skip(offset);
  return reader.Take(size);
}

}  // namespace descent

#endif  // DESCENT_COMMON_WIRE_PAYLOAD_H_
