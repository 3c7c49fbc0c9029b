#include "worker/loop/long_batch.h"

#include <algorithm>

#include "common/base/copy_bytes.h"

namespace descent {

void LongBatch::TakeRows(const Batch& batch, size_t first, size_t rows) {
  part_.rows = rows;
  part_.rank = batch.rank;
  part_.clock = batch.clock;
  part_.features = batch.features;
  part_.sparse = batch.sparse;
  part_.label.assign(batch.label.begin() + first, batch.label.begin() + first + rows);
  if (!batch.weight.empty()) part_.weight.assign(batch.weight.begin() + first, batch.weight.begin() + first + rows);
  if (!batch.sparse) {
    part_.dense.Resize(rows * batch.features);
    CopyBytes(part_.dense.data(), batch.dense.data() + first * batch.features, rows * batch.features * sizeof(float));
    return;
  }
  const uint32_t begin = batch.row_begin[first], end = batch.row_begin[first + rows];
  part_.row_begin.resize(rows + 1);
  for (size_t i = 0; i <= rows; ++i) part_.row_begin[i] = batch.row_begin[first + i] - begin;
  part_.column.assign(batch.column.begin() + begin, batch.column.begin() + end);
  part_.value.assign(batch.value.begin() + begin, batch.value.begin() + end);
}

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
    TakeRows(batch, first, std::min(run, batch.rows - first));
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
