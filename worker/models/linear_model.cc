#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/internal/gemm.h"
#include "worker/models/internal/losses.h"
#include "worker/models/internal/models.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
class LinearModel final : public Model<T> {
 public:
  LinearModel(LinearKind kind, uint64_t features, uint32_t outputs, bool table, bool bias)
      : kind_(kind), features_(features), outputs_(outputs), table_(table), bias_(bias) {
    TensorSpec weights;
    weights.name = "weights";
    weights.sparse = table;
    weights.shape = table ? std::vector<uint64_t>{outputs} : std::vector<uint64_t>{features, outputs};
    tensors_.push_back(std::move(weights));
    if (bias) {
      TensorSpec spec;
      spec.name = "bias";
      spec.shape = {outputs};
      spec.decay = false;
      tensors_.push_back(std::move(spec));
    }
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return kind_ != LinearKind::kSquared; }
  size_t outputs() const override { return outputs_; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const size_t features = Forward(batch, parameters);
    const BatchResult result = Loss(batch, /*delta=*/true);
    if (batch.sparse) {
      SparseBackward(batch, z_.data(), features, outputs_, gradient[0]);
    } else if (outputs_ == 1) {
      WeightedRowSum(Dense(batch), z_.data(), batch.rows, features, gradient[0]);
    } else {
      MultiplyTransposedLeft(Dense(batch), z_.data(), gradient[0], features, batch.rows, outputs_);
    }
    if (bias_) ColumnSums(z_.data(), batch.rows, outputs_, gradient[1]);
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    Forward(batch, parameters);
    return Loss(batch, /*delta=*/false);
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    Forward(batch, parameters);
    const size_t n = batch.rows * outputs_;
    if (kind_ == LinearKind::kLogistic) {
      for (size_t i = 0; i < n; ++i) z_[i] = Sigmoid(z_[i]);
    } else if (kind_ == LinearKind::kSoftmax) {
      Probabilities(z_.data(), batch.rows, outputs_);
    }
    out->assign(z_.data(), z_.data() + n);
  }

 private:
  // The dense input as T; converted by Forward where T is not float.
  const T* Dense(const Batch& batch) const {
    if constexpr (std::is_same_v<T, float>) {
      return batch.dense.data();
    } else {
      return input_.data();
    }
  }

  // Fills z_; returns the rows of the weights that take part.
  size_t Forward(const Batch& batch, absl::Span<const T* const> parameters) {
    DESCENT_CHECK(parameters.size() == tensors_.size());
    DESCENT_CHECK(table_ ? batch.sparse : batch.features == features_);
    const size_t features = table_ ? batch.keys.size() : features_;
    const T* weights = parameters[0];
    const T* bias = bias_ ? parameters[1] : nullptr;
    z_.Resize(batch.rows * outputs_);
    T* z = z_.data();
    if (batch.sparse) {
      SparseForward(batch, weights, outputs_, bias, z);
      return features;
    }
    if constexpr (!std::is_same_v<T, float>) {
      input_.Resize(batch.rows * features);
      std::copy_n(batch.dense.data(), batch.rows * features, input_.data());
    }
    const T* x = Dense(batch);
    if (outputs_ == 1) {
      const T b = bias != nullptr ? bias[0] : T(0);
      for (size_t r = 0; r < batch.rows; ++r) z[r] = Dot(x + r * features, weights, features) + b;
      return features;
    }
    for (size_t r = 0; r < batch.rows; ++r) {
      if (bias != nullptr) {
        std::copy_n(bias, outputs_, z + r * outputs_);
      } else {
        std::fill_n(z + r * outputs_, outputs_, T(0));
      }
    }
    MultiplyAdd(x, weights, z, batch.rows, features, outputs_);
    return features;
  }

  BatchResult Loss(const Batch& batch, bool delta) {
    DESCENT_CHECK(batch.label.size() >= batch.rows);
    switch (kind_) {
      case LinearKind::kSquared:
        return SquaredLoss(batch, z_.data(), delta);
      case LinearKind::kLogistic:
        return LogisticLoss(batch, z_.data(), delta, &row_scratch_);
      case LinearKind::kSoftmax:
        return SoftmaxLoss(batch, outputs_, z_.data(), delta, &row_scratch_);
    }
    DESCENT_CHECK(false);
    return {};
  }

  const LinearKind kind_;
  const size_t features_;
  const size_t outputs_;
  const bool table_;
  const bool bias_;
  std::vector<TensorSpec> tensors_;
  AlignedBuffer<T> z_;
  AlignedBuffer<T> input_;
  AlignedBuffer<double> row_scratch_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeLinear(LinearKind kind, uint64_t features, uint32_t outputs, bool table, bool bias) {
  return std::make_unique<LinearModel<T>>(kind, features, outputs, table, bias);
}

template std::unique_ptr<Model<float>> MakeLinear(LinearKind, uint64_t, uint32_t, bool, bool);
template std::unique_ptr<Model<double>> MakeLinear(LinearKind, uint64_t, uint32_t, bool, bool);

}  // namespace descent::internal
