#include "worker/loop/local_steps.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/base/copy_bytes.h"
#include "worker/data/batch_rows.h"

namespace descent {
namespace {

void Step(float rate, float scale, float l2, const float* __restrict gradient, float* __restrict w, size_t n) {
  if (l2 == 0) {
    for (size_t i = 0; i < n; ++i) w[i] -= rate * (gradient[i] * scale);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const float d = gradient[i] * scale + l2 * w[i];
    w[i] -= rate * d;
  }
}

void Difference(float weight, const float* __restrict begin, const float* __restrict end, float* __restrict out,
                size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = weight * (begin[i] - end[i]);
}

void AddTo(float* __restrict to, const float* __restrict from, size_t n) {
  for (size_t i = 0; i < n; ++i) to[i] += from[i];
}

bool IsStatistic(const TensorSpec& spec) { return spec.role == TensorRole::kStatistic; }

}  // namespace

std::optional<LocalStepsOptions> LocalStepsOf(const v1::JobSpec& job) {
  if (!job.has_local_training()) return std::nullopt;
  LocalStepsOptions options;
  options.steps = job.local_training().steps();
  options.batch_size = job.batch_size();
  options.rate = static_cast<float>(job.local_training().learning_rate());
  options.l2 = static_cast<float>(job.l2());
  return options;
}

absl::Status CheckLocalTensors(const std::vector<TensorSpec>& tensors) {
  for (const TensorSpec& spec : tensors) {
    if (!spec.sparse) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("local_training: a rank trains a copy of the whole model, and of table '", spec.name,
                     "' a worker has some rows alone"));
  }
  return absl::OkStatus();
}

void LocalSteps::Begin(const std::vector<TensorSpec>& tensors, absl::Span<const float* const> parameters,
                       absl::Span<float* const> contribution) {
  copy_.resize(tensors.size());
  of_part_.resize(tensors.size());
  copies_.resize(tensors.size());
  gradient_.resize(tensors.size());
  for (size_t t = 0; t < tensors.size(); ++t) {
    const size_t n = tensors[t].elements();
    if (IsStatistic(tensors[t])) {  // not trained, so not copied
      of_part_[t].Resize(n);
      copies_[t] = parameters[t];
      gradient_[t] = of_part_[t].data();
      std::fill_n(contribution[t], n, 0.0f);
      continue;
    }
    copy_[t].Resize(n);
    CopyBytes(copy_[t].data(), parameters[t], n * sizeof(float));
    copies_[t] = copy_[t].data();
    gradient_[t] = contribution[t];  // free until the end
  }
}

BatchResult LocalSteps::Contribution(const Batch& batch, absl::Span<const float* const> parameters, Model<float>* model,
                                     absl::Span<float* const> contribution, const std::function<bool()>& unwanted) {
  const std::vector<TensorSpec>& tensors = model->tensors();
  Begin(tensors, parameters, contribution);
  BatchResult total;
  uint64_t number = batch.clock * options_.steps;
  for (size_t first = 0; first < batch.rows; first += options_.batch_size, ++number) {
    if (first > 0 && unwanted != nullptr && unwanted()) return total;
    CopyRows(batch, first, std::min<size_t>(options_.batch_size, batch.rows - first), &part_);
    part_.clock = number;
    const BatchResult result = model->Gradient(part_, copies_, absl::MakeSpan(gradient_));
    total.loss += result.loss;
    total.weight += result.weight;
    total.correct += result.correct;
    const float scale = result.weight > 0 ? static_cast<float>(1 / result.weight) : 0;
    for (size_t t = 0; t < tensors.size(); ++t) {
      const size_t n = tensors[t].elements();
      if (IsStatistic(tensors[t])) {
        AddTo(contribution[t], gradient_[t], n);
      } else if (result.weight > 0) {
        Step(options_.rate, scale, tensors[t].decay ? options_.l2 : 0, gradient_[t], copy_[t].data(), n);
      }
    }
  }
  const auto weight = static_cast<float>(total.weight);
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (!IsStatistic(tensors[t])) {
      Difference(weight, parameters[t], copy_[t].data(), contribution[t], tensors[t].elements());
    }
  }
  return total;
}

}  // namespace descent
