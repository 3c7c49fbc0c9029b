// Members that come and go: registration, whose place a server takes, deaths and reported failures.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/features/fitted_features.h"
#include "common/job/job.h"
#include "common/wire/frame.h"
#include "server/coordinator/coordinator.h"

namespace descent {

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

// --- Registration ----------------------------------------------------------------------------------------------------

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
    log_.Warning(absl::StrCat("refused: ", sentence));
    reply.add_mismatch(std::move(sentence));
  }
  return reply;
}

std::string Coordinator::TooLateText(const std::string& who) const {
  return absl::StrCat(who, " is too late: the job is ", v1::Phase_Name(phase_));
}

v1::RegisterReply Coordinator::RegisterServer(const v1::RegisterServerRequest& request, absl::Time now) {
  Advance(now);
  if (Member* const again = members_.FindNonce(true, request.nonce()); again != nullptr) {
    again->heard = now_;
    return Welcome(*again);
  }
  const std::string who = absl::StrCat("the server on host ", request.host());
  if (ended()) return TooLate(who);
  // Two processes can't have one address: who had it before is gone, unless two are started by mistake.
  for (MemberId before : members_.ServersAt(request.address())) {
    if (phase_ == v1::STARTING && now_ - members_.Find(before)->heard <= absl::Seconds(1)) continue;
    Lose(before, "another process has come up at its address");
  }
  if (ended()) return TooLate(who);
  std::vector<std::string> mismatch = admission_.Server(request);
  ServerId id = members_.FreeServer();
  for (MemberId other : members_.ServersAt(request.address())) {
    mismatch.push_back(absl::StrCat(who, " gives the address ", request.address(), ", which is that of ",
                                    NameOf(*members_.Find(other)), "; expected one of its own"));
  }
  if (mismatch.empty() && id.value >= want_servers_) {
    // It comes in the place of a dead one, sooner than the dead one's lease tells.
    const absl::Duration suspicion = cuts_.enabled() ? absl::Milliseconds(1500) : absl::Seconds(4);  // many beats
    const Member* const silent = members_.MostSilentServer(suspicion, now_);
    if (silent == nullptr && phase_ != v1::STARTING) {
      v1::RegisterReply reply;  // it knocks often: not worth a line each time
      reply.set_run(options_.run.value);
      reply.set_generation(generation_.value);
      reply.add_mismatch(absl::StrCat(who, " finds all ", want_servers_, " servers there"));
      reply.set_later(true);
      return reply;
    }
    if (silent != nullptr) {
      id = silent->server;
      Lose(silent->id, absl::StrCat("nothing heard for ",
                                    absl::FormatDuration(absl::Trunc(now_ - silent->heard, absl::Milliseconds(100))),
                                    ", and another server has come"));
    }
    if (ended()) return TooLate(who);
  }
  if (mismatch.empty() && id.value >= want_servers_) {
    mismatch.push_back(absl::StrCat(who, " is one too many: the job has ", want_servers_, " servers, all registered"));
  }
  if (!mismatch.empty()) return Refuse(std::move(mismatch));

  Member server;
  server.is_server = true;
  server.server = id;
  server.host = request.host();
  server.address = request.address();
  server.pid = request.pid();
  server.nonce = request.nonce();
  server.memory_bytes = request.memory_bytes();
  server.heard = now_;
  if (options_.adopt.has_value() && request.seat_run() == options_.run.value) {
    server.held.assign(request.seat().begin(), request.seat().end());
    server.held_generation = request.seat_generation();
  }
  const Member& member = members_.Add(std::move(server));
  log_.Info(absl::StrCat("registered: ", NameOf(member), " at ", member.address));
  const v1::RegisterReply reply = Welcome(member);
  if (phase_ >= v1::RUNNING && !ended()) replication_.Joined(member);
  Evolve();
  return reply;
}

v1::RegisterReply Coordinator::RegisterWorker(const v1::RegisterWorkerRequest& request, absl::Time now) {
  Advance(now);
  if (Member* const again = members_.FindNonce(false, request.nonce()); again != nullptr) {
    again->heard = now_;
    return Welcome(*again);
  }
  const std::string who = absl::StrCat("the worker on host ", request.host());
  if (phase_ >= v1::SAVING) return TooLate(who);
  if (members_.size() >= MemberTable::kMaxMembers) {
    return Refuse(
        {absl::StrCat(who, " is one too many: the coordinator keeps ", MemberTable::kMaxMembers, " members at most")});
  }
  std::vector<std::string> mismatch = admission_.Worker(request);
  if (!mismatch.empty()) return Refuse(std::move(mismatch));
  if (admission_.mixed_numerics() && !mixed_told_) {
    mixed_told_ = true;
    log_.Warning("members differ in build, instruction set or libraries: results may differ in bits");
  }
  LearnLength();

  Member worker;
  worker.host = request.host();
  worker.pid = request.pid();
  worker.nonce = request.nonce();
  worker.heard = now_;
  const Member& member = members_.Add(std::move(worker));
  leases_.AddWorker(member.id, request.capacity());
  log_.Info(absl::StrCat("registered: ", NameOf(member)));
  const v1::RegisterReply reply = Welcome(member);
  if (phase_ == v1::RUNNING) GrantOrphans();
  Evolve();
  return reply;
}

v1::ShareStatisticsReply Coordinator::ShareStatistics(const v1::ShareStatisticsRequest& request, absl::Time now) {
  Advance(now);
  const std::string who = absl::StrCat("the worker on host ", request.host());
  v1::ShareStatisticsReply reply;
  if (ended()) {
    reply.set_mismatch(TooLateText(who));
  } else if (request.protocol() != kProtocolVersion || request.job_fingerprint() != options_.job_fingerprint) {
    reply.set_mismatch(
        absl::StrFormat("%s speaks protocol version %d and has a job of fingerprint %016x; expected %d, %016x", who,
                        request.protocol(), request.job_fingerprint(), kProtocolVersion, options_.job_fingerprint));
  } else {
    reply = statistics_.Share(request, now_);
    if (request.has_unit() && reply.mismatch().empty()) statistics_at_ = now_;
  }
  if (!reply.mismatch().empty()) log_.Warning(absl::StrCat("refused: ", reply.mismatch()));
  if (const std::string warning = statistics_.TakeWarning(); !warning.empty()) log_.Warning(warning);
  return reply;
}

void Coordinator::LearnLength() {
  if (clocks_per_epoch_ != 0) return;
  if (const std::string constant = ConstantColumnsText(admission_.features()); !constant.empty()) {
    log_.Warning(constant);
  }
  clocks_per_epoch_ = ClocksPerEpoch(options_.job, admission_.epoch_rows());
  if (options_.job.length_case() == v1::JobSpec::kEpochs) clocks_ = ClocksOf(options_.job, clocks_per_epoch_);
  metrics_.SetEpochs(clocks_per_epoch_, admission_.train_rows());
}

// --- Deaths ----------------------------------------------------------------------------------------------------------

void Coordinator::Lose(MemberId id, absl::string_view why) {
  const std::optional<Member> member = members_.Remove(id);
  if (!member.has_value()) return;
  last_death_ = absl::StrCat(NameOf(*member), ": ", Clip(why));
  log_.Add(ended() ? LogLine::Level::kInfo : LogLine::Level::kWarning, absl::StrCat("gone: ", last_death_));
  if (member->is_server) {
    replication_.Forget(id);
    ServerDied(*member, why);
    return;
  }
  for (Rank rank : leases_.RemoveWorker(id)) ranks_.EndLease(rank);
  if (phase_ == v1::RUNNING) GrantOrphans();
  Evolve();
}

void Coordinator::ServerDied(const Member& server, absl::string_view why) {
  if (phase_ == v1::STARTING || ended()) return;  // it holds nothing yet, or nothing that is still wanted
  if (GoesOnWithout(server)) return;
  const bool adopted = replication_.Halt();
  if (adopted && phase_ == v1::PLACING) wants_generation_ = true;  // what was held counts
  if (stopping() && !ended_by_rule_) {
    Fail(absl::StrCat(NameOf(server), " is gone: ", Clip(why),
                      ", while the run was being stopped; its last cut is that of ", cuts_.last()));
    return;
  }
  ForgetEnd();  // what it goes on from will lead there again
  // Else nothing was pushed since: whoever comes joins this generation.
  if (phase_ != v1::PLACING || wants_generation_) {
    RollBack(absl::StrCat(NameOf(server), " died: ", Clip(why)));
  } else {
    members_.NobodyIsReady();
  }
}

bool Coordinator::GoesOnWithout(const Member& server) {
  if (wants_generation_ || (phase_ != v1::RUNNING && phase_ != v1::SAVING)) return false;
  const uint64_t promotions = replication_.promotions();
  if (!replication_.GoesOnWithout(server)) return false;
  if (replication_.promotions() > promotions) ranks_.UnsettleAll();
  cuts_.Disturbed(absl::StrCat(NameOf(server), " is gone"), now_);
  return true;
}

void Coordinator::MemberLost(MemberId member, absl::string_view why, absl::Time now) {
  Advance(now);
  Lose(member, why);
}

void Coordinator::Leave(const v1::LeaveRequest& request, absl::Time now) {
  Advance(now);
  const Member* const member = members_.FindAs(MemberId(request.member()), request.nonce());
  if (member == nullptr) return;
  Lose(member->id, request.why().empty() ? "left" : absl::StrCat("left: ", request.why()));
}

void Coordinator::ReportFailure(const v1::FailureReport& report, absl::Time now) {
  Advance(now);
  const Member* member = report.own() ? members_.FindAs(MemberId(report.member()), report.nonce()) : nullptr;
  if (member == nullptr) member = members_.FindProcess(report.role() == "server", report.host(), report.pid());
  const std::string who = member != nullptr
                              ? NameOf(*member)
                              : absl::StrCat(report.role().empty() ? "a process" : Clip(report.role()), " on host ",
                                             Clip(report.host()), " (pid ", report.pid(), ")");
  const std::string text = absl::StrCat(who, ": ", Clip(report.cause()));
  absl::Time when = now_;
  if (report.unix_seconds() > 0) when = std::min(when, absl::UnixEpoch() + absl::Seconds(report.unix_seconds()));
  log_.Error(absl::StrCat("reported as ", report.own() ? "its own failure: " : "a peer's: ", text));

  if (report.own() && report.diverged_generation() != 0 && steering_.rolls_back()) {
    // Others may have said so before, and then that generation is over.
    if (report.diverged_generation() != generation_.value || phase_ != v1::RUNNING || stopping()) return;
    const MetricRecord record = steering_.NotFinite(round(), text);
    log_.Info(absl::StrCat("decided at clock ", record.clock, ": ", record.decision, ": ", record.why));
    metrics_.AddDecision(record, now_);
    EndDivergence();
    return;
  }
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

}  // namespace descent
