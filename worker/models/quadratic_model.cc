#include <utility>

#include "common/base/check.h"
#include "worker/models/internal/models.h"

namespace descent::internal {
namespace {

template <typename T>
class QuadraticModel final : public Model<T> {
 public:
  QuadraticModel(uint64_t dim, double center, double start) : dim_(dim), center_(static_cast<T>(center)) {
    TensorSpec x;
    x.name = "x";
    x.shape = {dim};
    x.initializer = {Initializer::Kind::kConstant, start};
    tensors_.push_back(std::move(x));
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const T* x = parameters[0];
    const T rows = static_cast<T>(batch.rows);
    for (size_t i = 0; i < dim_; ++i) gradient[0][i] = T(2) * (x[i] - center_) * rows;
    return Evaluate(batch, parameters);
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    DESCENT_CHECK(parameters.size() == 1);
    BatchResult result;
    result.weight = static_cast<double>(batch.rows);
    result.loss = Value(parameters[0]) * result.weight;
    return result;
  }

  // The function's value.
  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    out->assign(batch.rows, static_cast<T>(Value(parameters[0])));
  }

 private:
  double Value(const T* x) const {
    double sum = 0;
    for (size_t i = 0; i < dim_; ++i) {
      const double d = static_cast<double>(x[i]) - static_cast<double>(center_);
      sum += d * d;
    }
    return sum;
  }

  const size_t dim_;
  const T center_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeQuadratic(uint64_t dim, double center, double start) {
  return std::make_unique<QuadraticModel<T>>(dim, center, start);
}

template std::unique_ptr<Model<float>> MakeQuadratic(uint64_t, double, double);
template std::unique_ptr<Model<double>> MakeQuadratic(uint64_t, double, double);

}  // namespace descent::internal
