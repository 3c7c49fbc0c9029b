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

constexpr size_t kLogTail = 15;

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "this host";
}

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? absl::StrCat("signal ", signal) : absl::StrCat("SIG", name);
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, ControlFactory control, Display* display)
    : options_(std::move(options)), control_factory_(std::move(control)), display_(display), began_(absl::Now()) {
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
  if (seat->role == "server") {
    spec.arguments = {options_.server_binary};
    if (seat->index == 0) {
      spec.arguments.insert(spec.arguments.end(), {"--job", options_.run_dir + "/job.textproto"});
    } else {
      spec.arguments.insert(spec.arguments.end(), {"--coordinator", address_});
    }
    const uint32_t port = options_.base_port == 0 ? 0 : options_.base_port + seat->index;
    spec.arguments.insert(spec.arguments.end(), {"--bind", absl::StrCat("127.0.0.1:", port)});
    if (seat->index == 0) {
      spec.arguments.insert(spec.arguments.end(),
                            {"--port-file", options_.run_dir + "/coordinator.address", "--run-dir", options_.run_dir});
    }
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

bool Supervisor::AwaitAddress() {
  const std::string file = options_.run_dir + "/coordinator.address";
  const absl::Time deadline = absl::Now() + options_.start_timeout;
  while (true) {
    if (auto text = ReadFile(file); text.ok()) {
      absl::string_view address = *text;
      if (absl::ConsumeSuffix(&address, "\n") && !address.empty()) {
        const bool port_only = address.find(':') == absl::string_view::npos;
        address_ = port_only ? absl::StrCat("127.0.0.1:", address) : std::string(address);
        return true;
      }
    }
    const absl::Time now = absl::Now();
    if (now > deadline) {
      Fatal(absl::StrCat("server 0 did not listen within ", absl::FormatDuration(options_.start_timeout)), &seats_[0]);
      return false;
    }
    Wait(now + absl::Milliseconds(2));
    TakeSignals();
    Reap();
    if (!seats_[0].running()) {
      Judge(&seats_[0]);
      return false;
    }
    if (stop_signal_ != 0) return false;
  }
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
  while (AnyRunning() && kill_signal_ == 0) {
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
    if (absl::Now() >= kill_at_ && AnyRunning()) {
      cut_short_ = true;
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
    if (last_.memory() != last_memory_) {
      last_memory_ = last_.memory();
      display_->Message(Printable(last_memory_));
    }
    if (last_.last_evaluation() != last_evaluation_) {
      last_evaluation_ = last_.last_evaluation();
      display_->Message(Printable(last_evaluation_));
    }
    if (ended()) EndBy(absl::Now() + options_.end_grace);
  }
  JudgeEnds(news.asked);
}

void Supervisor::Reap() {
  for (Seat& seat : seats_) {
    if (seat.child == nullptr || !seat.child->Reap()) continue;
    // What the coordinator knows by now decides what this end means; ask, and judge by the answer.
    seat.judge_after = poller_ == nullptr ? 0 : poller_->Wake();
    if (seat.role == "server" && seat.index == 0) JudgeEnds(UINT64_MAX);  // nobody is left to ask
  }
}

void Supervisor::JudgeEnds(uint64_t asked) {
  for (Seat& seat : seats_) {
    if (seat.child != nullptr && !seat.running() && !seat.judged && asked >= seat.judge_after) Judge(&seat);
  }
}

void Supervisor::Judge(Seat* seat) {
  if (seat->judged) return;
  seat->judged = true;
  const ChildProcess& child = *seat->child;
  const bool first_server = seat->role == "server" && seat->index == 0;
  const int code = child.code();
  if (kill_signal_ != 0 || cut_short_) return;
  const bool leaves = code == 0 || code == 130 || code == 143 || (stop_signal_ != 0 && code == 128 + stop_signal_);
  if (first_server && leaves && !child.killed_by_signal()) {
    if (code != 0) stopped_code_ = code;
    EndBy(absl::Now() + options_.end_grace);
    return;
  }
  if (leaves && !child.killed_by_signal() && (code == 0 || stopped() || last_.phase() >= v1::SAVING)) return;

  const std::string how =
      absl::StrCat(child.name(), " on host ", HostName(), " (pid ", child.pid(), ") ended with ", child.Ending());
  // Of a run that is over, failed or stopped, only the server with the model still matters.
  if (!cause_.empty() || last_.phase() == v1::FAILED || (ended() && !first_server)) {
    if (culprit_.empty() && last_.phase() == v1::FAILED && !first_server) {
      culprit_ = how;
      culprit_log_ = child.LogTail(kLogTail);
      culprit_log_path_ = child.spec().log;
    }
    return;
  }
  if (seat->role == "server") {
    Fatal(how, seat);
    return;
  }
  ReportDeath(*seat, how, false);
  if (stop_signal_ != 0) {
    display_->Message(how);
    return;
  }
  if (child.killed_by_signal() && seat->restarts < options_.restarts) {
    const absl::Duration after = options_.restart_after * (1 << seat->restarts);
    ++seat->restarts;
    seat->restart_at = absl::Now() + after;
    display_->Message(absl::StrCat(how, "; starting it again in ", absl::FormatDuration(after), " (", seat->restarts,
                                   " of ", options_.restarts, ")"));
    return;
  }
  if (last_.phase() < v1::RUNNING || !AnyWorker()) {
    Fatal(how, seat);
    return;
  }
  display_->Message(absl::StrCat(how, "; its ranks go to the other workers"));
}

void Supervisor::ReportDeath(const Seat& seat, const std::string& how, bool own) {
  if (poller_ == nullptr) return;
  v1::FailureReport report;
  report.set_role(seat.role);
  report.set_host(HostName());
  report.set_pid(static_cast<uint64_t>(seat.child->pid()));
  report.set_own(own);
  report.set_cause(how);
  report.set_unix_seconds(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  poller_->ReportFailure(std::move(report));
}

void Supervisor::Fatal(std::string cause, Seat* culprit) {
  if (!cause_.empty()) return;
  cause_ = std::move(cause);
  if (culprit != nullptr && culprit->child != nullptr) {
    culprit_ = cause_;
    culprit_log_ = culprit->child->LogTail(kLogTail);
    culprit_log_path_ = culprit->child->spec().log;
    // As its own: a worker that only left would have its ranks moved, and the run go on.
    ReportDeath(*culprit, cause_, true);
  }
  display_->Message(cause_);
  EndBy(absl::Now() + (seats_[0].running() && poller_ != nullptr ? options_.fail_grace : absl::ZeroDuration()));
}

void Supervisor::Restart() {
  const absl::Time now = absl::Now();
  for (Seat& seat : seats_) {
    if (now < seat.restart_at) continue;
    seat.restart_at = absl::InfiniteFuture();
    if (stop_signal_ != 0 || !cause_.empty() || last_.phase() >= v1::SAVING) continue;
    if (const absl::Status started = Spawn(&seat); !started.ok()) {
      Fatal(absl::StrCat(seat.role, " ", seat.index, " did not start again: ", started.message()), nullptr);
    }
  }
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

bool Supervisor::AnyWorker() const {
  return std::any_of(seats_.begin(), seats_.end(), [](const Seat& seat) {
    return seat.role == "worker" && (seat.running() || seat.restart_at != absl::InfiniteFuture());
  });
}

void Supervisor::ShowLive(absl::Time now) {
  if (!got_status_ || !AnyRunning()) return;
  // Off a terminal, start-up and the way out are told when the words change, not the seconds in them.
  bool news = false;
  if (!display_->terminal() && last_.phase() != v1::RUNNING) {
    std::string words = StatusLine(last_, 0);
    if (const size_t colon = words.find(" s: "); colon != std::string::npos) words.erase(0, colon);
    news = words != last_message_;
    last_message_ = std::move(words);
  }
  display_->Live(
      now, [this](size_t width) { return StatusLine(last_, width); }, news);
}

int Supervisor::Conclude() {
  RunEnd end;
  end.run_dir = options_.run_dir;
  end.wall = absl::Now() - began_;
  if (got_status_) end.status = last_;
  end.culprit = culprit_;
  end.culprit_log = culprit_log_;
  end.culprit_log_path = culprit_log_path_;
  if (kill_signal_ != 0) {
    end.result = absl::StrCat("stopped at once by ", SignalName(kill_signal_), "; nothing was saved");
    for (const std::string& line : RunReport(end)) display_->Message(line);
    return 128 + kill_signal_;
  }
  if (cause_.empty() && cut_short_ && stop_signal_ != 0 && !ended() && poller_ != nullptr) {
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
  for (const std::string& line : RunReport(end)) display_->Message(line);
  return stop_code > 128 ? stop_code : 143;
}

}  // namespace descent
