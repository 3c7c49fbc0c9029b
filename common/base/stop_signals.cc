#include "common/base/stop_signals.h"

#include <unistd.h>

#include <csignal>
#include <utility>

namespace descent {
namespace {

constexpr int kQuit = SIGUSR2;  // ends the thread

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, kQuit);
  return set;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

StopSignals::~StopSignals() { Stop(); }

void StopSignals::Stop() {
  if (!thread_.joinable()) return;
  pthread_kill(thread_.native_handle(), kQuit);
  thread_.join();
}

void StopSignals::Start(std::function<void(int)> first) {
  thread_ = std::thread([first = std::move(first)] {
    const sigset_t set = Signals();
    bool told = false;
    int signal = 0;
    while (sigwait(&set, &signal) == 0 && signal != kQuit) {
      if (told) _exit(128 + signal);
      told = true;
      first(signal);
    }
  });
}

}  // namespace descent
