#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/models/internal/layer.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
class LayerNorm final : public Layer<T> {
 public:
  LayerNorm(const std::string& name, size_t width) : Layer<T>(width, width) {
    for (const char* part : {"scale", "shift"}) {
      TensorSpec spec;
      spec.name = absl::StrCat(name, "/", part);
      spec.shape = {width};
      spec.decay = false;
      this->tensors_.push_back(std::move(spec));
    }
    this->tensors_[0].initializer = {Initializer::Kind::kConstant, 1};
  }

  void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) override {
    const size_t width = this->in();
    const T* scale = parameters[0];
    const T* shift = parameters[1];
    normal_.Resize(x.count * width);
    inverse_.Resize(x.count);
    for (size_t r = 0; r < x.count; ++r) {
      const T* from = x.dense + r * width;
      T* normal = normal_.data() + r * width;
      const T mean = Sum(from, width) / static_cast<T>(width);
      for (size_t k = 0; k < width; ++k) normal[k] = from[k] - mean;
      const T variance = Dot(normal, normal, width) / static_cast<T>(width);
      inverse_[r] = T(1) / std::sqrt(variance + T(1e-5));
      for (size_t k = 0; k < width; ++k) {
        normal[k] *= inverse_[r];
        y[r * width + k] = scale[k] * normal[k] + shift[k];
      }
    }
  }

  // With g = delta * scale: below = inverse (g - mean of g - normal * mean of (g * normal)).
  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T*, T* delta,
                absl::Span<T* const> gradient, T* below) override {
    const size_t width = this->in();
    ColumnSums(delta, x.count, width, gradient[1]);
    std::fill_n(gradient[0], width, T(0));
    for (size_t r = 0; r < x.count; ++r) {
      const T* normal = normal_.data() + r * width;
      T* g = delta + r * width;
      for (size_t k = 0; k < width; ++k) {
        gradient[0][k] += g[k] * normal[k];
        g[k] *= parameters[0][k];
      }
      if (below == nullptr) continue;
      const T mean = Sum(g, width) / static_cast<T>(width), along = Dot(g, normal, width) / static_cast<T>(width);
      for (size_t k = 0; k < width; ++k) below[r * width + k] = inverse_[r] * (g[k] - mean - normal[k] * along);
    }
  }

 private:
  AlignedBuffer<T> normal_;
  AlignedBuffer<T> inverse_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeLayerNorm(const std::string& name, size_t width) {
  return std::make_unique<LayerNorm<T>>(name, width);
}

template LayerPtr<float> MakeLayerNorm(const std::string&, size_t);
template LayerPtr<double> MakeLayerNorm(const std::string&, size_t);

}  // namespace descent::internal
