#include "worker/loop/long_batch.h"

#include <cmath>
#include <memory>
#include <vector>

#include "common/job/job.h"
#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "worker/models/model_factory.h"

namespace descent {
namespace {

constexpr size_t kRows = 50001, kFeatures = 7;

float Draw(uint64_t stream, uint64_t i) { return RandomStream(3, Purpose::kTest, stream, 0).Uniform(i); }

Batch MakeBatch(bool sparse) {
  Batch batch;
  batch.rows = kRows;
  batch.features = kFeatures;
  batch.sparse = sparse;
  batch.dense.Resize(sparse ? 0 : kRows * kFeatures);
  batch.row_begin.push_back(0);
  for (size_t r = 0; r < kRows; ++r) {
    for (uint32_t i = 0; i < kFeatures; ++i) {
      const float x = Draw(1 + i, r);
      if (!sparse) batch.dense[r * kFeatures + i] = x;
      if (!sparse || (r + i) % 3 == 0) continue;
      batch.column.push_back(i);
      batch.value.push_back(x);
    }
    batch.row_begin.push_back(static_cast<uint32_t>(batch.column.size()));
    batch.label.push_back(Draw(0, r) < 0.2f ? 1.0f : 0.0f);
    batch.weight.push_back(r % 2 == 0 ? 1.0f : 0.5f);
  }
  return batch;
}

TEST(LongBatchTest, IsNearTheGradientInDouble) {
  for (const bool sparse : {false, true}) {
    const Batch batch = MakeBatch(sparse);
    v1::ModelSpec spec;
    spec.mutable_logistic();
    ModelInput input;
    input.features = kFeatures;
    input.sparse = sparse;
    const auto model = MakeModel<float>(spec, input, {}).value();
    const auto exact = MakeModel<double>(spec, input, {}).value();
    std::vector<std::vector<float>> w, long_gradient, plain_gradient;
    std::vector<std::vector<double>> wide, exact_gradient;
    std::vector<const float*> at;
    std::vector<const double*> wide_at;
    std::vector<float*> to_long, to_plain;
    std::vector<double*> to_exact;
    for (const TensorSpec& tensor : model->tensors()) {
      w.emplace_back(tensor.elements());
      for (size_t i = 0; i < w.back().size(); ++i) w.back()[i] = 1e-4f * Draw(50, i);
      wide.emplace_back(w.back().begin(), w.back().end());
      long_gradient.emplace_back(tensor.elements());
      plain_gradient.emplace_back(tensor.elements());
      exact_gradient.emplace_back(tensor.elements());
    }
    for (size_t t = 0; t < w.size(); ++t) {
      at.push_back(w[t].data());
      wide_at.push_back(wide[t].data());
      to_long.push_back(long_gradient[t].data());
      to_plain.push_back(plain_gradient[t].data());
      to_exact.push_back(exact_gradient[t].data());
    }
    LongBatch long_batch;
    const BatchResult result = long_batch.Gradient(batch, at, model.get(), absl::MakeSpan(to_long));
    const BatchResult plain = model->Gradient(batch, at, absl::MakeSpan(to_plain));
    exact->Gradient(batch, wide_at, absl::MakeSpan(to_exact));
    EXPECT_EQ(result.weight, plain.weight);
    EXPECT_EQ(result.correct, plain.correct);
    EXPECT_NEAR(result.loss, plain.loss, 1e-9 * plain.loss);
    double long_error = 0, plain_error = 0;
    for (size_t t = 0; t < w.size(); ++t) {
      for (size_t i = 0; i < w[t].size(); ++i) {
        const double truth = exact_gradient[t][i];
        long_error = std::max(long_error, std::abs(long_gradient[t][i] / truth - 1));
        plain_error = std::max(plain_error, std::abs(plain_gradient[t][i] / truth - 1));
      }
    }
    EXPECT_LT(long_error, 1e-6) << sparse;
    EXPECT_LT(long_error, plain_error) << sparse;
    // Again, with buffers in use: the same bits.
    const std::vector<std::vector<float>> before = long_gradient;
    long_batch.Gradient(batch, at, model.get(), absl::MakeSpan(to_long));
    EXPECT_EQ(long_gradient, before);
  }
}

}  // namespace
}  // namespace descent
