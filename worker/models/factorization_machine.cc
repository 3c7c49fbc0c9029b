// Factorization machines (Rendle 2010). With S = X V and n_i = |v_i|^2 the score of a row is
//   b + <w, x> + 1/2 (sum over f of S_f^2 - sum over i of n_i x_i^2)        (lemma 3.1)
// whose derivative by v_if is x_i S_f - v_if x_i^2.
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
class FactorizationMachine final : public Model<T> {
 public:
  FactorizationMachine(LossSpec loss, uint64_t features, uint32_t dim, double deviation, bool table, bool bias)
      : features_(features), dim_(dim), table_(table), bias_(bias), loss_(std::move(loss)) {
    TensorSpec weights;
    weights.name = "weights";
    weights.sparse = table;
    weights.shape = {table ? 1 : features};
    tensors_.push_back(std::move(weights));
    TensorSpec vectors;
    vectors.name = "vectors";
    vectors.sparse = table;
    vectors.shape = table ? std::vector<uint64_t>{dim} : std::vector<uint64_t>{features, dim};
    vectors.initializer = {Initializer::Kind::kNormal, deviation};
    tensors_.push_back(std::move(vectors));
    if (!bias) return;
    TensorSpec spec;
    spec.name = "bias";
    spec.shape = {1};
    spec.decay = false;
    tensors_.push_back(std::move(spec));
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return loss_.classifier(); }
  size_t outputs() const override { return 1; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const size_t rows = batch.rows, features = Forward(batch, parameters);
    const BatchResult result = loss_.Of(batch, z_.data(), /*delta=*/true);
    const T* delta = z_.data();
    for (size_t r = 0; r < rows; ++r) {
      for (size_t f = 0; f < dim_; ++f) sums_[r * dim_ + f] *= delta[r];
    }
    norms_.Resize(features);
    T* curvature = norms_.data();  // sum over the rows of delta x_i^2
    if (batch.sparse) {
      SparseBackward(batch, delta, features, 1, gradient[0]);
      SparseBackward(batch, sums_.data(), features, dim_, gradient[1]);
      std::fill_n(curvature, features, T(0));
      for (size_t r = 0; r < rows; ++r) {
        for (size_t i = batch.row_begin[r]; i < batch.row_begin[r + 1]; ++i) {
          curvature[batch.column[i]] += delta[r] * Square(batch.value[i]);
        }
      }
    } else {
      WeightedRowSum(dense_.Of(batch), delta, rows, features, gradient[0]);
      MultiplyTransposedLeft(dense_.Of(batch), sums_.data(), gradient[1], features, rows, dim_);
      WeightedRowSum(squares_.data(), delta, rows, features, curvature);
    }
    for (size_t i = 0; i < features; ++i) Axpy(-curvature[i], parameters[1] + i * dim_, gradient[1] + i * dim_, dim_);
    if (bias_) ColumnSums(delta, rows, 1, gradient[2]);
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    Forward(batch, parameters);
    return loss_.Of(batch, z_.data(), /*delta=*/false);
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    Forward(batch, parameters);
    loss_.Predict(z_.data(), batch.rows);
    out->assign(z_.data(), z_.data() + batch.rows);
  }

 private:
  static T Square(float value) { return T(value) * T(value); }

  // Fills z_ and sums_, of dense input squares_; returns the rows of the vectors that take part.
  size_t Forward(const Batch& batch, absl::Span<const T* const> parameters) {
    DESCENT_CHECK(parameters.size() == tensors_.size());
    DESCENT_CHECK(table_ ? batch.sparse : batch.features == features_);
    const size_t rows = batch.rows, features = table_ ? batch.keys.size() : features_;
    const T* vectors = parameters[1];
    const T* bias = bias_ ? parameters[2] : nullptr;
    z_.Resize(rows);
    sums_.Resize(rows * dim_);
    norms_.Resize(features);
    for (size_t i = 0; i < features; ++i) norms_[i] = Dot(vectors + i * dim_, vectors + i * dim_, dim_);
    if (batch.sparse) {
      SparseForward(batch, parameters[0], 1, bias, z_.data());
      SparseForward(batch, vectors, dim_, static_cast<const T*>(nullptr), sums_.data());
    } else {
      const T* x = dense_.Of(batch);
      DenseForward(x, parameters[0], rows, features, bias, z_.data());
      std::fill_n(sums_.data(), rows * dim_, T(0));
      MultiplyAdd(x, vectors, sums_.data(), rows, features, dim_);
      squares_.Resize(rows * features);
      for (size_t i = 0; i < rows * features; ++i) squares_[i] = x[i] * x[i];
    }
    for (size_t r = 0; r < rows; ++r) {
      T own = 0;  // what pairs of a feature with itself add
      if (batch.sparse) {
        for (size_t i = batch.row_begin[r]; i < batch.row_begin[r + 1]; ++i) {
          own += Square(batch.value[i]) * norms_[batch.column[i]];
        }
      } else {
        own = Dot(squares_.data() + r * features, norms_.data(), features);
      }
      const T* sum = sums_.data() + r * dim_;
      z_[r] += T(0.5) * (Dot(sum, sum, dim_) - own);
    }
    return features;
  }

  const size_t features_;
  const size_t dim_;
  const bool table_;
  const bool bias_;
  std::vector<TensorSpec> tensors_;
  Loss<T> loss_;
  DenseInput<T> dense_;
  AlignedBuffer<T> z_;
  AlignedBuffer<T> sums_;     // [rows x dim]
  AlignedBuffer<T> norms_;    // [features]
  AlignedBuffer<T> squares_;  // [rows x features], dense
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeFactorizationMachine(LossSpec loss, uint64_t features, uint32_t dim, double deviation,
                                                   bool table, bool bias) {
  return std::make_unique<FactorizationMachine<T>>(std::move(loss), features, dim, deviation, table, bias);
}

template std::unique_ptr<Model<float>> MakeFactorizationMachine(LossSpec, uint64_t, uint32_t, double, bool, bool);
template std::unique_ptr<Model<double>> MakeFactorizationMachine(LossSpec, uint64_t, uint32_t, double, bool, bool);

}  // namespace descent::internal
