#include "server/store/quasi_newton.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "common/base/check.h"
#include "server/store/method_state.h"
#include "server/store/vector_product.h"

namespace descent {
namespace {

constexpr size_t kRun = 512;  // elements at a time

// The element of the subdifferential of f + l1 |w| that is nearest to 0.
double PseudoGradient(double w, double g, double l1) {
  if (w > 0) return g + l1;
  if (w < 0) return g - l1;
  if (g + l1 < 0) return g + l1;
  if (g - l1 > 0) return g - l1;
  return 0;
}

// base + size * direction, within the orthant of the base; on its border, within that into which -v leads.
float OnPath(double base, double v, double size, double direction, double l1) {
  const double x = base + size * direction;
  if (l1 == 0) return static_cast<float>(x);
  const double side = base != 0 ? base : -v;
  return x * side <= 0 ? 0.0f : static_cast<float>(x);
}

}  // namespace

QuasiNewton::QuasiNewton(size_t history, double l1)
    : history_(history),
      l1_(l1),
      ss_(history * history),
      sy_(history * history),
      yy_(history * history),
      sv_(history),
      yv_(history) {
  DESCENT_CHECK(history > 0 && l1 >= 0);
}

void QuasiNewton::Measure(const Block& b, absl::Span<double> sums) const {
  DESCENT_CHECK(sums.size() == products());
  const double l1 = this->l1(b);
  std::array<float, kRun> s, y;
  std::array<double, kRun> v, base;
  for (size_t from = 0; from < b.n; from += kRun) {
    const size_t n = std::min(kRun, b.n - from);
    const float* at_base = b.state[0] + from;
    for (size_t i = 0; i < n; ++i) {
      const float w = b.trial[from + i], was = b.base[from + i], g = b.gradient[from + i];
      v[i] = PseudoGradient(w, g, l1);
      base[i] = begun_ != 0 ? PseudoGradient(was, at_base[i], l1) : 0;
      s[i] = begun_ != 0 ? w - was : 0;
      y[i] = begun_ != 0 ? g - at_base[i] : 0;
    }
    sums[kSV] += Product(n, s.data(), v.data());
    sums[kSBase] += Product(n, s.data(), base.data());
    sums[kSS] += Product(n, s.data(), s.data());
    sums[kSY] += Product(n, s.data(), y.data());
    sums[kYY] += Product(n, y.data(), y.data());
    sums[kVV] += Product(n, v.data(), v.data());
    sums[kYV] += Product(n, y.data(), v.data());
    for (size_t j = 0; j < history_; ++j) {
      const float* sj = b.state[2 + j] + from;
      const float* yj = b.state[2 + history_ + j] + from;
      double* sum = sums.data() + kOwn + 6 * j;
      sum[0] += Product(n, s.data(), sj);
      sum[1] += Product(n, s.data(), yj);
      sum[2] += Product(n, y.data(), sj);
      sum[3] += Product(n, y.data(), yj);
      sum[4] += Product(n, v.data(), sj);
      sum[5] += Product(n, v.data(), yj);
    }
  }
}

void QuasiNewton::Decide(absl::Span<const double> totals) {
  plan_ = Plan();
  if (totals.empty() || done_ != 0) return;
  DESCENT_CHECK(totals.size() == products());
  if (begun_ == 0) {
    begun_ = 1;
    return Take(totals);
  }
  const double slope = totals[kSBase];
  switch (slope < 0 ? search_.Take(totals[kSV] / slope) : SlopeSearch::Verdict::kGivenUp) {
    case SlopeSearch::Verdict::kTaken:
      return Take(totals);
    case SlopeSearch::Verdict::kAgain:
      plan_.move = Move::kRetry;
      return;
    case SlopeSearch::Verdict::kGivenUp:
      break;
  }
  // What is left to gain is below what the gradients can tell, or the pairs have led astray.
  if (pairs_ == 0) {
    done_ = 1;
    return;
  }
  plan_.move = Move::kRestart;
  BeginSteepest(squared_gradient_);
}

void QuasiNewton::BeginSteepest(double squared_gradient) {
  pairs_ = 0;
  search_.Begin(std::min(1.0, 1 / std::sqrt(squared_gradient)));
}

void QuasiNewton::Take(absl::Span<const double> t) {
  plan_.move = Move::kTake;
  plan_.of_gradient = -1;
  plan_.of_steps.assign(history_, 0);
  plan_.of_differences.assign(history_, 0);
  squared_gradient_ = t[kVV];
  for (size_t j = 0; j < history_; ++j) {
    sv_[j] = t[kOwn + 6 * j + 4];
    yv_[j] = t[kOwn + 6 * j + 5];
  }
  if (t[kVV] == 0) {
    done_ = 1;
    return;
  }
  // A pair without curvature, as far as float32 can tell, says nothing.
  if (t[kSY] > 1e-7 * std::sqrt(t[kSS] * t[kYY])) {
    const auto k = static_cast<size_t>(next_);
    for (size_t j = 0; j < history_; ++j) {
      const double* product = t.data() + kOwn + 6 * j;
      at(ss_, k, j) = at(ss_, j, k) = product[0];
      at(sy_, k, j) = product[1];
      at(sy_, j, k) = product[2];
      at(yy_, k, j) = at(yy_, j, k) = product[3];
    }
    at(ss_, k, k) = t[kSS];
    at(sy_, k, k) = t[kSY];
    at(yy_, k, k) = t[kYY];
    sv_[k] = t[kSV];
    yv_[k] = t[kYV];
    plan_.pair = k;
    next_ = static_cast<double>((k + 1) % history_);
    pairs_ = std::min(pairs_ + 1, static_cast<double>(history_));
  }
  if (pairs_ > 0 && Combine()) return search_.Begin(1);
  plan_.of_gradient = -1;
  plan_.of_steps.assign(history_, 0);
  plan_.of_differences.assign(history_, 0);
  BeginSteepest(t[kVV]);
}

bool QuasiNewton::Combine() {
  std::vector<double>& s = plan_.of_steps;
  std::vector<double>& y = plan_.of_differences;
  double& v = plan_.of_gradient;
  v = 1;
  const auto count = static_cast<size_t>(pairs_);
  const size_t newest = (static_cast<size_t>(next_) + history_ - 1) % history_;
  const auto back = [&](size_t steps) { return (newest + history_ - steps) % history_; };
  std::vector<double> alpha(history_);
  for (size_t n = 0; n < count; ++n) {  // from the newest
    const size_t i = back(n);
    double product = v * sv_[i];
    for (size_t j = 0; j < history_; ++j) product += s[j] * at(ss_, i, j) + y[j] * at(sy_, i, j);
    alpha[i] = product / at(sy_, i, i);
    y[i] -= alpha[i];
  }
  const double scale = at(sy_, newest, newest) / at(yy_, newest, newest);
  v *= scale;
  for (double& c : s) c *= scale;
  for (double& c : y) c *= scale;
  for (size_t n = count; n-- > 0;) {  // from the oldest
    const size_t i = back(n);
    double product = v * yv_[i];
    for (size_t j = 0; j < history_; ++j) product += s[j] * at(sy_, j, i) + y[j] * at(yy_, i, j);
    s[i] += alpha[i] - product / at(sy_, i, i);
  }
  double slope = 0;  // of the direction, which is minus that
  v = -v;
  slope += v * squared_gradient_;
  for (size_t j = 0; j < history_; ++j) {
    s[j] = -s[j];
    y[j] = -y[j];
    slope += s[j] * sv_[j] + y[j] * yv_[j];
  }
  return slope < 0;  // also of a NaN
}

void QuasiNewton::Step(const Block& b, float* next) const {
  const double l1 = this->l1(b);
  const double size = search_.size();
  float* const at_base = b.state[0];
  float* const direction = b.state[1];
  if (plan_.move == Move::kStay) {
    std::copy_n(b.base, b.n, next);
    return;
  }
  if (plan_.move != Move::kTake) {
    for (size_t i = 0; i < b.n; ++i) {
      const double v = PseudoGradient(b.base[i], at_base[i], l1);
      if (plan_.move == Move::kRestart) direction[i] = static_cast<float>(-v);
      next[i] = OnPath(b.base[i], v, size, direction[i], l1);
    }
    return;
  }
  std::array<double, kRun> d;
  for (size_t from = 0; from < b.n; from += kRun) {
    const size_t n = std::min(kRun, b.n - from);
    if (plan_.pair.has_value()) {
      float* s = b.state[2 + *plan_.pair] + from;
      float* y = b.state[2 + history_ + *plan_.pair] + from;
      for (size_t i = 0; i < n; ++i) {
        s[i] = b.trial[from + i] - b.base[from + i];
        y[i] = b.gradient[from + i] - at_base[from + i];
      }
    }
    std::copy_n(b.gradient + from, n, at_base + from);
    for (size_t i = 0; i < n; ++i) {
      d[i] = plan_.of_gradient * PseudoGradient(b.trial[from + i], b.gradient[from + i], l1);
    }
    for (size_t j = 0; j < history_; ++j) {
      const double cs = plan_.of_steps[j], cy = plan_.of_differences[j];
      if (cs == 0 && cy == 0) continue;
      const float* s = b.state[2 + j] + from;
      const float* y = b.state[2 + history_ + j] + from;
      for (size_t i = 0; i < n; ++i) d[i] += cs * static_cast<double>(s[i]) + cy * static_cast<double>(y[i]);
    }
    for (size_t i = 0; i < n; ++i) {
      const double v = PseudoGradient(b.trial[from + i], b.gradient[from + i], l1);
      // Where the direction leads up: not along there.
      const bool up = l1 > 0 && d[i] * v >= 0;
      direction[from + i] = up ? 0.0f : static_cast<float>(d[i]);
      next[from + i] = OnPath(b.trial[from + i], v, size, direction[from + i], l1);
    }
  }
}

double QuasiNewton::SquaredGradient(const Block& b) const {
  const double l1 = this->l1(b);
  return SumInOrder(b.n, [&](size_t i) {
    const double v = PseudoGradient(b.trial[i], b.gradient[i], l1);
    return v * v;
  });
}

template <typename F>
void QuasiNewton::ForEachNumber(F&& f) {
  for (double* number : {&begun_, &done_, &pairs_, &next_, &squared_gradient_}) f(*number);
  search_.ForEachNumber(f);
  for (std::vector<double>* numbers : {&ss_, &sy_, &yy_, &sv_, &yv_}) {
    for (double& number : *numbers) f(number);
  }
}

std::string QuasiNewton::Save() const {
  QuasiNewton copy = *this;
  return SaveNumbers([&](auto&& f) { copy.ForEachNumber(f); });
}

absl::Status QuasiNewton::Load(absl::string_view state) {
  QuasiNewton loaded(history_, l1_);
  absl::Status status = LoadNumbers("lbfgs", state, [&](auto&& f) { loaded.ForEachNumber(f); });
  const auto most = static_cast<double>(history_);
  if (status.ok() && !(loaded.pairs_ >= 0 && loaded.pairs_ <= most && loaded.next_ >= 0 && loaded.next_ < most)) {
    status = absl::InvalidArgumentError("the state of lbfgs counts pairs that it has no room for");
  }
  if (!status.ok()) return status;
  std::vector<double> numbers;
  loaded.ForEachNumber([&](double& number) { numbers.push_back(number); });
  size_t next = 0;
  ForEachNumber([&](double& number) { number = numbers[next++]; });
  return absl::OkStatus();
}

}  // namespace descent
