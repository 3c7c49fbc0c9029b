// Per tensor, how often the norm of a round's mean gradient lay where, over windows of clocks: a layer whose gradients
// vanish or explode shows in its histogram. Buckets are thirds of decades:
//
//   0, exactly;  above 0 and below 1e-12;  [10^(k/3), 10^((k+1)/3)) for k from -36 to 35;  1e12 and beyond
//
// A window is complete when each of its rounds is in, and closes with what it has when a round of a later one comes:
// rounds come in ascending order, but some may never, after a death.
//
// Pure; thread-safety: none; of a window that is open a counter for each tensor and bucket.
#ifndef DESCENT_SERVER_COORDINATOR_GRADIENT_HISTOGRAMS_H_
#define DESCENT_SERVER_COORDINATOR_GRADIENT_HISTOGRAMS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace descent {

class NormHistogram {
 public:
  static constexpr int kThirds = 36;                   // each side of 1
  static constexpr size_t kBuckets = 2 * kThirds + 3;  // 0, below, the thirds, beyond

  // `norm`: from 0, perhaps infinite.
  void Add(double norm) { ++counts_[BucketOf(norm)]; }
  // Buckets that were hit, ascending: the name and how often. A bucket's name is its lower edge with three digits
  // ("0.001", "0.00215", "0.00464", "0.01", ..., "1e+12"); those of the first two are "0" and "<1e-12".
  std::vector<std::pair<std::string, uint64_t>> Hit() const;

  static size_t BucketOf(double norm);
  static std::string NameOf(size_t bucket);

 private:
  std::array<uint64_t, kBuckets> counts_ = {};
};

struct GradientWindow {
  uint64_t clock = 0;   // its end: the rounds of the clocks below are in it
  uint64_t rounds = 0;  // that it has
  std::vector<NormHistogram> tensors;
};

class GradientHistograms {
 public:
  // `every`: clocks of a window, above 0.
  explicit GradientHistograms(uint64_t every) : every_(every) {}

  // The round of `clock`: the sum of squares of each tensor's mean gradient. Each clock once. Returns windows that this
  // closes, at most two, in order. Of a clock before the open window: dropped.
  std::vector<GradientWindow> Add(uint64_t clock, absl::Span<const double> squares);
  // Rounds are made again: what is no closed window is void.
  void Restart() {
    window_ = 0;
    open_.reset();
  }
  // No round will come any more: the open window, with what it has. Its end is behind the last round that came.
  std::optional<GradientWindow> Close();

 private:
  const uint64_t every_;
  uint64_t window_ = 0;  // the number of the open one
  std::optional<GradientWindow> open_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_GRADIENT_HISTOGRAMS_H_
