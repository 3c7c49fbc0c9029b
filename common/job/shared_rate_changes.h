// RateChanges between the thread that hears of them and the one that steps: a change is set before any step of its
// clock is made. Thread-safe.
#ifndef DESCENT_COMMON_JOB_SHARED_RATE_CHANGES_H_
#define DESCENT_COMMON_JOB_SHARED_RATE_CHANGES_H_

#include <cstdint>
#include <utility>

#include "common/base/mutex.h"
#include "common/job/rate_changes.h"

namespace descent {

class SharedRateChanges {
 public:
  void Set(RateChanges::List list) {
    MutexLock lock(&mu_);
    changes_.Set(std::move(list));
  }
  uint32_t size() const {
    MutexLock lock(&mu_);
    return changes_.size();
  }
  float Apply(float rate, uint64_t clock) const {
    MutexLock lock(&mu_);
    return changes_.Apply(rate, clock);
  }

 private:
  mutable Mutex mu_;
  RateChanges changes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_SHARED_RATE_CHANGES_H_
