#include "server/store/slab_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "common/base/check.h"

namespace descent {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallest = 64;
constexpr size_t kLargestRegion = size_t{64} << 20;
}  // namespace

SlabArena::~SlabArena() {
  for (const Mapping& region : regions_) munmap(region.address, region.size);
}

size_t SlabArena::SlabSize(size_t bytes) { return std::bit_ceil(std::max(bytes, kSmallest)); }

// Aligned to a huge page, and a multiple of one.
void* SlabArena::Map(size_t size) {
  const size_t room = size + kHugePage;
  void* mapped = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (address + kHugePage - 1) & ~(kHugePage - 1);
  if (aligned > address) munmap(mapped, aligned - address);
  const size_t behind = address + room - (aligned + size);
  auto* result = reinterpret_cast<void*>(aligned);
  if (behind > 0) munmap(static_cast<std::byte*>(result) + size, behind);
  madvise(result, size, MADV_HUGEPAGE);  // where the system has none, small pages serve
  allocated_ += size;
  return result;
}

void SlabArena::ShelveRest() {
  while (rest_ >= kSmallest) {
    // The largest slab that fits and keeps what follows aligned to itself is not needed: 64 bytes are enough.
    const size_t size = std::bit_floor(rest_);
    free_[std::countr_zero(size)].push_back(next_);
    next_ += size;
    rest_ -= size;
  }
}

void* SlabArena::Take(size_t size) {
  DESCENT_CHECK(size >= kSmallest && std::has_single_bit(size));
  std::vector<void*>& shelf = free_[std::countr_zero(size)];
  if (!shelf.empty()) {
    void* slab = shelf.back();
    shelf.pop_back();
    return slab;
  }
  if (size > rest_) {
    // Regions grow with the store, so that a small one stays small.
    const size_t wanted = std::bit_ceil(std::max<uint64_t>(allocated_ / 8, kHugePage));
    const size_t region = std::max(std::min(wanted, kLargestRegion), size);
    void* mapped = Map((region + kHugePage - 1) / kHugePage * kHugePage);
    if (mapped == nullptr) return nullptr;
    ShelveRest();
    next_ = static_cast<std::byte*>(mapped);
    rest_ = (region + kHugePage - 1) / kHugePage * kHugePage;
    regions_.push_back({mapped, rest_});
  }
  void* slab = next_;
  next_ += size;
  rest_ -= size;
  return slab;
}

void SlabArena::Return(void* slab, size_t size) {
  if (slab != nullptr) free_[std::countr_zero(size)].push_back(slab);
}

}  // namespace descent
