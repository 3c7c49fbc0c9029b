#include "worker/models/internal/loss.h"

#include <cmath>

#include "common/base/check.h"
#include "worker/models/internal/elementwise.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

// A loss and its derivative by the score. What is not a number must come out of both.
template <typename T>
struct Point {
  double loss;
  T slope;
};

template <typename T>
T Choose(bool condition, T yes, T no) {
  return condition ? yes : no;
}

template <typename T>
struct Squared {
  Point<T> operator()(T z, T y) const {
    const T d = z - y;
    return {0.5 * (static_cast<double>(d) * static_cast<double>(d)), d};
  }
};

// up where d > 0, down where d < 0, d where it is 0 or not a number.
template <typename T>
T Byside(T d, T up, T down) {
  return Choose(d > T(0), up, Choose(d < T(0), down, d));
}

template <typename T>
struct Quantile {
  T tau;
  Point<T> operator()(T z, T y) const {
    const T d = z - y;
    return {static_cast<double>(d) * static_cast<double>(Choose(d > T(0), T(1) - tau, -tau)),
            Byside(d, T(1) - tau, -tau)};
  }
};

template <typename T>
struct Absolute {
  Point<T> operator()(T z, T y) const {
    const T d = z - y;
    return {std::fabs(static_cast<double>(d)), Byside(d, T(1), T(-1))};
  }
};

template <typename T>
struct Huber {
  T delta;
  Point<T> operator()(T z, T y) const {
    const T d = z - y;
    const double a = std::fabs(static_cast<double>(d)), k = static_cast<double>(delta);
    return {Choose(a <= k, 0.5 * (a * a), k * (a - 0.5 * k)), Choose(d > delta, delta, Choose(d < -delta, -delta, d))};
  }
};

template <typename T>
struct EpsilonInsensitive {
  T epsilon;
  Point<T> operator()(T z, T y) const {
    const T d = z - y;
    const double over = std::fabs(static_cast<double>(d)) - static_cast<double>(epsilon);
    return {Choose(over <= 0, 0.0, over), Choose(d > epsilon, T(1), Choose(d < -epsilon, T(-1), d * T(0)))};
  }
};

// Beyond z = 50, a mean that no count has, the loss goes on along its tangent: it stays convex, and sums of gradients
// stay finite, so that a line search can come back from there.
template <typename T>
struct PoissonLikelihood {
  Point<T> operator()(T z, T y) const {
    constexpr T kStraight = T(50);
    const T mean = Exp(Choose(z > kStraight, kStraight, z));
    const double beyond = Choose(z > kStraight, static_cast<double>(z) - static_cast<double>(kStraight), 0.0);
    return {static_cast<double>(mean) * (1 + beyond) - static_cast<double>(y) * static_cast<double>(z), mean - y};
  }
};

// log(1 + exp(z)) - y z, as max(z, 0) - y z + log(1 + exp(-|z|)).
template <typename T>
struct Logistic {
  Point<T> operator()(T z, T y) const {
    const T positive = Choose(z < T(0), T(0), z);
    return {static_cast<double>(positive - y * z) + LogOnePlus(static_cast<double>(Exp(-std::fabs(z)))),
            Sigmoid(z) - y};
  }
};

template <typename T>
T SignOf(T y) {
  return Choose(y > T(0.5), T(1), T(-1));
}

template <typename T>
struct Focal {
  double gamma;
  Point<T> operator()(T z, T y) const {
    const T s = SignOf(y), u = s * z;
    const double tail = LogOnePlus(static_cast<double>(Exp(-std::fabs(u))));
    const double entropy = static_cast<double>(Choose(u > T(0), T(0), -u)) + tail;  // -log p
    const double miss = -(static_cast<double>(Choose(u < T(0), T(0), u)) + tail);   // log(1 - p)
    const T factor = Exp(static_cast<T>(gamma * miss));                             // (1 - p)^gamma
    return {static_cast<double>(factor) * entropy,
            -s * factor * (static_cast<T>(gamma * entropy) * Sigmoid(u) + Sigmoid(-u))};
  }
};

template <typename T>
struct Hinge {
  Point<T> operator()(T z, T y) const {
    const T s = SignOf(y), margin = T(1) - s * z;
    return {static_cast<double>(Choose(margin <= T(0), T(0), margin)),
            Choose(margin > T(0), -s, Choose(margin <= T(0), T(0), margin))};
  }
};

template <typename T>
struct SquaredHinge {
  Point<T> operator()(T z, T y) const {
    const T s = SignOf(y), margin = T(1) - s * z;
    const T short_of = Choose(margin <= T(0), T(0), margin);
    return {static_cast<double>(short_of) * static_cast<double>(short_of), T(-2) * s * short_of};
  }
};

template <typename T, typename Y, typename F>
void Fill(const Y* __restrict y, size_t n, T* __restrict z, bool delta, double* __restrict loss, F f) {
  if (!delta) {
    for (size_t i = 0; i < n; ++i) loss[i] = f(z[i], static_cast<T>(y[i])).loss;
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const Point<T> point = f(z[i], static_cast<T>(y[i]));
    loss[i] = point.loss;
    z[i] = point.slope;
  }
}

// z [rows x classes] becomes exp(z - the row's greatest).
template <typename T>
void ShiftedExp(T* z, size_t rows, size_t classes) {
  for (size_t r = 0; r < rows; ++r) {
    T* row = z + r * classes;
    T most = row[0];
    for (size_t k = 1; k < classes; ++k) most = row[k] > most ? row[k] : most;
    for (size_t k = 0; k < classes; ++k) row[k] -= most;
  }
  // Over all rows at once: few classes would leave a vector loop nothing but a tail.
  const size_t n = rows * classes;
  for (size_t i = 0; i < n; ++i) z[i] = Exp(z[i]);
}

}  // namespace

template <typename T>
template <typename Y>
void Loss<T>::Each(const Y* y, size_t n, T* z, bool delta) {
  loss_.Resize(n);
  const T parameter = static_cast<T>(spec_.parameter);
  const auto fill = [&](auto f) { Fill(y, n, z, delta, loss_.data(), f); };
  switch (spec_.kind) {
    case LossKind::kSquared:
      return fill(Squared<T>());
    case LossKind::kAbsolute:
      return fill(Absolute<T>());
    case LossKind::kQuantile:
      return fill(Quantile<T>{parameter});
    case LossKind::kHuber:
      return fill(Huber<T>{parameter});
    case LossKind::kEpsilonInsensitive:
      return fill(EpsilonInsensitive<T>{parameter});
    case LossKind::kPoisson:
      return fill(PoissonLikelihood<T>());
    case LossKind::kLogistic:
      return spec_.parameter > 0 ? fill(Focal<T>{spec_.parameter}) : fill(Logistic<T>());
    case LossKind::kHinge:
      return fill(Hinge<T>());
    case LossKind::kSquaredHinge:
      return fill(SquaredHinge<T>());
    case LossKind::kSoftmax:
      break;
  }
  DESCENT_CHECK(false);
}

template <typename T>
double Loss<T>::WeightOf(const Batch& batch, size_t row) const {
  double weight = batch.weight.empty() ? 1.0 : static_cast<double>(batch.weight[row]);
  if (!spec_.class_weights.empty()) weight *= spec_.class_weights[static_cast<size_t>(batch.label[row])];
  return weight;
}

template <typename T>
void Loss<T>::Weigh(const Batch& batch, T* z, bool delta) {
  if (!weighted(batch)) return;
  for (size_t r = 0; r < batch.rows; ++r) {
    const double weight = WeightOf(batch, r);
    for (size_t i = r * spec_.outputs; i < (r + 1) * spec_.outputs; ++i) {
      loss_[i] *= weight;
      if (delta) z[i] *= static_cast<T>(weight);
    }
  }
}

template <typename T>
BatchResult Loss<T>::Of(const Batch& batch, T* z, bool delta) {
  DESCENT_CHECK(batch.label.size() >= batch.rows);
  if (spec_.kind == LossKind::kSoftmax) return Softmax(batch, z, delta);
  DESCENT_CHECK(spec_.outputs == 1);
  BatchResult result;
  result.weight = static_cast<double>(batch.rows);
  if (classifier()) {
    size_t correct = 0;
    for (size_t r = 0; r < batch.rows; ++r) correct += (z[r] > T(0)) == (batch.label[r] > 0.5f);
    result.correct = static_cast<double>(correct);
  }
  Each(batch.label.data(), batch.rows, z, delta);
  Weigh(batch, z, delta);
  for (size_t r = 0; r < batch.rows; ++r) result.loss += loss_[r];
  return result;
}

template <typename T>
BatchResult Loss<T>::Of(const Batch& batch, const T* target, T* z, bool delta) {
  DESCENT_CHECK(OfNumber(spec_.kind));
  const size_t n = batch.rows * spec_.outputs;
  Each(target, n, z, delta);
  Weigh(batch, z, delta);
  BatchResult result;
  result.weight = static_cast<double>(batch.rows);
  for (size_t i = 0; i < n; ++i) result.loss += loss_[i];
  return result;
}

template <typename T>
BatchResult Loss<T>::Softmax(const Batch& batch, T* z, bool delta) {
  BatchResult result;
  const size_t rows = batch.rows, classes = spec_.outputs;
  result.weight = static_cast<double>(rows);
  loss_.Resize(rows);
  size_t correct = 0;
  for (size_t r = 0; r < rows; ++r) {
    const T* row = z + r * classes;
    const size_t y = static_cast<size_t>(batch.label[r]);
    DESCENT_CHECK(y < classes);
    size_t best = 0;
    T most = row[0];
    for (size_t k = 1; k < classes; ++k) {
      if (row[k] > most) {
        most = row[k];
        best = k;
      }
    }
    loss_[r] = static_cast<double>(row[y] - most);
    correct += best == y;
  }
  ShiftedExp(z, rows, classes);
  const bool plain = spec_.parameter == 0 && !weighted(batch);
  for (size_t r = 0; r < rows; ++r) {
    T* row = z + r * classes;
    const size_t y = static_cast<size_t>(batch.label[r]);
    const T sum = Sum(row, classes);
    double loss = Log(static_cast<double>(sum)) - loss_[r];
    T scale = 1;  // of the cross-entropy's derivative
    if (spec_.parameter > 0) {
      const double gamma = spec_.parameter, miss = static_cast<double>(sum - row[y]) / static_cast<double>(sum);
      const double factor = miss > 0 ? static_cast<double>(Exp(static_cast<T>(gamma * Log(miss)))) : 0;
      const double ratio = miss > 0 ? loss / miss : 1;  // its limit
      scale = static_cast<T>(factor * (1 + gamma * (1 - miss) * ratio));
      loss *= factor;
    }
    if (!plain) {
      const double weight = WeightOf(batch, r);
      loss *= weight;
      scale *= static_cast<T>(weight);
    }
    result.loss += loss;
    if (!delta) continue;
    const T inverse = T(1) / sum;
    for (size_t k = 0; k < classes; ++k) row[k] *= inverse;
    row[y] -= T(1);
    if (plain) continue;
    for (size_t k = 0; k < classes; ++k) row[k] *= scale;
  }
  result.correct = static_cast<double>(correct);
  return result;
}

template <typename T>
void Loss<T>::Predict(T* z, size_t rows) const {
  switch (spec_.kind) {
    case LossKind::kPoisson:
      for (size_t i = 0; i < rows * spec_.outputs; ++i) z[i] = Exp(z[i]);
      return;
    case LossKind::kLogistic:
    case LossKind::kHinge:
    case LossKind::kSquaredHinge:
      for (size_t r = 0; r < rows; ++r) z[r] = Sigmoid(z[r]);
      return;
    case LossKind::kSoftmax:
      ShiftedExp(z, rows, spec_.outputs);
      for (size_t r = 0; r < rows; ++r) {
        T* row = z + r * spec_.outputs;
        const T inverse = T(1) / Sum(row, spec_.outputs);
        for (size_t k = 0; k < spec_.outputs; ++k) row[k] *= inverse;
      }
      return;
    default:
      return;
  }
}

template class Loss<float>;
template class Loss<double>;

}  // namespace descent::internal
