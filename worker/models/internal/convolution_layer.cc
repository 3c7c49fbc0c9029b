#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/models/internal/gemm.h"
#include "worker/models/internal/layer.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

// Works on a few images at a time, as many as make about so many numbers in patches: what a cache holds.
constexpr size_t kPatchNumbers = 65536;

template <typename T>
class Convolution final : public Layer<T> {
 public:
  Convolution(const std::string& name, const ConvolutionShape& shape, const Initializer& initializer, bool has_bias)
      : Layer<T>(shape.in.size(), shape.out().size()),
        shape_(shape),
        has_bias_(has_bias),
        out_(shape.out()),
        places_(out_.height * out_.width),
        group_(std::max<size_t>(1, kPatchNumbers / (places_ * shape.patch()))) {
    TensorSpec weights;
    weights.name = absl::StrCat(name, "/weights");
    weights.shape = {shape.patch(), shape.filters};
    weights.initializer = initializer;
    this->tensors_.push_back(std::move(weights));
    if (!has_bias) return;
    TensorSpec bias;
    bias.name = absl::StrCat(name, "/bias");
    bias.shape = {shape.filters};
    bias.decay = false;
    this->tensors_.push_back(std::move(bias));
  }

  void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) override {
    for (size_t first = 0; first < x.count; first += group_) {
      const size_t places = CopyPatches(x, first);
      part_.Resize(places * shape_.filters);
      if (!has_bias_) std::fill_n(part_.data(), places * shape_.filters, T(0));
      for (size_t p = 0; has_bias_ && p < places; ++p) {
        std::copy_n(parameters[1], shape_.filters, part_.data() + p * shape_.filters);
      }
      MultiplyAdd(patches_.data(), parameters[0], part_.data(), places, shape_.patch(), shape_.filters);
      std::copy_n(part_.data(), places * shape_.filters, y + first * this->out());
    }
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T*, T* delta,
                absl::Span<T* const> gradient, T* below) override {
    if (has_bias_) ColumnSums(delta, x.count * places_, shape_.filters, gradient[1]);
    std::fill_n(gradient[0], shape_.patch() * shape_.filters, T(0));
    if (below != nullptr) std::fill_n(below, x.count * this->in(), T(0));
    for (size_t first = 0; first < x.count; first += group_) {
      const size_t places = CopyPatches(x, first);
      part_.Resize(places * shape_.filters);
      std::copy_n(delta + first * this->out(), places * shape_.filters, part_.data());
      AddTransposedLeft(patches_.data(), part_.data(), gradient[0], shape_.patch(), places, shape_.filters);
      if (below == nullptr) continue;
      MultiplyTransposedRight(part_.data(), parameters[0], patches_.data(), places, shape_.filters, shape_.patch());
      AddPatches(first, places / places_, below);
    }
  }

 private:
  // What lies in the image of the run of kernel_width pixels that begins at column `left` of row `top`, either of which
  // may be in the padding: calls use(place in the image, place in the run, numbers) once or not at all.
  template <typename Use>
  void Run(ptrdiff_t top, ptrdiff_t left, Use use) const {
    const ptrdiff_t width = static_cast<ptrdiff_t>(shape_.in.width),
                    kernel = static_cast<ptrdiff_t>(shape_.kernel_width);
    if (top < 0 || top >= static_cast<ptrdiff_t>(shape_.in.height)) return;
    const ptrdiff_t from = std::max<ptrdiff_t>(left, 0), to = std::min(left + kernel, width);
    if (from >= to) return;
    const size_t channels = shape_.in.channels;
    use(static_cast<size_t>(top * width + from) * channels, static_cast<size_t>(from - left) * channels,
        static_cast<size_t>(to - from) * channels);
  }

  // Calls use(place in an image, place in the image's patches, numbers) for every run.
  template <typename Use>
  void EachRun(Use use) const {
    const size_t run = shape_.kernel_width * shape_.in.channels;
    size_t patch = 0;
    for (size_t oy = 0; oy < out_.height; ++oy) {
      for (size_t ox = 0; ox < out_.width; ++ox) {
        const ptrdiff_t top =
            static_cast<ptrdiff_t>(oy * shape_.stride) - static_cast<ptrdiff_t>(shape_.padding_height);
        const ptrdiff_t left =
            static_cast<ptrdiff_t>(ox * shape_.stride) - static_cast<ptrdiff_t>(shape_.padding_width);
        for (size_t ky = 0; ky < shape_.kernel_height; ++ky, patch += run) {
          Run(top + static_cast<ptrdiff_t>(ky), left,
              [&](size_t image, size_t within, size_t n) { use(image, patch + within, n); });
        }
      }
    }
  }

  // Of the group of images that begins at `first`; returns the number of patches.
  size_t CopyPatches(const Rows<T>& x, size_t first) {
    const size_t images = std::min(group_, x.count - first), each = places_ * shape_.patch();
    patches_.Resize(images * each);
    std::fill_n(patches_.data(), images * each, T(0));
    for (size_t i = 0; i < images; ++i) {
      const T* image = x.dense + (first + i) * this->in();
      T* patches = patches_.data() + i * each;
      EachRun([&](size_t from, size_t to, size_t n) { std::copy_n(image + from, n, patches + to); });
    }
    return images * places_;
  }

  void AddPatches(size_t first, size_t images, T* below) {
    const size_t each = places_ * shape_.patch();
    for (size_t i = 0; i < images; ++i) {
      T* image = below + (first + i) * this->in();
      const T* patches = patches_.data() + i * each;
      EachRun([&](size_t to, size_t from, size_t n) { Axpy(T(1), patches + from, image + to, n); });
    }
  }

  const ConvolutionShape shape_;
  const bool has_bias_;
  const ImageShape out_;
  const size_t places_;
  const size_t group_;
  AlignedBuffer<T> patches_;
  AlignedBuffer<T> part_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeConvolution(const std::string& name, const ConvolutionShape& shape, const Initializer& initializer,
                            bool bias) {
  return std::make_unique<Convolution<T>>(name, shape, initializer, bias);
}

template LayerPtr<float> MakeConvolution(const std::string&, const ConvolutionShape&, const Initializer&, bool);
template LayerPtr<double> MakeConvolution(const std::string&, const ConvolutionShape&, const Initializer&, bool);

}  // namespace descent::internal
