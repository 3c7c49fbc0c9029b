#include "cli/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "cli/run_report.h"
#include "cli/status_text.h"
#include "common/base/check.h"

namespace descent {
namespace {

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? absl::StrCat("signal ", signal) : absl::StrCat("SIG", name);
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, ControlFactory control, Display* display)
    : options_(std::move(options)),
      control_factory_(std::move(control)),
      display_(display),
      began_(absl::Now()),
      restarts_(options_.restarts) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
  DESCENT_CHECK(pthread_sigmask(SIG_BLOCK, &set, &old_mask_) == 0);
  signals_ = FileDescriptor(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  DESCENT_CHECK(signals_.valid());
  for (uint32_t i = 0; i < options_.servers; ++i) {
    seats_.emplace_back();
    seats_.back().role = "server";
    seats_.back().index = i;
  }
  for (uint32_t i = 0; i < options_.workers; ++i) {
    seats_.emplace_back();
    seats_.back().role = "worker";
    seats_.back().index = i;
  }
}

Supervisor::~Supervisor() {
  poller_.reset();
  KillAll();
  seats_.clear();
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

absl::Status Supervisor::Spawn(Seat* seat) {
  ChildSpec spec;
  spec.role = seat->role;
  spec.index = seat->index;
  spec.log = absl::StrCat(options_.run_dir, "/logs/", seat->role, "-", seat->index, ".log");
  const uint32_t port = options_.base_port == 0 ? 0 : options_.base_port + seat->index;
  const std::string bind = absl::StrCat("127.0.0.1:", port);
  if (seat->coordinates()) {
    const bool again = !address_.empty();
    spec.arguments = {options_.server_binary, "--job", options_.run_dir + "/job.textproto", "--bind",
                      again ? address_ : bind};
    for (const std::string& argument : {std::string("--port-file"), options_.run_dir + "/coordinator.address",
                                        std::string("--run-dir"), options_.run_dir}) {
      spec.arguments.push_back(argument);
    }
    if (again || options_.resume) {
      // The run's own job says how many there were at its beginning.
      for (const std::string& argument :
           {std::string("--resume"), std::string("--servers"), absl::StrCat(options_.servers), std::string("--workers"),
            absl::StrCat(options_.workers)}) {
        spec.arguments.push_back(argument);
      }
    }
  } else if (seat->role == "server") {
    spec.arguments = {options_.server_binary, "--coordinator", address_, "--bind", bind};
  } else {
    spec.arguments = {options_.worker_binary, "--coordinator", address_};
  }
  auto child = ChildProcess::Start(std::move(spec));
  if (!child.ok()) return child.status();
  seat->child = *std::move(child);
  seat->judged = false;
  return absl::OkStatus();
}

int Supervisor::Run() {
  // Of a run that is resumed the address is its former coordinator's.
  unlink((options_.run_dir + "/coordinator.address").c_str());
  if (const absl::Status started = Spawn(&seats_[0]); !started.ok()) {
    cause_ = absl::StrCat("server 0 did not start: ", started.message());
    return Conclude();
  }
  if (AwaitAddress() && StartOthers()) Watch();
  if (cause_.empty() && kill_signal_ == 0 && poller_ == nullptr && stop_signal_ == 0) {
    cause_ = "server 0 ended before it listened";
  }
  KillAll();
  while (AnyRunning()) {
    Wait(absl::InfiniteFuture());
    Reap();
  }
  poller_.reset();
  display_->EndLive();
  return Conclude();
}

bool Supervisor::ReadAddress() {
  const auto text = ReadFile(options_.run_dir + "/coordinator.address");
  if (!text.ok()) return false;
  absl::string_view address = *text;
  if (!absl::ConsumeSuffix(&address, "\n") || address.empty()) return false;
  const bool port_only = address.find(':') == absl::string_view::npos;
  address_ = port_only ? absl::StrCat("127.0.0.1:", address) : std::string(address);
  return true;
}

bool Supervisor::AwaitAddress() {
  const absl::Time deadline = absl::Now() + options_.start_timeout;
  while (!ReadAddress()) {
    const absl::Time now = absl::Now();
    if (now > deadline) {
      Fatal(absl::StrCat("server 0 did not listen within ", absl::FormatDuration(options_.start_timeout)), &seats_[0]);
      return false;
    }
    Wait(now + absl::Milliseconds(2));
    TakeSignals();
    Reap();
    if (stop_signal_ != 0) return false;
    if (!seats_[0].running() && !ReadAddress()) {
      Judge(&seats_[0]);
      return false;
    }
  }
  return true;
}

bool Supervisor::StartOthers() {
  for (Seat& seat : seats_) {
    if (seat.child != nullptr) continue;
    if (const absl::Status started = Spawn(&seat); !started.ok()) {
      Fatal(absl::StrCat(seat.role, " ", seat.index, " did not start: ", started.message()), nullptr);
      return false;
    }
  }
  display_->Message(absl::StrCat("coordinator ", address_, "; ", options_.servers,
                                 options_.servers == 1 ? " server, " : " servers, ", options_.workers,
                                 options_.workers == 1 ? " worker" : " workers"));
  poller_ = std::make_unique<StatusPoller>(control_factory_(address_), options_.poll_interval);
  return true;
}

void Supervisor::Watch() {
  while ((AnyRunning() || AnyPending()) && kill_signal_ == 0) {
    const absl::Time now = absl::Now();
    absl::Time until = kill_at_;
    if (display_->terminal()) until = std::min(until, now + options_.poll_interval);
    for (const Seat& seat : seats_) until = std::min(until, seat.restart_at);
    Wait(until);
    TakeSignals();
    Reap();
    TakeNews();
    Restart();
    ShowLive(absl::Now());
    if (absl::Now() >= kill_at_) {
      cut_short_ = AnyRunning();
      break;
    }
  }
  JudgeEnds(UINT64_MAX);
}

void Supervisor::Wait(absl::Time until) {
  struct pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {poller_ == nullptr ? -1 : poller_->fd(), POLLIN, 0}};
  timespec timeout = absl::ToTimespec(std::max(absl::ZeroDuration(), until - absl::Now()));
  ppoll(fds, 2, until == absl::InfiniteFuture() ? nullptr : &timeout, nullptr);
}

void Supervisor::TakeSignals() {
  struct signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo != SIGCHLD) OnStopSignal(static_cast<int>(info.ssi_signo));
  }
}

void Supervisor::OnStopSignal(int signal) {
  if (stop_signal_ != 0) {
    kill_signal_ = signal;
    display_->Message(absl::StrCat(SignalName(signal), " again: stopping at once"));
    KillAll();
    return;
  }
  stop_signal_ = signal;
  if (poller_ == nullptr) {
    display_->Message(absl::StrCat(SignalName(signal), ": nothing to save yet"));
    return;
  }
  for (Seat& seat : seats_) {
    if (seat.pending()) display_->Message(absl::StrCat(seat.death, "; not started again"));
    seat.restart_at = absl::InfiniteFuture();
    unsaved_ |= seat.role == "server" && seat.down() && !ended() && !replicated();
  }
  unsaved_ |= coordinator_away();
  if (unsaved_) {
    display_->Message(
        absl::StrCat(SignalName(signal), ": a server is down, so there is no whole model to save: stopping"));
    if (!coordinator_away()) poller_->Stop(signal);
    EndBy(absl::Now() + (coordinator_away() ? absl::ZeroDuration() : options_.fail_grace));
    return;
  }
  const bool training = last_.phase() == v1::RUNNING || last_.phase() == v1::SAVING;
  display_->Message(absl::StrCat(SignalName(signal), ": ", training ? "saving the model and stopping" : "stopping",
                                 " (once more stops at once)"));
  poller_->Stop(signal);
  EndBy(absl::Now() + (training ? options_.save_timeout : options_.end_grace));
}

void Supervisor::TakeNews() {
  if (poller_ == nullptr) return;
  StatusPoller::News news = poller_->Take();
  if (news.stop && !news.stop->ok() && AnyRunning() && !ended()) {
    display_->Message(absl::StrCat("the coordinator does not answer: ", Printable(news.stop->ToString())));
    EndBy(absl::Now() + options_.fail_grace);
  }
  if (!news.status) return;
  if (news.status->ok()) {
    last_ = **std::move(news.status);
    got_status_ = true;
    if (news.asked >= back_after_) back_after_ = 0;
    for (Seat& seat : seats_) {
      if (!seat.running() || !TakesPart(last_, static_cast<uint64_t>(seat.child->pid()))) continue;
      seat.life.takes_part = std::min(seat.life.takes_part, absl::Now());
    }
    if (!last_.memory().empty() && last_.memory() != last_memory_) {
      last_memory_ = last_.memory();
      display_->Message(Printable(last_memory_));
    }
    if (!last_.last_evaluation().empty() && last_.last_evaluation() != last_evaluation_) {
      last_evaluation_ = last_.last_evaluation();
      display_->Message(Printable(last_evaluation_));
    }
    if (ended()) EndBy(absl::Now() + options_.end_grace);
  }
  JudgeEnds(news.asked);
}

void Supervisor::KillAll() {
  for (Seat& seat : seats_) {
    seat.restart_at = absl::InfiniteFuture();
    if (seat.child != nullptr) seat.child->Signal(SIGKILL);
  }
}

bool Supervisor::AnyRunning() const {
  return std::any_of(seats_.begin(), seats_.end(), [](const Seat& seat) { return seat.running(); });
}

bool Supervisor::AnyPending() const {
  return std::any_of(seats_.begin(), seats_.end(), [](const Seat& seat) { return seat.pending(); });
}

bool Supervisor::AnyWorker() const {
  return std::any_of(seats_.begin(), seats_.end(),
                     [](const Seat& seat) { return seat.role == "worker" && (seat.running() || seat.pending()); });
}

void Supervisor::ShowLive(absl::Time now) {
  if ((!got_status_ && !coordinator_away()) || !(AnyRunning() || AnyPending())) return;
  // Off a terminal all but training is told when its words change, not the numbers in them.
  constexpr absl::string_view kAway = "coordinator restarting";
  std::string words = coordinator_away() ? std::string(kAway) : PhaseName(last_.phase());
  if (!coordinator_away() && last_.phase() < v1::RUNNING) {
    words = StatusLine(last_, 0);
    if (const size_t colon = words.find(" s: "); colon != std::string::npos) words.erase(0, colon);
  }
  const bool training = !coordinator_away() && last_.phase() == v1::RUNNING;
  const bool news = words != last_message_ && !training;
  last_message_ = std::move(words);
  if (!display_->terminal() && ended() && !news) return;
  const auto line = [this, kAway](size_t width) {
    if (!coordinator_away()) return StatusLine(last_, width);
    std::string text(kAway);
    if (got_status_ && last_.phase() >= v1::RUNNING) absl::StrAppend(&text, " | ", StatusLine(last_, 0));
    if (width > 0 && text.size() > width) text.resize(width);
    return text;
  };
  display_->Live(now, line, news && !display_->terminal());
}

int Supervisor::Conclude() {
  RunEnd end;
  end.run_dir = options_.run_dir;
  end.wall = absl::Now() - began_;
  if (got_status_) end.status = last_;
  end.culprit = culprit_;
  end.culprit_ending = culprit_ending_;
  end.culprit_log = culprit_log_;
  end.culprit_log_path = culprit_log_path_;
  if (kill_signal_ != 0) {
    end.result = absl::StrCat("stopped at once by ", SignalName(kill_signal_), "; nothing was saved");
    for (const std::string& line : RunReport(end)) display_->Message(line);
    return 128 + kill_signal_;
  }
  if (cause_.empty() && cut_short_ && stop_signal_ != 0 && !ended() && !unsaved_) {
    if (last_.phase() == v1::RUNNING || last_.phase() == v1::SAVING) {
      cause_ = absl::StrCat("the model was not saved within the time after ", SignalName(stop_signal_));
    }
  }
  if (!cause_.empty() || last_.phase() == v1::FAILED) {
    end.result = "failed";
    end.coordinator_cause = last_.first_cause();
    end.own_cause = cause_;
    for (const std::string& line : RunReport(end)) display_->Message(line);
    return 1;
  }
  const int stop_code = stop_signal_ != 0 ? 128 + stop_signal_ : stopped_code_;
  if (last_.phase() == v1::FINISHED || (stop_code == 0 && !stopped())) {
    end.result = "finished";
    for (const std::string& line : RunReport(end)) display_->Message(line);
    return 0;
  }
  end.result = stop_code > 128 ? absl::StrCat("stopped by ", SignalName(stop_code - 128)) : "stopped";
  if (unsaved_) absl::StrAppend(&end.result, " (nothing since the last checkpoint was saved)");
  for (const std::string& line : RunReport(end)) display_->Message(line);
  return stop_code > 128 ? stop_code : 143;
}

}  // namespace descent
