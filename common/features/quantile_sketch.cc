#include "common/features/quantile_sketch.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace descent {
namespace {

constexpr uint32_t kLeast = 8;
constexpr int kMostLevels = 60;

}  // namespace

uint32_t QuantileSketch::Capacity(size_t level) const {
  double capacity = kCapacity;
  for (size_t h = level + 1; h < levels_.size(); ++h) capacity *= 2.0 / 3;
  return std::max(kLeast, static_cast<uint32_t>(std::ceil(capacity)));
}

void QuantileSketch::SetMost() {
  most_ = 0;
  for (size_t h = 0; h < levels_.size(); ++h) most_ += Capacity(h);
}

// SplitMix64 (Steele, Lea and Flood, 2014) over a counter.
bool QuantileSketch::Coin() {
  uint64_t z = seed_ + ++coins_ * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return ((z ^ (z >> 31)) >> 63) != 0;
}

void QuantileSketch::Compact() {
  while (held_ > most_) {
    size_t h = 0;
    while (levels_[h].size() < Capacity(h)) ++h;  // some level is: together they hold more than all capacities
    if (h + 1 == levels_.size()) {
      levels_.emplace_back();
      SetMost();
    }
    std::vector<float>& from = levels_[h];
    std::sort(from.begin(), from.end());
    // Of an odd number the last stays, so that all that is held stands for all that was added.
    const size_t pairs = from.size() / 2;
    const size_t first = Coin() ? 1 : 0;
    for (size_t i = 0; i < pairs; ++i) levels_[h + 1].push_back(from[2 * i + first]);
    if (from.size() % 2 == 1) from[0] = from.back();
    from.resize(from.size() % 2);
    held_ -= pairs;
    square_ += std::ldexp(1.0, 2 * static_cast<int>(h));
  }
}

void QuantileSketch::Merge(const QuantileSketch& other) {
  if (other.levels_.size() > levels_.size()) {
    levels_.resize(other.levels_.size());
    SetMost();
  }
  for (size_t h = 0; h < other.levels_.size(); ++h) {
    levels_[h].insert(levels_[h].end(), other.levels_[h].begin(), other.levels_[h].end());
  }
  held_ += other.held_;
  count_ += other.count_;
  coins_ += other.coins_;
  square_ += other.square_;
  Compact();
}

double QuantileSketch::Quantile(double q, uint64_t zeros) const {
  DESCENT_CHECK(count_ + zeros > 0);
  std::vector<std::pair<float, uint64_t>> items;
  if (zeros > 0) items.emplace_back(0.0f, zeros);
  for (size_t h = 0; h < levels_.size(); ++h) {
    for (const float value : levels_[h]) items.emplace_back(value, uint64_t{1} << h);
  }
  std::sort(items.begin(), items.end());
  const uint64_t n = count_ + zeros;
  const double place = q * static_cast<double>(n - 1);
  const auto below = static_cast<uint64_t>(place);
  const auto at = [&](uint64_t wanted) {
    uint64_t before = 0;
    for (const auto& [value, weight] : items) {
      before += weight;
      if (wanted < before) return static_cast<double>(value);
    }
    return static_cast<double>(items.back().first);
  };
  const double low = at(below);
  const double part = place - static_cast<double>(below);
  return part > 0 ? low + (at(below + 1) - low) * part : low;
}

double QuantileSketch::RankError(double probability) const {
  if (count_ == 0) return 0;
  return std::sqrt(2 * std::log(2 / probability) * square_) / static_cast<double>(count_);
}

v1::QuantileSketch QuantileSketch::ToMessage() const {
  v1::QuantileSketch message;
  message.set_seed(seed_);
  message.set_coins(coins_);
  message.set_square(square_);
  for (const std::vector<float>& level : levels_) {
    message.add_level_size(static_cast<uint32_t>(level.size()));
    message.mutable_item()->Add(level.begin(), level.end());
  }
  return message;
}

absl::StatusOr<QuantileSketch> QuantileSketch::FromMessage(const v1::QuantileSketch& message) {
  QuantileSketch sketch(message.seed());
  sketch.coins_ = message.coins();
  sketch.square_ = message.square();
  if (message.level_size_size() > kMostLevels) {
    return absl::InvalidArgumentError(absl::StrCat("a sketch of ", message.level_size_size(), " levels"));
  }
  int next = 0;
  sketch.levels_.resize(std::max(1, message.level_size_size()));
  for (int h = 0; h < message.level_size_size(); ++h) {
    const auto size = static_cast<int64_t>(message.level_size(h));
    if (size > message.item_size() - next) {
      return absl::InvalidArgumentError(
          absl::StrCat("a sketch of ", message.item_size(), " values, its levels have more"));
    }
    for (int64_t i = 0; i < size; ++i) sketch.levels_[static_cast<size_t>(h)].push_back(message.item(next++));
    sketch.held_ += static_cast<size_t>(size);
    sketch.count_ += static_cast<uint64_t>(size) << h;
  }
  if (next != message.item_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sketch of ", message.item_size(), " values, its levels have ", next));
  }
  sketch.SetMost();
  sketch.Compact();
  return sketch;
}

}  // namespace descent
