// What is done to the gradient of a step between its mean and the rule. With g the sum of gradients
//
//   d = clamp(g * scale, -bound, bound) * factor + deviation * n      (clipping: Pascanu, Mikolov & Bengio 2013;
//                                                                      noise: Neelakantan et al. 2015)
//
// n standard normal, a function of (seed, tensor, step, element) alone. Elementwise, so that the bits of an element do
// not depend on where a run begins or ends. And what is done to parameters after it, likewise: averages, the threshold
// of groups. Stateless; thread-safe.
#ifndef DESCENT_SERVER_STORE_GRADIENT_SHAPE_H_
#define DESCENT_SERVER_STORE_GRADIENT_SHAPE_H_

#include <cstddef>
#include <cstdint>

#include "common/base/ids.h"

namespace descent {

struct Shape {
  float scale = 1;
  float bound = 0;  // 0: none
  float factor = 1;
};
// out[i] = the clipped g[i]; whether any was beyond the bound. out may be g. g may be unaligned.
bool ShapeGradient(const Shape& shape, size_t n, const float* g, float* out);

// The gradient at w, from one at `was`: with m = g[i] * scale, g[i] = m + lambda m m (w[i] - was[i])
// (DC-ASGD, Zheng et al. 2017, equation 10).
void CompensateDelay(float lambda, float scale, size_t n, const float* w, const float* was, float* g);

// The moving mean of squared gradients, v[i] = decay v[i] + (1 - decay) m m, and the same with a lambda of each
// element's own, lambda / sqrt(v[i] + 1e-7) (there, DC-ASGD-a).
void MoveMeanSquare(float decay, float scale, size_t n, const float* g, float* v);
void CompensateDelay(float lambda, float scale, size_t n, const float* w, const float* was, const float* v, float* g);

// d[i] += deviation * n of element begin + i.
void AddNoise(uint64_t seed, TensorId tensor, uint64_t step, uint64_t begin, float deviation, size_t n, float* d);

// out[i] = average[i] + weight * (w[i] - average[i]).
void MoveAverage(float weight, size_t n, const float* w, const float* average, float* out);

// Each group of `size` of the n parameters: w *= max(0, 1 - threshold / ||w||), the norm in double.
void ShrinkGroups(float threshold, size_t size, size_t n, float* w);

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_GRADIENT_SHAPE_H_
