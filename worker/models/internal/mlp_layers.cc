#include "worker/models/internal/mlp_layers.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/job/convolution_spec.h"

namespace descent::internal {

namespace {

// Of a hidden layer: the mean that a batch's values are less would take it away (Ioffe and Szegedy 2015, section 3.2).
bool HasBias(const v1::Mlp& mlp) { return !mlp.batch_norm(); }

}  // namespace

Initializer InitializerOf(const v1::Mlp& mlp, size_t in, size_t out) {
  const double inputs = static_cast<double>(in), outputs = static_cast<double>(out);
  switch (mlp.initialization()) {
    case v1::HE: {
      const double slope = mlp.activation() == v1::LEAKY_RELU ? mlp.activation_alpha() : 0;
      return {Initializer::Kind::kNormal, std::sqrt(2 / ((1 + slope * slope) * inputs))};
    }
    case v1::LECUN:
      return {Initializer::Kind::kNormal, std::sqrt(1 / inputs)};
    case v1::ORTHOGONAL:
      return {Initializer::Kind::kOrthogonal, mlp.initial_scale()};
    case v1::ZEROS:
      return {};
    case v1::CONSTANT:
      return {Initializer::Kind::kConstant, mlp.initial_scale()};
    case v1::UNIFORM:
      return {Initializer::Kind::kUniform, mlp.initial_scale()};
    case v1::NORMAL:
      return {Initializer::Kind::kNormal, mlp.initial_scale()};
    default:
      return {Initializer::Kind::kUniform, std::sqrt(6 / (inputs + outputs))};
  }
}

template <typename T>
void AppendActivation(const v1::Mlp& mlp, size_t width, Sequence<T>* net) {
  const auto add = [&](ActivationKind kind) { net->Add(MakeActivation<T>(kind, width, mlp.activation_alpha())); };
  switch (mlp.activation()) {
    case v1::TANH:
      return add(ActivationKind::kTanh);
    case v1::SIGMOID:
      return add(ActivationKind::kSigmoid);
    case v1::LEAKY_RELU:
      return add(ActivationKind::kLeakyRelu);
    case v1::ELU:
      return add(ActivationKind::kElu);
    case v1::GELU:
      return add(ActivationKind::kGelu);
    case v1::SOFTPLUS:
      return add(ActivationKind::kSoftplus);
    case v1::IDENTITY:
      return;
    default:
      return add(ActivationKind::kRelu);
  }
}

template <typename T>
void AppendMlp(const v1::Mlp& mlp, size_t in, size_t outputs, Sequence<T>* net) {
  if (mlp.input_dropout() > 0) net->Add(MakeDropout<T>(in, mlp.input_dropout(), 0));
  uint32_t layer = 0;
  for (const size_t width : mlp.hidden()) {
    const std::string name = absl::StrCat("layer", ++layer);
    Sequence<T> inner;
    Sequence<T>* to = mlp.residual() && layer > 1 && width == in ? &inner : net;
    to->Add(MakeFull<T>(name, in, width, InitializerOf(mlp, in, width), HasBias(mlp)));
    if (mlp.layer_norm()) to->Add(MakeLayerNorm<T>(name + "/norm", width));
    if (mlp.batch_norm()) to->Add(MakeBatchNorm<T>(name + "/norm", width, width));
    AppendActivation(mlp, width, to);
    if (mlp.dropout() > 0) to->Add(MakeDropout<T>(width, mlp.dropout(), layer));
    if (!inner.empty()) net->Add(MakeResidual<T>(std::move(inner)));
    in = width;
  }
  net->Add(MakeFull<T>(absl::StrCat("layer", ++layer), in, outputs, InitializerOf(mlp, in, outputs)));
}

template <typename T>
void AppendConvolution(const v1::Convolution& spec, size_t outputs, Sequence<T>* net) {
  const auto shape = [](const ImageExtent& e) { return ImageShape{e.height, e.width, e.channels}; };
  int layer = 0;
  size_t width = 0;
  for (const ConvolutionStage& stage : StagesOf(spec, nullptr)) {
    const ConvolutionShape convolution = {
        shape(stage.in), stage.convolved.channels, stage.kernel_height, stage.kernel_width,
        stage.stride,    stage.padding_height,     stage.padding_width};
    const size_t area = stage.kernel_height * stage.kernel_width;
    const std::string name = absl::StrCat("convolution", layer + 1);
    net->Add(MakeConvolution<T>(name, convolution,
                                InitializerOf(spec.top(), convolution.patch(), area * convolution.filters),
                                HasBias(spec.top())));
    if (spec.top().batch_norm()) {
      net->Add(MakeBatchNorm<T>(name + "/norm", stage.convolved.size(), convolution.filters));
    }
    AppendActivation(spec.top(), stage.convolved.size(), net);
    if (stage.pool_width > 0) {
      net->Add(MakePool<T>(spec.layer(layer).pool() == v1::MAX_POOL ? PoolKind::kMax : PoolKind::kAverage,
                           shape(stage.convolved), stage.pool_height, stage.pool_width));
    }
    width = stage.out.size();
    ++layer;
  }
  AppendMlp(spec.top(), width, outputs, net);
}

template void AppendActivation(const v1::Mlp&, size_t, Sequence<float>*);
template void AppendActivation(const v1::Mlp&, size_t, Sequence<double>*);
template void AppendMlp(const v1::Mlp&, size_t, size_t, Sequence<float>*);
template void AppendMlp(const v1::Mlp&, size_t, size_t, Sequence<double>*);
template void AppendConvolution(const v1::Convolution&, size_t, Sequence<float>*);
template void AppendConvolution(const v1::Convolution&, size_t, Sequence<double>*);

}  // namespace descent::internal
