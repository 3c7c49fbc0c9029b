#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/internal/dense_input.h"
#include "worker/models/internal/gemm.h"
#include "worker/models/internal/loss.h"
#include "worker/models/internal/models.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
class LinearModel final : public Model<T> {
 public:
  LinearModel(LossSpec loss, uint64_t features, bool table, bool bias)
      : features_(features), outputs_(loss.outputs), table_(table), bias_(bias), loss_(std::move(loss)) {
    TensorSpec weights;
    weights.name = "weights";
    weights.sparse = table;
    weights.shape = table ? std::vector<uint64_t>{outputs_} : std::vector<uint64_t>{features, outputs_};
    tensors_.push_back(std::move(weights));
    if (bias) {
      TensorSpec spec;
      spec.name = "bias";
      spec.shape = {outputs_};
      spec.decay = false;
      tensors_.push_back(std::move(spec));
    }
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return loss_.classifier(); }
  size_t outputs() const override { return outputs_; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const size_t features = Forward(batch, parameters);
    const BatchResult result = loss_.Of(batch, z_.data(), /*delta=*/true);
    if (batch.sparse) {
      SparseBackward(batch, z_.data(), features, outputs_, gradient[0]);
    } else if (outputs_ == 1) {
      WeightedRowSum(dense_.Of(batch), z_.data(), batch.rows, features, gradient[0]);
    } else {
      MultiplyTransposedLeft(dense_.Of(batch), z_.data(), gradient[0], features, batch.rows, outputs_);
    }
    if (bias_) ColumnSums(z_.data(), batch.rows, outputs_, gradient[1]);
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    Forward(batch, parameters);
    return loss_.Of(batch, z_.data(), /*delta=*/false);
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    Forward(batch, parameters);
    loss_.Predict(z_.data(), batch.rows);
    out->assign(z_.data(), z_.data() + batch.rows * outputs_);
  }

 private:
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
    const T* x = dense_.Of(batch);
    if (outputs_ == 1) {
      DenseForward(x, weights, batch.rows, features, bias, z);
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

  const size_t features_;
  const size_t outputs_;
  const bool table_;
  const bool bias_;
  std::vector<TensorSpec> tensors_;
  Loss<T> loss_;
  DenseInput<T> dense_;
  AlignedBuffer<T> z_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeLinear(LossSpec loss, uint64_t features, bool table, bool bias) {
  return std::make_unique<LinearModel<T>>(std::move(loss), features, table, bias);
}

template std::unique_ptr<Model<float>> MakeLinear(LossSpec, uint64_t, bool, bool);
template std::unique_ptr<Model<double>> MakeLinear(LossSpec, uint64_t, bool, bool);

}  // namespace descent::internal
