// A mini-batch as a model sees it. Plain data; movable, reused from clock to clock to keep its memory.
#ifndef DESCENT_WORKER_DATA_BATCH_H_
#define DESCENT_WORKER_DATA_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace descent {

// A float array aligned to 64 bytes: what vector loads and position-independent arithmetic want.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  // Contents are undefined after a call that grows it.
  void Resize(size_t n) {
    if (n > capacity_) {
      capacity_ = n;
      data_.reset(static_cast<float*>(::operator new[](n * sizeof(float), std::align_val_t(64))));
    }
    size_ = n;
  }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  size_t size() const { return size_; }
  float& operator[](size_t i) { return data_.get()[i]; }
  float operator[](size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::unique_ptr<float[], Free> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// `rows` examples. Dense input: `dense` is rows x features, row-major. Sparse input: compressed sparse rows; row i has
// entries [row_begin[i], row_begin[i + 1]) of `column` and `value`, columns ascending and unique within a row.
// With `keys` not empty (a model whose weights are a sparse table), a column is an index into `keys`, which are unique
// and in the order (slot, key); without, it is the feature itself.
// `rank` and `clock` say where in a run a training batch stands: what a model draws at random is a function of them.
struct Batch {
  size_t rows = 0;
  uint32_t rank = 0;
  uint64_t clock = 0;
  uint64_t features = 0;
  bool sparse = false;
  AlignedFloats dense;
  std::vector<uint32_t> row_begin;
  std::vector<uint32_t> column;
  std::vector<float> value;
  std::vector<uint64_t> keys;
  std::vector<float> label;   // a number; -1/+1 and 0/1 are stored as 0/1; a class as its index
  std::vector<float> weight;  // what each example's loss is multiplied by; empty: 1
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_BATCH_H_
