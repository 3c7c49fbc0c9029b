#include <algorithm>
#include <cmath>

#include "tests/experiments/models/models.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent {
namespace {

using internal::Axpy;
using internal::Dot;

template <typename T>
class Elman final : public Model<T> {
 public:
  Elman(size_t steps, size_t width, size_t units, double gain)
      : steps_(steps), width_(width), units_(units), state_((steps + 1) * units), delta_(units), below_(units) {
    const auto normal = [](double deviation) { return Initializer{Initializer::Kind::kNormal, deviation}; };
    const double root = std::sqrt(static_cast<double>(units));
    tensors_.push_back({.name = "input_weights",
                        .shape = {width, units},
                        .initializer = normal(1 / std::sqrt(static_cast<double>(width)))});
    tensors_.push_back(
        {.name = "state_weights", .shape = {units, units}, .initializer = normal(gain * std::sqrt(2.0) / root)});
    tensors_.push_back({.name = "bias", .shape = {units}, .decay = false, .initializer = {}});
    tensors_.push_back({.name = "output_weights", .shape = {units}, .initializer = normal(1 / root)});
    tensors_.push_back({.name = "output_bias", .shape = {1}, .decay = false, .initializer = {}});
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }

  BatchResult Gradient(const Batch& batch, absl::Span<const T* const> parameters,
                       absl::Span<T* const> gradient) override {
    for (size_t i = 0; i < tensors_.size(); ++i) std::fill_n(gradient[i], tensors_[i].elements(), T(0));
    BatchResult result;
    for (size_t row = 0; row < batch.rows; ++row) {
      const float* x = Row(batch, row);
      const T error = Forward(x, parameters) - static_cast<T>(batch.label[row]);
      Add(error, &result);
      Axpy(error, State(steps_), gradient[3], units_);
      gradient[4][0] += error;
      for (size_t j = 0; j < units_; ++j) delta_[j] = error * parameters[3][j];
      for (size_t t = steps_; t > 0; --t) {
        for (size_t j = 0; j < units_; ++j) delta_[j] = State(t)[j] > 0 ? delta_[j] : T(0);
        Axpy(T(1), delta_.data(), gradient[2], units_);
        for (size_t k = 0; k < width_; ++k) {
          Axpy(static_cast<T>(x[(t - 1) * width_ + k]), delta_.data(), gradient[0] + k * units_, units_);
        }
        for (size_t k = 0; k < units_; ++k) {
          Axpy(State(t - 1)[k], delta_.data(), gradient[1] + k * units_, units_);
          below_[k] = Dot(parameters[1] + k * units_, delta_.data(), units_);
        }
        std::swap(delta_, below_);
      }
    }
    return result;
  }

  BatchResult Evaluate(const Batch& batch, absl::Span<const T* const> parameters) override {
    BatchResult result;
    for (size_t row = 0; row < batch.rows; ++row) {
      Add(Forward(Row(batch, row), parameters) - static_cast<T>(batch.label[row]), &result);
    }
    return result;
  }

  void Predict(const Batch& batch, absl::Span<const T* const> parameters, std::vector<T>* out) override {
    out->clear();
    for (size_t row = 0; row < batch.rows; ++row) out->push_back(Forward(Row(batch, row), parameters));
  }

 private:
  static void Add(T error, BatchResult* result) {
    result->loss += double{error} * double{error} / 2;
    result->weight += 1;
  }
  const float* Row(const Batch& batch, size_t row) const { return batch.dense.data() + row * steps_ * width_; }
  T* State(size_t t) { return state_.data() + t * units_; }

  // The score; leaves the states.
  T Forward(const float* x, absl::Span<const T* const> parameters) {
    for (size_t t = 1; t <= steps_; ++t) {
      T* h = State(t);
      std::copy_n(parameters[2], units_, h);
      for (size_t k = 0; k < width_; ++k) {
        Axpy(static_cast<T>(x[(t - 1) * width_ + k]), parameters[0] + k * units_, h, units_);
      }
      for (size_t k = 0; k < units_; ++k) Axpy(State(t - 1)[k], parameters[1] + k * units_, h, units_);
      // A NaN is passed on.
      for (size_t j = 0; j < units_; ++j) h[j] = h[j] < 0 ? T(0) : h[j];
    }
    return Dot(State(steps_), parameters[3], units_) + parameters[4][0];
  }

  const size_t steps_, width_, units_;
  std::vector<T> state_;  // of steps 0 (all 0) to `steps`, of the example in hand
  std::vector<T> delta_, below_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace

template <typename T>
std::unique_ptr<Model<T>> MakeElman(size_t steps, size_t width, size_t units, double gain) {
  return std::make_unique<Elman<T>>(steps, width, units, gain);
}

template std::unique_ptr<Model<float>> MakeElman(size_t, size_t, size_t, double);
template std::unique_ptr<Model<double>> MakeElman(size_t, size_t, size_t, double);

}  // namespace descent
