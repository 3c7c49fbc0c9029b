#include "server/store/update_rule.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "descent/v1/job.pb.h"
#include "server/store/kernels.h"

namespace descent {
namespace {

using Factors = StepFactors;

Factors PlainFactors(const Step& step) { return {step.rate, step.scale, step.l2, 1, 1}; }

// By squaring: the same bits whatever the mathematical library.
double Power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

struct Sgd {
  static constexpr int kStates = 0;
  static constexpr bool kIdle = true;
  static constexpr bool kStateMatters = false;  // whether a row of w == 0 moves where its state is not 0
  float initial(int) const { return 0; }
  Factors Prepare(const Step& step) const { return PlainFactors(step); }
  void Move(const Factors& f, float d, float& w) const { w -= f.rate * d; }
};

struct Momentum {
  static constexpr int kStates = 1;
  static constexpr bool kIdle = false;
  static constexpr bool kStateMatters = true;
  float mu;
  float initial(int) const { return 0; }
  Factors Prepare(const Step& step) const { return PlainFactors(step); }
  void Move(const Factors& f, float d, float& w, float& m) const {
    m = mu * m + d;
    w -= f.rate * m;
  }
};

struct Adagrad {
  static constexpr int kStates = 1;
  static constexpr bool kIdle = true;
  static constexpr bool kStateMatters = false;
  float epsilon;
  float accumulator;
  float initial(int) const { return accumulator; }
  Factors Prepare(const Step& step) const { return PlainFactors(step); }
  void Move(const Factors& f, float d, float& w, float& a) const {
    a += d * d;
    w -= f.rate * d / (std::sqrt(a) + epsilon);
  }
};

struct Adam {
  static constexpr int kStates = 2;
  static constexpr bool kIdle = false;
  static constexpr bool kStateMatters = true;
  double b1, b2;
  float beta1, beta2, rest1, rest2, epsilon;
  float initial(int) const { return 0; }
  Factors Prepare(const Step& step) const {
    Factors f = PlainFactors(step);
    f.first = static_cast<float>(1 / (1 - Power(b1, step.t)));
    f.second = static_cast<float>(1 / (1 - Power(b2, step.t)));
    return f;
  }
  void Move(const Factors& f, float d, float& w, float& m, float& v) const {
    m = beta1 * m + rest1 * d;
    v = beta2 * v + rest2 * (d * d);
    w -= f.rate * (m * f.first) / (std::sqrt(v * f.second) + epsilon);
  }
};

template <typename R, bool kL2>
inline void MoveOne(const R& rule, const Factors& f, float g, float w, float* out, float* s0, float* s1) {
  float d = g * f.scale;
  if constexpr (kL2) d += f.l2 * w;
  if constexpr (R::kStates == 0) {
    rule.Move(f, d, w);
  } else if constexpr (R::kStates == 1) {
    rule.Move(f, d, w, *s0);
  } else {
    rule.Move(f, d, w, *s0, *s1);
  }
  *out = w;
}

template <typename R, bool kL2>
void MoveRun(const R& rule_in_memory, const Factors& factors, size_t n, const float* w, float* out, float* s0,
             float* s1, const float* g) {
  const R rule = rule_in_memory;  // in registers: stores to `out` can't change these
  const Factors f = factors;
  const UnalignedFloat* in = g;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) MoveOne<R, kL2>(rule, f, in[i], w[i], out + i, s0 + i, s1 + i);
}

constexpr size_t kLanes = 8;

// Rows of any length, and of one that the compiler knows (kDim, if not 0).
template <typename R, bool kL2, size_t kDim>
void MoveRows(const R& rule_in_memory, const Factors& factors, size_t runtime_dim, size_t count, float* const* rows,
              const float* g) {
  const R rule = rule_in_memory;
  const Factors f = factors;
  const size_t dim = kDim == 0 ? runtime_dim : kDim;
  const UnalignedFloat* x = g;
  for (size_t r = 0; r < count; ++r, x += dim) {
    float* w = rows[r];
    float* s0 = R::kStates > 0 ? w + dim : w;
    float* s1 = R::kStates > 1 ? w + 2 * dim : w;
    DESCENT_ONE_VECTOR
    for (size_t i = 0; i < dim; ++i) MoveOne<R, kL2>(rule, f, x[i], w[i], w + i, s0 + i, s1 + i);
  }
}

template <typename R, bool kL2>
void MoveRowsOfDim(const R& rule, const Factors& f, size_t dim, size_t count, float* const* rows, const float* g) {
  if (dim == 1) return MoveRows<R, kL2, 1>(rule, f, dim, count, rows, g);
  if (dim == 8) return MoveRows<R, kL2, 8>(rule, f, dim, count, rows, g);
  return MoveRows<R, kL2, 0>(rule, f, dim, count, rows, g);
}

bool AllZeroBits(const float* x, size_t n) {
  uint32_t any = 0;
  for (size_t i = 0; i < n; ++i) {
    uint32_t word;
    std::memcpy(&word, x + i, sizeof(word));
    any |= word;
  }
  return any == 0;
}

// Eight elements side by side through steps [begin, end), in registers all the while.
template <typename R, bool kL2>
void ReplayLanes(const R& rule_in_memory, const Factors* begin, const Factors* end, float* w, float* s0, float* s1) {
  const R rule = rule_in_memory;
  float lw[kLanes], l0[kLanes] = {}, l1[kLanes] = {};
  std::memcpy(lw, w, sizeof(lw));
  if constexpr (R::kStates > 0) std::memcpy(l0, s0, sizeof(l0));
  if constexpr (R::kStates > 1) std::memcpy(l1, s1, sizeof(l1));
  for (const Factors* f = begin; f != end; ++f) {
    DESCENT_ONE_VECTOR
    for (size_t k = 0; k < kLanes; ++k) MoveOne<R, kL2>(rule, *f, 0.0f, lw[k], lw + k, l0 + k, l1 + k);
  }
  std::memcpy(w, lw, sizeof(lw));
  if constexpr (R::kStates > 0) std::memcpy(s0, l0, sizeof(l0));
  if constexpr (R::kStates > 1) std::memcpy(s1, l1, sizeof(l1));
}

// Fewer elements, padded to eight with zeros.
template <typename R, bool kL2>
void ReplayPart(const R& rule, const Factors* begin, const Factors* end, size_t n, float* w, float* s0, float* s1) {
  float lw[kLanes] = {}, l0[kLanes] = {}, l1[kLanes] = {};
  std::memcpy(lw, w, n * sizeof(float));
  if constexpr (R::kStates > 0) std::memcpy(l0, s0, n * sizeof(float));
  if constexpr (R::kStates > 1) std::memcpy(l1, s1, n * sizeof(float));
  ReplayLanes<R, kL2>(rule, begin, end, lw, l0, l1);
  std::memcpy(w, lw, n * sizeof(float));
  if constexpr (R::kStates > 0) std::memcpy(s0, l0, n * sizeof(float));
  if constexpr (R::kStates > 1) std::memcpy(s1, l1, n * sizeof(float));
}

template <typename R>
class RuleOf final : public UpdateRule {
 public:
  explicit RuleOf(R rule) : rule_(rule) {}

  int state_slots() const override { return R::kStates; }
  float initial_state(int slot) const override { return rule_.initial(slot); }
  bool idle_without_gradient() const override { return R::kIdle; }

  void Apply(const Step& step, size_t n, const float* w, float* out, float* const* state,
             const float* g) const override {
    float* s0 = R::kStates > 0 ? state[0] : out;
    float* s1 = R::kStates > 1 ? state[1] : out;
    const Factors f = rule_.Prepare(step);
    if (step.l2 != 0) {
      MoveRun<R, true>(rule_, f, n, w, out, s0, s1, g);
    } else {
      MoveRun<R, false>(rule_, f, n, w, out, s0, s1, g);
    }
  }

  void ApplyRows(const Step& step, size_t dim, size_t count, float* const* rows, const float* g) const override {
    const Factors f = rule_.Prepare(step);
    if (step.l2 != 0) {
      MoveRowsOfDim<R, true>(rule_, f, dim, count, rows, g);
    } else {
      MoveRowsOfDim<R, false>(rule_, f, dim, count, rows, g);
    }
  }

  StepFactors Prepare(const Step& step) const override { return rule_.Prepare(step); }

  void Replay(absl::Span<const StepFactors> steps, size_t dim, size_t count, float* const* rows,
              const uint32_t* first) const override {
    if (steps.empty()) return;
    if (steps.front().l2 != 0) {
      ReplayRows<true>(steps, dim, count, rows, first);
    } else {
      ReplayRows<false>(steps, dim, count, rows, first);
    }
  }

 private:
  template <bool kL2>
  void ReplayRows(absl::Span<const Factors> factors, size_t dim, size_t count, float* const* rows,
                  const uint32_t* first) const {
    if (dim == 1) return ReplayUnitRows<kL2>(factors, count, rows, first);
    const Factors* end = factors.data() + factors.size();
    for (size_t r = 0; r < count; ++r) {
      const Factors* begin = factors.data() + first[r];
      float* w = rows[r];
      // Zero is a fixed point of every rule, whatever the rate: the decay of zero is zero.
      if (begin == end || AllZeroBits(w, R::kStateMatters ? dim * (1 + R::kStates) : dim)) continue;
      size_t i = 0;
      for (; i + kLanes <= dim; i += kLanes) {
        ReplayLanes<R, kL2>(rule_, begin, end, w + i, w + dim + i, w + 2 * dim + i);
      }
      if (i < dim) ReplayPart<R, kL2>(rule_, begin, end, dim - i, w + i, w + dim + i, w + 2 * dim + i);
    }
  }

  // Rows of one parameter, eight side by side: those that missed alike share their lanes' time, and a row joins at its
  // first step. A lane that has not begun holds zeros, which rest.
  template <bool kL2>
  void ReplayUnitRows(absl::Span<const Factors> factors, size_t count, float* const* rows,
                      const uint32_t* first) const {
    std::vector<std::pair<uint32_t, float*>> wanted;
    wanted.reserve(count);
    for (size_t r = 0; r < count; ++r) {
      if (first[r] == factors.size() || AllZeroBits(rows[r], R::kStateMatters ? 1 + R::kStates : 1)) continue;
      wanted.emplace_back(first[r], rows[r]);
    }
    std::sort(wanted.begin(), wanted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t at = 0; at < wanted.size(); at += kLanes) {
      const size_t lanes = std::min(kLanes, wanted.size() - at);
      float w[kLanes] = {}, s0[kLanes] = {}, s1[kLanes] = {};
      for (size_t k = 0; k < lanes; ++k) {
        const auto [begin, row] = wanted[at + k];
        w[k] = row[0];
        if constexpr (R::kStates > 0) s0[k] = row[1];
        if constexpr (R::kStates > 1) s1[k] = row[2];
        const size_t end = k + 1 < lanes ? wanted[at + k + 1].first : factors.size();
        if (begin < end) ReplayLanes<R, kL2>(rule_, factors.data() + begin, factors.data() + end, w, s0, s1);
      }
      for (size_t k = 0; k < lanes; ++k) {
        float* row = wanted[at + k].second;
        row[0] = w[k];
        if constexpr (R::kStates > 0) row[1] = s0[k];
        if constexpr (R::kStates > 1) row[2] = s1[k];
      }
    }
  }

  const R rule_;
};

absl::Status CheckField(absl::string_view name, double value, bool valid, absl::string_view expected) {
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("optimizer.", name, ": expected ", expected, ", got ", value));
}

absl::Status CheckDecay(absl::string_view name, double value) {
  const bool valid = value >= 0 && value < 1 && static_cast<float>(value) < 1;
  return CheckField(name, value, valid, "a number of [0, 1)");
}

absl::Status CheckEpsilon(absl::string_view name, double value) {
  const float rounded = static_cast<float>(value);
  return CheckField(name, value, rounded > 0 && std::isfinite(rounded), "a positive number that a float32 can hold");
}

}  // namespace

absl::StatusOr<std::unique_ptr<const UpdateRule>> UpdateRule::Make(const v1::Optimizer& spec) {
  using Result = std::unique_ptr<const UpdateRule>;
  switch (spec.rule_case()) {
    case v1::Optimizer::kMomentum: {
      const double mu = spec.momentum().has_momentum() ? spec.momentum().momentum() : 0.9;
      if (absl::Status status = CheckDecay("momentum.momentum", mu); !status.ok()) return status;
      return Result(std::make_unique<RuleOf<Momentum>>(Momentum{static_cast<float>(mu)}));
    }
    case v1::Optimizer::kAdagrad: {
      const double epsilon = spec.adagrad().has_epsilon() ? spec.adagrad().epsilon() : 1e-10;
      const double accumulator = spec.adagrad().initial_accumulator();
      if (absl::Status status = CheckEpsilon("adagrad.epsilon", epsilon); !status.ok()) return status;
      const float rounded = static_cast<float>(accumulator);
      if (absl::Status status = CheckField("adagrad.initial_accumulator", accumulator,
                                           accumulator >= 0 && std::isfinite(rounded), "a number from 0 up");
          !status.ok()) {
        return status;
      }
      return Result(std::make_unique<RuleOf<Adagrad>>(Adagrad{static_cast<float>(epsilon), rounded}));
    }
    case v1::Optimizer::kAdam: {
      const double b1 = spec.adam().has_beta1() ? spec.adam().beta1() : 0.9;
      const double b2 = spec.adam().has_beta2() ? spec.adam().beta2() : 0.999;
      const double epsilon = spec.adam().has_epsilon() ? spec.adam().epsilon() : 1e-8;
      if (absl::Status status = CheckDecay("adam.beta1", b1); !status.ok()) return status;
      if (absl::Status status = CheckDecay("adam.beta2", b2); !status.ok()) return status;
      if (absl::Status status = CheckEpsilon("adam.epsilon", epsilon); !status.ok()) return status;
      return Result(std::make_unique<RuleOf<Adam>>(Adam{b1, b2, static_cast<float>(b1), static_cast<float>(b2),
                                                        static_cast<float>(1 - b1), static_cast<float>(1 - b2),
                                                        static_cast<float>(epsilon)}));
    }
    case v1::Optimizer::kSgd:
    case v1::Optimizer::RULE_NOT_SET:
      break;
  }
  return Result(std::make_unique<RuleOf<Sgd>>(Sgd{}));
}

}  // namespace descent
