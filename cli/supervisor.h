// A whole cluster on this machine, supervised: starts servers and workers, starts those again that crash, shows how
// they do, names the first cause when something fails, saves and stops on a signal, and leaves no process behind. One
// thread owns it, and SIGINT, SIGTERM, SIGHUP and SIGCHLD belong to it while it lives (blocked in that thread and in
// those it starts).
//
// To crash is to die by a signal that was not sent from here, or with an exit code that the programs do not have: they
// say 0, 1 (failed), 2 (usage), 130 and 143 (stopped). A coordinator that crashed is told to go on (--resume) at the
// address it had, so that the others find it again.
#ifndef DESCENT_CLI_SUPERVISOR_H_
#define DESCENT_CLI_SUPERVISOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "cli/cluster_control.h"
#include "cli/display.h"
#include "cli/status_poller.h"
#include "cli/supervisor_restarts.h"
#include "common/files/file.h"

namespace descent {

struct SupervisorOptions {
  std::string server_binary, worker_binary;
  std::string run_dir;  // holds job.textproto and logs/
  bool resume = false;  // go on with the run that run_dir holds
  uint32_t servers = 1, workers = 1;
  uint32_t base_port = 0;                             // server i listens on base_port + i; 0: the system chooses
  absl::Duration start_timeout = absl::Seconds(600);  // for server 0 to listen
  absl::Duration save_timeout = absl::Seconds(600);   // for a stopped run to save its model
  absl::Duration end_grace = absl::Seconds(10);       // for processes to end once the run is over
  absl::Duration fail_grace = absl::Seconds(3);       // likewise, of a failed run
  absl::Duration poll_interval = absl::Milliseconds(250);
  RestartBudget::Options restarts;
};

class Supervisor {
 public:
  Supervisor(SupervisorOptions options, ControlFactory control, Display* display);
  ~Supervisor();  // kills and reaps what still runs

  // Exit status: 0, 1, or 128 + signal.
  int Run();

 private:
  struct Seat {  // of a server or a worker, through its restarts
    std::string role;
    uint32_t index = 0;
    std::unique_ptr<ChildProcess> child;
    RestartBudget::Life life;
    std::string death;  // of the one before the next
    absl::Time restart_at = absl::InfiniteFuture();
    bool judged = true;        // its end has been dealt with
    uint64_t judge_after = 0;  // number of the status to wait for
    bool running() const { return child != nullptr && child->running(); }
    bool pending() const { return restart_at != absl::InfiniteFuture(); }
    bool coordinates() const { return role == "server" && index == 0; }
    bool down() const { return child != nullptr && !child->running(); }
  };

  absl::Status Spawn(Seat* seat);
  bool ReadAddress();
  bool AwaitAddress();  // false: it is over before it began
  bool StartOthers();
  void Watch();
  void Wait(absl::Time until);  // for a signal, a child's end, news, or the time
  void TakeSignals();
  void TakeNews();
  void OnStopSignal(int signal);
  void Reap();
  void JudgeEnds(uint64_t asked);
  void Judge(Seat* seat);
  void Revive(Seat* seat, const std::string& how);
  void Fatal(std::string cause, Seat* culprit);
  void ReportDeath(const Seat& seat, bool own);
  void Restart();
  void KillAll();
  void EndBy(absl::Time when) { kill_at_ = std::min(kill_at_, when); }
  bool AnyRunning() const;
  bool AnyPending() const;
  bool AnyWorker() const;
  bool coordinator_away() const { return back_after_ != 0; }
  bool ended() const { return last_.phase() >= v1::FINISHED; }
  bool replicated() const { return last_.server_size() > 0; }  // servers have backups
  bool stopped() const { return stop_signal_ != 0 || last_.phase() == v1::STOPPED; }
  void ShowLive(absl::Time now);
  int Conclude();

  const SupervisorOptions options_;
  const ControlFactory control_factory_;
  Display* const display_;
  FileDescriptor signals_;
  sigset_t old_mask_;
  std::vector<Seat> seats_;  // servers, then workers
  std::string address_;
  std::unique_ptr<StatusPoller> poller_;
  v1::StatusReply last_;
  std::string last_message_, last_evaluation_, last_memory_;
  absl::Time began_;
  bool got_status_ = false;
  int stop_signal_ = 0;
  int kill_signal_ = 0;     // the second signal
  bool cut_short_ = false;  // children were killed because their time was over
  bool unsaved_ = false;    // stopped while a server was down: there was no whole model to save
  RestartBudget restarts_;
  uint64_t back_after_ = 0;  // while the coordinator is started again: number of the status that says it is back
  absl::Time kill_at_ = absl::InfiniteFuture();
  std::string cause_;  // as seen from here
  std::string culprit_, culprit_ending_;
  std::vector<std::string> culprit_log_;
  std::string culprit_log_path_;
  int stopped_code_ = 0;  // of server 0: 130 or 143
};

}  // namespace descent

#endif  // DESCENT_CLI_SUPERVISOR_H_
