// Linear regression under Huber's loss (Huber, "Robust estimation of a location parameter", 1964): squared near zero,
// linear beyond `delta`, so that a few wild labels do not pull the line. The whole of a user's own worker binary.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/loop/user_cache.h"
#include "worker/loop/worker_main.h"
#include "worker/models/model.h"
#include "worker/models/model_factory.h"

namespace {

class HuberRegression final : public descent::Model<float> {
 public:
  HuberRegression(uint64_t features, float delta) : features_(features), delta_(delta) {
    tensors_.push_back({.name = "weights", .shape = {features}});
    tensors_.push_back({.name = "bias", .shape = {1}, .decay = false});
  }

  const std::vector<descent::TensorSpec>& tensors() const override { return tensors_; }
  bool classifier() const override { return false; }
  size_t outputs() const override { return 1; }

  descent::BatchResult Gradient(const descent::Batch& batch, absl::Span<const float* const> parameters,
                                absl::Span<float* const> gradient) override {
    std::fill_n(gradient[0], features_, 0.0f);
    gradient[1][0] = 0;
    descent::BatchResult result;
    for (size_t i = 0; i < batch.rows; ++i) {
      const float* x = batch.dense.data() + i * features_;
      const float residual = At(x, parameters) - batch.label[i];
      const float slope = std::fmax(-delta_, std::fmin(delta_, residual));  // the loss's derivative
      for (uint64_t f = 0; f < features_; ++f) gradient[0][f] += slope * x[f];
      gradient[1][0] += slope;
      result.loss += Loss(residual);
      result.weight += 1;
    }
    return result;
  }

  descent::BatchResult Evaluate(const descent::Batch& batch, absl::Span<const float* const> parameters) override {
    descent::BatchResult result;
    for (size_t i = 0; i < batch.rows; ++i) {
      result.loss += Loss(At(batch.dense.data() + i * features_, parameters) - batch.label[i]);
      result.weight += 1;
    }
    return result;
  }

  void Predict(const descent::Batch& batch, absl::Span<const float* const> parameters,
               std::vector<float>* out) override {
    out->clear();
    for (size_t i = 0; i < batch.rows; ++i) out->push_back(At(batch.dense.data() + i * features_, parameters));
  }

 private:
  float At(const float* x, absl::Span<const float* const> parameters) const {
    float sum = parameters[1][0];
    for (uint64_t f = 0; f < features_; ++f) sum += parameters[0][f] * x[f];
    return sum;
  }
  double Loss(float residual) const {
    const float size = std::fabs(residual);
    return size <= delta_ ? 0.5 * size * size : delta_ * (size - 0.5 * delta_);
  }

  const uint64_t features_;
  const float delta_;
  std::vector<descent::TensorSpec> tensors_;
};

absl::StatusOr<std::unique_ptr<descent::Model<float>>> MakeHuber(const descent::ModelInput& input) {
  if (input.sparse) return absl::InvalidArgumentError("model 'huber' takes dense input");
  auto delta = input.options.find("delta");
  const float value = delta == input.options.end() ? 1.0f : std::strtof(delta->second.c_str(), nullptr);
  if (!(value > 0)) return absl::InvalidArgumentError("model 'huber': option delta must be positive");
  return std::make_unique<HuberRegression>(input.features, value);
}

}  // namespace

int main(int argc, char** argv) {
  return descent::WorkerMain(argc, argv, {{"huber", MakeHuber}}, descent::UserCacheDir(std::getenv));
}
