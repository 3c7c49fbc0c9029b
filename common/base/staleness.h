// A bound on staleness that changes at set clocks. Values; pure.
#ifndef DESCENT_COMMON_BASE_STALENESS_H_
#define DESCENT_COMMON_BASE_STALENESS_H_

#include <cstdint>
#include <vector>

namespace descent {

struct StalenessChange {
  uint64_t from = 0;  // clock
  uint64_t staleness = 0;
  bool operator==(const StalenessChange&) const = default;
};

// Of reads for `clock`. `changes` ascend; before the first of them, and without any, it is `otherwise`.
inline uint64_t StalenessAt(const std::vector<StalenessChange>& changes, uint64_t otherwise, uint64_t clock) {
  for (const StalenessChange& change : changes) {
    if (change.from > clock) break;
    otherwise = change.staleness;
  }
  return otherwise;
}

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_STALENESS_H_
