// The built-in models, made by model_factory.cc, which has checked the arguments. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_MODELS_H_
#define DESCENT_WORKER_MODELS_INTERNAL_MODELS_H_

#include <cstdint>
#include <memory>

#include "worker/models/internal/layer.h"
#include "worker/models/internal/loss.h"
#include "worker/models/model.h"

namespace descent::internal {

// T: float, double in all of them.

// Scores are x W + b. "weights" is [features x outputs], or with `table` a sparse table with rows of `outputs`; "bias"
// is [outputs].
template <typename T>
std::unique_ptr<Model<T>> MakeLinear(LossSpec loss, uint64_t features, bool table, bool bias);

// The score is b + <w, x> + sum over i < j of <v_i, v_j> x_i x_j (Rendle 2010, equation 1). "weights" is [features],
// "vectors" [features x dim], normal with `deviation`; with `table` both are sparse tables; "bias" is [1].
template <typename T>
std::unique_ptr<Model<T>> MakeFactorizationMachine(LossSpec loss, uint64_t features, uint32_t dim, double deviation,
                                                   bool table, bool bias);

enum class Target { kLabel, kInput };

// Scores are what the layers make of the input; they have as many outputs as the loss has scores. With kInput the loss,
// of a kind of a number, compares them with the input itself. Gradient draws masks by (seed, batch.rank, batch.clock).
template <typename T>
std::unique_ptr<Model<T>> MakeNetwork(LossSpec loss, uint64_t features, Sequence<T> layers, Target target,
                                      uint64_t seed);

// Scores are x W plus what `deep` makes of x E: "wide" and "embeddings", W and E, are sparse tables with rows of as
// many numbers as there are scores, and of `embedding`. Masks as with MakeNetwork.
template <typename T>
std::unique_ptr<Model<T>> MakeWideDeep(LossSpec loss, uint32_t embedding, Sequence<T> deep, uint64_t seed);

// `model` with these of its tensors frozen: their gradients are 0, and no penalty counts them.
template <typename T>
std::unique_ptr<Model<T>> MakeFrozen(std::unique_ptr<Model<T>> model, absl::Span<const size_t> frozen);

// sum_i (x_i - center)^2, from x = start; "x" is [dim].
template <typename T>
std::unique_ptr<Model<T>> MakeQuadratic(uint64_t dim, double center, double start);

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_MODELS_H_
