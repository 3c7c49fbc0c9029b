// The size of a step along a direction, by slopes alone: with phi(a) the objective at base + a direction and
// r = phi'(a) / phi'(0), a size is taken where
//
//   -0.5 <= r <= 0.9
//
// These are the approximate Wolfe conditions (Hager and Zhang 2005, equation 4.1; sigma = 0.9, 1 - 2 delta = 0.5),
// whose point is that differences of function values lose half of the digits near a minimum and slopes do not. For a
// convex objective phi' only grows, so that sizes with r > 0.9 are too small, those with r < -0.5 too large, and a
// secant within the two finds one between. Pure.
#ifndef DESCENT_SERVER_STORE_SLOPE_SEARCH_H_
#define DESCENT_SERVER_STORE_SLOPE_SEARCH_H_

#include <algorithm>
#include <cmath>

namespace descent {

class SlopeSearch {
 public:
  enum class Verdict { kTaken, kAgain, kGivenUp };

  void Begin(double size) {
    size_ = size;
    low_ = high_ = high_ratio_ = tries_ = 0;
    low_ratio_ = 1;
  }
  double size() const { return size_; }

  // `ratio`: r at size(). kAgain: size() is another one.
  Verdict Take(double ratio) {
    constexpr double kLongest = 0.9, kShortest = -0.5, kMostTries = 20, kGrowth = 4, kMargin = 0.1;
    if (ratio <= kLongest && ratio >= kShortest) return Verdict::kTaken;
    if (!std::isfinite(ratio) || ++tries_ >= kMostTries) return Verdict::kGivenUp;
    if (ratio > kLongest) {
      if (high_ == 0) {  // along the secant, if there is one
        const double slope = (low_ratio_ - ratio) / (size_ - low_);
        low_ = size_;
        low_ratio_ = ratio;
        size_ = slope > 0 ? std::clamp(size_ + ratio / slope, 1.1 * size_, kGrowth * size_) : kGrowth * size_;
        return Verdict::kAgain;
      }
      low_ = size_;
      low_ratio_ = ratio;
    } else {
      high_ = size_;
      high_ratio_ = ratio;
    }
    const double width = high_ - low_;
    size_ = low_ + width * std::clamp(low_ratio_ / (low_ratio_ - high_ratio_), kMargin, 1 - kMargin);
    return Verdict::kAgain;
  }

  // All that it knows, for a cut. f(double&) of each.
  template <typename F>
  void ForEachNumber(F&& f) {
    for (double* number : {&size_, &low_, &low_ratio_, &high_, &high_ratio_, &tries_}) f(*number);
  }

 private:
  double size_ = 1;
  double low_ = 0, low_ratio_ = 1;    // the largest known to be too small
  double high_ = 0, high_ratio_ = 0;  // the smallest known to be too large; 0: none
  double tries_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_SLOPE_SEARCH_H_
