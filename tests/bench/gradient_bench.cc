// The gradient of an MLP 784-256-128-10 on one thread: GFLOP of its products per second of CPU time (loss, activations
// and biases count as time, not as work), and as a ratio to plain Eigen products of the same shapes in the same run.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Eigen/Core"
#include "common/numerics/fingerprint.h"
#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "worker/models/internal/aligned_buffer.h"
#include "worker/models/model_factory.h"

namespace descent {
namespace {

using internal::AlignedBuffer;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kWidths[] = {784, 256, 128, 10};
constexpr size_t kLayers = 3;

// Forward and the weights' gradients take 2 m k n each; the derivative of the input isn't needed in the first layer.
double Flops(int64_t rows) {
  double flops = 0;
  for (size_t l = 0; l < kLayers; ++l) {
    flops += (l == 0 ? 4.0 : 6.0) * static_cast<double>(rows * kWidths[l] * kWidths[l + 1]);
  }
  return flops;
}

struct Mlp {
  explicit Mlp(size_t rows) {
    v1::ModelSpec spec;
    spec.mutable_mlp()->add_hidden(256);
    spec.mutable_mlp()->add_hidden(128);
    spec.mutable_mlp()->set_classes(10);
    ModelInput input;
    input.features = 784;
    model = *MakeModel<float>(spec, input, {});
    for (uint32_t i = 0; i < model->tensors().size(); ++i) {
      const size_t n = model->tensors()[i].elements();
      const RandomStream stream(1, Purpose::kTest, i, 0);
      values.emplace_back(n);
      gradients.emplace_back(n);
      for (size_t j = 0; j < n; ++j) values.back()[j] = 0.05f * static_cast<float>(stream.Normal(j));
    }
    for (auto& v : values) parameters.push_back(v.data());
    for (auto& g : gradients) gradient.push_back(g.data());
    const RandomStream stream(1, Purpose::kTest, 99, 0);
    batch.rows = rows;
    batch.features = 784;
    batch.dense.Resize(rows * 784);
    for (size_t i = 0; i < rows * 784; ++i) batch.dense[i] = stream.Uniform(i);
    for (size_t r = 0; r < rows; ++r) batch.label.push_back(static_cast<float>(r % 10));
  }
  std::unique_ptr<Model<float>> model;
  std::vector<AlignedBuffer<float>> values, gradients;
  std::vector<const float*> parameters;
  std::vector<float*> gradient;
  Batch batch;
};

// The products alone, on matrices of Eigen's own.
struct Products {
  explicit Products(int64_t rows) {
    for (size_t l = 0; l <= kLayers; ++l) values.push_back(Matrix::Random(rows, kWidths[l]));
    for (size_t l = 0; l < kLayers; ++l) {
      weights.push_back(Matrix::Random(kWidths[l], kWidths[l + 1]));
      gradients.push_back(Matrix::Zero(kWidths[l], kWidths[l + 1]));
      forward.push_back(Matrix::Zero(rows, kWidths[l + 1]));
      backward.push_back(Matrix::Zero(rows, kWidths[l]));
    }
  }
  void Run() {
    for (size_t l = 0; l < kLayers; ++l) forward[l].noalias() = values[l] * weights[l];
    for (size_t l = kLayers; l-- > 0;) {
      gradients[l].noalias() = values[l].transpose() * values[l + 1];
      if (l > 0) backward[l].noalias() = values[l + 1] * weights[l].transpose();
    }
  }
  std::vector<Matrix> values, weights, gradients, forward, backward;
};

void Rate(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void BM_EigenProducts(benchmark::State& state) {
  FixEigenCacheSizes();
  Products products(state.range(0));
  for (auto _ : state) {
    products.Run();
    benchmark::ClobberMemory();
  }
  Rate(state, Flops(state.range(0)));
}

void BM_MlpGradient(benchmark::State& state) {
  Mlp mlp(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    benchmark::DoNotOptimize(mlp.model->Gradient(mlp.batch, mlp.parameters, mlp.gradient).loss);
  }
  Rate(state, Flops(state.range(0)));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

double Seconds(timespec a, timespec b) {
  return static_cast<double>(b.tv_sec - a.tv_sec) + 1e-9 * static_cast<double>(b.tv_nsec - a.tv_nsec);
}

// One after the other within an iteration, so that what else the machine does meets both alike.
void BM_MlpGradientToEigenProducts(benchmark::State& state) {
  FixEigenCacheSizes();
  Products products(state.range(0));
  Mlp mlp(static_cast<size_t>(state.range(0)));
  std::vector<double> ratios;
  for (auto _ : state) {
    timespec t[3];
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t[0]);
    products.Run();
    benchmark::ClobberMemory();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t[1]);
    benchmark::DoNotOptimize(mlp.model->Gradient(mlp.batch, mlp.parameters, mlp.gradient).loss);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t[2]);
    ratios.push_back(Seconds(t[0], t[1]) / Seconds(t[1], t[2]));
  }
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<ptrdiff_t>(ratios.size() / 2), ratios.end());
  state.counters["median ratio"] = ratios[ratios.size() / 2];
}

BENCHMARK(BM_EigenProducts)->Arg(64)->Arg(512);
BENCHMARK(BM_MlpGradient)->Arg(64)->Arg(512);
BENCHMARK(BM_MlpGradientToEigenProducts)->Arg(64)->Arg(512);

}  // namespace
}  // namespace descent

BENCHMARK_MAIN();
