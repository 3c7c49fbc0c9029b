// Payloads between two processes of one machine and user past the kernel: memory that both map, in slots of one
// message's payload. A sender copies a payload into a free slot of its side and says the slot's number in the message,
// which goes over the stream as ever; the receiver reads the bytes where they lie, and the slot is free again when the
// last owner of what it took is gone. The copies that a socket makes, one in and one out, its buffers and their pages
// fall away. Where no slot is free, as when the receiver keeps what it has taken, a payload goes over the stream:
// nobody waits for a slot.
//
// The lowest free slot is taken, so that few slots, which caches hold, carry all where the receiver keeps up; memory
// that was never used is never touched.
//
// The memory has no name (memfd_create) and goes with the processes. The side that makes it seals its size, so that the
// other's mapping cannot be cut short under it; a number tells it apart from anything else under that descriptor. The
// other side is trusted not to change what it has sent, which hurts itself alone: whatever is taken is checked like
// bytes from a socket.
//
// Thread-safe, but that one Put may be in progress at a time.
#ifndef DESCENT_COMMON_NET_SHARED_SLOTS_H_
#define DESCENT_COMMON_NET_SHARED_SLOTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/files/file.h"
#include "common/wire/payload.h"

namespace descent {

class SharedSlots : public std::enable_shared_from_this<SharedSlots> {
 public:
  static constexpr uint32_t kSlots = 48;                  // of each side
  static constexpr size_t kSlotBytes = size_t{1} << 19;   // a message is filled up to that
  static constexpr size_t kLeastBytes = size_t{1} << 12;  // less is as fast over the stream

  // UNAVAILABLE or RESOURCE_EXHAUSTED: the system does not give such memory.
  static absl::StatusOr<std::shared_ptr<SharedSlots>> Make();
  // What names it to another process of this machine and user. It must be alive when that opens it.
  std::string offer() const;
  // The other side of what an offer names. INVALID_ARGUMENT: it is no offer, or what is there is something else;
  // PERMISSION_DENIED, NOT_FOUND: not of this user, or not in sight (another container).
  static absl::StatusOr<std::shared_ptr<SharedSlots>> Open(absl::string_view offer);

  ~SharedSlots();
  SharedSlots(const SharedSlots&) = delete;
  SharedSlots& operator=(const SharedSlots&) = delete;

  // Copies the payload into a slot of this side; nullopt: none is free, or the payload is too small or too large.
  std::optional<uint32_t> Put(const Payload& payload);
  // Appends what the other side has put there. INVALID_ARGUMENT: there is no such slot, nothing lies in it, or not so
  // much.
  absl::Status Take(uint32_t slot, uint64_t size, Payload* out);

 private:
  struct Layout;
  enum Side { kMaker = 0, kOpener = 1 };

  SharedSlots(FileDescriptor fd, Layout* layout, Side side) : fd_(std::move(fd)), layout_(layout), side_(side) {}

  const FileDescriptor fd_;
  Layout* const layout_;
  const Side side_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_NET_SHARED_SLOTS_H_
