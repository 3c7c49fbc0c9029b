// When a member of a supervised cluster that died is started again. Pure; not thread-safe.
#ifndef DESCENT_CLI_SUPERVISOR_RESTARTS_H_
#define DESCENT_CLI_SUPERVISOR_RESTARTS_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

class RestartBudget {
 public:
  struct Options {
    uint32_t most = 100;                             // of all members together
    absl::Duration first = absl::Milliseconds(100);  // pause before a start
    absl::Duration longest = absl::Seconds(5);       // doubled up to this while a member keeps dying
    absl::Duration calm = absl::Seconds(2);          // one that took part for this long begins at `first` again
  };
  struct Life {  // of one member
    // Since when it takes part. What it did before, the loading of a large cut say, is no calm: it may die of that.
    absl::Time takes_part = absl::InfiniteFuture();
    absl::Duration pause;  // before the last start; zero: it was the first one
  };

  explicit RestartBudget(Options options) : options_(options) {}

  // How long to wait before the member is started again; nullopt: the restarts are used up. Another life begins.
  std::optional<absl::Duration> Take(absl::Time died, Life* life) {
    if (used_ >= options_.most) return std::nullopt;
    ++used_;
    const bool calm = life->pause == absl::ZeroDuration() || died - life->takes_part >= options_.calm;
    life->takes_part = absl::InfiniteFuture();
    life->pause = calm ? options_.first : std::min(2 * life->pause, options_.longest);
    return life->pause;
  }

  uint32_t used() const { return used_; }
  uint32_t most() const { return options_.most; }

 private:
  const Options options_;
  uint32_t used_ = 0;
};

// Whether that process does what it was started for: it is a member of a run that runs, and holds all of what it is
// another's backup for. (Without replicas no run runs before every server has its blocks.)
inline bool TakesPart(const v1::StatusReply& status, uint64_t pid) {
  if (status.phase() != v1::RUNNING && status.phase() != v1::SAVING) return false;
  const auto member =
      std::find_if(status.member().begin(), status.member().end(), [pid](const auto& m) { return m.pid() == pid; });
  return member != status.member().end() &&
         std::none_of(status.server().begin(), status.server().end(),
                      [&](const auto& s) { return s.backup() == member->member() && !s.synced(); });
}

}  // namespace descent

#endif  // DESCENT_CLI_SUPERVISOR_RESTARTS_H_
