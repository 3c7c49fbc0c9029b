#include "common/net/shared_slots.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

constexpr uint64_t kMagic = 0x3173746f6c736564;  // "deslots1"; another layout has another
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr size_t kLine = 64;  // a cache line of its own for what two sides write

enum State : uint32_t { kFree = 0, kFull = 1 };

}  // namespace

struct SharedSlots::Layout {
  struct alignas(kLine) Slot {
    std::atomic<uint32_t> state{kFree};  // made full by the sender, free by the receiver
  };
  uint64_t magic = kMagic;
  uint64_t number = 0;  // random
  Slot slot[2][kSlots];
  alignas(4096) std::byte bytes[2][kSlots][kSlotBytes];
};

absl::StatusOr<std::shared_ptr<SharedSlots>> SharedSlots::Make() {
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  FileDescriptor fd(memfd_create("descent-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "shared memory");
  if (ftruncate(fd.get(), sizeof(Layout)) != 0 || fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return ErrnoStatus(errno, "shared memory");
  }
  void* const at = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return ErrnoStatus(errno, "shared memory");
  // The memory is zero: the slots are free, and their bytes stay untouched.
  auto* const layout = static_cast<Layout*>(at);
  std::shared_ptr<SharedSlots> made(new SharedSlots(std::move(fd), layout, kMaker));
  if (getrandom(&layout->number, sizeof(layout->number), 0) != sizeof(layout->number)) {
    return ErrnoStatus(errno, "random number");
  }
  layout->magic = kMagic;
  return made;
}

std::string SharedSlots::offer() const { return absl::StrCat(getpid(), "/", fd_.get(), "/", layout_->number); }

absl::StatusOr<std::shared_ptr<SharedSlots>> SharedSlots::Open(absl::string_view offer) {
  const std::vector<absl::string_view> parts = absl::StrSplit(offer, '/');
  uint32_t process, descriptor;
  uint64_t number;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &process) || !absl::SimpleAtoi(parts[1], &descriptor) ||
      !absl::SimpleAtoi(parts[2], &number)) {
    return absl::InvalidArgumentError(absl::StrCat("'", offer, "' offers no shared memory"));
  }
  // Not of a file that would wait or do something when it is opened: the descriptor may be anything.
  const std::string path = absl::StrCat("/proc/", process, "/fd/", descriptor);
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return ErrnoStatus(errno, path);
  const auto other = [&path] {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not the shared memory that was offered"));
  };
  if (!S_ISREG(found.st_mode) || found.st_uid != geteuid()) return other();
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, OpenFile(path, O_RDWR | O_NONBLOCK));
  if (fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(found.st_mode) || static_cast<uint64_t>(found.st_size) != sizeof(Layout)) return other();
  if ((fcntl(fd.get(), F_GET_SEALS) & kSeals) != kSeals) return other();
  void* const at = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return ErrnoStatus(errno, path);
  std::shared_ptr<SharedSlots> opened(new SharedSlots(std::move(fd), static_cast<Layout*>(at), kOpener));
  if (opened->layout_->magic != kMagic || opened->layout_->number != number) return other();
  return opened;
}

SharedSlots::~SharedSlots() { munmap(layout_, sizeof(Layout)); }

std::optional<uint32_t> SharedSlots::Put(const Payload& payload) {
  if (payload.size() < kLeastBytes || payload.size() > kSlotBytes) return std::nullopt;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    std::atomic<uint32_t>& state = layout_->slot[side_][slot].state;
    if (state.load(std::memory_order_acquire) != kFree) continue;
    payload.CopyTo(layout_->bytes[side_][slot]);
    state.store(kFull, std::memory_order_release);
    return slot;
  }
  return std::nullopt;
}

absl::Status SharedSlots::Take(uint32_t slot, uint64_t size, Payload* out) {
  const int other = side_ == kMaker ? kOpener : kMaker;
  if (slot >= kSlots || size == 0 || size > kSlotBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a payload of ", size, " bytes in slot ", slot,
                                                   " of shared memory; ", kSlots, " slots of ", kSlotBytes,
                                                   " bytes were expected"));
  }
  std::atomic<uint32_t>* const state = &layout_->slot[other][slot].state;
  if (state->load(std::memory_order_acquire) != kFull) {
    return absl::InvalidArgumentError(absl::StrCat("slot ", slot, " of shared memory has no payload"));
  }
  out->Append(layout_->bytes[other][slot], size,
              std::shared_ptr<const void>(layout_, [state, self = shared_from_this()](const void*) {
                state->store(kFree, std::memory_order_release);
              }));
  return absl::OkStatus();
}

}  // namespace descent
