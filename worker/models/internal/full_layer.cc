#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/models/internal/gemm.h"
#include "worker/models/internal/layer.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
class Full final : public Layer<T> {
 public:
  Full(const std::string& name, size_t in, size_t out, const Initializer& initializer, bool has_bias)
      : Layer<T>(in, out), has_bias_(has_bias) {
    TensorSpec weights;
    weights.name = absl::StrCat(name, "/weights");
    weights.shape = {in, out};
    weights.initializer = initializer;
    this->tensors_.push_back(std::move(weights));
    if (!has_bias) return;
    TensorSpec bias;
    bias.name = absl::StrCat(name, "/bias");
    bias.shape = {out};
    bias.decay = false;
    this->tensors_.push_back(std::move(bias));
  }

  bool takes_sparse() const override { return true; }

  void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) override {
    const size_t out = this->out();
    const T* bias = has_bias_ ? parameters[1] : nullptr;
    if (x.sparse != nullptr) {
      SparseForward(*x.sparse, parameters[0], out, bias, y);
      return;
    }
    // The product is added to the biases, which spares a pass.
    if (bias == nullptr) std::fill_n(y, x.count * out, T(0));
    for (size_t r = 0; bias != nullptr && r < x.count; ++r) std::copy_n(bias, out, y + r * out);
    MultiplyAdd(x.dense, parameters[0], y, x.count, this->in(), out);
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T*, T* delta,
                absl::Span<T* const> gradient, T* below) override {
    const size_t in = this->in(), out = this->out();
    if (x.sparse != nullptr) {
      SparseBackward(*x.sparse, delta, in, out, gradient[0]);
    } else {
      MultiplyTransposedLeft(x.dense, delta, gradient[0], in, x.count, out);
    }
    if (has_bias_) ColumnSums(delta, x.count, out, gradient[1]);
    if (below != nullptr) MultiplyTransposedRight(delta, parameters[0], below, x.count, out, in);
  }

 private:
  const bool has_bias_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeFull(const std::string& name, size_t in, size_t out, const Initializer& initializer, bool bias) {
  return std::make_unique<Full<T>>(name, in, out, initializer, bias);
}

template LayerPtr<float> MakeFull(const std::string&, size_t, size_t, const Initializer&, bool);
template LayerPtr<double> MakeFull(const std::string&, size_t, size_t, const Initializer&, bool);

}  // namespace descent::internal
