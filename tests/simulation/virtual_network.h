// Virtual time, and processes in it that are killed, stopped and started, with a network between them that loses,
// repeats, delays, and is cut. Everything happens on one thread, in an order that depends on the dice alone.
#ifndef DESCENT_TESTS_SIMULATION_VIRTUAL_NETWORK_H_
#define DESCENT_TESTS_SIMULATION_VIRTUAL_NETWORK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/simulation/scenario.h"

namespace descent::simulation {

using ProcessId = uint32_t;
inline constexpr absl::Duration kCallDeadline = absl::Seconds(1);

class VirtualNetwork {
 public:
  using Action = std::function<void()>;
  struct Weather {
    absl::Duration delay = absl::Milliseconds(1);  // most, of a message
    double drop = 0, duplicate = 0;
    double late = 0;  // chance of a delay twenty times as long
    // What is lost of a call is sent again so much later, as TCP does, until the call's deadline; 0: it is lost.
    absl::Duration call_resend = absl::ZeroDuration();
  };

  VirtualNetwork(uint32_t processes, const Weather& weather, Dice* dice);

  absl::Time now() const { return now_; }
  // Carries out the next event. False: there is none.
  bool Step();
  uint64_t events() const { return events_; }
  uint64_t trace() const { return trace_; }

  void Start(ProcessId p);
  void Kill(ProcessId p) { processes_[p].alive = false; }
  // Like SIGSTOP, then SIGCONT.
  void Pause(ProcessId p, absl::Duration time);
  bool alive(ProcessId p) const { return processes_[p].alive; }
  bool paused(ProcessId p) const { return processes_[p].paused_until > now_; }
  uint64_t life(ProcessId p) const { return processes_[p].life; }

  // Messages from `from` to `to` are lost for that time.
  void Cut(ProcessId from, ProcessId to, absl::Duration time);
  bool cut(ProcessId from, ProcessId to) const { return cut_until_[from * processes_.size() + to] > now_; }

  // Nobody's: of the world.
  void At(absl::Duration after, Action action);
  // Within p, if it still is the same process then; once it wakes, if it is stopped.
  void On(ProcessId p, absl::Duration after, Action action);
  // Within `to`, in none, one or two copies.
  void Message(ProcessId from, ProcessId to, Action action);
  // A unary call: `handle` runs within `to`, at times more than once (a call that was given up and sent again, whose
  // first copy comes late); `done` within `from`, once. UNAVAILABLE: nobody there. DEADLINE_EXCEEDED: no answer.
  template <typename Reply>
  void Call(ProcessId from, ProcessId to, std::function<absl::StatusOr<Reply>()> handle,
            std::function<void(absl::StatusOr<Reply>)> done);

  absl::Duration Delay();

 private:
  struct Event {
    absl::Time when;
    uint64_t sequence = 0;
    ProcessId process = 0;
    uint64_t life = 0;  // 0: of the world
    Action action;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
  };
  struct Process {
    uint64_t life = 0;
    bool alive = false;
    absl::Time paused_until = absl::InfinitePast();
  };
  void Push(absl::Time when, ProcessId process, uint64_t life, Action action);
  std::optional<absl::Duration> CallDelay(ProcessId from, ProcessId to);
  bool Lost(ProcessId from, ProcessId to) { return cut(from, to) || (from != to && dice_->Chance(weather_.drop)); }

  const Weather weather_;
  Dice* const dice_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(24);
  std::vector<Process> processes_;
  std::vector<absl::Time> cut_until_;
  std::vector<Event> heap_;
  uint64_t sequence_ = 0, events_ = 0, trace_ = 0;
};

template <typename Reply>
void VirtualNetwork::Call(ProcessId from, ProcessId to, std::function<absl::StatusOr<Reply>()> handle,
                          std::function<void(absl::StatusOr<Reply>)> done) {
  auto answered = std::make_shared<bool>(false);
  // Of a process that has been started again meanwhile, the one before had asked.
  const auto answer = [this, from, asked = life(from), answered, done = std::move(done)](absl::Duration after,
                                                                                         absl::StatusOr<Reply> reply) {
    if (life(from) != asked) return;
    On(from, after, [answered, done, reply = std::move(reply)] {
      if (!std::exchange(*answered, true)) done(reply);
    });
  };
  answer(kCallDeadline, absl::DeadlineExceededError("no answer"));
  const std::optional<absl::Duration> there = CallDelay(from, to);
  if (!there.has_value()) return;
  At(*there, [this, from, to, handle = std::move(handle), answer] {
    if (!alive(to)) {
      if (!cut(to, from)) answer(Delay(), absl::UnavailableError("nobody is there"));
      return;
    }
    On(to, absl::ZeroDuration(), [this, from, to, handle, answer] {
      absl::StatusOr<Reply> reply = handle();
      if (dice_->Chance(weather_.duplicate)) On(to, Delay() * 30, [handle] { handle().IgnoreError(); });
      const std::optional<absl::Duration> back = CallDelay(to, from);
      if (back.has_value()) answer(*back, std::move(reply));
    });
  });
}

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_VIRTUAL_NETWORK_H_
