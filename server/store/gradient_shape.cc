#include "server/store/gradient_shape.h"

#include <algorithm>
#include <cmath>

#include "common/random/philox.h"
#include "server/store/kernels.h"

namespace descent {

bool ShapeGradient(const Shape& shape, size_t n, const float* g, float* out) {
  const UnalignedFloat* in = g;
  const auto [scale, bound, factor] = shape;
  if (bound == 0) {
    DESCENT_INDEPENDENT_ITERATIONS
    for (size_t i = 0; i < n; ++i) out[i] = in[i] * scale * factor;
    return false;
  }
  uint32_t beyond = 0;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const float mean = in[i] * scale;
    const float clipped = std::min(std::max(mean, -bound), bound);
    beyond |= static_cast<uint32_t>(clipped != mean);
    out[i] = clipped * factor;
  }
  return beyond != 0;
}

void CompensateDelay(float lambda, float scale, size_t n, const float* w, const float* was, float* g) {
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const float mean = g[i] * scale;
    g[i] = mean + lambda * (mean * mean) * (w[i] - was[i]);
  }
}

void MoveMeanSquare(float decay, float scale, size_t n, const float* g, float* v) {
  const float rest = 1 - decay;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const float mean = g[i] * scale;
    v[i] = decay * v[i] + rest * (mean * mean);
  }
}

void CompensateDelay(float lambda, float scale, size_t n, const float* w, const float* was, const float* v, float* g) {
  constexpr float kEpsilon = 1e-7f;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const float mean = g[i] * scale;
    g[i] = mean + lambda / std::sqrt(v[i] + kEpsilon) * (mean * mean) * (w[i] - was[i]);
  }
}

void AddNoise(uint64_t seed, TensorId tensor, uint64_t step, uint64_t begin, float deviation, size_t n, float* d) {
  const RandomStream stream(seed, Purpose::kGradientNoise, step, tensor.value);
  for (size_t i = 0; i < n; ++i) d[i] += deviation * static_cast<float>(stream.Normal(begin + i));
}

void MoveAverage(float weight, size_t n, const float* w, const float* average, float* out) {
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) out[i] = average[i] + weight * (w[i] - average[i]);
}

void ShrinkGroups(float threshold, size_t size, size_t n, float* w) {
  for (float* group = w; group < w + n; group += size) {
    SquareSum square;
    square.Add(0, size, group, 1);
    const double norm = std::sqrt(square.sum());
    const float factor = norm > threshold ? static_cast<float>(1 - threshold / norm) : 0.0f;
    for (size_t i = 0; i < size; ++i) group[i] *= factor;
  }
}

}  // namespace descent
