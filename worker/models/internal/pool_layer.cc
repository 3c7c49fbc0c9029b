#include <algorithm>
#include <cstdint>
#include <vector>

#include "worker/models/internal/layer.h"

namespace descent::internal {
namespace {

template <typename T>
class Pool final : public Layer<T> {
 public:
  Pool(PoolKind kind, const ImageShape& in, size_t height, size_t width)
      : Layer<T>(in.size(), in.height / height * (in.width / width) * in.channels),
        kind_(kind),
        in_(in),
        height_(height),
        width_(width) {}

  void Forward(const Rows<T>& x, absl::Span<const T* const>, T* y) override {
    if (kind_ == PoolKind::kMax) {
      from_.resize(x.count * this->out());
      EachPixel(x.count, [&](size_t from, size_t to, bool first) {
        for (size_t c = 0; c < in_.channels; ++c) {
          const T value = x.dense[from + c];
          // What is not a number wins, and stays.
          if (first || value > y[to + c] || value != value) {
            y[to + c] = value;
            from_[to + c] = from + c;
          }
        }
      });
      return;
    }
    std::fill_n(y, x.count * this->out(), T(0));
    const T share = Share();
    EachPixel(x.count, [&](size_t from, size_t to, bool) {
      for (size_t c = 0; c < in_.channels; ++c) y[to + c] += share * x.dense[from + c];
    });
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const>, const T*, T* delta, absl::Span<T* const>,
                T* below) override {
    if (below == nullptr) return;
    std::fill_n(below, x.count * this->in(), T(0));
    if (kind_ == PoolKind::kMax) {
      for (size_t i = 0; i < x.count * this->out(); ++i) below[from_[i]] += delta[i];
      return;
    }
    const T share = Share();
    EachPixel(x.count, [&](size_t from, size_t to, bool) {
      for (size_t c = 0; c < in_.channels; ++c) below[from + c] = share * delta[to + c];
    });
  }

 private:
  T Share() const { return T(1) / static_cast<T>(height_ * width_); }

  // Calls use(where a pixel begins, where its window's result begins, whether it is the window's first), window by
  // window.
  template <typename Use>
  void EachPixel(size_t images, Use use) const {
    size_t to = 0;
    for (size_t i = 0; i < images; ++i) {
      for (size_t top = 0; top + height_ <= in_.height; top += height_) {
        for (size_t left = 0; left + width_ <= in_.width; left += width_, to += in_.channels) {
          for (size_t dy = 0; dy < height_; ++dy) {
            for (size_t dx = 0; dx < width_; ++dx) {
              const size_t pixel = (i * in_.height + top + dy) * in_.width + left + dx;
              use(pixel * in_.channels, to, dy == 0 && dx == 0);
            }
          }
        }
      }
    }
  }

  const PoolKind kind_;
  const ImageShape in_;
  const size_t height_, width_;
  std::vector<size_t> from_;  // kMax: where each result comes from
};

}  // namespace

template <typename T>
LayerPtr<T> MakePool(PoolKind kind, const ImageShape& in, size_t height, size_t width) {
  return std::make_unique<Pool<T>>(kind, in, height, width);
}

template LayerPtr<float> MakePool(PoolKind, const ImageShape&, size_t, size_t);
template LayerPtr<double> MakePool(PoolKind, const ImageShape&, size_t, size_t);

}  // namespace descent::internal
