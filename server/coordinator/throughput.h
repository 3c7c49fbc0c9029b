// How fast a run has been of late: totals of the last ten seconds, from which rates are taken. Pure; a value.
#ifndef DESCENT_SERVER_COORDINATOR_THROUGHPUT_H_
#define DESCENT_SERVER_COORDINATOR_THROUGHPUT_H_

#include <algorithm>
#include <cstdint>
#include <deque>

#include "absl/time/time.h"

namespace descent {

class Throughput {
 public:
  static constexpr absl::Duration kEvery = absl::Milliseconds(500);
  static constexpr absl::Duration kWindow = absl::Seconds(10);

  struct Totals {
    absl::Time time;
    uint64_t examples = 0, round = 0, bytes = 0;
  };
  struct Rates {  // per second; 0 where no time has passed
    double examples = 0, rounds = 0, bytes = 0;
  };

  void Restart(const Totals& totals) { samples_.assign(1, totals); }
  void Clear() { samples_.clear(); }
  bool due(absl::Time now) const { return !samples_.empty() && now - samples_.back().time >= kEvery; }
  void Add(const Totals& totals) {
    samples_.push_back(totals);
    while (samples_.size() > 2 && totals.time - samples_.front().time > kWindow) samples_.pop_front();
  }
  // None: since `last` itself.
  Rates Since(const Totals& last) const { return samples_.empty() ? Rates() : Between(samples_.front(), last); }

  // Totals that went back (a member is gone, with its bytes) are none.
  static Rates Between(const Totals& first, const Totals& last) {
    const double seconds = absl::ToDoubleSeconds(last.time - first.time);
    const auto rate = [seconds](uint64_t from, uint64_t to) {
      return seconds > 0 ? static_cast<double>(to - std::min(to, from)) / seconds : 0;
    };
    return {rate(first.examples, last.examples), rate(first.round, last.round), rate(first.bytes, last.bytes)};
  }

 private:
  std::deque<Totals> samples_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_THROUGHPUT_H_
