#include <algorithm>
#include <utility>

#include "worker/models/internal/models.h"

namespace descent::internal {
namespace {

template <typename T>
class FrozenModel final : public Model<T> {
 public:
  FrozenModel(std::unique_ptr<Model<T>> model, std::vector<TensorSpec> tensors)
      : model_(std::move(model)), tensors_(std::move(tensors)) {
    model_->set_unwanted([this] { return this->Unwanted(); });
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return model_->classifier(); }
  size_t outputs() const override { return model_->outputs(); }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const BatchResult result = model_->Gradient(batch, parameters, gradient);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const TensorSpec& spec = tensors_[i];
      if (spec.role != TensorRole::kFrozen) continue;
      std::fill_n(gradient[i], spec.sparse ? batch.keys.size() * spec.dim() : spec.elements(), T(0));
    }
    return result;
  }
  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    return model_->Evaluate(batch, parameters);
  }
  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    model_->Predict(batch, parameters, out);
  }

 private:
  const std::unique_ptr<Model<T>> model_;
  const std::vector<TensorSpec> tensors_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeFrozen(std::unique_ptr<Model<T>> model, absl::Span<const size_t> frozen) {
  std::vector<TensorSpec> tensors = model->tensors();
  for (const size_t i : frozen) {
    tensors[i].role = TensorRole::kFrozen;
    tensors[i].decay = false;
  }
  return std::make_unique<FrozenModel<T>>(std::move(model), std::move(tensors));
}

template std::unique_ptr<Model<float>> MakeFrozen(std::unique_ptr<Model<float>>, absl::Span<const size_t>);
template std::unique_ptr<Model<double>> MakeFrozen(std::unique_ptr<Model<double>>, absl::Span<const size_t>);

}  // namespace descent::internal
