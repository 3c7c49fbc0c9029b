// Recycled float buffers: a fresh page costs more than the arithmetic on it, so what was freed is handed out again.
//
// Buffers are 64-byte aligned, hold garbage at first, and come back when their last owner lets go, on any thread, even
// after the pool itself is gone. Thread-safe.
#ifndef DESCENT_SERVER_STORE_BUFFER_POOL_H_
#define DESCENT_SERVER_STORE_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace descent {

using FloatBuffer = std::shared_ptr<float>;

class BufferPool {
 public:
  // At most `keep_bytes` of free buffers are kept for reuse; more go back to the system.
  explicit BufferPool(uint64_t keep_bytes);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();

  // Room for `count` floats. Null if the system has no memory left.
  FloatBuffer Take(size_t count);

  uint64_t allocated_bytes() const;  // handed out and free
  uint64_t free_bytes() const;

 private:
  class Shelf;
  const std::shared_ptr<Shelf> shelf_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_BUFFER_POOL_H_
