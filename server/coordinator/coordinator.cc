// Phases, time, and the end.
#include "server/coordinator/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace descent {
namespace {

constexpr absl::Duration kCoveredSilence = absl::Seconds(1);  // many beats
constexpr absl::Duration kUnconfirmed = absl::Seconds(2);     // many round trips
constexpr absl::Duration kTellSaveAgain = absl::Seconds(10);

absl::Duration SecondsOr(double seconds, double otherwise) { return absl::Seconds(seconds > 0 ? seconds : otherwise); }

Admission::Rules AdmissionRules(const CoordinatorOptions& options) {
  Admission::Rules rules;
  rules.job_fingerprint = options.job_fingerprint;
  rules.same_numerics = !options.apply_push && !options.job.consistency().allow_mixed_numerics();
  if (options.job.model().max_bytes() > 0) rules.max_bytes = options.job.model().max_bytes();
  rules.needs_data = options.job.data().has_train();
  return rules;
}

CutSchedule::Options CutOptions(const CoordinatorOptions& options, uint32_t servers) {
  CutSchedule::Options cuts = options.cuts;
  cuts.servers = servers;
  cuts.apply_push = options.apply_push;
  return cuts;
}

Replication::Options ReplicationOptions(const CoordinatorOptions& options, uint32_t servers, absl::Duration lease) {
  return {options.job.replicas() > 0 && servers > 1, servers, std::max(kUnconfirmed, lease / 5), options.replica_fault};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(CoordinatorOptions options, absl::Time now) {
  const v1::JobSpec& job = options.job;
  if (job.ranks() == 0) return absl::InvalidArgumentError("ranks is 0; a resolved job has at least 1");
  if (job.batch_size() == 0) return absl::InvalidArgumentError("batch_size is 0; a resolved job has at least 1");
  if (job.length_case() == v1::JobSpec::LENGTH_NOT_SET) {
    return absl::InvalidArgumentError("neither epochs nor rounds is set");
  }
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(options), now));
}

Coordinator::Coordinator(CoordinatorOptions options, absl::Time now)
    : options_(std::move(options)),
      want_servers_(std::max<uint32_t>(1, options_.job.cluster().servers())),
      want_workers_(std::max<uint32_t>(1, options_.job.cluster().workers())),
      lease_(SecondsOr(options_.job.cluster().lease_seconds(), 10)),
      start_timeout_(SecondsOr(options_.job.cluster().start_timeout_seconds(), 600)),
      stall_timeout_(SecondsOr(options_.job.cluster().stall_timeout_seconds(), 600)),
      created_(now),
      statistics_at_(now),
      now_(now),
      phase_since_(now),
      advanced_(now),
      first_(lease_ + absl::Minutes(1)),
      admission_(AdmissionRules(options_)),
      leases_(options_.job.ranks()),
      ranks_(options_.job.ranks(), options_.job.consistency().backup_ranks()),
      replication_(ReplicationOptions(options_, want_servers_, lease_), &members_, &log_),
      metrics_(&options_.job),
      generation_(options_.generation),
      restore_(options_.restore),
      cuts_(CutOptions(options_, want_servers_)),
      stop_(options_.stop_grace),
      steering_(options_.job) {
  log_.SetTime(now_);
  if (options_.job.length_case() == v1::JobSpec::kRounds) clocks_ = options_.job.rounds();
  log_.Info(absl::StrCat("job '", options_.job.name(), "', run ", absl::Hex(options_.run.value, absl::kZeroPad16), ": ",
                         ranks_.size(), " ranks; waiting for ", want_servers_, " servers and ", want_workers_,
                         " workers"));
  if (options_.resumed && !options_.adopt.has_value()) Restore();
  if (options_.end.has_value()) {
    if (options_.end->phase == v1::FAILED) first_.Detected(now_, options_.end->cause);
    SetPhase(options_.end->phase, "before this process began");
  }
}

absl::Time Coordinator::Advance(absl::Time now) {
  now_ = std::max(now_, now);
  log_.SetTime(now_);
  return now_;
}

void Coordinator::SetPhase(v1::Phase phase, absl::string_view why) {
  log_.Add(phase == v1::FAILED ? LogLine::Level::kError : LogLine::Level::kInfo,
           absl::StrCat("phase ", v1::Phase_Name(phase_), " -> ", v1::Phase_Name(phase), why.empty() ? "" : ": ", why));
  phase_ = phase;
  phase_since_ = now_;
  if (ended()) ended_at_ = now_;
}

void Coordinator::Fail(std::string cause) {
  if (ended()) return;
  first_.Detected(now_, cause);
  SetPhase(v1::FAILED, first_.Text());
}

// --- Phases ----------------------------------------------------------------------------------------------------------

bool Coordinator::Starts() const {
  const bool missed = options_.resumed && members_.workers() > 0 && now_ - created_ > lease_;
  return members_.servers() >= want_servers_ && (members_.workers() >= want_workers_ || missed) && leases_.CanHoldAll();
}

bool Coordinator::PlanMemory() {
  MemoryFit fit = FitMemory(members_, want_servers_, replication_.enabled(), [this](ServerId server) {
    return options_.memory ? options_.memory(server, admission_.specs(), *map_, clocks_)
                           : EstimateMemory(options_.job, options_.apply_push, options_.geometry, server,
                                            admission_.specs(), *map_);
  });
  memory_line_ = std::move(fit.line);
  if (fit.refused.empty()) {
    log_.Info(absl::StrCat("memory: ", memory_line_));
    return true;
  }
  Fail(absl::StrCat("the job does not fit into memory: ", absl::StrJoin(fit.refused, "; "),
                    "; more servers or limits.server_bytes would help"));
  return false;
}

void Coordinator::Evolve() {
  if (phase_ == v1::STARTING && Starts()) {
    AdoptOrRestore();
    if (ended() || (!replication_.adopted() && !CheckRestore())) return;
    map_ = MakePartitionMap(admission_.specs(), options_.geometry, want_servers_);
    if (!PlanMemory()) return;
    SetPhase(v1::PLACING, absl::StrCat(admission_.specs().size(), " tensors on ", want_servers_, " servers"));
  }
  if (phase_ == v1::PLACING) {
    if (wants_generation_ || members_.servers() < want_servers_) return;
    replication_.Place();
    if (!members_.AllServersReady() || !replication_.CanRun()) return;
    BeginToRun();
  }
  if (phase_ != v1::RUNNING) return;
  Steer();
  if (phase_ == v1::RUNNING) EndRunning();
}

void Coordinator::BeginToRun() {
  SetPhase(v1::RUNNING, absl::StrCat(clocks_, " clocks, ", clocks_per_epoch_, " per epoch"));
  replication_.Settle();
  if (!running_since_.has_value()) running_since_ = now_;
  passed_.reset();
  held_.reset();
  advanced_ = now_;
  metrics_.Start(now_);
  cuts_.Start(restore_.has_value() ? restore_->number : 0, now_);
  ranks_.TouchAll(now_);
  throughput_.Restart(Totals());
  LogGrants(leases_.Spread(), "");
  if (!leases_.Orphans().empty()) orphans_since_ = now_;
  if (replication_.adopted()) ranks_.UnsettleAll();
}

void Coordinator::EndRunning() {
  stop_.Advance(Settled(), now_);
  // Under a stop a rank without a holder is as idle as one whose worker said so.
  bool idle = true;
  for (uint32_t r = 0; r < ranks_.size() && idle; ++r) {
    idle = ranks_[r].done || (stopping() && !leases_.holder(Rank(r)).has_value());
  }
  if ((!idle && !stop_.Over(now_)) || GoBackToBest()) return;
  const bool at_end = !stopping() || ended_by_rule_;
  SetPhase(v1::SAVING, ended_by_rule_ ? end_reason_
                       : !stopping()  ? "every rank reached the end"
                       : idle         ? "stopped; every worker finished the clock in hand"
                                      : "stopped; the grace for workers to finish is over");
  if (at_end && !cuts_.at_end()) {
    cuts_.Halt();  // the model is what is saved
  } else if (cuts_.enabled()) {
    // No rank has anything under way. With backup ranks servers may have closed rounds that nobody was left to report.
    cuts_.DemandWhereServersStand(round(), now_);
  }
}

bool Coordinator::Settled() const {
  for (uint32_t r = 0; r < ranks_.size(); ++r) {
    if (!ranks_.settled(Rank(r)) && leases_.holder(Rank(r)).has_value()) return false;
  }
  return true;
}

void Coordinator::GrantOrphans() {
  if (stopping()) return;
  LogGrants(leases_.Fill(), "moved: ");
  if (leases_.Orphans().empty()) {
    orphans_since_.reset();
  } else if (!orphans_since_.has_value()) {
    orphans_since_ = now_;
    log_.Warning(absl::StrCat(leases_.Orphans().size(), " ranks have no worker; waiting for one"));
  }
}

void Coordinator::LogGrants(const std::vector<LeaseTable::Grant>& grants, absl::string_view what) {
  std::map<MemberId, std::vector<std::string>> by_worker;
  for (const LeaseTable::Grant& grant : grants) {
    ranks_.Touch(grant.rank, now_);
    by_worker[grant.to].push_back(absl::StrCat(grant.rank.value, " (incarnation ", generation_.value, ".", grant.number,
                                               ", clock ", ranks_[grant.rank.value].clock, ")"));
  }
  for (const auto& [id, ranks] : by_worker) {
    log_.Info(absl::StrCat("lease ", what, NameOf(*members_.Find(id)), " holds ranks ", absl::StrJoin(ranks, ", ")));
  }
}

// --- Time ------------------------------------------------------------------------------------------------------------

void Coordinator::Tick(absl::Time now) {
  Advance(now);
  TakeAbsence();
  if (ended()) return;
  TendCuts();
  if (phase_ == v1::RUNNING) replication_.BringBack(now_);
  LoseTheSilent();
  Evolve();
  if (ended()) return;
  FailIfLate();
  if (phase_ == v1::RUNNING && throughput_.due(now_)) throughput_.Add(Totals());
}

void Coordinator::TakeAbsence() {
  const absl::Duration patience = replication_.enabled() ? std::min(lease_, kCoveredSilence) : lease_;
  if (ticked_.has_value() && now_ - *ticked_ > patience / 4) {
    const absl::Duration absence = now_ - *ticked_;
    members_.Excuse(absence, now_);
    ranks_.Excuse(absence, now_);
    advanced_ = std::min(now_, advanced_ + absence);
    log_.Warning(absl::StrCat("the coordinator did not run for ",
                              absl::FormatDuration(absl::Trunc(absence, absl::Milliseconds(1))),
                              "; leases are longer by that"));
  }
  ticked_ = now_;
}

void Coordinator::LoseTheSilent() {
  std::vector<MemberId> silent;
  for (const auto& [id, member] : members_) {
    // One whose backups can take over at once is not waited for: should it live, it loses nothing but its place.
    const bool covered = member.is_server && phase_ == v1::RUNNING && replication_.Covers(id);
    if (now_ - member.heard > (covered ? std::min(lease_, kCoveredSilence) : lease_)) silent.push_back(id);
  }
  for (MemberId id : silent) {
    const Member* const member = members_.Find(id);
    if (member == nullptr || ended()) continue;
    Lose(id, absl::StrCat("nothing heard for ",
                          absl::FormatDuration(absl::Trunc(now_ - member->heard, absl::Milliseconds(100))),
                          "; the lease is ", absl::FormatDuration(lease_)));
    if (phase_ == v1::RUNNING && replication_.enabled()) break;  // it may have been the backup of the next
  }
}

void Coordinator::FailIfLate() {
  if (phase_ == v1::STARTING && now_ - std::max(created_, statistics_at_) > start_timeout_) {
    const bool counted = statistics_at_ > created_;
    Fail(absl::StrCat("the job did not start within ", absl::FormatDuration(start_timeout_),
                      counted ? " of the last statistics of training data" : "", ": ", MissingText()));
  } else if (phase_ == v1::PLACING && now_ - phase_since_ > start_timeout_) {
    Fail(absl::StrCat("servers did not make their blocks within ", absl::FormatDuration(start_timeout_), ": ",
                      MissingText()));
  } else if (phase_ == v1::RUNNING && !stopping()) {
    if (orphans_since_.has_value() && now_ - *orphans_since_ > start_timeout_) {
      Fail(absl::StrCat("no worker is left for ", leases_.Orphans().size(), " of ", ranks_.size(), " ranks since ",
                        absl::FormatDuration(start_timeout_), "; the last to go was ", last_death_));
    } else if (!orphans_since_.has_value() && now_ - advanced_ > stall_timeout_) {
      Fail(StallText());
    }
  }
}

// --- The end ---------------------------------------------------------------------------------------------------------

void Coordinator::Stop(const v1::StopRequest& request, absl::Time now) {
  Advance(now);
  if (ended()) return;
  stop_.NoteSignal(request.signal());
  // What a run that is being recovered has reached lies in its last cut.
  const bool nothing_to_save = phase_ == v1::STARTING || (phase_ == v1::PLACING && !replication_.adopted());
  const bool first = stop_.Ask(now_);
  if (request.at_once() || nothing_to_save) {
    if (nothing_to_save) end_reason_ = absl::StrCat("a request to stop ", WhereStopped());
    SetPhase(v1::STOPPED,
             nothing_to_save ? absl::StrCat("stopped ", WhereStopped()) : "stopped at once, the model is not saved");
    return;
  }
  if (!first) return;  // every server of a group that is stopped passes its signal on: one stop, not two
  log_.Info(absl::StrCat("asked to stop (signal ", request.signal(), "); saving the model"));
  Evolve();
}

std::string Coordinator::WhereStopped() const {
  if (!running_since_.has_value() && !options_.resumed) return "before training began";
  const uint64_t newest = wants_generation_ ? cuts_.last() : restore_.has_value() ? restore_->number : 0;
  const uint64_t cut = back_to_best_.value_or(newest);
  return absl::StrCat("while going back to ", cut == 0 ? "the initial values" : absl::StrCat("cut ", cut),
                      back_to_best_.has_value() ? ", the best model" : "", "; it goes on with --resume");
}

void Coordinator::SaveFinished(const absl::Status& status, absl::string_view model_dir,
                               absl::string_view parameters_sha256, absl::string_view state_sha256, absl::Time now) {
  Advance(now);
  if (phase_ != v1::SAVING) return;
  // A server that can't be read has died, which its lease or its supervisor will tell, or is slow: the owner tries
  // again.
  if (absl::IsUnavailable(status) && now_ - phase_since_ < start_timeout_) {
    if (status.message() != save_trouble_ || now_ - save_told_ >= kTellSaveAgain) {
      log_.Warning(absl::StrCat("the model is not saved yet: ", status.message()));
      save_trouble_ = std::string(status.message());
      save_told_ = now_;
    }
    return;
  }
  if (!status.ok()) {
    Fail(absl::StrCat("the model could not be saved: ", status.message()));
    return;
  }
  model_dir_ = std::string(model_dir);
  parameters_sha256_ = std::string(parameters_sha256);
  state_sha256_ = std::string(state_sha256);
  SetPhase(stopping() && !ended_by_rule_ ? v1::STOPPED : v1::FINISHED, absl::StrCat("the model is in ", model_dir_));
}

void Coordinator::CloseRecords(absl::Time now) { metrics_.CloseNorms(admission_.specs(), Advance(now)); }

bool Coordinator::AllGone(absl::Time now) const {
  if (!ended()) return false;
  if (now - ended_at_ >= options_.leave_grace) return true;
  return std::all_of(members_.begin(), members_.end(), [](const auto& m) { return m.second.told_end; });
}

}  // namespace descent
