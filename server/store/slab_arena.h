// Memory of sparse tables: slabs of powers of two bytes out of large mappings that ask for transparent huge pages,
// since a batch of random keys otherwise spends its time on TLB misses. Freed slabs serve others of their size.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_STORE_SLAB_ARENA_H_
#define DESCENT_SERVER_STORE_SLAB_ARENA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace descent {

class SlabArena {
 public:
  SlabArena() = default;
  SlabArena(const SlabArena&) = delete;
  SlabArena& operator=(const SlabArena&) = delete;
  ~SlabArena();

  // What a request of `bytes` is rounded up to: a power of two, at least 64.
  static size_t SlabSize(size_t bytes);
  // `size` is a SlabSize. 64-byte aligned garbage; null if the system has no memory left.
  void* Take(size_t size);
  void Return(void* slab, size_t size);

  uint64_t allocated_bytes() const { return allocated_; }  // mapped, used or not

 private:
  struct Mapping {
    void* address = nullptr;
    size_t size = 0;
  };
  void* Map(size_t size);
  void ShelveRest();

  std::array<std::vector<void*>, 64> free_;  // by log2 of the size
  std::vector<Mapping> regions_;
  std::byte* next_ = nullptr;  // unused rest of the newest region
  size_t rest_ = 0;
  uint64_t allocated_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_SLAB_ARENA_H_
