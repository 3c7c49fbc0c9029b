#include "worker/loop/long_batch.h"

#include <algorithm>

#include "worker/data/batch_rows.h"

namespace descent {

BatchResult LongBatch::Gradient(const Batch& batch, absl::Span<const float* const> parameters, Model<float>* model,
                                absl::Span<float* const> gradient) {
  const std::vector<TensorSpec>& tensors = model->tensors();
  size_t parameters_in_all = 0;
  of_part_.resize(tensors.size());
  sums_.resize(tensors.size());
  std::vector<float*> part;
  for (size_t t = 0; t < tensors.size(); ++t) {
    parameters_in_all += tensors[t].elements();
    of_part_[t].Resize(tensors[t].elements());
    sums_[t].assign(tensors[t].elements(), 0);
    part.push_back(of_part_[t].data());
  }
  const size_t run = std::clamp<size_t>(parameters_in_all / 16, 1024, 8192);
  BatchResult total;
  for (size_t first = 0; first < batch.rows; first += run) {
    CopyRows(batch, first, std::min(run, batch.rows - first), &part_);
    const BatchResult result = model->Gradient(part_, parameters, absl::MakeSpan(part));
    total.loss += result.loss;
    total.weight += result.weight;
    total.correct += result.correct;
    for (size_t t = 0; t < tensors.size(); ++t) {
      const float* from = of_part_[t].data();
      double* to = sums_[t].data();
      for (size_t i = 0; i < sums_[t].size(); ++i) to[i] += static_cast<double>(from[i]);
    }
  }
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (size_t i = 0; i < sums_[t].size(); ++i) gradient[t][i] = static_cast<float>(sums_[t][i]);
  }
  return total;
}

}  // namespace descent
