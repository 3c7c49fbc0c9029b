// What the end of a process of the cluster means: that all is well, that it is to be started again, or that the run has
// failed.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/supervisor.h"

namespace descent {
namespace {

constexpr size_t kLogTail = 15;

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "this host";
}

std::string Who(const ChildProcess& child) {
  return absl::StrCat(child.name(), " on host ", HostName(), " (pid ", child.pid(), ")");
}

std::string EndingOf(const ChildProcess& child) { return absl::StrCat("ended with ", child.Ending()); }

}  // namespace

void Supervisor::Reap() {
  for (Seat& seat : seats_) {
    if (seat.child == nullptr || !seat.child->Reap()) continue;
    // What the coordinator knows by now decides what this end means; ask, and judge by the answer.
    seat.judge_after = poller_ == nullptr ? 0 : poller_->Wake();
    if (seat.coordinates() && poller_ != nullptr) JudgeEnds(UINT64_MAX);  // nobody is left to ask
  }
}

void Supervisor::JudgeEnds(uint64_t asked) {
  for (Seat& seat : seats_) {
    if (seat.down() && !seat.judged && asked >= seat.judge_after) Judge(&seat);
  }
}

void Supervisor::Judge(Seat* seat) {
  if (seat->judged) return;
  seat->judged = true;
  const ChildProcess& child = *seat->child;
  const int code = child.code();
  if (kill_signal_ != 0 || cut_short_) return;
  const bool leaves = !child.killed_by_signal() &&
                      (code == 0 || code == 130 || code == 143 || (stop_signal_ != 0 && code == 128 + stop_signal_));
  if (seat->coordinates() && leaves) {
    if (code != 0) stopped_code_ = code;
    EndBy(absl::Now() + options_.end_grace);
    return;
  }
  if (leaves && (code == 0 || stopped() || last_.phase() >= v1::SAVING)) return;

  const std::string how = absl::StrCat(Who(child), " ", EndingOf(child));
  // Of a run that is over, failed or stopped, only the server with the model still matters.
  if (!cause_.empty() || last_.phase() == v1::FAILED || (ended() && !seat->coordinates())) {
    if (culprit_.empty() && last_.phase() == v1::FAILED && !seat->coordinates()) {
      culprit_ = Who(child);
      culprit_ending_ = EndingOf(child);
      culprit_log_ = child.LogTail(kLogTail);
      culprit_log_path_ = child.spec().log;
    }
    return;
  }
  if (stop_signal_ != 0 && unsaved_) return;  // it all ends anyway
  const bool crashed = child.killed_by_signal() || (!leaves && code != 1 && code != 2);
  const bool mend = crashed && stop_signal_ == 0 && !ended() && !address_.empty();
  // While the run is being stopped the backups of a dead server may do for it; the coordinator knows.
  const bool covered = crashed && stop_signal_ != 0 && replicated() && !seat->coordinates();
  if (mend) {
    Revive(seat, how);
  } else if (covered) {
    ReportDeath(*seat, false);
    display_->Message(how);
  } else if (seat->role == "server" || (stop_signal_ == 0 && (last_.phase() < v1::RUNNING || !AnyWorker()))) {
    Fatal(how, seat);
  } else {
    ReportDeath(*seat, false);
    display_->Message(stop_signal_ != 0 ? how : absl::StrCat(how, "; its ranks go to the other workers"));
  }
}

void Supervisor::Revive(Seat* seat, const std::string& how) {
  const absl::Time now = absl::Now();
  const std::optional<absl::Duration> pause = restarts_.Take(now, &seat->life);
  if (!pause.has_value()) {
    Fatal(restarts_.most() == 0 ? how : absl::StrCat(how, "; this run's ", restarts_.most(), " restarts are used up"),
          seat);
    return;
  }
  if (!seat->coordinates()) ReportDeath(*seat, false);  // so that the others need not wait for a lease to end
  seat->death = how;
  seat->restart_at = now + *pause;
  if (seat->coordinates()) back_after_ = UINT64_MAX;
}

void Supervisor::Restart() {
  const absl::Time now = absl::Now();
  for (Seat& seat : seats_) {
    if (now < seat.restart_at) continue;
    seat.restart_at = absl::InfiniteFuture();
    if (!cause_.empty() || ended()) continue;
    if (const absl::Status started = Spawn(&seat); !started.ok()) {
      Fatal(absl::StrCat(seat.death, " and did not start again: ", started.message()), nullptr);
      return;
    }
    display_->Message(absl::StrCat(seat.death, "; started again ", seat.coordinates() ? "with --resume " : "",
                                   "as pid ", seat.child->pid(), " (restart ", restarts_.used(), " of ",
                                   restarts_.most(), ")"));
    if (seat.coordinates() && poller_ != nullptr) back_after_ = poller_->Wake();
  }
}

void Supervisor::ReportDeath(const Seat& seat, bool own) {
  if (poller_ == nullptr) return;
  v1::FailureReport report;
  report.set_role(seat.role);
  report.set_host(HostName());
  report.set_pid(static_cast<uint64_t>(seat.child->pid()));
  report.set_own(own);
  report.set_cause(EndingOf(*seat.child));  // the coordinator knows who that is
  report.set_unix_seconds(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  poller_->ReportFailure(std::move(report));
}

void Supervisor::Fatal(std::string cause, Seat* culprit) {
  if (!cause_.empty()) return;
  cause_ = std::move(cause);
  if (culprit != nullptr && culprit->child != nullptr) {
    culprit_ = Who(*culprit->child);
    culprit_log_ = culprit->child->LogTail(kLogTail);
    culprit_log_path_ = culprit->child->spec().log;
    if (culprit->down()) {
      culprit_ending_ = EndingOf(*culprit->child);
      // As its own: a worker that only left would have its ranks moved, and the run go on.
      ReportDeath(*culprit, true);
    }
  }
  display_->Message(cause_);
  EndBy(absl::Now() + (seats_[0].running() && poller_ != nullptr ? options_.fail_grace : absl::ZeroDuration()));
}

}  // namespace descent
