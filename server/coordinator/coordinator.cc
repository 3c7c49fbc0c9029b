#include "server/coordinator/coordinator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/job/job.h"
#include "common/wire/frame.h"

namespace descent {
namespace {

constexpr size_t kMaxMembers = 16384;
constexpr size_t kMaxText = 4096;
constexpr absl::Duration kCoveredSilence = absl::Seconds(1);  // many beats
constexpr absl::Duration kUnconfirmed = absl::Seconds(2);     // many round trips

absl::Duration SecondsOr(double seconds, double otherwise) { return absl::Seconds(seconds > 0 ? seconds : otherwise); }

std::string Bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= uint64_t{1} << 30) return absl::StrFormat("%.2f GiB", value / (1 << 30));
  if (bytes >= uint64_t{1} << 20) return absl::StrFormat("%.1f MiB", value / (1 << 20));
  return absl::StrFormat("%.1f KiB", value / (1 << 10));
}

Admission::Rules AdmissionRules(const CoordinatorOptions& options) {
  Admission::Rules rules;
  rules.job_fingerprint = options.job_fingerprint;
  rules.same_numerics = !options.apply_push && !options.job.consistency().allow_mixed_numerics();
  if (options.job.model().max_bytes() > 0) rules.max_bytes = options.job.model().max_bytes();
  rules.needs_data = options.job.data().has_train();
  return rules;
}

uint32_t OptimizerSlots(const v1::Optimizer& optimizer) {
  switch (optimizer.rule_case()) {
    case v1::Optimizer::kMomentum:
    case v1::Optimizer::kNesterov:
    case v1::Optimizer::kAdagrad:
      return 1;
    case v1::Optimizer::kRmsprop:
      return 1u + (optimizer.rmsprop().centered() ? 1 : 0) + (optimizer.rmsprop().momentum() > 0 ? 1 : 0);
    case v1::Optimizer::kAdadelta:
    case v1::Optimizer::kAdam:
    case v1::Optimizer::kAdamw:
    case v1::Optimizer::kFtrl:
      return 2;
    case v1::Optimizer::kAmsgrad:
      return 3;
    default:
      return 0;
  }
}

// Two versions, the optimizer's state, and a held contribution for every second rank.
MemoryPlan EstimateMemory(const CoordinatorOptions& options, ServerId server, const std::vector<TensorSpec>& specs,
                          const PartitionMap& map) {
  uint64_t parameters = 0;
  for (size_t t = 0; t < specs.size(); ++t) {
    if (specs[t].sparse) continue;
    for (uint32_t b = 0; b < map.placement[t].size(); ++b) {
      if (map.placement[t][b] == server) parameters += uint64_t{4} * options.geometry.block_size(specs[t], b);
    }
  }
  const uint64_t held = options.apply_push ? 1 : (options.job.ranks() + 1) / 2;
  const uint64_t state = OptimizerSlots(options.job.optimizer()) * parameters;
  return MemoryPlan{2 * parameters + state + held * parameters,
                    absl::StrCat("parameters in two versions ", Bytes(2 * parameters), ", optimizer state ",
                                 Bytes(state), ", held contributions ", Bytes(held * parameters))};
}

CutSchedule::Options CutOptions(const CoordinatorOptions& options) {
  CutSchedule::Options cuts = options.cuts;
  cuts.servers = std::max<uint32_t>(1, options.job.cluster().servers());
  cuts.apply_push = options.apply_push;
  return cuts;
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
      metrics_every_(options_.job.metrics().every_rounds() > 0 ? options_.job.metrics().every_rounds() : 50),
      created_(now),
      now_(now),
      phase_since_(now),
      generation_(options_.generation),
      admission_(AdmissionRules(options_)),
      replicated_(options_.job.replicas() > 0 && want_servers_ > 1),
      watch_(std::max(kUnconfirmed, lease_ / 5)),
      restore_(options_.restore),
      cuts_(CutOptions(options_)),
      leases_(options_.job.ranks()),
      ranks_(options_.job.ranks()),
      advanced_(now),
      training_(options_.job.ranks(), metrics_every_),
      evaluation_(options_.job.ranks(), options_.job.evaluation()),
      first_(lease_ + absl::Minutes(1)) {
  if (options_.job.length_case() == v1::JobSpec::kRounds) clocks_ = options_.job.rounds();
  Log(LogLine::Level::kInfo,
      absl::StrCat("job '", options_.job.name(), "', run ", absl::Hex(options_.run.value, absl::kZeroPad16), ": ",
                   ranks_.size(), " ranks; waiting for ", want_servers_, " servers and ", want_workers_, " workers"));
  if (options_.resumed && !options_.adopt.has_value()) Restore();
  if (options_.finished) SetPhase(v1::FINISHED, "before this process began");
}

absl::Time Coordinator::Advance(absl::Time now) {
  now_ = std::max(now_, now);
  return now_;
}

void Coordinator::Log(LogLine::Level level, std::string text) { log_.push_back(LogLine{now_, level, std::move(text)}); }

void Coordinator::SetPhase(v1::Phase phase, absl::string_view why) {
  Log(phase == v1::FAILED ? LogLine::Level::kError : LogLine::Level::kInfo,
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

std::string Coordinator::Clip(absl::string_view text) { return std::string(text.substr(0, kMaxText)); }

// --- Registration
// ------------------------------------------------------------------------------------------------------

v1::GetJobReply Coordinator::GetJob() const {
  v1::GetJobReply reply;
  *reply.mutable_job() = options_.job;
  reply.set_job_fingerprint(options_.job_fingerprint);
  reply.set_run(options_.run.value);
  reply.set_generation(generation_.value);
  reply.set_protocol(kProtocolVersion);
  reply.set_checkpoint_folder(options_.checkpoint_folder);
  return reply;
}

v1::RegisterReply Coordinator::Welcome(const Member& member) const {
  v1::RegisterReply reply;
  reply.set_member(member.id.value);
  reply.set_server(member.server.value);
  reply.set_run(options_.run.value);
  reply.set_generation(generation_.value);
  return reply;
}

v1::RegisterReply Coordinator::Refuse(std::vector<std::string> mismatch) {
  v1::RegisterReply reply;
  reply.set_run(options_.run.value);
  reply.set_generation(generation_.value);
  for (std::string& sentence : mismatch) {
    Log(LogLine::Level::kWarning, absl::StrCat("refused: ", sentence));
    reply.add_mismatch(std::move(sentence));
  }
  return reply;
}

v1::RegisterReply Coordinator::RegisterServer(const v1::RegisterServerRequest& request, absl::Time now) {
  Advance(now);
  for (auto& [id, member] : members_) {
    if (request.nonce() != 0 && member.is_server && member.nonce == request.nonce()) {
      member.heard = now_;
      return Welcome(member);
    }
  }
  const std::string who = absl::StrCat("the server on host ", request.host());
  if (ended()) return Refuse({absl::StrCat(who, " is too late: the job is ", v1::Phase_Name(phase_))});
  // Two processes can't have one address: who had it before is gone, unless two are started by mistake.
  std::vector<MemberId> replaced;
  for (const auto& [member_id, member] : members_) {
    if (!member.is_server || member.address != request.address()) continue;
    if (phase_ != v1::STARTING || now_ - member.heard > absl::Seconds(1)) replaced.push_back(member_id);
  }
  for (MemberId gone : replaced) Lose(gone, "another process has come up at its address");
  if (ended()) return Refuse({absl::StrCat(who, " is too late: the job is ", v1::Phase_Name(phase_))});
  std::vector<std::string> mismatch = admission_.Server(request);
  uint32_t id = 0;
  for (bool taken = true; taken; id += taken) {
    taken = false;
    for (const auto& [member_id, member] : members_) taken |= member.is_server && member.server.value == id;
  }
  for (const auto& [member_id, member] : members_) {
    if (member.is_server && member.address == request.address()) {
      mismatch.push_back(absl::StrCat(who, " gives the address ", request.address(), ", which is that of ",
                                      Name(member), "; expected one of its own"));
    }
  }
  if (mismatch.empty() && id >= want_servers_) {
    // It comes in the place of a dead one, sooner than the dead one's lease tells.
    const absl::Duration suspicion = cuts_.enabled() ? absl::Milliseconds(1500) : absl::Seconds(4);  // many beats
    const Member* silent = nullptr;
    for (const auto& [member_id, member] : members_) {
      if (member.is_server && now_ - member.heard > suspicion && (silent == nullptr || member.heard < silent->heard)) {
        silent = &member;
      }
    }
    if (silent == nullptr && phase_ != v1::STARTING) {
      v1::RegisterReply reply;  // it knocks often: not worth a line each time
      reply.set_run(options_.run.value);
      reply.set_generation(generation_.value);
      reply.add_mismatch(absl::StrCat(who, " finds all ", want_servers_, " servers there"));
      reply.set_later(true);
      return reply;
    }
    if (silent != nullptr) id = silent->server.value;
    if (silent != nullptr)
      Lose(silent->id, absl::StrCat("nothing heard for ",
                                    absl::FormatDuration(absl::Trunc(now_ - silent->heard, absl::Milliseconds(100))),
                                    ", and another server has come"));
    if (ended()) return Refuse({absl::StrCat(who, " is too late: the job is ", v1::Phase_Name(phase_))});
  }
  if (mismatch.empty() && id >= want_servers_) {
    mismatch.push_back(absl::StrCat(who, " is one too many: the job has ", want_servers_, " servers, all registered"));
  }
  if (!mismatch.empty()) return Refuse(std::move(mismatch));

  Member member;
  member.id = MemberId(++last_member_);
  member.is_server = true;
  member.server = ServerId(id);
  member.host = Clip(request.host());
  member.address = Clip(request.address());
  member.pid = request.pid();
  member.nonce = request.nonce();
  member.memory_bytes = request.memory_bytes();
  member.registered = member.heard = now_;
  if (options_.adopt.has_value() && request.seat_run() == options_.run.value) {
    member.held.assign(request.seat().begin(), request.seat().end());
    member.held_generation = request.seat_generation();
  }
  Log(LogLine::Level::kInfo, absl::StrCat("registered: ", Name(member), " at ", member.address));
  const v1::RegisterReply reply = Welcome(member);
  members_.emplace(member.id, std::move(member));
  if (replicated_ && phase_ >= v1::RUNNING && !ended()) {
    for (ServerId server : replicas_.Joined(MemberId(reply.member()))) {
      Log(LogLine::Level::kInfo, absl::StrCat("server ", id, " becomes the backup of server ", server.value));
    }
  }
  Evolve();
  return reply;
}

v1::RegisterReply Coordinator::RegisterWorker(const v1::RegisterWorkerRequest& request, absl::Time now) {
  Advance(now);
  for (auto& [id, member] : members_) {
    if (request.nonce() != 0 && !member.is_server && member.nonce == request.nonce()) {
      member.heard = now_;
      return Welcome(member);
    }
  }
  const std::string who = absl::StrCat("the worker on host ", request.host());
  if (phase_ >= v1::SAVING) return Refuse({absl::StrCat(who, " is too late: the job is ", v1::Phase_Name(phase_))});
  if (members_.size() >= kMaxMembers) {
    return Refuse({absl::StrCat(who, " is one too many: the coordinator keeps ", kMaxMembers, " members at most")});
  }
  std::vector<std::string> mismatch = admission_.Worker(request);
  if (!mismatch.empty()) return Refuse(std::move(mismatch));
  if (admission_.mixed_numerics() && !mixed_told_) {
    mixed_told_ = true;
    Log(LogLine::Level::kWarning, "members differ in build, instruction set or libraries: results may differ in bits");
  }
  LearnLength();

  Member member;
  member.id = MemberId(++last_member_);
  member.host = Clip(request.host());
  member.pid = request.pid();
  member.nonce = request.nonce();
  member.registered = member.heard = now_;
  leases_.AddWorker(member.id, request.capacity());
  Log(LogLine::Level::kInfo, absl::StrCat("registered: ", Name(member)));
  const v1::RegisterReply reply = Welcome(member);
  members_.emplace(member.id, std::move(member));
  if (phase_ == v1::RUNNING) GrantOrphans();
  Evolve();
  return reply;
}

void Coordinator::LearnLength() {
  if (clocks_per_epoch_ != 0) return;
  clocks_per_epoch_ = ClocksPerEpoch(options_.job, admission_.train_rows());
  if (options_.job.length_case() == v1::JobSpec::kEpochs) clocks_ = ClocksOf(options_.job, clocks_per_epoch_);
}

// --- Phases
// --------------------------------------------------------------------------------------------------------------

uint64_t Coordinator::servers_there() const {
  return static_cast<uint64_t>(
      std::count_if(members_.begin(), members_.end(), [](const auto& m) { return m.second.is_server; }));
}

bool Coordinator::Starts() {
  const bool missed = options_.resumed && workers_there() > 0 && now_ - created_ > lease_;
  return servers_there() >= want_servers_ && (workers_there() >= want_workers_ || missed) && leases_.CanHoldAll();
}

bool Coordinator::PlanMemory() {
  std::vector<std::string> refused;
  uint64_t largest = 0;
  for (const auto& [id, member] : members_) {
    if (!member.is_server) continue;
    const auto needs = [&](ServerId server) {
      return options_.memory ? options_.memory(server, admission_.specs(), *map_, clocks_)
                             : EstimateMemory(options_, server, admission_.specs(), *map_);
    };
    MemoryPlan plan = needs(member.server);
    if (replicated_) {
      const uint64_t backup = needs(ServerId((member.server.value + want_servers_ - 1) % want_servers_)).bytes;
      plan.bytes += backup;
      absl::StrAppend(&plan.parts, ", backup of another server ", Bytes(backup));
    }
    if (plan.bytes >= largest) {
      largest = plan.bytes;
      memory_line_ = absl::StrCat("server ", member.server.value, " needs ", Bytes(plan.bytes), " of ",
                                  member.memory_bytes > 0 ? Bytes(member.memory_bytes) : "an unlimited budget", " (",
                                  plan.parts, ")");
    }
    if (member.memory_bytes > 0 && plan.bytes > member.memory_bytes) {
      refused.push_back(absl::StrCat(Name(member), " needs ", Bytes(plan.bytes), " (", plan.parts, ") and has ",
                                     Bytes(member.memory_bytes)));
    }
  }
  if (refused.empty()) {
    Log(LogLine::Level::kInfo, absl::StrCat("memory: ", memory_line_));
    return true;
  }
  Fail(absl::StrCat("the job does not fit into memory: ", absl::StrJoin(refused, "; "),
                    "; more servers or limits.server_bytes would help"));
  return false;
}

void Coordinator::Evolve() {
  if (phase_ == v1::STARTING && Starts()) {
    AdoptOrRestore();
    if (ended() || (!adopted_ && !CheckRestore())) return;
    map_ = MakePartitionMap(admission_.specs(), options_.geometry, want_servers_);
    if (!PlanMemory()) return;
    SetPhase(v1::PLACING, absl::StrCat(admission_.specs().size(), " tensors on ", want_servers_, " servers"));
  }
  if (phase_ == v1::PLACING) {
    if (wants_generation_ || servers_there() < want_servers_) return;
    PlaceReplicas();
    const bool placed = std::all_of(members_.begin(), members_.end(),
                                    [](const auto& m) { return !m.second.is_server || m.second.ready; });
    if (!placed || (replicated_ && !replicas_.CanRun())) return;
    SetPhase(v1::RUNNING, absl::StrCat(clocks_, " clocks, ", clocks_per_epoch_, " per epoch"));
    replicas_.Settle();
    if (recoveries_ == 0) running_since_ = now_;
    advanced_ = training_told_ = now_;
    cuts_.Start(restore_.has_value() ? restore_->number : 0, now_);
    for (RankState& rank : ranks_) rank.advanced = now_;
    samples_.assign(1, Totals());
    LogGrants(leases_.Spread(), "");
    if (!leases_.Orphans().empty()) orphans_since_ = now_;
    if (adopted_) Unsettle();
  }
  if (phase_ == v1::RUNNING) {
    // Under a stop a rank without a holder is as idle as one whose worker said so.
    bool idle = true, settled = true;
    for (uint32_t r = 0; r < ranks_.size() && settled; ++r) settled = Settled(r);
    if (stopping_ && !stop_told_.has_value() && (settled || now_ - stop_since_ >= options_.stop_grace)) {
      stop_told_ = now_;
    }
    for (uint32_t r = 0; r < ranks_.size() && idle; ++r) {
      idle = ranks_[r].done || (stopping_ && !leases_.holder(Rank(r)).has_value());
    }
    const bool grace_over = stop_told_.has_value() && now_ - *stop_told_ >= options_.stop_grace;
    if (idle || grace_over) {
      SetPhase(v1::SAVING, !stopping_ ? "every rank reached the end"
                           : idle     ? "stopped; every worker finished the clock in hand"
                                      : "stopped; the grace for workers to finish is over");
      if (!stopping_ && !cuts_.at_end()) {
        cuts_.Halt();  // the model is what is saved
      } else if (cuts_.enabled()) {
        cuts_.Demand(round(), now_);  // where the servers stand: no rank has anything under way
      }
    }
  }
}

void Coordinator::Unsettle() {
  for (RankState& rank : ranks_) rank.settles = kUnbounded;
}

bool Coordinator::Settled(uint32_t rank) const {
  const RankState& state = ranks_[rank];
  return state.done || state.clock >= state.settles || !leases_.holder(Rank(rank)).has_value();
}

void Coordinator::GrantOrphans() {
  if (stopping_) return;
  LogGrants(leases_.Fill(), "moved: ");
  if (leases_.Orphans().empty()) {
    orphans_since_.reset();
  } else if (!orphans_since_.has_value()) {
    orphans_since_ = now_;
    Log(LogLine::Level::kWarning, absl::StrCat(leases_.Orphans().size(), " ranks have no worker; waiting for one"));
  }
}

void Coordinator::LogGrants(const std::vector<LeaseTable::Grant>& grants, absl::string_view what) {
  std::map<MemberId, std::vector<std::string>> by_worker;
  for (const LeaseTable::Grant& grant : grants) {
    ranks_[grant.rank.value].advanced = now_;
    by_worker[grant.to].push_back(absl::StrCat(grant.rank.value, " (incarnation ", generation_.value, ".", grant.number,
                                               ", clock ", ranks_[grant.rank.value].clock, ")"));
  }
  for (const auto& [id, ranks] : by_worker) {
    Log(LogLine::Level::kInfo,
        absl::StrCat("lease ", what, Name(members_.at(id)), " holds ranks ", absl::StrJoin(ranks, ", ")));
  }
}

// --- Members that go
// -----------------------------------------------------------------------------------------------------

void Coordinator::Lose(MemberId id, absl::string_view why) {
  const auto it = members_.find(id);
  if (it == members_.end()) return;
  const Member member = std::move(it->second);
  members_.erase(it);
  last_death_ = absl::StrCat(Name(member), ": ", Clip(why));
  Log(ended() ? LogLine::Level::kInfo : LogLine::Level::kWarning, absl::StrCat("gone: ", last_death_));
  if (member.is_server) {
    watch_.Forget(id);
    ServerDied(member, why);
    return;
  }
  for (Rank rank : leases_.RemoveWorker(id)) {
    RankState& state = ranks_[rank.value];
    state.examples_before += state.examples;
    state.examples = 0;
  }
  if (phase_ == v1::RUNNING) GrantOrphans();
  Evolve();
}

void Coordinator::MemberLost(MemberId member, absl::string_view why, absl::Time now) {
  Advance(now);
  Lose(member, why);
}

void Coordinator::Leave(const v1::LeaveRequest& request, absl::Time now) {
  Advance(now);
  const auto it = members_.find(MemberId(request.member()));
  if (it == members_.end() || !IsOf(it->second, request.nonce())) return;
  Lose(it->first, request.why().empty() ? "left" : absl::StrCat("left: ", request.why()));
}

Coordinator::Member* Coordinator::FindLike(bool is_server, absl::string_view host, uint64_t pid) {
  if (pid == 0) return nullptr;
  for (auto& [id, member] : members_) {
    if (member.is_server == is_server && member.pid == pid && member.host == host) return &member;
  }
  return nullptr;
}

void Coordinator::ReportFailure(const v1::FailureReport& report, absl::Time now) {
  Advance(now);
  auto it = report.own() ? members_.find(MemberId(report.member())) : members_.end();
  if (it != members_.end() && !IsOf(it->second, report.nonce())) it = members_.end();
  Member* member =
      it != members_.end() ? &it->second : FindLike(report.role() == "server", report.host(), report.pid());
  const std::string who = member != nullptr
                              ? Name(*member)
                              : absl::StrCat(report.role().empty() ? "a process" : Clip(report.role()), " on host ",
                                             Clip(report.host()), " (pid ", report.pid(), ")");
  const std::string text = absl::StrCat(who, ": ", Clip(report.cause()));
  absl::Time when = now_;
  if (report.unix_seconds() > 0) when = std::min(when, absl::UnixEpoch() + absl::Seconds(report.unix_seconds()));
  Log(LogLine::Level::kError, absl::StrCat("reported as ", report.own() ? "its own failure: " : "a peer's: ", text));

  if (report.own()) {
    // A standby-to-be that can't even register harms nobody once the job runs.
    if (member == nullptr && phase_ != v1::STARTING && phase_ != v1::FAILED) return;
    if (ended() && phase_ != v1::FAILED) return;
    first_.Own(when, text);
    Fail(text);
    return;
  }
  // A worker's death is mended by its leases; it explains a failure only where nobody is left, and last_death_ tells
  // that.
  if (member == nullptr || member->is_server) first_.Peer(when, text);
  if (member != nullptr) Lose(member->id, report.cause());
}

// --- Time and the end
// ----------------------------------------------------------------------------------------------------

void Coordinator::Tick(absl::Time now) {
  Advance(now);
  const absl::Duration patience = replicated_ ? std::min(lease_, kCoveredSilence) : lease_;
  if (ticked_.has_value() && now_ - *ticked_ > patience / 4) {
    const absl::Duration absence = now_ - *ticked_;
    for (auto& [id, member] : members_) member.heard = std::min(now_, member.heard + absence);
    for (RankState& rank : ranks_) rank.advanced = std::min(now_, rank.advanced + absence);
    advanced_ = std::min(now_, advanced_ + absence);
    Log(LogLine::Level::kWarning,
        absl::StrCat("the coordinator did not run for ",
                     absl::FormatDuration(absl::Trunc(absence, absl::Milliseconds(1))), "; leases are longer by that"));
  }
  ticked_ = now_;
  if (ended()) return;
  TendCuts();
  TendBackups();

  std::vector<MemberId> silent;
  for (const auto& [id, member] : members_) {
    // One whose backups can take over at once is not waited for: should it live, it loses nothing but its place.
    const bool covered = member.is_server && phase_ == v1::RUNNING && replicated_ && replicas_.Covers(id);
    if (now_ - member.heard > (covered ? std::min(lease_, kCoveredSilence) : lease_)) silent.push_back(id);
  }
  for (MemberId id : silent) {
    const auto it = members_.find(id);
    if (it == members_.end() || ended()) continue;
    Lose(id, absl::StrCat("nothing heard for ",
                          absl::FormatDuration(absl::Trunc(now_ - it->second.heard, absl::Milliseconds(100))),
                          "; the lease is ", absl::FormatDuration(lease_)));
    if (phase_ == v1::RUNNING && replicated_) break;  // it may have been the backup of the next
  }
  Evolve();
  if (ended()) return;

  if (phase_ == v1::STARTING && now_ - created_ > start_timeout_) {
    Fail(absl::StrCat("the job did not start within ", absl::FormatDuration(start_timeout_), ": ", MissingText()));
  } else if (phase_ == v1::PLACING && now_ - phase_since_ > start_timeout_) {
    Fail(absl::StrCat("servers did not make their blocks within ", absl::FormatDuration(start_timeout_), ": ",
                      MissingText()));
  } else if (phase_ == v1::RUNNING && !stopping_) {
    if (orphans_since_.has_value() && now_ - *orphans_since_ > start_timeout_) {
      Fail(absl::StrCat("no worker is left for ", leases_.Orphans().size(), " of ", ranks_.size(), " ranks since ",
                        absl::FormatDuration(start_timeout_), "; the last to go was ", last_death_));
    } else if (!orphans_since_.has_value() && now_ - advanced_ > stall_timeout_) {
      Fail(StallText());
    }
  }
  if (phase_ == v1::RUNNING && now_ - samples_.back().time >= absl::Milliseconds(500)) {
    samples_.push_back(Totals());
    while (samples_.size() > 2 && now_ - samples_.front().time > absl::Seconds(10)) samples_.pop_front();
  }
}

void Coordinator::Stop(const v1::StopRequest& request, absl::Time now) {
  Advance(now);
  if (ended()) return;
  if (request.signal() != 0 && stop_signal_ == 0) stop_signal_ = request.signal();
  // What a run that is being recovered has reached lies in its last cut.
  const bool nothing_to_save = phase_ == v1::STARTING || (phase_ == v1::PLACING && !adopted_);
  if (request.at_once() || nothing_to_save) {
    stopping_ = true;
    SetPhase(v1::STOPPED,
             nothing_to_save ? "stopped before training began" : "stopped at once, the model is not saved");
    return;
  }
  if (stopping_) return;  // every server of a group that is stopped passes its signal on: one stop, not two
  stopping_ = true;
  stop_since_ = now_;
  Log(LogLine::Level::kInfo, absl::StrCat("asked to stop (signal ", request.signal(), "); saving the model"));
  Evolve();
}

void Coordinator::SaveFinished(const absl::Status& status, absl::string_view model_dir,
                               absl::string_view parameters_sha256, absl::string_view state_sha256, absl::Time now) {
  Advance(now);
  if (phase_ != v1::SAVING) return;
  // A server that can't be read has died, which its lease or its supervisor will tell, or is slow: the owner tries
  // again.
  if (absl::IsUnavailable(status) && now_ - phase_since_ < start_timeout_) {
    Log(LogLine::Level::kWarning, absl::StrCat("the model is not saved yet: ", status.message()));
    return;
  }
  if (!status.ok()) {
    Fail(absl::StrCat("the model could not be saved: ", status.message()));
    return;
  }
  model_dir_ = std::string(model_dir);
  parameters_sha256_ = std::string(parameters_sha256);
  state_sha256_ = std::string(state_sha256);
  SetPhase(stopping_ ? v1::STOPPED : v1::FINISHED, absl::StrCat("the model is in ", model_dir_));
}

bool Coordinator::AllGone(absl::Time now) const {
  if (!ended()) return false;
  if (now - ended_at_ >= options_.leave_grace) return true;
  return std::all_of(members_.begin(), members_.end(), [](const auto& m) { return m.second.told_end; });
}

std::vector<MetricRecord> Coordinator::DrainRecords() { return std::exchange(records_, {}); }
std::vector<LogLine> Coordinator::DrainLog() { return std::exchange(log_, {}); }

}  // namespace descent
