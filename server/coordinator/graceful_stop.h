// A stop that lets workers finish the clock in hand: asked for, told to workers, over. Pure; a value.
//
//   not asked --Ask--> asked --ranks are settled, or the grace is over--> told --the grace is over--> done
//
// Ranks are settled (rank_table.h) unless servers have changed hands lately; workers that stop then are all at one
// clock.
#ifndef DESCENT_SERVER_COORDINATOR_GRACEFUL_STOP_H_
#define DESCENT_SERVER_COORDINATOR_GRACEFUL_STOP_H_

#include <optional>

#include "absl/time/time.h"

namespace descent {

class GracefulStop {
 public:
  // `grace`: for ranks to settle, and again for workers to finish.
  explicit GracefulStop(absl::Duration grace) : grace_(grace) {}

  // False: it has been asked for before, which changes nothing.
  bool Ask(absl::Time now) {
    if (asked_at_.has_value()) return false;
    asked_at_ = now;
    return true;
  }
  // It is not wanted any more. Its signal stays.
  void Withdraw() {
    asked_at_.reset();
    told_at_.reset();
  }
  // The signal that it came from; the first one counts.
  void NoteSignal(int signal) {
    if (signal_ == 0) signal_ = signal;
  }
  void Advance(bool settled, absl::Time now) {
    if (asked() && !told() && (settled || now - *asked_at_ >= grace_)) told_at_ = now;
  }

  bool asked() const { return asked_at_.has_value(); }
  bool told() const { return told_at_.has_value(); }  // workers are to hear of it
  bool Over(absl::Time now) const { return told() && now - *told_at_ >= grace_; }
  int signal() const { return signal_; }  // 0: none

 private:
  absl::Duration grace_;
  std::optional<absl::Time> asked_at_, told_at_;
  int signal_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_GRACEFUL_STOP_H_
