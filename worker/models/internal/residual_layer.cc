#include <algorithm>
#include <utility>

#include "worker/models/internal/layer.h"

namespace descent::internal {
namespace {

template <typename T>
class Residual final : public Layer<T> {
 public:
  explicit Residual(Sequence<T> f) : Layer<T>(f.out(), f.out()), f_(std::move(f)) { this->tensors_ = f_.tensors(); }

  void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) override {
    const T* inner = f_.Forward(x, parameters);
    for (size_t i = 0; i < x.count * this->in(); ++i) y[i] = x.dense[i] + inner[i];
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T*, T* delta,
                absl::Span<T* const> gradient, T* below) override {
    const size_t n = x.count * this->in();
    delta_.Resize(n);
    std::copy_n(delta, n, delta_.data());
    f_.Backward(x, parameters, delta_.data(), gradient, below);
    for (size_t i = 0; below != nullptr && i < n; ++i) below[i] += delta[i];
  }

 private:
  Sequence<T> f_;
  AlignedBuffer<T> delta_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeResidual(Sequence<T> f) {
  return std::make_unique<Residual<T>>(std::move(f));
}

template LayerPtr<float> MakeResidual(Sequence<float>);
template LayerPtr<double> MakeResidual(Sequence<double>);

}  // namespace descent::internal
