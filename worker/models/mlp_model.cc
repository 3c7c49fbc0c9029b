#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/internal/elementwise.h"
#include "worker/models/internal/gemm.h"
#include "worker/models/internal/losses.h"
#include "worker/models/internal/models.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
void Activate(ActivationKind kind, T* __restrict z, size_t n) {
  switch (kind) {
    case ActivationKind::kRelu:
      for (size_t i = 0; i < n; ++i) z[i] = z[i] < T(0) ? T(0) : z[i];
      return;
    case ActivationKind::kTanh:
      for (size_t i = 0; i < n; ++i) z[i] = Tanh(z[i]);
      return;
    case ActivationKind::kSigmoid:
      for (size_t i = 0; i < n; ++i) z[i] = Sigmoid(z[i]);
      return;
  }
}

// delta *= the activation's derivative, which is a function of its value `a`.
template <typename T>
void Deactivate(ActivationKind kind, const T* __restrict a, T* __restrict delta, size_t n) {
  switch (kind) {
    case ActivationKind::kRelu:
      for (size_t i = 0; i < n; ++i) delta[i] = a[i] > T(0) ? delta[i] : T(0);
      return;
    case ActivationKind::kTanh:
      for (size_t i = 0; i < n; ++i) delta[i] *= T(1) - a[i] * a[i];
      return;
    case ActivationKind::kSigmoid:
      for (size_t i = 0; i < n; ++i) delta[i] *= a[i] * (T(1) - a[i]);
      return;
  }
}

template <typename T>
class MlpModel final : public Model<T> {
 public:
  MlpModel(std::vector<uint64_t> widths, ActivationKind activation, bool he)
      : widths_(std::move(widths)), activation_(activation), values_(layers()) {
    for (size_t l = 0; l < layers(); ++l) {
      TensorSpec weights;
      weights.name = absl::StrCat("layer", l + 1, "/weights");
      weights.shape = {widths_[l], widths_[l + 1]};
      const double in = static_cast<double>(widths_[l]), out = static_cast<double>(widths_[l + 1]);
      weights.initializer.kind = he ? Initializer::Kind::kNormal : Initializer::Kind::kUniform;
      weights.initializer.scale = he ? std::sqrt(2 / in) : std::sqrt(6 / (in + out));
      tensors_.push_back(std::move(weights));
      TensorSpec bias;
      bias.name = absl::StrCat("layer", l + 1, "/bias");
      bias.shape = {widths_[l + 1]};
      bias.decay = false;
      tensors_.push_back(std::move(bias));
    }
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return true; }
  size_t outputs() const override { return widths_.back(); }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    Forward(batch, parameters);
    const size_t rows = batch.rows;
    const BatchResult result = Loss(batch, /*delta=*/true);
    for (size_t l = layers(); l-- > 0;) {
      const size_t in = widths_[l], out = widths_[l + 1];
      T* delta = l + 1 == layers() ? values_[l].data() : delta_[l % 2].data();
      if (l > 0) {
        MultiplyTransposedLeft(values_[l - 1].data(), delta, gradient[2 * l], in, rows, out);
      } else if (batch.sparse) {
        SparseBackward(batch, delta, in, out, gradient[0]);
      } else {
        MultiplyTransposedLeft(Dense(batch), delta, gradient[0], in, rows, out);
      }
      ColumnSums(delta, rows, out, gradient[2 * l + 1]);
      if (l == 0) break;
      AlignedBuffer<T>& below = delta_[(l - 1) % 2];
      below.Resize(rows * in);
      MultiplyTransposedRight(delta, parameters[2 * l], below.data(), rows, out, in);
      Deactivate(activation_, values_[l - 1].data(), below.data(), rows * in);
    }
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    Forward(batch, parameters);
    return Loss(batch, /*delta=*/false);
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    Forward(batch, parameters);
    T* z = values_.back().data();
    Probabilities(z, batch.rows, outputs());
    out->assign(z, z + batch.rows * outputs());
  }

 private:
  size_t layers() const { return widths_.size() - 1; }

  const T* Dense(const Batch& batch) const {
    if constexpr (std::is_same_v<T, float>) {
      return batch.dense.data();
    } else {
      return input_.data();
    }
  }

  // Fills values_[l] with layer l's activations, the last one with scores.
  void Forward(const Batch& batch, absl::Span<const T* const> parameters) {
    DESCENT_CHECK(parameters.size() == tensors_.size());
    DESCENT_CHECK(batch.features == widths_[0]);
    const size_t rows = batch.rows;
    if constexpr (!std::is_same_v<T, float>) {
      if (!batch.sparse) {
        input_.Resize(rows * widths_[0]);
        std::copy_n(batch.dense.data(), rows * widths_[0], input_.data());
      }
    }
    for (size_t l = 0; l < layers(); ++l) {
      const size_t in = widths_[l], out = widths_[l + 1];
      values_[l].Resize(rows * out);
      T* z = values_[l].data();
      const T* bias = parameters[2 * l + 1];
      if (l == 0 && batch.sparse) {
        SparseForward(batch, parameters[0], out, bias, z);
      } else {
        // The product is added to the biases, which spares a pass.
        for (size_t r = 0; r < rows; ++r) std::copy_n(bias, out, z + r * out);
        MultiplyAdd(l == 0 ? Dense(batch) : values_[l - 1].data(), parameters[2 * l], z, rows, in, out);
      }
      if (l + 1 < layers()) Activate(activation_, z, rows * out);
    }
  }

  BatchResult Loss(const Batch& batch, bool delta) {
    DESCENT_CHECK(batch.label.size() >= batch.rows);
    return SoftmaxLoss(batch, outputs(), values_.back().data(), delta, &row_scratch_);
  }

  const std::vector<uint64_t> widths_;
  const ActivationKind activation_;
  std::vector<TensorSpec> tensors_;
  std::vector<AlignedBuffer<T>> values_;
  AlignedBuffer<T> delta_[2];
  AlignedBuffer<T> input_;
  AlignedBuffer<double> row_scratch_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeMlp(std::vector<uint64_t> widths, ActivationKind activation, bool he) {
  return std::make_unique<MlpModel<T>>(std::move(widths), activation, he);
}

template std::unique_ptr<Model<float>> MakeMlp(std::vector<uint64_t>, ActivationKind, bool);
template std::unique_ptr<Model<double>> MakeMlp(std::vector<uint64_t>, ActivationKind, bool);

}  // namespace descent::internal
