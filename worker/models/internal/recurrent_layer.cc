// Sequences, step by step. From the state before, h (and, of LSTM, c), and the input x, a step makes
//   LSTM  i, f, o = sigmoid, g = tanh of x W + h U + b, in the order i, f, g, o;  c' = f c + i g;  h' = o tanh(c')
//         (Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000)
//   GRU   r, z = sigmoid(x W + b + h U + d),  n = tanh(x W + b + r (h U + d)), in the order r, z, n;
//         h' = (1 - z) n + z h   (Cho et al. 2014, section 2.3, the reset gate behind the product, as cuDNN has it)
// and the last h is the output. Backward is backpropagation through time (Werbos 1990).
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/models/internal/elementwise.h"
#include "worker/models/internal/gemm.h"
#include "worker/models/internal/layer.h"
#include "worker/models/internal/vector_kernels.h"

namespace descent::internal {
namespace {

template <typename T>
class Recurrent final : public Layer<T> {
 public:
  Recurrent(const std::string& name, CellKind cell, size_t steps, size_t width, size_t units)
      : Layer<T>(steps * width, units),
        cell_(cell),
        width_(width),
        units_(units),
        gates_((cell == CellKind::kLstm ? 4 : 3) * units),
        steps_(steps) {
    Matrix(name + "/input_weights", width);
    Vector(name + "/input_bias");
    Matrix(name + "/state_weights", units);
    if (cell == CellKind::kGru) Vector(name + "/state_bias");
  }

  void Forward(const Rows<T>& x, absl::Span<const T* const> parameters, T* y) override {
    const size_t rows = x.count, n = rows * units_;
    first_state_.Resize(n);
    std::fill_n(first_state_.data(), n, T(0));
    for (size_t t = 0; t < steps_.size(); ++t) {
      Step& step = steps_[t];
      step.Resize(rows, width_, units_, gates_);
      for (size_t r = 0; r < rows; ++r) {
        std::copy_n(x.dense + r * this->in() + t * width_, width_, step.x.data() + r * width_);
        std::copy_n(parameters[1], gates_, step.gate.data() + r * gates_);
        if (cell_ == CellKind::kGru) std::copy_n(parameters[3], gates_, step.of_state.data() + r * gates_);
      }
      MultiplyAdd(step.x.data(), parameters[0], step.gate.data(), rows, width_, gates_);
      // LSTM adds up at once what GRU needs apart.
      MultiplyAdd(Before(t), parameters[2], cell_ == CellKind::kGru ? step.of_state.data() : step.gate.data(), rows,
                  units_, gates_);
      for (size_t r = 0; r < rows; ++r) cell_ == CellKind::kLstm ? LstmRow(t, r) : GruRow(t, r);
    }
    std::copy_n(steps_.back().h.data(), n, y);
  }

  void Backward(const Rows<T>& x, absl::Span<const T* const> parameters, const T*, T* delta,
                absl::Span<T* const> gradient, T* below) override {
    const size_t rows = x.count, n = rows * units_;
    for (size_t i = 0; i < gradient.size(); ++i) std::fill_n(gradient[i], this->tensors_[i].elements(), T(0));
    delta_h_.Resize(n);
    delta_c_.Resize(n);
    earlier_.Resize(n);
    part_.Resize(std::max(rows * width_, gates_));
    std::copy_n(delta, n, delta_h_.data());
    std::fill_n(delta_c_.data(), n, T(0));
    for (size_t t = steps_.size(); t-- > 0;) {
      Step& step = steps_[t];
      // The gates' derivatives take the gates' places, and those by h U those of h U.
      for (size_t r = 0; r < rows; ++r) cell_ == CellKind::kLstm ? LstmRowBack(t, r) : GruRowBack(t, r);
      T* by_input = step.gate.data();
      T* by_state = cell_ == CellKind::kGru ? step.of_state.data() : by_input;
      AddTransposedLeft(step.x.data(), by_input, gradient[0], width_, rows, gates_);
      AddColumnSums(by_input, rows, gradient[1]);
      AddTransposedLeft(Before(t), by_state, gradient[2], units_, rows, gates_);
      if (cell_ == CellKind::kGru) AddColumnSums(by_state, rows, gradient[3]);
      MultiplyTransposedRight(by_state, parameters[2], earlier_.data(), rows, gates_, units_);
      // What GRU passes on without its gates is in delta_h_ already; of LSTM nothing is.
      for (size_t i = 0; i < n; ++i) {
        delta_h_[i] = cell_ == CellKind::kGru ? delta_h_[i] + earlier_[i] : earlier_[i];
      }
      if (below == nullptr) continue;
      MultiplyTransposedRight(by_input, parameters[0], part_.data(), rows, gates_, width_);
      for (size_t r = 0; r < rows; ++r) {
        std::copy_n(part_.data() + r * width_, width_, below + r * this->in() + t * width_);
      }
    }
  }

 private:
  struct Step {
    AlignedBuffer<T> x, gate, of_state, c, tanh_c, h;
    void Resize(size_t rows, size_t width, size_t units, size_t gates) {
      x.Resize(rows * width);
      for (AlignedBuffer<T>* buffer : {&gate, &of_state}) buffer->Resize(rows * gates);
      for (AlignedBuffer<T>* buffer : {&c, &tanh_c, &h}) buffer->Resize(rows * units);
    }
  };

  void Matrix(const std::string& name, size_t in) {
    TensorSpec spec;
    spec.name = name;
    spec.shape = {in, gates_};
    spec.initializer = {Initializer::Kind::kUniform, std::sqrt(6.0 / static_cast<double>(in + units_))};
    this->tensors_.push_back(std::move(spec));
  }
  void Vector(const std::string& name) {
    TensorSpec spec;
    spec.name = name;
    spec.shape = {gates_};
    spec.decay = false;
    this->tensors_.push_back(std::move(spec));
  }

  const T* Before(size_t t) const { return t == 0 ? first_state_.data() : steps_[t - 1].h.data(); }
  const T* CellBefore(size_t t) const { return t == 0 ? first_state_.data() : steps_[t - 1].c.data(); }

  void AddColumnSums(const T* a, size_t rows, T* out) {
    ColumnSums(a, rows, gates_, part_.data());
    for (size_t k = 0; k < gates_; ++k) out[k] += part_[k];
  }

  void LstmRow(size_t t, size_t r) {
    Step& step = steps_[t];
    T* i = step.gate.data() + r * gates_;
    T* f = i + units_;
    T* g = f + units_;
    T* o = g + units_;
    for (size_t k = 0; k < units_; ++k) {
      const size_t at = r * units_ + k;
      i[k] = Sigmoid(i[k]);
      f[k] = Sigmoid(f[k]);
      g[k] = Tanh(g[k]);
      o[k] = Sigmoid(o[k]);
      step.c[at] = f[k] * CellBefore(t)[at] + i[k] * g[k];
      step.tanh_c[at] = Tanh(step.c[at]);
      step.h[at] = o[k] * step.tanh_c[at];
    }
  }
  void LstmRowBack(size_t t, size_t r) {
    Step& step = steps_[t];
    T* i = step.gate.data() + r * gates_;
    T* f = i + units_;
    T* g = f + units_;
    T* o = g + units_;
    for (size_t k = 0; k < units_; ++k) {
      const size_t at = r * units_ + k;
      const T dh = delta_h_[at], th = step.tanh_c[at];
      const T dc = delta_c_[at] + dh * o[k] * (T(1) - th * th);
      const T by_i = dc * g[k], by_f = dc * CellBefore(t)[at], by_g = dc * i[k], by_o = dh * th;
      delta_c_[at] = dc * f[k];
      i[k] = by_i * (i[k] * (T(1) - i[k]));
      f[k] = by_f * (f[k] * (T(1) - f[k]));
      g[k] = by_g * (T(1) - g[k] * g[k]);
      o[k] = by_o * (o[k] * (T(1) - o[k]));
    }
  }

  void GruRow(size_t t, size_t r) {
    Step& step = steps_[t];
    T* reset = step.gate.data() + r * gates_;
    T* keep = reset + units_;
    T* fresh = keep + units_;
    const T* of_state = step.of_state.data() + r * gates_;
    for (size_t k = 0; k < units_; ++k) {
      const size_t at = r * units_ + k;
      reset[k] = Sigmoid(reset[k] + of_state[k]);
      keep[k] = Sigmoid(keep[k] + of_state[units_ + k]);
      fresh[k] = Tanh(fresh[k] + reset[k] * of_state[2 * units_ + k]);
      step.h[at] = (T(1) - keep[k]) * fresh[k] + keep[k] * Before(t)[at];
    }
  }
  void GruRowBack(size_t t, size_t r) {
    Step& step = steps_[t];
    T* reset = step.gate.data() + r * gates_;
    T* keep = reset + units_;
    T* fresh = keep + units_;
    T* of_state = step.of_state.data() + r * gates_;
    for (size_t k = 0; k < units_; ++k) {
      const size_t at = r * units_ + k;
      const T dh = delta_h_[at];
      const T by_fresh = dh * (T(1) - keep[k]) * (T(1) - fresh[k] * fresh[k]);
      const T by_keep = dh * (Before(t)[at] - fresh[k]) * (keep[k] * (T(1) - keep[k]));
      const T by_reset = by_fresh * of_state[2 * units_ + k] * (reset[k] * (T(1) - reset[k]));
      delta_h_[at] = dh * keep[k];
      of_state[k] = by_reset;
      of_state[units_ + k] = by_keep;
      of_state[2 * units_ + k] = by_fresh * reset[k];
      reset[k] = by_reset;
      keep[k] = by_keep;
      fresh[k] = by_fresh;
    }
  }

  const CellKind cell_;
  const size_t width_;
  const size_t units_;
  const size_t gates_;  // numbers of all gates
  std::vector<Step> steps_;
  AlignedBuffer<T> first_state_, delta_h_, delta_c_, earlier_, part_;
};

}  // namespace

template <typename T>
LayerPtr<T> MakeRecurrent(const std::string& name, CellKind cell, size_t steps, size_t width, size_t units) {
  return std::make_unique<Recurrent<T>>(name, cell, steps, width, units);
}

template LayerPtr<float> MakeRecurrent(const std::string&, CellKind, size_t, size_t, size_t);
template LayerPtr<double> MakeRecurrent(const std::string&, CellKind, size_t, size_t, size_t);

}  // namespace descent::internal
