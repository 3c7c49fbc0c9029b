// Where time comes from: injected, so that tests and the simulator own it. Thread-safe.
#ifndef DESCENT_COMMON_BASE_TIME_SOURCE_H_
#define DESCENT_COMMON_BASE_TIME_SOURCE_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace descent {

class TimeSource {
 public:
  virtual ~TimeSource() = default;
  virtual absl::Time Now() const = 0;
};

class RealTimeSource final : public TimeSource {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_TIME_SOURCE_H_
