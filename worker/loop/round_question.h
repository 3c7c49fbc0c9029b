// With backup ranks: has every server closed the round of a clock? That is what a read of the next clock, of nothing,
// waits for; so one is sent, and whether it is answered is looked at now and then.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_LOOP_ROUND_QUESTION_H_
#define DESCENT_WORKER_LOOP_ROUND_QUESTION_H_

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "worker/client/parameter_client.h"

namespace descent {

class RoundQuestion {
 public:
  // Asked before: nothing.
  void Ask(ParameterClient* client, Clock clock, Rank rank);
  // Of the clock that was asked last. Nothing asked: false.
  bool Closed(ParameterClient* client);
  // The connection is gone.
  void Forget() { *this = {}; }

 private:
  std::optional<Ticket> ticket_;  // until it is answered
  Clock clock_;
  bool closed_ = false;
  // Of clocks before. Answered soon, but for those of rounds that a rank which has just come here is still needed for.
  std::vector<Ticket> old_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_ROUND_QUESTION_H_
