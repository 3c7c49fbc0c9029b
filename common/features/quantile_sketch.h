// Quantiles of more values than are kept: the sketch of Karnin, Lang and Liberty, "Optimal quantile approximation in
// streams", FOCS 2016, section 3, whose merge is that of Agarwal et al., "Mergeable summaries", PODS 2012.
//
// Values lie in levels; one of level h stands for 2^h. When the levels hold too much, the lowest that is full is sorted
// and every other of its values, beginning with the first or the second as a coin says, moves up. The uppermost level
// holds kCapacity values, each one below 2/3 as many, at least 8.
//
// Up to kCapacity values are kept as they are. Beyond, a rank is wrong by at most RankError(p) of all values with
// probability 1 - p, by Hoeffding's inequality: each compaction of level h moves a rank by at most 2^h, up or down as
// its coin says. Of one sketch and of merged ones that is at most 1.1 % for p = 1e-6 (the tests hold it to that).
//
// Coins are a function of the seed: the same values in the same order, merged in the same order, give the same bits.
// Thread-safety: none. Memory: about 12 KiB.
#ifndef DESCENT_COMMON_FEATURES_QUANTILE_SKETCH_H_
#define DESCENT_COMMON_FEATURES_QUANTILE_SKETCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "descent/v1/features.pb.h"

namespace descent {

class QuantileSketch {
 public:
  static constexpr uint32_t kCapacity = 1024;

  explicit QuantileSketch(uint64_t seed) : seed_(seed), levels_(1) {}
  // INVALID_ARGUMENT: no sketch.
  static absl::StatusOr<QuantileSketch> FromMessage(const v1::QuantileSketch& message);
  v1::QuantileSketch ToMessage() const;

  // A finite number.
  void Add(float value) {
    levels_[0].push_back(value);
    ++count_;
    if (++held_ > most_) Compact();
  }
  void Merge(const QuantileSketch& other);

  uint64_t count() const { return count_; }
  // Of all that was added and `zeros` more zeros, at least one value together: the value at place q (n - 1), 0 <= q <=
  // 1, of the ascending order, linear between two places, which is NumPy's default.
  double Quantile(double q, uint64_t zeros = 0) const;
  // 0: exact.
  double RankError(double probability) const;

 private:
  uint32_t Capacity(size_t level) const;
  void SetMost();
  void Compact();
  bool Coin();

  uint64_t seed_;
  uint64_t coins_ = 0;
  uint64_t count_ = 0;
  double square_ = 0;
  std::vector<std::vector<float>> levels_;
  size_t held_ = 0;
  size_t most_ = kCapacity;
};

}  // namespace descent

#endif  // DESCENT_COMMON_FEATURES_QUANTILE_SKETCH_H_
