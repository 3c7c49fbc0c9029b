#include <cmath>

#include "worker/models/internal/elementwise.h"
#include "worker/models/internal/layer.h"

namespace descent::internal {
namespace {

// Each has the value at x, and the slope as a function of that value (or, where it is not enough, of x). What is not a
// number stays so.

template <typename T>
struct Relu {
  static T Value(T x) { return x < T(0) ? T(0) : x; }
  static T Slope(T y, T delta) { return y > T(0) ? delta : T(0); }
};

template <typename T>
struct TanhOf {
  static T Value(T x) { return Tanh(x); }
  static T Slope(T y, T delta) { return delta * (T(1) - y * y); }
};

template <typename T>
struct SigmoidOf {
  static T Value(T x) { return Sigmoid(x); }
  static T Slope(T y, T delta) { return delta * (y * (T(1) - y)); }
};

template <typename T>
struct LeakyRelu {
  T alpha;
  T Value(T x) const { return x < T(0) ? alpha * x : x; }
  T Slope(T y, T delta) const { return y > T(0) ? delta : alpha * delta; }
};

template <typename T>
struct Elu {
  T alpha;
  T Value(T x) const {
    // exp(x) - 1 without loss of figures near 0: 2 t / (1 - t), t = tanh(x / 2).
    const T t = Tanh(T(0.5) * x);
    const T below = alpha * ((t + t) / (T(1) - t));
    return x > T(0) ? x : below;
  }
  T Slope(T y, T delta) const { return delta * (y > T(0) ? T(1) : y + alpha); }
};

// Its slope, sigmoid(x), is 1 - exp(-y).
template <typename T>
struct Softplus {
  static T Value(T x) {
    return (x < T(0) ? T(0) : x) + static_cast<T>(LogOnePlus(static_cast<double>(Exp(-std::fabs(x)))));
  }
  static T Slope(T y, T delta) { return delta * (T(1) - Exp(-y)); }
};

template <typename T>
class Activation final : public Layer<T> {
 public:
  Activation(ActivationKind kind, size_t width, double alpha)
      : Layer<T>(width, width), kind_(kind), alpha_(static_cast<T>(alpha)) {}

  bool in_place() const override { return true; }

  void Forward(const Rows<T>& x, absl::Span<const T* const>, T* y) override {
    With([&](auto f) {
      for (size_t i = 0; i < x.count * this->in(); ++i) y[i] = f.Value(y[i]);
    });
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const>, const T* y, T* delta, absl::Span<T* const>, T*) override {
    With([&](auto f) { Multiply(f, y, delta, x.count * this->in()); });
  }

 private:
  template <typename F>
  static void Multiply(F f, const T* __restrict y, T* __restrict delta, size_t n) {
    for (size_t i = 0; i < n; ++i) delta[i] = f.Slope(y[i], delta[i]);
  }

  template <typename Use>
  void With(Use use) {
    switch (kind_) {
      case ActivationKind::kRelu:
        return use(Relu<T>());
      case ActivationKind::kTanh:
        return use(TanhOf<T>());
      case ActivationKind::kSigmoid:
        return use(SigmoidOf<T>());
      case ActivationKind::kLeakyRelu:
        return use(LeakyRelu<T>{alpha_});
      case ActivationKind::kElu:
        return use(Elu<T>{alpha_});
      case ActivationKind::kSoftplus:
        return use(Softplus<T>());
      case ActivationKind::kGelu:
        return;  // Gelu below
    }
  }

  const ActivationKind kind_;
  const T alpha_;
};

// Its value does not tell its slope: it keeps what it reads.
template <typename T>
class Gelu final : public Layer<T> {
 public:
  explicit Gelu(size_t width) : Layer<T>(width, width) {}

  void Forward(const Rows<T>& x, absl::Span<const T* const>, T* y) override { Fill(x.dense, y, x.count * this->in()); }

  void Backward(const Rows<T>& x, absl::Span<const T* const>, const T*, T* delta, absl::Span<T* const>,
                T* below) override {
    if (below != nullptr) Multiply(x.dense, delta, below, x.count * this->in());
  }

 private:
  static constexpr T kRoot = T(0.79788456080286535588);  // sqrt(2 / pi)
  static constexpr T kCubic = T(0.044715);

  static void Fill(const T* __restrict x, T* __restrict y, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      y[i] = T(0.5) * x[i] * (T(1) + Tanh(kRoot * (x[i] + kCubic * x[i] * x[i] * x[i])));
    }
  }
  static void Multiply(const T* __restrict x, const T* __restrict delta, T* __restrict below, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      const T square = x[i] * x[i];
      const T t = Tanh(kRoot * (x[i] + kCubic * square * x[i]));
      const T inner = kRoot * (T(1) + T(3) * kCubic * square);
      below[i] = delta[i] * (T(0.5) * (T(1) + t) + T(0.5) * x[i] * (T(1) - t * t) * inner);
    }
  }
};

}  // namespace

template <typename T>
LayerPtr<T> MakeActivation(ActivationKind kind, size_t width, double alpha) {
  if (kind == ActivationKind::kGelu) return std::make_unique<Gelu<T>>(width);
  return std::make_unique<Activation<T>>(kind, width, alpha);
}

template LayerPtr<float> MakeActivation(ActivationKind, size_t, double);
template LayerPtr<double> MakeActivation(ActivationKind, size_t, double);

}  // namespace descent::internal
