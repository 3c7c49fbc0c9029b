#include "cli/status_poller.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "common/base/check.h"

namespace descent {

StatusPoller::StatusPoller(std::unique_ptr<ClusterControl> control, absl::Duration interval)
    : control_(std::move(control)), interval_(interval), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  DESCENT_CHECK(event_.valid());
  thread_ = std::thread([this] { Loop(); });
}

StatusPoller::~StatusPoller() {
  {
    MutexLock lock(&mu_);
    ending_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

StatusPoller::News StatusPoller::Take() {
  uint64_t count;
  if (read(event_.get(), &count, sizeof count) < 0) count = 0;  // nothing new
  MutexLock lock(&mu_);
  News news = std::move(news_);
  news_ = News();
  return news;
}

uint64_t StatusPoller::Wake() {
  MutexLock lock(&mu_);
  changed_.SignalAll();
  return ++wakes_;
}

void StatusPoller::Stop(int signal) {
  MutexLock lock(&mu_);
  stop_ = signal;
  ++wakes_;
  changed_.SignalAll();
}

void StatusPoller::ReportFailure(v1::FailureReport report) {
  MutexLock lock(&mu_);
  reports_.push_back(std::move(report));
  ++wakes_;
  changed_.SignalAll();
}

void StatusPoller::Notify() {
  const uint64_t one = 1;
  DESCENT_CHECK(write(event_.get(), &one, sizeof one) == sizeof one);
}

void StatusPoller::Loop() {
  while (true) {
    int stop;
    uint64_t wakes;
    std::vector<v1::FailureReport> reports;
    {
      MutexLock lock(&mu_);
      if (ending_) return;
      stop = std::exchange(stop_, 0);
      reports.swap(reports_);
      wakes = wakes_;
    }
    for (const v1::FailureReport& report : reports) control_->ReportFailure(report).IgnoreError();
    std::optional<absl::Status> stopped;
    if (stop != 0) stopped = control_->Stop(stop, false);
    absl::StatusOr<v1::StatusReply> status = control_->Status();
    MutexLock lock(&mu_);
    news_.status = std::move(status);
    news_.asked = wakes;
    if (stopped) news_.stop = std::move(stopped);
    Notify();
    const absl::Time until = absl::Now() + interval_;
    while (!ending_ && wakes_ == wakes && absl::Now() < until) changed_.WaitUntil(&mu_, until);
    if (ending_) return;
  }
}

}  // namespace descent
