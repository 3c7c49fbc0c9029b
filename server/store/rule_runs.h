// A rule's arithmetic on one element (rule_arithmetic.h) made into passes over runs, rows and missed steps.
//
// Internal to update_rule.cc. Thread-safe: stateless.
#ifndef DESCENT_SERVER_STORE_RULE_RUNS_H_
#define DESCENT_SERVER_STORE_RULE_RUNS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "server/store/kernels.h"
#include "server/store/update_rule.h"

namespace descent {

template <typename R>
using StateOf = std::array<float*, R::kStates>;
template <typename R>
using SlotsOf = std::make_index_sequence<R::kStates>;

// w after one step; state[.][i] in place.
template <typename R, bool kL2, size_t... kSlot>
inline float MoveOne(const R& rule, const StepFactors& f, float g, float w, const StateOf<R>& state,
                     [[maybe_unused]] size_t i, std::index_sequence<kSlot...>) {
  float d = g * f.scale;
  if constexpr (kL2 && !R::kDecoupled) d += f.l2 * w;
  if constexpr (kL2 && R::kDecoupled) w -= f.rate * (f.l2 * w);
  rule.Move(f, d, w, state[kSlot][i]...);
  return w;
}

template <typename R, bool kL2>
void MoveRun(const R& rule_in_memory, const StepFactors& factors, size_t n, const float* w, float* out,
             float* const* state_in_memory, const float* g) {
  const R rule = rule_in_memory;  // in registers: stores to `out` can't change these
  const StepFactors f = factors;
  StateOf<R> state;
  std::copy_n(state_in_memory, R::kStates, state.begin());
  const UnalignedFloat* in = g;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) out[i] = MoveOne<R, kL2>(rule, f, in[i], w[i], state, i, SlotsOf<R>());
}

template <typename R, size_t... kSlot>
void DirectRun(const R& rule_in_memory, const StepFactors& factors, size_t n, const float* w, float* out,
               const float* const* state, const float* g, std::index_sequence<kSlot...>) {
  const R rule = rule_in_memory;
  const StepFactors f = factors;
  const UnalignedFloat* in = g;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) out[i] = rule.Direction(f, in[i] * f.scale, w[i], state[kSlot][i]...);
}

constexpr size_t kLanes = 8;

// Rows of any length, and of one that the compiler knows (kDim, if not 0).
template <typename R, bool kL2, size_t kDim>
void MoveRows(const R& rule_in_memory, const StepFactors& factors, size_t runtime_dim, size_t count, float* const* rows,
              const float* g) {
  const R rule = rule_in_memory;
  const StepFactors f = factors;
  const size_t dim = kDim == 0 ? runtime_dim : kDim;
  const UnalignedFloat* x = g;
  for (size_t r = 0; r < count; ++r, x += dim) {
    float* w = rows[r];
    StateOf<R> state;
    for (size_t s = 0; s < state.size(); ++s) state[s] = w + (1 + s) * dim;
    DESCENT_ONE_VECTOR
    for (size_t i = 0; i < dim; ++i) w[i] = MoveOne<R, kL2>(rule, f, x[i], w[i], state, i, SlotsOf<R>());
  }
}

template <typename R, bool kL2>
void MoveRowsOfDim(const R& rule, const StepFactors& f, size_t dim, size_t count, float* const* rows, const float* g) {
  if (dim == 1) return MoveRows<R, kL2, 1>(rule, f, dim, count, rows, g);
  if (dim == 8) return MoveRows<R, kL2, 8>(rule, f, dim, count, rows, g);
  return MoveRows<R, kL2, 0>(rule, f, dim, count, rows, g);
}

inline bool AllZeroBits(const float* x, size_t n) {
  uint32_t any = 0;
  for (size_t i = 0; i < n; ++i) {
    uint32_t word;
    std::memcpy(&word, x + i, sizeof(word));
    any |= word;
  }
  return any == 0;
}

using LateRow = std::pair<uint32_t, float*>;  // and the first step that it missed
inline void SortByFirst(std::vector<LateRow>* rows) {
  std::sort(rows->begin(), rows->end(), [](const LateRow& a, const LateRow& b) { return a.first < b.first; });
}

// Eight elements side by side; zeros, which rest, where there are fewer. [0]: parameters, then state.
template <typename R>
struct Lanes {
  float at[1 + R::kStates][kLanes] = {};

  // Elements [0, n) of the stretch of a row at `w`.
  void Load(const float* w, size_t dim, size_t n) {
    for (size_t v = 0; v <= R::kStates; ++v) std::memcpy(at[v], w + v * dim, n * sizeof(float));
  }
  void Store(float* w, size_t dim, size_t n) const {
    for (size_t v = 0; v <= R::kStates; ++v) std::memcpy(w + v * dim, at[v], n * sizeof(float));
  }
};

// Through steps [begin, end), in registers all the while.
template <typename R, bool kL2>
void ReplayLanes(const R& rule_in_memory, const StepFactors* begin, const StepFactors* end, Lanes<R>* in_memory) {
  const R rule = rule_in_memory;
  Lanes<R> lanes = *in_memory;
  StateOf<R> state;
  for (size_t s = 0; s < state.size(); ++s) state[s] = lanes.at[1 + s];
  float* const w = lanes.at[0];
  for (const StepFactors* f = begin; f != end; ++f) {
    DESCENT_ONE_VECTOR
    for (size_t k = 0; k < kLanes; ++k) w[k] = MoveOne<R, kL2>(rule, *f, 0.0f, w[k], state, k, SlotsOf<R>());
  }
  *in_memory = lanes;
}

template <typename R>
class RuleOf : public UpdateRule {
 public:
  explicit RuleOf(R rule) : rule_(rule) {}

  int state_slots() const final { return R::kStates; }
  float initial_state(int slot) const final { return rule_.initial(slot); }
  bool idle_without_gradient() const final { return R::kStill && !R::kProximal; }
  bool proximal() const final { return R::kProximal; }
  const UpdateRule& unpenalized() const override { return *this; }
  Trust trust() const final { return rule_.trust(); }
  using UpdateRule::GroupThreshold;
  float GroupThreshold(const StepFactors& factors) const final {
    if constexpr (R::kProximal) return rule_.GroupThreshold(factors);
    return 0;
  }
  void Direction(const Step& step, size_t n, const float* w, float* out, const float* const* state,
                 const float* g) const final {
    if constexpr (R::kDirected) {
      DirectRun(rule_, rule_.Prepare(step), n, w, out, state, g, SlotsOf<R>());
    } else {
      UpdateRule::Direction(step, n, w, out, state, g);
    }
  }

  void Apply(const Step& step, size_t n, const float* w, float* out, float* const* state, const float* g) const final {
    const StepFactors f = rule_.Prepare(step);
    if (step.l2 != 0) {
      MoveRun<R, true>(rule_, f, n, w, out, state, g);
    } else {
      MoveRun<R, false>(rule_, f, n, w, out, state, g);
    }
  }

  void ApplyRows(const Step& step, size_t dim, size_t count, float* const* rows, const float* g) const final {
    const StepFactors f = rule_.Prepare(step);
    if (step.l2 != 0) {
      MoveRowsOfDim<R, true>(rule_, f, dim, count, rows, g);
    } else {
      MoveRowsOfDim<R, false>(rule_, f, dim, count, rows, g);
    }
  }

  StepFactors Prepare(const Step& step) const final { return rule_.Prepare(step); }

  void Replay(absl::Span<const StepFactors> steps, size_t dim, size_t count, float* const* rows,
              const uint32_t* first) const final {
    if (steps.empty()) return;
    if (steps.front().l2 != 0) {
      ReplayRows<true>(steps, dim, count, rows, first);
    } else {
      ReplayRows<false>(steps, dim, count, rows, first);
    }
  }

 private:
  // Zero is a fixed point of every rule, whatever the rate: the decay of zero is zero.
  static bool Rests(const float* row, size_t dim) { return AllZeroBits(row, R::kStill ? dim : dim * (1 + R::kStates)); }

  template <bool kL2>
  void ReplayRows(absl::Span<const StepFactors> factors, size_t dim, size_t count, float* const* rows,
                  const uint32_t* first) const {
    if (dim == 1) return ReplayUnitRows<kL2>(factors, count, rows, first);
    const StepFactors* end = factors.data() + factors.size();
    for (size_t r = 0; r < count; ++r) {
      const StepFactors* begin = factors.data() + first[r];
      float* w = rows[r];
      if (begin == end || Rests(w, dim)) continue;
      size_t i = 0;
      for (; i + kLanes <= dim; i += kLanes) {
        Lanes<R> lanes;
        lanes.Load(w + i, dim, kLanes);
        ReplayLanes<R, kL2>(rule_, begin, end, &lanes);
        lanes.Store(w + i, dim, kLanes);
      }
      if (i == dim) continue;
      Lanes<R> lanes;
      lanes.Load(w + i, dim, dim - i);
      ReplayLanes<R, kL2>(rule_, begin, end, &lanes);
      lanes.Store(w + i, dim, dim - i);
    }
  }

  // Rows of one parameter, eight side by side: those that missed alike share their lanes' time, and a row joins at its
  // first step. A lane that has not begun holds zeros, which rest.
  template <bool kL2>
  void ReplayUnitRows(absl::Span<const StepFactors> factors, size_t count, float* const* rows,
                      const uint32_t* first) const {
    std::vector<LateRow> wanted;
    wanted.reserve(count);
    for (size_t r = 0; r < count; ++r) {
      if (first[r] == factors.size() || Rests(rows[r], 1)) continue;
      wanted.emplace_back(first[r], rows[r]);
    }
    SortByFirst(&wanted);
    for (size_t at = 0; at < wanted.size(); at += kLanes) {
      const size_t count_here = std::min(kLanes, wanted.size() - at);
      Lanes<R> lanes;
      for (size_t k = 0; k < count_here; ++k) {
        const auto [begin, row] = wanted[at + k];
        for (size_t v = 0; v <= R::kStates; ++v) lanes.at[v][k] = row[v];
        const size_t end = k + 1 < count_here ? wanted[at + k + 1].first : factors.size();
        if (begin < end) ReplayLanes<R, kL2>(rule_, factors.data() + begin, factors.data() + end, &lanes);
      }
      for (size_t k = 0; k < count_here; ++k) {
        for (size_t v = 0; v <= R::kStates; ++v) wanted[at + k].second[v] = lanes.at[v][k];
      }
    }
  }

  const R rule_;
};

template <typename R, typename Unpenalized>
class PenalizedRuleOf final : public RuleOf<R> {
 public:
  PenalizedRuleOf(R rule, Unpenalized unpenalized) : RuleOf<R>(rule), unpenalized_(unpenalized) {}
  const UpdateRule& unpenalized() const override { return unpenalized_; }

 private:
  const RuleOf<Unpenalized> unpenalized_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_RULE_RUNS_H_
