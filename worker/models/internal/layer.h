// The parts that nets are put together from. Not installed.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_LAYER_H_
#define DESCENT_WORKER_MODELS_INTERNAL_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/random/philox.h"
#include "common/tensor/tensor_spec.h"
#include "worker/data/batch.h"
#include "worker/models/internal/aligned_buffer.h"

namespace descent::internal {

// What a layer reads: numbers [count x in], row-major, or the compressed sparse rows of a batch.
template <typename T>
struct Rows {
  size_t count = 0;
  const T* dense = nullptr;
  const Batch* sparse = nullptr;  // in its place
  // In training, what masks are drawn by; null: evaluation, or prediction.
  const RandomStream* masks = nullptr;
  bool training() const { return masks != nullptr; }
};

// A function of rows, with parameters of its own. Arrays are aligned to 64 bytes. It keeps nothing but scratch memory
// and what Forward leaves for the Backward that follows on the same arguments. One thread calls it at a time.
// T: float, double.
template <typename T>
class Layer {
 public:
  Layer(size_t in, size_t out) : in_(in), out_(out) {}
  virtual ~Layer() = default;

  size_t in() const { return in_; }
  size_t out() const { return out_; }
  const std::vector<TensorSpec>& tensors() const { return tensors_; }

  // Whether y may only be x's own memory: x is lost.
  virtual bool in_place() const { return false; }
  virtual bool takes_sparse() const { return false; }

  // y [count x out]. `parameters` are those of tensors().
  virtual void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) = 0;

  // From delta, the derivatives by y, which may be overwritten: those by the parameters, summed over the rows, and
  // those by x in `below` [count x in], unless it is null. In place, `below` is delta. x and y are as Forward left
  // them. Of tensors that are statistics (kStatistic) `gradient` gets the rows' statistic times their number.
  virtual void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T* y, T* delta,
                        absl::Span<T* const> gradient, T* below) = 0;

 protected:
  std::vector<TensorSpec> tensors_;

 private:
  const size_t in_;
  const size_t out_;
};

template <typename T>
using LayerPtr = std::unique_ptr<Layer<T>>;

// Layers one behind the other.
template <typename T>
class Sequence {
 public:
  void Add(LayerPtr<T> layer);
  bool empty() const { return layers_.empty(); }
  size_t out() const { return layers_.back().layer->out(); }
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  bool takes_sparse() const { return layers_.front().layer->takes_sparse(); }

  // The last layer's output, [count x out], valid until the next call.
  T* Forward(const Rows<T>& x, absl::Span<const T* const> parameters);
  // `delta` and `below` as in Layer::Backward; delta may be what Forward returned, if the last layer's Backward does
  // not look at its y.
  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, T* delta, absl::Span<T* const> gradient,
                T* below);

 private:
  struct Placed {
    LayerPtr<T> layer;
    size_t first_tensor;
    size_t value;  // where its output is
  };
  Rows<T> InputOf(size_t l, const Rows<T>& x) const;

  std::vector<Placed> layers_;
  std::vector<TensorSpec> tensors_;
  std::vector<AlignedBuffer<T>> values_;
  AlignedBuffer<T> delta_[2];
  size_t widest_ = 0;
};

// y = x W + b: "<name>/weights" [in x out], "<name>/bias" [out], unless it has no bias.
template <typename T>
LayerPtr<T> MakeFull(const std::string& name, size_t in, size_t out, const Initializer& initializer, bool bias = true);

enum class ActivationKind { kRelu, kTanh, kSigmoid, kLeakyRelu, kElu, kGelu, kSoftplus };

// Of each number, in the order of the kinds: max(x, 0); tanh x; 1 / (1 + exp(-x)); x or, below 0, alpha x; x or, below
// 0, alpha (exp(x) - 1); x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016, section 2);
// log(1 + exp(x)). At a kink the derivative is that from below.
template <typename T>
LayerPtr<T> MakeActivation(ActivationKind kind, size_t width, double alpha);

// In training each number is 0 with probability `rate`, else divided by 1 - rate (Srivastava et al. 2014, section 10,
// "inverted"): a function of the masks' stream, `number`, which no other layer may have, and the element's place.
template <typename T>
LayerPtr<T> MakeDropout(size_t width, double rate, uint32_t number);

// y = g (x - mean) / sqrt(variance + 1e-5) + b, mean and variance over a row (Ba, Kiros and Hinton 2016, section 3):
// "<name>/scale", from 1, and "<name>/shift", from 0, both [width].
template <typename T>
LayerPtr<T> MakeLayerNorm(const std::string& name, size_t width);

// The same, mean and variance of each of `channels`, which lie side by side in a row, over all rows and places (Ioffe
// and Szegedy 2015, algorithm 1 and section 3.2): "<name>/scale", from 1, "<name>/shift", from 0, and the running
// statistics "<name>/mean", from 0, and "<name>/variance", from 1, all [channels]. The running ones are used where rows
// are not for training, or a channel has a single number; these then leave them where they are. Their statistic is the
// unbiased variance, n / (n - 1) of what normalises n numbers (section 3.1).
template <typename T>
LayerPtr<T> MakeBatchNorm(const std::string& name, size_t width, size_t channels);

// y = x + f(x), f a sequence that is as wide behind as before (He et al. 2016, "Identity mappings").
template <typename T>
LayerPtr<T> MakeResidual(Sequence<T> f);

enum class PoolKind { kMax, kAverage };

// Images of height x width x channels, the channels of a pixel side by side.
struct ImageShape {
  size_t height, width, channels;
  size_t size() const { return height * width * channels; }
};

struct ConvolutionShape {
  ImageShape in;
  size_t filters, kernel_height, kernel_width, stride, padding_height, padding_width;
  ImageShape out() const {
    return {(in.height + 2 * padding_height - kernel_height) / stride + 1,
            (in.width + 2 * padding_width - kernel_width) / stride + 1, filters};
  }
  size_t patch() const { return kernel_height * kernel_width * in.channels; }
};

// Each filter at each place of the image, with zeros around it: "<name>/weights" [patch x filters], a patch in the
// order of an image, "<name>/bias" [filters], unless it has no bias. A product of matrices over copied patches
// (Chellapilla, Puri and Simard 2006).
template <typename T>
LayerPtr<T> MakeConvolution(const std::string& name, const ConvolutionShape& shape, const Initializer& initializer,
                            bool bias = true);

// The greatest number or the mean of each channel in windows of height x width that do not overlap; what is left at the
// lower and the right edge takes no part. Of equally great numbers the first, row by row, has the derivative.
template <typename T>
LayerPtr<T> MakePool(PoolKind kind, const ImageShape& in, size_t height, size_t width);

enum class CellKind { kGru, kLstm };

// The last state of `units` numbers that `steps` inputs of `width` numbers leave; the first is 0 (recurrent_layer.cc
// has the equations). With G = 3 units (GRU) or 4 (LSTM): "<name>/input_weights" [width x G], "<name>/input_bias" [G],
// "<name>/state_weights" [units x G], and of GRU "<name>/state_bias" [G].
template <typename T>
LayerPtr<T> MakeRecurrent(const std::string& name, CellKind cell, size_t steps, size_t width, size_t units);

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_LAYER_H_
