#include "tests/experiments/models/models.h"

namespace descent {
namespace {

template <typename T>
class Saddle final : public Model<T> {
 public:
  explicit Saddle(double start) {
    tensors_.push_back({.name = "x", .shape = {1}, .initializer = {Initializer::Kind::kConstant, start}});
    tensors_.push_back({.name = "y", .shape = {1}, .initializer = {}});
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    const T x = parameters[0][0], y = parameters[1][0], rows = static_cast<T>(batch.rows);
    T pull = 0;
    for (size_t i = 0; i < batch.rows; ++i) pull += static_cast<T>(batch.dense[i]);
    gradient[0][0] = x * rows;
    gradient[1][0] = (y * y * y - y) * rows + pull;
    return Evaluate(batch, parameters);
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    BatchResult result;
    for (size_t i = 0; i < batch.rows; ++i) result.loss += Loss(batch, i, parameters);
    result.weight = static_cast<double>(batch.rows);
    return result;
  }

  // The losses, which is all there is to tell of an example.
  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    out->clear();
    for (size_t i = 0; i < batch.rows; ++i) out->push_back(static_cast<T>(Loss(batch, i, parameters)));
  }

 private:
  static double Loss(const Batch& batch, size_t i, absl::Span<const T* const> parameters) {
    const double x = parameters[0][0], y = parameters[1][0];
    return x * x / 2 + y * y * y * y / 4 - y * y / 2 + double{batch.dense[i]} * y;
  }

  std::vector<TensorSpec> tensors_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeSaddle(double start) {
  return std::make_unique<Saddle<T>>(start);
}

template std::unique_ptr<Model<float>> MakeSaddle(double);
template std::unique_ptr<Model<double>> MakeSaddle(double);

}  // namespace descent
