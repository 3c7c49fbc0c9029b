#include <algorithm>
#include <array>
#include <cmath>

#include "worker/models/internal/layer.h"

namespace descent::internal {
namespace {

template <typename T>
class Dropout final : public Layer<T> {
 public:
  Dropout(size_t width, double rate, uint32_t number)
      : Layer<T>(width, width),
        number_(number),
        below_(static_cast<uint32_t>(std::ldexp(rate, 32))),
        scale_(static_cast<T>(1 / (1 - rate))) {}

  void Forward(const Rows<T>& x, absl::Span<const T* const>, T* y) override {
    const size_t n = x.count * this->in();
    factor_.Resize(n);
    if (x.masks == nullptr) {
      std::fill_n(factor_.data(), n, T(1));
    } else {
      Draw(*x.masks, n);
    }
    Multiply(x.dense, factor_.data(), y, n);
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const>, const T*, T* delta, absl::Span<T* const>,
                T* below) override {
    if (below != nullptr) Multiply(delta, factor_.data(), below, x.count * this->in());
  }

 private:
  void Draw(const RandomStream& masks, size_t n) {
    const uint64_t first = uint64_t{number_} << 40;
    for (size_t i = 0; i < n; i += 4) {
      const std::array<uint32_t, 4> words = masks.Block(first + i / 4);
      for (size_t j = 0; j < 4 && i + j < n; ++j) factor_[i + j] = words[j] < below_ ? T(0) : scale_;
    }
  }
  static void Multiply(const T* __restrict a, const T* __restrict b, T* __restrict out, size_t n) {
    for (size_t i = 0; i < n; ++i) out[i] = a[i] * b[i];
  }

  const uint32_t number_;
  const uint32_t below_;
  const T scale_;
  AlignedBuffer<T> factor_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeDropout(size_t width, double rate, uint32_t number) {
  return std::make_unique<Dropout<T>>(width, rate, number);
}

template LayerPtr<float> MakeDropout(size_t, double, uint32_t);
template LayerPtr<double> MakeDropout(size_t, double, uint32_t);

}  // namespace descent::internal
