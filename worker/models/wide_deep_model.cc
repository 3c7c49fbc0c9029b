// Wide & deep learning (Cheng et al. 2016): a linear model of all features and a net over the sum of their embeddings,
// each times the feature's value; the scores of both are added.
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/internal/models.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
class WideDeepModel final : public Model<T> {
 public:
  WideDeepModel(LossSpec loss, uint32_t embedding, Sequence<T> deep, uint64_t seed)
      : embedding_(embedding), deep_(std::move(deep)), loss_(std::move(loss)), seed_(seed) {
    TensorSpec wide;
    wide.name = "wide";
    wide.sparse = true;
    wide.shape = {loss_.outputs()};
    tensors_.push_back(std::move(wide));
    TensorSpec embeddings;
    embeddings.name = "embeddings";
    embeddings.sparse = true;
    embeddings.shape = {embedding};
    embeddings.initializer = {Initializer::Kind::kNormal, 1 / std::sqrt(static_cast<double>(embedding))};
    tensors_.push_back(std::move(embeddings));
    tensors_.insert(tensors_.end(), deep_.tensors().begin(), deep_.tensors().end());
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return loss_.classifier(); }
  size_t outputs() const override { return loss_.outputs(); }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const RandomStream masks(seed_, Purpose::kDropout, batch.clock, batch.rank);
    T* z = Forward(batch, parameters, &masks);
    const BatchResult result = loss_.Of(batch, z, /*delta=*/true);
    SparseBackward(batch, z, batch.keys.size(), outputs(), gradient[0]);
    by_input_.Resize(batch.rows * embedding_);
    deep_.Backward(InputOf(batch, &masks), parameters.subspan(2), z, gradient.subspan(2), by_input_.data());
    SparseBackward(batch, by_input_.data(), batch.keys.size(), embedding_, gradient[1]);
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    return loss_.Of(batch, Forward(batch, parameters, nullptr), /*delta=*/false);
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    T* z = Forward(batch, parameters, nullptr);
    loss_.Predict(z, batch.rows);
    out->assign(z, z + batch.rows * outputs());
  }

 private:
  Rows<T> InputOf(const Batch& batch, const RandomStream* masks) const {
    return {batch.rows, input_.data(), nullptr, masks};
  }

  T* Forward(const Batch& batch, absl::Span<const T* const> parameters, const RandomStream* masks) {
    DESCENT_CHECK(parameters.size() == tensors_.size());
    DESCENT_CHECK(batch.sparse);
    const T* no_bias = nullptr;
    input_.Resize(batch.rows * embedding_);
    wide_.Resize(batch.rows * outputs());
    SparseForward(batch, parameters[1], embedding_, no_bias, input_.data());
    SparseForward(batch, parameters[0], outputs(), no_bias, wide_.data());
    T* z = deep_.Forward(InputOf(batch, masks), parameters.subspan(2));
    for (size_t i = 0; i < batch.rows * outputs(); ++i) z[i] += wide_[i];
    return z;
  }

  const size_t embedding_;
  Sequence<T> deep_;
  Loss<T> loss_;
  const uint64_t seed_;
  std::vector<TensorSpec> tensors_;
  AlignedBuffer<T> input_;     // [rows x embedding]
  AlignedBuffer<T> by_input_;  // likewise
  AlignedBuffer<T> wide_;      // [rows x outputs]
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeWideDeep(LossSpec loss, uint32_t embedding, Sequence<T> deep, uint64_t seed) {
  return std::make_unique<WideDeepModel<T>>(std::move(loss), embedding, std::move(deep), seed);
}

template std::unique_ptr<Model<float>> MakeWideDeep(LossSpec, uint32_t, Sequence<float>, uint64_t);
template std::unique_ptr<Model<double>> MakeWideDeep(LossSpec, uint32_t, Sequence<double>, uint64_t);

}  // namespace descent::internal
