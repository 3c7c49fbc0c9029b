#include "server/store/newton_cg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "server/store/method_state.h"
#include "server/store/vector_product.h"

namespace descent {
namespace {

constexpr size_t kRun = 512;
constexpr double kReach = 1.0 / 256;

}  // namespace

double NewtonCg::Reach(double squared) const { return kReach * (1 + std::sqrt(squared_base_)) / std::sqrt(squared); }

void NewtonCg::Measure(const Block& b, absl::Span<double> sums) const {
  DESCENT_CHECK(sums.size() == products());
  std::array<double, kRun> s, h;
  for (size_t from = 0; from < b.n; from += kRun) {
    const size_t n = std::min(kRun, b.n - from);
    const float *x = b.trial + from, *g = b.gradient + from, *at_base = b.state[0] + from;
    const float *r = b.state[2] + from, *p = b.state[3] + from;
    for (size_t i = 0; i < n; ++i) {
      s[i] = static_cast<double>(x[i]) - static_cast<double>(b.base[from + i]);
      h[i] = static_cast<double>(g[i]) - static_cast<double>(at_base[i]);
    }
    sums[kSG] += descent::Product(n, s.data(), g);
    sums[kSB] += descent::Product(n, s.data(), at_base);
    sums[kGG] += descent::Product(n, g, g);
    sums[kXX] += descent::Product(n, x, x);
    sums[kPH] += descent::Product(n, p, h.data());
    sums[kRH] += descent::Product(n, r, h.data());
    sums[kHH] += descent::Product(n, h.data(), h.data());
    sums[kRR] += descent::Product(n, r, r);
    sums[kPP] += descent::Product(n, p, p);
    sums[kRP] += descent::Product(n, r, p);
  }
}

void NewtonCg::Decide(absl::Span<const double> t) {
  move_ = Move::kStay;
  if (t.empty() || done_ != 0) return;
  DESCENT_CHECK(t.size() == products());
  if (begun_ != 0 && searching_ == 0) return Product(t);
  if (begun_ != 0) {
    const double slope = t[kSB];
    const auto verdict = slope < 0 ? search_.Take(t[kSG] / slope) : SlopeSearch::Verdict::kGivenUp;
    if (verdict == SlopeSearch::Verdict::kAgain) {
      move_ = Move::kRetry;
      return;
    }
    if (verdict == SlopeSearch::Verdict::kGivenUp) {  // what is left to gain is below what gradients can tell
      done_ = 1;
      return;
    }
  }
  begun_ = 1;
  move_ = Move::kTake;
  searching_ = count_ = 0;
  squared_base_ = t[kXX];
  squared_gradient_ = t[kGG];
  if (t[kGG] == 0) {
    done_ = 1;
    reach_ = 0;
    return;
  }
  reach_ = Reach(t[kGG]);
}

void NewtonCg::Product(absl::Span<const double> t) {
  const double e = product_reach_ = reach_;
  const double curvature = t[kPH] / e, rr = t[kRR];
  ++count_;
  beta_ = 0;
  // A convex function has none below 0; nothing above what the difference can tell apart ends the products, too.
  const bool flat = !(curvature > 1e-7 * t[kPP]);
  if (flat) {
    along_ = count_ == 1 ? 1 / std::sqrt(t[kPP]) : 0;  // the steepest descent, at first of length 1
    move_ = Move::kSolved;
  } else {
    along_ = rr / curvature;
    const double left = std::max(0.0, rr - 2 * along_ * t[kRH] / e + along_ * along_ * t[kHH] / (e * e));
    const double norm = std::sqrt(squared_gradient_);
    const double enough = std::min(forcing_, std::sqrt(norm)) * norm;
    if (std::sqrt(left) <= enough || count_ >= max_products_) {
      move_ = Move::kSolved;
    } else {
      move_ = Move::kProduct;
      beta_ = left / rr;
      // Of r' + beta p with r' = r - along H p.
      const double rp = t[kRP] - along_ * curvature;
      reach_ = Reach(std::max(left, left + 2 * beta_ * rp + beta_ * beta_ * t[kPP]));
    }
  }
  if (move_ != Move::kSolved) return;
  searching_ = 1;
  search_.Begin(1);
}

void NewtonCg::Step(const Block& b, float* next) const {
  float *at_base = b.state[0], *d = b.state[1], *r = b.state[2], *p = b.state[3];
  switch (move_) {
    case Move::kStay:
      std::copy_n(b.base, b.n, next);
      return;
    case Move::kRetry:
      for (size_t i = 0; i < b.n; ++i) next[i] = static_cast<float>(b.base[i] + search_.size() * d[i]);
      return;
    case Move::kTake:
      for (size_t i = 0; i < b.n; ++i) {
        at_base[i] = b.gradient[i];
        r[i] = p[i] = -b.gradient[i];
        d[i] = 0;
        next[i] = static_cast<float>(b.trial[i] + reach_ * p[i]);
      }
      return;
    case Move::kProduct:
    case Move::kSolved:
      for (size_t i = 0; i < b.n; ++i) {
        const double h = static_cast<double>(b.gradient[i]) - static_cast<double>(at_base[i]);
        d[i] = static_cast<float>(d[i] + along_ * p[i]);
        r[i] = static_cast<float>(r[i] - along_ * (h / product_reach_));
        if (move_ == Move::kProduct) {
          p[i] = static_cast<float>(r[i] + beta_ * p[i]);
          next[i] = static_cast<float>(b.base[i] + reach_ * p[i]);
        } else {
          next[i] = static_cast<float>(b.base[i] + search_.size() * d[i]);
        }
      }
      return;
  }
}

double NewtonCg::SquaredGradient(const Block& b) const { return descent::Product(b.n, b.gradient, b.gradient); }

template <typename F>
void NewtonCg::ForEachNumber(F&& f) {
  for (double* number : {&begun_, &done_, &searching_, &count_, &reach_, &squared_base_, &squared_gradient_}) {
    f(*number);
  }
  search_.ForEachNumber(f);
}

std::string NewtonCg::Save() const {
  NewtonCg copy = *this;
  return SaveNumbers([&](auto&& f) { copy.ForEachNumber(f); });
}

absl::Status NewtonCg::Load(absl::string_view state) {
  NewtonCg loaded(max_products_, forcing_);
  DESCENT_RETURN_IF_ERROR(LoadNumbers("newton_cg", state, [&](auto&& f) { loaded.ForEachNumber(f); }));
  std::vector<double> numbers;
  loaded.ForEachNumber([&](double& number) { numbers.push_back(number); });
  size_t next = 0;
  ForEachNumber([&](double& number) { number = numbers[next++]; });
  return absl::OkStatus();
}

}  // namespace descent
