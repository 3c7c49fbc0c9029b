// How one insists on an answer that is not there yet: how long to pause before asking again, and when to say that it
// is not coming. Pure; thread-safety: none.
#ifndef DESCENT_SERVER_PROCESS_INSISTENCE_H_
#define DESCENT_SERVER_PROCESS_INSISTENCE_H_

#include <algorithm>
#include <utility>

#include "absl/time/time.h"

namespace descent {

class Insistence {
 public:
  struct Options {
    absl::Duration least = absl::Milliseconds(2), most = absl::Milliseconds(32);  // pauses while it is not ready
    absl::Duration after_failure = absl::Milliseconds(100);                       // and after a call that failed
    absl::Duration silence = absl::Seconds(2);  // failures are not told before, since the first
    absl::Duration repeat = absl::Seconds(10);  // nor more often
  };
  Insistence() : Insistence(Options()) {}
  explicit Insistence(const Options& options) : options_(options), pause_(options.least) {}

  // It is there, or nobody wants it any more.
  void Reset() {
    pause_ = options_.least;
    failing_since_ = absl::InfiniteFuture();
    told_ = absl::InfinitePast();
  }
  // The answer was "not ready", perhaps at once: pause so long, twice as long each time. At most as long again as it
  // has taken so far, so what is ready soon is heard of soon.
  absl::Duration NotReady() {
    failing_since_ = absl::InfiniteFuture();
    return std::exchange(pause_, std::min(2 * pause_, options_.most));
  }
  absl::Duration after_failure() const { return options_.after_failure; }
  // The call failed. True: it is time to say so.
  bool Failed(absl::Time now) {
    failing_since_ = std::min(failing_since_, now);
    if (now - failing_since_ < options_.silence || now - told_ < options_.repeat) return false;
    told_ = now;
    return true;
  }
  absl::Duration failing_for(absl::Time now) const { return now - std::min(failing_since_, now); }

 private:
  const Options options_;
  absl::Duration pause_;
  absl::Time failing_since_ = absl::InfiniteFuture(), told_ = absl::InfinitePast();
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_INSISTENCE_H_
