#include "common/job/rate_changes.h"

#include <algorithm>

namespace descent {

float RateChanges::Apply(float rate, uint64_t clock) const {
  const auto after = std::upper_bound(list_.begin(), list_.end(), clock,
                                      [](uint64_t at, const auto& change) { return at < change.first; });
  if (after == list_.begin()) return rate;
  return static_cast<float>(static_cast<double>(rate) * std::prev(after)->second);
}

}  // namespace descent
