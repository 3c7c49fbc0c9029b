#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/models/internal/layer.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

// A row is read as `places` rows of `channels` numbers, so that every loop is one over columns.
template <typename T>
class BatchNorm final : public Layer<T> {
 public:
  BatchNorm(const std::string& name, size_t width, size_t channels)
      : Layer<T>(width, width), channels_(channels), places_(width / channels) {
    for (const auto& [part, role, initial] :
         {Part{"scale", TensorRole::kTrainable, 1}, Part{"shift", TensorRole::kTrainable, 0},
          Part{"mean", TensorRole::kStatistic, 0}, Part{"variance", TensorRole::kStatistic, 1}}) {
      TensorSpec spec;
      spec.name = absl::StrCat(name, "/", part);
      spec.shape = {channels};
      spec.role = role;
      spec.decay = false;
      if (initial != 0) spec.initializer = {Initializer::Kind::kConstant, initial};
      this->tensors_.push_back(std::move(spec));
    }
    for (AlignedBuffer<T>* buffer : {&mean_, &square_, &inverse_}) buffer->Resize(channels);
  }

  void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) override {
    const size_t n = x.count * places_;
    own_ = x.training() && n > 1;
    if (own_) {
      Measure(x.dense, n);
    } else {
      std::copy_n(parameters[2], channels_, mean_.data());
      std::copy_n(parameters[3], channels_, inverse_.data());
    }
    for (size_t k = 0; k < channels_; ++k) inverse_[k] = T(1) / std::sqrt(inverse_[k] + T(1e-5));
    normal_.Resize(n * channels_);
    for (size_t r = 0; r < n; ++r) {
      Normalise(x.dense + r * channels_, parameters, normal_.data() + r * channels_, y + r * channels_);
    }
  }

  // With d the derivative by y and means over the n numbers of a channel (Ioffe and Szegedy 2015, section 3):
  // below = scale inverse (d - mean of d - normal * mean of (d * normal)). Running statistics are constants.
  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T*, T* delta,
                absl::Span<T* const> gradient, T* below) override {
    const size_t n = x.count * places_;
    ColumnSums(delta, n, channels_, gradient[1]);
    std::fill_n(gradient[0], channels_, T(0));
    for (size_t r = 0; r < n; ++r) {
      AddProducts(delta + r * channels_, normal_.data() + r * channels_, gradient[0]);
    }
    for (size_t r = 0; below != nullptr && r < n; ++r) {
      Descend(parameters[0], delta + r * channels_, normal_.data() + r * channels_, gradient, n, below + r * channels_);
    }
    const T rows = static_cast<T>(x.count), rest = static_cast<T>(n) - T(1);
    for (size_t k = 0; k < channels_; ++k) {
      gradient[2][k] = rows * (own_ ? mean_[k] : parameters[2][k]);
      gradient[3][k] = rows * (own_ ? square_[k] / rest : parameters[3][k]);
    }
  }

 private:
  struct Part {
    const char* name;
    TensorRole role;
    double initial;
  };

  // Means and squared distances of all n numbers of each channel; inverse_ gets the variances.
  void Measure(const T* x, size_t n) {
    const T count = static_cast<T>(n);
    ColumnSums(x, n, channels_, mean_.data());
    for (size_t k = 0; k < channels_; ++k) mean_[k] /= count;
    std::fill_n(square_.data(), channels_, T(0));
    for (size_t r = 0; r < n; ++r) AddSquares(x + r * channels_, mean_.data(), square_.data());
    for (size_t k = 0; k < channels_; ++k) inverse_[k] = square_[k] / count;
  }

  void AddSquares(const T* __restrict x, const T* __restrict mean, T* __restrict square) const {
    for (size_t k = 0; k < channels_; ++k) {
      const T distance = x[k] - mean[k];
      square[k] += distance * distance;
    }
  }
  void Normalise(const T* __restrict x, absl::Span<const T* const> parameters, T* __restrict normal,
                 T* __restrict y) const {
    const T* scale = parameters[0];
    const T* shift = parameters[1];
    const T* mean = mean_.data();
    const T* inverse = inverse_.data();
    for (size_t k = 0; k < channels_; ++k) {
      normal[k] = (x[k] - mean[k]) * inverse[k];
      y[k] = scale[k] * normal[k] + shift[k];
    }
  }
  void AddProducts(const T* __restrict a, const T* __restrict b, T* __restrict sum) const {
    for (size_t k = 0; k < channels_; ++k) sum[k] += a[k] * b[k];
  }
  void Descend(const T* scale, const T* __restrict delta, const T* __restrict normal, absl::Span<T* const> gradient,
               size_t n, T* __restrict below) const {
    const T* inverse = inverse_.data();
    if (!own_) {
      for (size_t k = 0; k < channels_; ++k) below[k] = scale[k] * inverse[k] * delta[k];
      return;
    }
    const T count = static_cast<T>(n);
    const T* along = gradient[0];
    const T* sum = gradient[1];
    for (size_t k = 0; k < channels_; ++k) {
      below[k] = scale[k] * inverse[k] * (delta[k] - sum[k] / count - normal[k] * (along[k] / count));
    }
  }

  const size_t channels_;
  const size_t places_;
  bool own_ = false;         // the rows' statistics, and not the running ones
  AlignedBuffer<T> mean_;    // that x is less
  AlignedBuffer<T> square_;  // with own_: the sum of squared distances from it
  AlignedBuffer<T> inverse_;
  AlignedBuffer<T> normal_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeBatchNorm(const std::string& name, size_t width, size_t channels) {
  return std::make_unique<BatchNorm<T>>(name, width, channels);
}

template LayerPtr<float> MakeBatchNorm(const std::string&, size_t, size_t);
template LayerPtr<double> MakeBatchNorm(const std::string&, size_t, size_t);

}  // namespace descent::internal
