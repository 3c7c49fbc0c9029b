// Training of one model on one batch, for the tests that know what must come out.
#ifndef DESCENT_WORKER_MODELS_KNOWN_ANSWERS_TESTING_H_
#define DESCENT_WORKER_MODELS_KNOWN_ANSWERS_TESTING_H_

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/tensor/initial_value.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/models_testing.h"

namespace descent {

// By gradient descent in double, from the initial values of seed 3.
class Training {
 public:
  Training(std::unique_ptr<Model<double>> model, const Batch& batch) : model_(std::move(model)), batch_(batch) {
    for (uint32_t t = 0; t < model_->tensors().size(); ++t) {
      const TensorSpec& spec = model_->tensors()[t];
      std::vector<float> initial(spec.elements());
      InitialDense(3, TensorId(t), spec, 0, absl::MakeSpan(initial));
      for (internal::AlignedBuffer<double>* buffer : {&values_.emplace_back(), &gradients_.emplace_back()}) {
        buffer->Resize(initial.size());
      }
      std::copy(initial.begin(), initial.end(), values_.back().data());
    }
    for (size_t t = 0; t < values_.size(); ++t) {
      parameters_.push_back(values_[t].data());
      slopes_.push_back(gradients_[t].data());
    }
  }

  // Steps of rate / (1 + 9 t / steps) along the mean gradient; running statistics with a decay of 0.9.
  Training& Descend(int steps, double rate) {
    for (int t = 0; t < steps; ++t) {
      model_->Gradient(batch_, parameters_, absl::MakeConstSpan(slopes_));
      const double step = rate / (1 + 9.0 * t / steps) / static_cast<double>(batch_.rows);
      for (size_t i = 0; i < values_.size(); ++i) {
        const bool statistic = model_->tensors()[i].role == TensorRole::kStatistic;
        for (size_t j = 0; j < values_[i].size(); ++j) {
          const double moved = statistic ? 0.1 * (values_[i][j] - gradients_[i][j] / static_cast<double>(batch_.rows))
                                         : step * gradients_[i][j];
          values_[i][j] -= moved;
        }
      }
    }
    return *this;
  }

  double loss() { return model_->Evaluate(batch_, parameters_).loss / static_cast<double>(batch_.rows); }
  double accuracy() { return model_->Evaluate(batch_, parameters_).correct / static_cast<double>(batch_.rows); }
  double value(size_t tensor, size_t element) const { return values_[tensor][element]; }
  std::vector<double> predictions() {
    std::vector<double> out;
    model_->Predict(batch_, parameters_, &out);
    return out;
  }

 private:
  const std::unique_ptr<Model<double>> model_;
  const Batch& batch_;
  std::vector<internal::AlignedBuffer<double>> values_, gradients_;
  std::vector<const double*> parameters_;
  std::vector<double*> slopes_;
};

// Rows of one feature that is 0: only the bias has a say.
inline Batch OfLabels(std::vector<float> labels) {
  Batch batch;
  batch.rows = labels.size();
  batch.features = 1;
  batch.dense.Resize(batch.rows);
  std::fill_n(batch.dense.data(), batch.rows, 0.0f);
  batch.label = std::move(labels);
  return batch;
}

}  // namespace descent

#endif  // DESCENT_WORKER_MODELS_KNOWN_ANSWERS_TESTING_H_
