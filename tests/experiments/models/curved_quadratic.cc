#include <utility>

#include "tests/experiments/models/models.h"

namespace descent {
namespace {

template <typename T>
class CurvedQuadratic final : public Model<T> {
 public:
  CurvedQuadratic(std::vector<double> curvature, double start) : curvature_(std::move(curvature)) {
    tensors_.push_back(
        {.name = "x", .shape = {curvature_.size()}, .initializer = {Initializer::Kind::kConstant, start}});
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const T rows = static_cast<T>(batch.rows);
    for (size_t i = 0; i < curvature_.size(); ++i) {
      gradient[0][i] = static_cast<T>(curvature_[i]) * parameters[0][i] * rows;
    }
    return Evaluate(batch, parameters);
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    BatchResult result;
    result.weight = static_cast<double>(batch.rows);
    result.loss = Value(parameters[0]) * result.weight;
    return result;
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    out->assign(batch.rows, static_cast<T>(Value(parameters[0])));
  }

 private:
  double Value(const T* x) const {
    double sum = 0;
    for (size_t i = 0; i < curvature_.size(); ++i) sum += curvature_[i] * double{x[i]} * double{x[i]} / 2;
    return sum;
  }

  const std::vector<double> curvature_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeCurvedQuadratic(std::vector<double> curvature, double start) {
  return std::make_unique<CurvedQuadratic<T>>(std::move(curvature), start);
}

template std::unique_ptr<Model<float>> MakeCurvedQuadratic(std::vector<double>, double);
template std::unique_ptr<Model<double>> MakeCurvedQuadratic(std::vector<double>, double);

}  // namespace descent
