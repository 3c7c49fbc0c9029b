// The layers of a multilayer perceptron as the job describes it. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_MLP_LAYERS_H_
#define DESCENT_WORKER_MODELS_INTERNAL_MLP_LAYERS_H_

#include <cstddef>

#include "descent/v1/job.pb.h"
#include "worker/models/internal/layer.h"

namespace descent::internal {

// The first weights of a layer that has `in` inputs and `out` outputs for each number it makes; `mlp` is resolved.
// HE: normal with variance 2 / ((1 + a^2) in), a the slope of LEAKY_RELU below 0, else 0 (He et al. 2015, equations 10
// and 15). XAVIER: uniform with half-width sqrt(6 / (in + out)) (Glorot and Bengio 2010, equation 16). LECUN: normal
// with variance 1 / in (LeCun et al. 1998, "Efficient BackProp", section 4.6).
Initializer InitializerOf(const v1::Mlp& mlp, size_t in, size_t out);

// Of the job's activation; nothing for IDENTITY.
template <typename T>
void AppendActivation(const v1::Mlp& mlp, size_t width, Sequence<T>* net);

// Hidden layers and an output layer, "layer1" to the last. A hidden layer: full, normalised, activated, some of it
// dropped. T: float, double.
template <typename T>
void AppendMlp(const v1::Mlp& mlp, size_t in, size_t outputs, Sequence<T>* net);

// The job's convolutions, "convolution1" to the last, each normalised where the net is by batch, activated and pooled,
// and the net on top of them.
template <typename T>
void AppendConvolution(const v1::Convolution& spec, size_t outputs, Sequence<T>* net);

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_MLP_LAYERS_H_
