#include <utility>

#include "common/base/check.h"
#include "worker/models/internal/dense_input.h"
#include "worker/models/internal/layer.h"
#include "worker/models/internal/loss.h"
#include "worker/models/internal/models.h"

namespace descent::internal {
namespace {

template <typename T>
class NetworkModel final : public Model<T> {
 public:
  NetworkModel(LossSpec loss, uint64_t features, Sequence<T> layers, Target target, uint64_t seed)
      : features_(features), layers_(std::move(layers)), loss_(std::move(loss)), target_(target), seed_(seed) {
    DESCENT_CHECK(layers_.out() == loss_.outputs());
  }

  const std::vector<TensorSpec>& tensors() const override { return layers_.tensors(); }
  bool classifier() const override { return loss_.classifier(); }
  size_t outputs() const override { return loss_.outputs(); }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const RandomStream masks(seed_, Purpose::kDropout, batch.clock, batch.rank);
    Rows<T> x = InputOf(batch);
    x.masks = &masks;
    T* z = Forward(x, parameters);
    const BatchResult result = LossOf(batch, z, /*delta=*/true);
    layers_.Backward(x, parameters, z, gradient, /*below=*/nullptr);
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    return LossOf(batch, Forward(InputOf(batch), parameters), /*delta=*/false);
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    T* z = Forward(InputOf(batch), parameters);
    loss_.Predict(z, batch.rows);
    out->assign(z, z + batch.rows * outputs());
  }

 private:
  Rows<T> InputOf(const Batch& batch) {
    DESCENT_CHECK(batch.features == features_);
    if (batch.sparse && layers_.takes_sparse()) return {batch.rows, nullptr, &batch, nullptr};
    return {batch.rows, dense_.Of(batch), nullptr, nullptr};
  }

  T* Forward(const Rows<T>& x, absl::Span<const T* const> parameters) {
    DESCENT_CHECK(parameters.size() == tensors().size());
    return layers_.Forward(x, parameters);
  }

  BatchResult LossOf(const Batch& batch, T* z, bool delta) {
    return target_ == Target::kLabel ? loss_.Of(batch, z, delta) : loss_.Of(batch, dense_.Of(batch), z, delta);
  }

  const size_t features_;
  Sequence<T> layers_;
  Loss<T> loss_;
  const Target target_;
  const uint64_t seed_;
  DenseInput<T> dense_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeNetwork(LossSpec loss, uint64_t features, Sequence<T> layers, Target target,
                                      uint64_t seed) {
  return std::make_unique<NetworkModel<T>>(std::move(loss), features, std::move(layers), target, seed);
}

template std::unique_ptr<Model<float>> MakeNetwork(LossSpec, uint64_t, Sequence<float>, Target, uint64_t);
template std::unique_ptr<Model<double>> MakeNetwork(LossSpec, uint64_t, Sequence<double>, Target, uint64_t);

}  // namespace descent::internal
