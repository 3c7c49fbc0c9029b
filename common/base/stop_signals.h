// SIGINT and SIGTERM as calls on a thread of their own instead of interrupts. Make one in main before any other thread
// starts (the mask is inherited), at most one per process.
#ifndef DESCENT_COMMON_BASE_STOP_SIGNALS_H_
#define DESCENT_COMMON_BASE_STOP_SIGNALS_H_

#include <functional>
#include <thread>

namespace descent {

class StopSignals {
 public:
  StopSignals();  // blocks the signals; they wait until Start
  ~StopSignals();
  // `first` is called on the first signal, with its number. On the second the process ends at once with 128 + number.
  void Start(std::function<void(int)> first);
  // No call comes after it returns. Idempotent; the destructor does it too.
  void Stop();

 private:
  std::thread thread_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_STOP_SIGNALS_H_
