// The built-in models, made by model_factory.cc, which has checked the arguments. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_MODELS_H_
#define DESCENT_WORKER_MODELS_INTERNAL_MODELS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/models/model.h"

namespace descent::internal {

// T: float, double in all of them.

enum class LinearKind { kSquared, kLogistic, kSoftmax };

// Scores are x W + b. "weights" is [features x outputs], or with `table` a sparse table with rows of `outputs`; "bias"
// is [outputs].
template <typename T>
std::unique_ptr<Model<T>> MakeLinear(LinearKind kind, uint64_t features, uint32_t outputs, bool table, bool bias);

enum class ActivationKind { kRelu, kTanh, kSigmoid };

// Layer l of widths[0] (features), ..., widths.back() (classes): "layer<l>/weights" [in x out], "layer<l>/bias" [out].
// `he`: normal with variance 2 / in (He et al. 2015, section 2.2); else uniform with half-width sqrt(6 / (in + out))
// (Glorot, Bengio 2010, equation 16).
template <typename T>
std::unique_ptr<Model<T>> MakeMlp(std::vector<uint64_t> widths, ActivationKind activation, bool he);

// sum_i (x_i - center)^2, from x = start; "x" is [dim].
template <typename T>
std::unique_ptr<Model<T>> MakeQuadratic(uint64_t dim, double center, double start);

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_MODELS_H_
