// The coordinator: who takes part, who holds which rank, where blocks lie, how far the job is, and why it ended. A pure
// machine: no threads, no I/O, no clock, no random numbers. Every call takes the time; the same calls give the same
// answers. The owner calls Tick a few times a second, writes out what DrainRecords and DrainLog give, and saves the
// model while phase() is SAVING.
//
// Phases: STARTING (members register) -> PLACING (servers make their blocks) -> RUNNING -> SAVING -> FINISHED, or
// FAILED, or STOPPED.
//
// Failures. A worker that is silent for a lease, leaves, or is reported dead loses its ranks to living workers,
// standbys first, under new incarnation numbers. A failure that a member reports as its own ends the job: it would meet
// the next holder as well. The death of a server begins a new generation: nobody trains until the owner has made that
// lasting and found the cut to go on from (WantsGeneration, BeginGeneration), a server has registered in the place of
// the dead one, and all of them hold their blocks as the cut has them. The death of the coordinator is the same, in a
// process of its own: it is created with a generation that follows the last one.
//
// With replicas (job.replicas) the death of a server whose backups hold everything is none of this: they are promoted,
// workers are told the new addresses, and the generation goes on (replication.h).
//
// What it is made of, each with a contract of its own: member_table.h (who is there), admission.h (who may join),
// statistics_table.h (of the training data, before that), lease_table.h (who holds which rank), rank_table.h (how far
// ranks are), replication.h (who serves what), cut_schedule.h, memory_plan.h, run_metrics.h, throughput.h,
// graceful_stop.h, first_cause.h, run_log.h. Here is what one of them means for another.
//
// What comes from members is checked, never trusted. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_COORDINATOR_H_
#define DESCENT_SERVER_COORDINATOR_COORDINATOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "server/coordinator/admission.h"
#include "server/coordinator/cut_schedule.h"
#include "server/coordinator/first_cause.h"
#include "server/coordinator/graceful_stop.h"
#include "server/coordinator/lease_table.h"
#include "server/coordinator/member_table.h"
#include "server/coordinator/memory_plan.h"
#include "server/coordinator/rank_table.h"
#include "server/coordinator/replication.h"
#include "server/coordinator/run_log.h"
#include "server/coordinator/run_metrics.h"
#include "server/coordinator/statistics_table.h"
#include "server/coordinator/steering.h"
#include "server/coordinator/throughput.h"

namespace descent {

// The cut that a generation goes on from.
struct RestoreFrom {
  std::string folder;  // of the cut, within the checkpoint folder
  uint64_t number = 0;
  std::vector<uint64_t> clocks;  // per rank
  std::vector<TensorSpec> tensors;
  v1::CoordinatorState state = {};  // what evaluations have led to until then
};

struct CoordinatorOptions {
  v1::JobSpec job;  // resolved and valid
  uint64_t job_fingerprint = 0;
  RunId run;
  Geometry geometry;
  bool apply_push = false;
  // Null: an estimate from specs, map and optimizer, dense tensors only.
  std::function<MemoryPlan(ServerId, const std::vector<TensorSpec>&, const PartitionMap&, uint64_t clocks)> memory;
  absl::Duration stop_grace = absl::Seconds(5);   // for workers to finish the clock in hand
  absl::Duration leave_grace = absl::Seconds(3);  // for members to hear of the end
  Generation generation{1};
  // This process takes the place of another: workers that are not there within a lease are not waited for.
  bool resumed = false;
  // The run ended before this process began: FINISHED, STOPPED, or FAILED for a cause. Whoever asks hears that and
  // goes.
  struct End {
    v1::Phase phase = v1::FINISHED;
    std::string cause;
  };
  std::optional<End> end;
  std::optional<RestoreFrom> restore;  // none: from the initial values
  // With replicas and resumed: what the coordinator before has made lasting. If the servers that live hold all blocks,
  // the run goes on with these and not from the cut.
  std::optional<v1::ReplicaViews> adopt;
  ReplicaTable::Fault replica_fault = ReplicaTable::Fault::kNone;  // for tests alone
  CutSchedule::Options cuts;                                       // servers and apply_push are filled in
  std::string checkpoint_folder;                                   // passed on to servers
};

class Coordinator {
 public:
  // INVALID_ARGUMENT names a field without which there is nothing to coordinate.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(CoordinatorOptions options, absl::Time now);

  // --- The service ---------------------------------------------------------------------------------------------------
  v1::GetJobReply GetJob() const;
  v1::RegisterReply RegisterServer(const v1::RegisterServerRequest& request, absl::Time now);
  v1::RegisterReply RegisterWorker(const v1::RegisterWorkerRequest& request, absl::Time now);
  v1::ShareStatisticsReply ShareStatistics(const v1::ShareStatisticsRequest& request, absl::Time now);
  v1::HeartbeatReply Heartbeat(const v1::HeartbeatRequest& request, absl::Time now);
  void Leave(const v1::LeaveRequest& request, absl::Time now);
  v1::StatusReply Status(absl::Time now) const;
  // One at once ends the job without saving. Asking again changes nothing.
  void Stop(const v1::StopRequest& request, absl::Time now);
  // own: `member`, or else (role, host, pid), failed. Not own: (role, host, pid) is the one that is gone, if it is
  // known here its ranks move (a worker) or the job fails (a server); and the text may become the first cause.
  void ReportFailure(const v1::FailureReport& report, absl::Time now);
  // NOT_FOUND: no such server. FAILED_PRECONDITION: another generation, or no blocks yet. INVALID_ARGUMENT: what does
  // not fit.
  absl::StatusOr<v1::ScalarTotals> AgreeScalars(const v1::ScalarPartials& partials, absl::Time now);

  // --- The owner -----------------------------------------------------------------------------------------------------
  // Leases, time-outs, stalls, the grace of a stop. A gap between two ticks of more than a quarter of a lease (with
  // replicas, of a second at most) is the
  // coordinator's own absence (a stopped process, a clock set forward) and is charged to no member.
  void Tick(absl::Time now);
  // A member's connection is gone for good.
  void MemberLost(MemberId member, absl::string_view why, absl::Time now);
  // The model has been saved, or could not be. Ignored unless phase() is SAVING; UNAVAILABLE: to be tried again, while
  // the phase is still that.
  void SaveFinished(const absl::Status& status, absl::string_view model_dir, absl::string_view parameters_sha256,
                    absl::string_view state_sha256, absl::Time now);
  // A server died: make the next generation lasting, find what to go on from, and call BeginGeneration.
  bool wants_generation() const { return wants_generation_; }
  // What it is to go on from, if not the newest: the cut of the best model, or that of before a divergence (0: the
  // initial values).
  std::optional<uint64_t> wants_cut() const {
    return rollback_.has_value() ? std::optional(rollback_->to) : back_to_best_;
  }
  // `generation` is newer than the present one. Ignored unless wanted.
  void BeginGeneration(Generation generation, std::optional<RestoreFrom> restore, absl::Time now);
  // With replicas: these are to be made lasting (nullopt: they are); then ViewsLasting. Nobody hears of a promotion or
  // of a backup that was given up before.
  using LastingViews = Replication::LastingViews;
  std::optional<LastingViews> WantsViews() const;
  void ViewsLasting(uint64_t change, uint64_t news, absl::Time now);
  // The owner makes folders, manifests and tells how that went; the rest is done here.
  CutSchedule& cuts() { return cuts_; }
  // What belongs into the cut that is committing; nullopt: not all of it is known yet.
  std::optional<v1::CoordinatorState> StateOfCut();
  // The validation loss of exactly the model in the cut that is committing; nullopt: it was not evaluated.
  std::optional<double> MetricOfCut() const;
  // Cuts that must be kept as long as one with this state is.
  std::vector<uint64_t> NeededCuts(const v1::CoordinatorState& state) const {
    return steering_.NeededCuts(state.steering());
  }
  std::string cut_folder;  // of the cut under way, set by the owner before cuts().Prepared

  // The job is over, and every member that is left has heard of it, or has had the time to.
  bool AllGone(absl::Time now) const;
  // Nobody will tell more: what is open becomes records.
  void CloseRecords(absl::Time now);

  v1::Phase phase() const { return phase_; }
  bool ended() const { return phase_ >= v1::FINISHED; }
  std::string first_cause() const { return first_.Text(); }  // "" unless FAILED
  int stop_signal() const { return stop_.signal(); }         // 0: none
  uint64_t round() const;  // the clocks below are completed, by every rank or with backups by enough
  bool stopping() const { return stop_.asked(); }
  uint64_t clocks() const { return clocks_; }  // 0: not known yet
  Generation generation() const { return generation_; }
  const std::vector<TensorSpec>& specs() const { return admission_.specs(); }
  const v1::FittedFeatures& features() const { return admission_.features(); }
  const std::optional<PartitionMap>& map() const { return map_; }
  std::vector<std::string> addresses() const { return replication_.Addresses(); }  // by server id
  std::vector<MetricRecord> DrainRecords() { return metrics_.Drain(); }
  std::vector<LogLine> DrainLog() { return log_.Drain(); }

 private:
  Coordinator(CoordinatorOptions options, absl::Time now);

  // --- coordinator.cc: phases and time
  absl::Time Advance(absl::Time now);  // time never runs backwards here
  void SetPhase(v1::Phase phase, absl::string_view why);
  void Fail(std::string cause);
  void Evolve();  // whatever the present state allows: the next phase, grants
  bool Starts() const;
  bool PlanMemory();
  void BeginToRun();
  std::string WhereStopped() const;  // while there is nothing to save
  void EndRunning();                 // once nobody has anything under way
  void GrantOrphans();
  void LogGrants(const std::vector<LeaseTable::Grant>& grants, absl::string_view what);
  // Every rank that has a holder has completed a clock with the servers that serve now: told to stop then, all are at
  // one clock.
  bool Settled() const;
  void TakeAbsence();
  void LoseTheSilent();
  void FailIfLate();

  // --- coordinator_members.cc: members that come and go
  v1::RegisterReply Welcome(const Member& member) const;
  v1::RegisterReply Refuse(std::vector<std::string> mismatch);
  v1::RegisterReply TooLate(const std::string& who) { return Refuse({TooLateText(who)}); }
  std::string TooLateText(const std::string& who) const;
  void LearnLength();
  void Lose(MemberId id, absl::string_view why);
  void ServerDied(const Member& server, absl::string_view why);
  // With replicas: whether all that the server served is served by others now.
  bool GoesOnWithout(const Member& server);

  // --- coordinator_progress.cc: heartbeats
  void TakeServersWord(const v1::HeartbeatRequest& request, bool current, Member* server);
  void TakeProgress(const Member& worker, const v1::HeartbeatRequest& request);
  void AddPlacement(const Member& member, v1::HeartbeatReply* reply) const;
  // Norms of a clock, as a server tells them, into what they are for. Said in the log where they do not fit.
  absl::Status TakeScalars(ServerId server, const v1::ScalarPartials& partials);

  // --- coordinator_recovery.cc: generations and cuts
  // Goes on with what the servers hold, or from the cut.
  void AdoptOrRestore();
  void Restore();
  bool CheckRestore();
  void TendCuts();
  bool CutsAreEvaluated() const;
  // Checkpoints are kept by evaluations, and that of the cut that is committing may still come.
  bool EvaluationOfCutToCome();

  // A generation is wanted, since this one is over.
  void RollBack(absl::string_view why);

  // --- coordinator_steering.cc: what evaluations lead to
  void Steer();
  // Ranks are held until there is a cut of this number, of the best model; or until it has failed too often.
  void KeepBest(uint64_t cut);
  void TellRates();  // to the records
  void TakeNorms(std::optional<uint64_t> clock);
  double TrainedSeconds() const;
  std::optional<uint64_t> BeginBelow() const;
  void EndTraining(std::string reason);
  // Training is over. True: another model than that which stands is to be saved.
  bool GoBackToBest();
  void ForgetEnd();
  // The run has diverged, and steering_ says what comes of it.
  void EndDivergence();
  void RestoreSteering();

  // --- coordinator_status.cc: for people
  std::string WaitingText() const;
  std::string MissingText() const;
  // Per rank that held reads wait for: as the server tells it that has waited longest, and the holder.
  std::map<uint32_t, v1::Waited> Waits() const;
  std::string HeldText() const;   // ranks are held for the cut of the best model; "": they are not
  std::string NormsText() const;  // every rank has completed a clock, and norms of servers are awaited; "": not so
  std::string StallText() const;
  std::string Message() const;
  uint32_t NextMs() const;
  Throughput::Totals Totals() const;
  void AddRates(absl::Time now, v1::StatusReply* status) const;

  const CoordinatorOptions options_;
  const uint32_t want_servers_, want_workers_;
  const absl::Duration lease_, start_timeout_, stall_timeout_;
  const absl::Time created_;
  absl::Time statistics_at_;  // when statistics of the training data last came on

  RunLog log_;
  absl::Time now_;
  std::optional<absl::Time> ticked_;
  v1::Phase phase_ = v1::STARTING;
  absl::Time phase_since_, ended_at_;
  std::optional<absl::Time> running_since_;  // in this process
  absl::Time advanced_;                      // any progress at all
  FirstCause first_;

  MemberTable members_;
  Admission admission_;
  StatisticsTable statistics_;
  bool mixed_told_ = false;
  std::string last_death_;
  LeaseTable leases_;
  RankTable ranks_;
  std::optional<absl::Time> orphans_since_;  // some rank has no holder
  Replication replication_;

  std::optional<PartitionMap> map_;
  std::string memory_line_;
  uint64_t clocks_ = 0, clocks_per_epoch_ = 0;
  RunMetrics metrics_;
  Throughput throughput_;

  Generation generation_;
  bool wants_generation_ = false;
  std::optional<RestoreFrom> restore_;
  CutSchedule cuts_;
  uint64_t recoveries_ = 0;
  uint64_t begun_at_ = 0;     // the round that this generation began with
  std::string save_trouble_;  // last told, at
  absl::Time save_told_ = absl::InfinitePast();
  uint32_t fruitless_ = 0;                                 // generations in a row that finished no clock
  std::optional<std::pair<uint64_t, absl::Time>> passed_;  // a cut's number, and when every rank had gone past it

  GracefulStop stop_;
  Steering steering_;
  std::string end_reason_;                // why training is over
  bool ended_by_rule_ = false;            // and not by a request
  std::optional<uint64_t> back_to_best_;  // the clock of the model that is gone back to
  uint64_t evaluations_before_best_ = 0;
  uint64_t best_lost_ = 0;  // the clock of one that can't be
  struct Held {
    absl::Time since;
    uint32_t failures;  // of cuts, before
  };
  std::optional<Held> held_;             // ranks are, for the cut of the best model
  std::optional<Rollback> rollback_;     // under way
  std::optional<absl::Time> evaluated_;  // when the last evaluation was complete
  std::string model_dir_, parameters_sha256_, state_sha256_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_COORDINATOR_H_
