// By what the schedule's rate is multiplied, as decided on the way (reduce_on_plateau). One thread sets it, the one
// that steps asks: a change is set before any step of its clock is made. Thread-safe.
#ifndef DESCENT_COMMON_JOB_RATE_CHANGES_H_
#define DESCENT_COMMON_JOB_RATE_CHANGES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "common/base/mutex.h"

namespace descent {

class RateChanges {
 public:
  using List = std::vector<std::pair<uint64_t, double>>;  // (clock from which on, factor), clocks ascending

  void Set(List list) {
    MutexLock lock(&mu_);
    list_ = std::move(list);
  }
  uint32_t size() const {
    MutexLock lock(&mu_);
    return static_cast<uint32_t>(list_.size());
  }
  // The schedule's rate where nothing was changed, bit for bit.
  float Apply(float rate, uint64_t clock) const;

 private:
  mutable Mutex mu_;
  List list_ ABSL_GUARDED_BY(mu_);
};

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_RATE_CHANGES_H_
