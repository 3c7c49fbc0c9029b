// When a member of a supervised cluster that died is started again. Pure; not thread-safe.
#ifndef DESCENT_CLI_SUPERVISOR_RESTARTS_H_
#define DESCENT_CLI_SUPERVISOR_RESTARTS_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace descent {

class RestartBudget {
 public:
  struct Options {
    uint32_t most = 100;                             // of all members together
    absl::Duration first = absl::Milliseconds(100);  // pause before a start
    absl::Duration longest = absl::Seconds(5);       // doubled up to this while a member keeps dying
    absl::Duration calm = absl::Seconds(2);          // one that lived for this long begins at `first` again
  };
  struct Life {  // of one member
    absl::Time started;
    absl::Duration pause;  // before the last start; zero: it was the first one
  };

  explicit RestartBudget(Options options) : options_(options) {}

  // How long to wait before the member is started again; nullopt: the restarts are used up.
  std::optional<absl::Duration> Take(absl::Time died, Life* life) {
    if (used_ >= options_.most) return std::nullopt;
    ++used_;
    const bool calm = life->pause == absl::ZeroDuration() || died - life->started >= options_.calm;
    life->pause = calm ? options_.first : std::min(2 * life->pause, options_.longest);
    return life->pause;
  }

  uint32_t used() const { return used_; }
  uint32_t most() const { return options_.most; }

 private:
  const Options options_;
  uint32_t used_ = 0;
};

}  // namespace descent

#endif  // DESCENT_CLI_SUPERVISOR_RESTARTS_H_
