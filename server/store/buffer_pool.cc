#include "server/store/buffer_pool.h"

#include <bit>
#include <cstdlib>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/mutex.h"

namespace descent {
namespace {

constexpr size_t kAlignment = 64;

// Eight sizes to an octave: at most an eighth is wasted, and the sizes of a model's blocks meet each other.
size_t SizeClass(size_t count) {
  const size_t bytes = count * sizeof(float);
  if (bytes <= 8 * kAlignment)
    return (bytes + kAlignment - 1) / kAlignment * kAlignment + (bytes == 0 ? kAlignment : 0);
  const size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

class BufferPool::Shelf {
 public:
  explicit Shelf(uint64_t keep_bytes) : keep_bytes_(keep_bytes) {}
  ~Shelf() {
    for (auto& [size, list] : free_) {
      for (void* buffer : list) std::free(buffer);
    }
  }

  void* Take(size_t size) {
    {
      MutexLock lock(&mu_);
      auto it = free_.find(size);
      if (it != free_.end() && !it->second.empty()) {
        void* buffer = it->second.back();
        it->second.pop_back();
        free_bytes_ -= size;
        return buffer;
      }
    }
    void* buffer = std::aligned_alloc(kAlignment, size);
    if (buffer == nullptr) return nullptr;
    MutexLock lock(&mu_);
    allocated_ += size;
    return buffer;
  }
  void Return(void* buffer, size_t size) {
    {
      MutexLock lock(&mu_);
      if (!closed_ && free_bytes_ + size <= keep_bytes_) {
        free_[size].push_back(buffer);
        free_bytes_ += size;
        return;
      }
      allocated_ -= size;
    }
    std::free(buffer);
  }
  // The pool is gone: nobody will take a buffer any more.
  void Close() {
    MutexLock lock(&mu_);
    closed_ = true;
  }
  uint64_t allocated() {
    MutexLock lock(&mu_);
    return allocated_;
  }
  uint64_t free_bytes() {
    MutexLock lock(&mu_);
    return free_bytes_;
  }

 private:
  const uint64_t keep_bytes_;
  Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t allocated_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t free_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<size_t, std::vector<void*>> free_ ABSL_GUARDED_BY(mu_);
};

BufferPool::BufferPool(uint64_t keep_bytes) : shelf_(std::make_shared<Shelf>(keep_bytes)) {}

BufferPool::~BufferPool() { shelf_->Close(); }

FloatBuffer BufferPool::Take(size_t count) {
  const size_t size = SizeClass(count);
  void* buffer = shelf_->Take(size);
  if (buffer == nullptr) return nullptr;
  return FloatBuffer(static_cast<float*>(buffer),
                     [shelf = shelf_, size](float* returned) { shelf->Return(returned, size); });
}

uint64_t BufferPool::allocated_bytes() const { return shelf_->allocated(); }
uint64_t BufferPool::free_bytes() const { return shelf_->free_bytes(); }

}  // namespace descent
