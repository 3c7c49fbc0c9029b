// Scratch memory of a model: aligned to 64 bytes, kept from call to call. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_ALIGNED_BUFFER_H_
#define DESCENT_WORKER_MODELS_INTERNAL_ALIGNED_BUFFER_H_

#include <cstddef>
#include <memory>
#include <new>

namespace descent::internal {

template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t n) { Resize(n); }
  // Contents are undefined after a call that grows it.
  void Resize(size_t n) {
    if (n > capacity_) {
      data_.reset();  // first, so that old and new never lie side by side
      data_.reset(static_cast<T*>(::operator new[](n * sizeof(T), std::align_val_t(64))));
      capacity_ = n;
    }
    size_ = n;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::unique_ptr<T[], Free> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_ALIGNED_BUFFER_H_
