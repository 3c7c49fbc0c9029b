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
// workers are told the new addresses, and the generation goes on (replica_table.h). A backup that its primary can't
// reach is given up for a while (backup_watch.h).
//
// What comes from members is checked, never trusted. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_COORDINATOR_H_
#define DESCENT_SERVER_COORDINATOR_COORDINATOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "server/coordinator/admission.h"
#include "server/coordinator/backup_watch.h"
#include "server/coordinator/cut_schedule.h"
#include "server/coordinator/first_cause.h"
#include "server/coordinator/lease_table.h"
#include "server/coordinator/metric_merge.h"
#include "server/coordinator/replica_table.h"

namespace descent {

// What a server will take at most.
struct MemoryPlan {
  uint64_t bytes = 0;
  std::string parts;  // "parameters 4.0 GiB, state 8.0 GiB, ...": for people
};

// The cut that a generation goes on from.
struct RestoreFrom {
  std::string folder;  // of the cut, within the checkpoint folder
  uint64_t number = 0;
  std::vector<uint64_t> clocks;  // per rank
  std::vector<TensorSpec> tensors;
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
  // The run has reached its end; whoever asks hears that and goes.
  bool finished = false;
  std::optional<RestoreFrom> restore;  // none: from the initial values
  // With replicas and resumed: what the coordinator before has made lasting. If the servers that live hold all blocks,
  // the run goes on with these and not from the cut.
  std::optional<v1::ReplicaViews> adopt;
  ReplicaTable::Fault replica_fault = ReplicaTable::Fault::kNone;  // for tests alone
  CutSchedule::Options cuts;                                       // servers and apply_push are filled in
  std::string checkpoint_folder;                                   // passed on to servers
};

struct LogLine {
  enum class Level { kInfo, kWarning, kError };
  absl::Time time;
  Level level = Level::kInfo;
  std::string text;
};

class Coordinator {
 public:
  // INVALID_ARGUMENT names a field without which there is nothing to coordinate.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(CoordinatorOptions options, absl::Time now);

  // --- The service ---------------------------------------------------------------------------------------------------
  v1::GetJobReply GetJob() const;
  v1::RegisterReply RegisterServer(const v1::RegisterServerRequest& request, absl::Time now);
  v1::RegisterReply RegisterWorker(const v1::RegisterWorkerRequest& request, absl::Time now);
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
  // `generation` is newer than the present one. Ignored unless wanted.
  void BeginGeneration(Generation generation, std::optional<RestoreFrom> restore, absl::Time now);
  // With replicas: these are to be made lasting (nullopt: they are); then ViewsLasting. Nobody hears of a promotion or
  // of a backup that was given up before.
  struct LastingViews {
    uint64_t change = 0, news = 0;
    v1::ReplicaViews views;
  };
  std::optional<LastingViews> WantsViews() const;
  void ViewsLasting(uint64_t change, uint64_t news, absl::Time now);
  // The owner makes folders, manifests and tells how that went; the rest is done here.
  CutSchedule& cuts() { return cuts_; }
  std::string cut_folder;  // of the cut under way, set by the owner before cuts().Prepared

  // The job is over, and every member that is left has heard of it, or has had the time to.
  bool AllGone(absl::Time now) const;

  v1::Phase phase() const { return phase_; }
  bool ended() const { return phase_ >= v1::FINISHED; }
  std::string first_cause() const { return first_.Text(); }  // "" unless FAILED
  int stop_signal() const { return stop_signal_; }           // 0: none
  uint64_t round() const;  // the clocks below are completed, by every rank or with backups by enough
  bool stopping() const { return stopping_; }
  std::optional<double> last_validation_loss() const {
    return last_evaluation_.has_value() ? std::optional(last_evaluation_->loss) : std::nullopt;
  }
  uint64_t clocks() const { return clocks_; }  // 0: not known yet
  Generation generation() const { return generation_; }
  const std::vector<TensorSpec>& specs() const { return admission_.specs(); }
  const std::optional<PartitionMap>& map() const { return map_; }
  std::vector<std::string> addresses() const;  // by server id
  std::vector<MetricRecord> DrainRecords();
  std::vector<LogLine> DrainLog();

 private:
  struct Member {
    MemberId id;
    bool is_server = false;
    ServerId server;
    std::string host, address;
    uint64_t pid = 0, nonce = 0, memory_bytes = 0;
    absl::Time registered, heard;
    bool ready = false;  // of a server: its blocks of this generation are made
    bool told_end = false;
    v1::ServerLoad load;
    std::vector<v1::SeatReport> held;  // when it registered, of the generation below
    uint64_t held_generation = 0;
  };
  struct RankState {
    uint64_t clock = 0;
    uint64_t examples = 0;         // of the present lease
    uint64_t examples_before = 0;  // of earlier leases
    bool done = false;
    absl::Time advanced;
    // With replicas: what it was pushing when servers changed hands may be on some of them and not on others, until it
    // has completed this clock. kUnbounded: its worker has not been heard of since.
    uint64_t settles = 0;
  };
  struct Sample {
    absl::Time time;
    uint64_t examples = 0, round = 0, bytes = 0;
  };

  Coordinator(CoordinatorOptions options, absl::Time now);

  absl::Time Advance(absl::Time now);  // time never runs backwards here
  void Log(LogLine::Level level, std::string text);
  void SetPhase(v1::Phase phase, absl::string_view why);
  void Fail(std::string cause);
  void Evolve();  // whatever the present state allows: the next phase, grants
  bool Starts();
  void LearnLength();
  bool PlanMemory();
  void GrantOrphans();
  // Servers have changed hands: a stop is told once every rank has completed a clock with those that serve now, so that
  // all are at one clock.
  void Unsettle();
  bool Settled(uint32_t rank) const;
  void LogGrants(const std::vector<LeaseTable::Grant>& grants, absl::string_view what);
  void Lose(MemberId id, absl::string_view why);
  void ServerDied(const Member& server, absl::string_view why);
  // With replicas: whether all that the server served is served by others now.
  bool GoesOnWithout(const Member& server);
  void PlaceReplicas();
  // What a primary says of its backup, which may hold it up.
  void WatchBackup(const v1::SeatReport& report);
  // Backups that were given up come again.
  void TendBackups();
  // Goes on with what the servers hold, or from the cut.
  void AdoptOrRestore();
  void Restore();
  void TendCuts();
  void AddPlacement(const Member& member, const v1::HeartbeatRequest& request, v1::HeartbeatReply* reply) const;
  bool CheckRestore();
  uint64_t FurthestRound() const;
  void TakeProgress(const Member& worker, const v1::HeartbeatRequest& request);
  void EmitTraining();
  void EmitEvaluation(MetricRecord record);
  v1::RegisterReply Welcome(const Member& member) const;
  v1::RegisterReply Refuse(std::vector<std::string> mismatch);
  Member* FindLike(bool is_server, absl::string_view host, uint64_t pid);
  // A process that registered with another coordinator may come with an id that somebody else has here.
  static bool IsOf(const Member& member, uint64_t nonce) {
    return nonce == 0 || member.nonce == 0 || member.nonce == nonce;
  }
  static std::string Clip(absl::string_view text);
  std::string Name(const Member& member) const;
  std::string WaitingText() const;
  std::string MissingText() const;
  // Per rank that held reads wait for: as the server tells it that has waited longest, and the holder.
  std::map<uint32_t, v1::Waited> Waits() const;
  std::string StallText() const;
  std::string Message() const;
  uint32_t NextMs() const;
  uint64_t servers_there() const;
  uint64_t workers_there() const { return members_.size() - servers_there(); }
  Sample Totals() const;
  double EpochOf(uint64_t clock) const;

  const CoordinatorOptions options_;
  const uint32_t want_servers_, want_workers_;
  const absl::Duration lease_, start_timeout_, stall_timeout_;
  const uint64_t metrics_every_;
  const absl::Time created_;

  absl::Time now_;
  std::optional<absl::Time> ticked_;
  v1::Phase phase_ = v1::STARTING;
  absl::Time phase_since_;
  Generation generation_;
  uint64_t last_member_ = 0;
  std::map<MemberId, Member> members_;  // the living
  Admission admission_;
  std::optional<PartitionMap> map_;
  std::string memory_line_;
  const bool replicated_;
  ReplicaTable replicas_;
  BackupWatch watch_;
  uint64_t promotions_ = 0;
  uint64_t lasting_change_ = 0, lasting_news_ = 0;
  uint64_t moves_ = 0;    // that may be heard of
  bool adopted_ = false;  // this generation goes on with what servers held
  bool wants_generation_ = false;
  std::optional<RestoreFrom> restore_;
  CutSchedule cuts_;
  LeaseTable leases_;
  std::vector<RankState> ranks_;
  std::optional<absl::Time> orphans_since_;  // some rank has no holder
  std::string last_death_;
  bool mixed_told_ = false;

  uint64_t recoveries_ = 0;
  uint64_t begun_at_ = 0;   // the round that this generation began with
  uint32_t fruitless_ = 0;  // generations in a row that finished no clock

  uint64_t clocks_ = 0, clocks_per_epoch_ = 0;
  absl::Time running_since_, ended_at_;
  absl::Time advanced_;  // any progress at all
  std::deque<Sample> samples_;
  TrainingMerge training_;
  EvaluationMerge evaluation_;
  ScalarMerge scalars_;
  absl::Time training_told_;
  std::optional<MetricRecord> last_training_, last_evaluation_;

  bool stopping_ = false;
  int stop_signal_ = 0;
  absl::Time stop_since_;
  std::optional<absl::Time> stop_told_;  // since when workers are told
  FirstCause first_;
  std::string model_dir_, parameters_sha256_, state_sha256_;

  std::vector<MetricRecord> records_;
  std::vector<LogLine> log_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_COORDINATOR_H_
