// Heartbeats: leases renewed, progress taken in, metrics merged, and the news given back.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "server/coordinator/coordinator.h"

namespace descent {
namespace {

// Where cuts are ordered an order must reach every server soon; with replicas whoever is promoted, and whoever talks to
// it.
constexpr uint32_t kServerBeatMs = 100;

}  // namespace

v1::HeartbeatReply Coordinator::Heartbeat(const v1::HeartbeatRequest& request, absl::Time now) {
  Advance(now);
  v1::HeartbeatReply reply;
  Member* const found = members_.FindAs(MemberId(request.member()), request.nonce());
  if (found == nullptr || request.run() != options_.run.value) {
    reply.set_unknown_member(true);
    reply.set_phase(phase_);
    reply.set_generation(generation_.value);
    reply.set_message(found == nullptr
                          ? absl::StrCat("member ", request.member(), " is not known: its lease of ",
                                         absl::FormatDuration(lease_), " ended, or it left; register again")
                          : absl::StrFormat("run %016x; expected run %016x", request.run(), options_.run.value));
    reply.set_next_ms(NextMs());
    return reply;
  }
  Member& member = *found;
  member.heard = now_;
  // What is said of a generation that is over counts no more.
  const bool current = request.generation() == generation_.value && !wants_generation_;
  if (member.is_server) {
    TakeServersWord(request, current, &member);
  } else {
    member.ready = request.ready() && current;
    // In a new generation its ranks begin where that has them.
    if (current && (phase_ == v1::RUNNING || phase_ == v1::SAVING)) TakeProgress(member, request);
  }
  Evolve();

  reply.set_phase(phase_);
  reply.set_generation(generation_.value);
  const bool told = replication_.MayBeTold();
  if (told && (!member.ready || (!member.is_server && request.moves() != replication_.moves()))) {
    AddPlacement(member, &reply);
  }
  reply.set_moves(replication_.moves());
  if (told && member.is_server && !wants_generation_ && !ended()) {
    for (v1::Seat& seat : replication_.SeatsOf(member.id)) *reply.add_seat() = std::move(seat);
  }
  if (member.is_server && current && cuts_.stage() == CutSchedule::Stage::kOrdered) {
    reply.mutable_cut()->set_number(cuts_.number());
    reply.mutable_cut()->set_attempt(cuts_.attempt());
    reply.mutable_cut()->set_at(cuts_.at());
    reply.mutable_cut()->set_folder(cut_folder);
  }
  for (uint32_t r = 0; r < ranks_.size() && phase_ == v1::RUNNING; ++r) {
    if (member.is_server ? leases_.number(Rank(r)) > 0 : leases_.holder(Rank(r)) == member.id) {
      *reply.add_leases() = ToMessage(Rank(r), Incarnation{generation_, leases_.number(Rank(r))});
    }
  }
  reply.set_stop(stop_.told() || (stopping() && phase_ != v1::RUNNING));
  reply.set_message(Message());
  reply.set_next_ms(NextMs());
  if (replication_.enabled() || (member.is_server && cuts_.enabled())) {
    reply.set_next_ms(std::min<uint32_t>(reply.next_ms(), kServerBeatMs));
  }
  if (member.is_server && steering_.changes_rate()) {
    reply.set_next_ms(std::min<uint32_t>(reply.next_ms(), kServerBeatMs));
    const auto& changes = steering_.state().rate_change();
    if (!current || member.rate_changes != static_cast<uint32_t>(changes.size()))
      *reply.mutable_rate_change() = changes;
  }
  if (const std::optional<uint64_t> below = BeginBelow(); below.has_value()) reply.set_begin_below(*below);
  reply.set_clocks(clocks_);
  reply.set_clocks_per_epoch(clocks_per_epoch_);
  reply.set_train_rows(admission_.train_rows());
  if (ended()) member.told_end = true;
  return reply;
}

void Coordinator::TakeServersWord(const v1::HeartbeatRequest& request, bool current, Member* server) {
  if (request.has_load() && current) {
    if (request.load().round() > server->load.round()) advanced_ = now_;
    server->load = request.load();
  }
  if (request.ready() && current && phase_ == v1::PLACING && !server->ready) {
    log_.Info(absl::StrCat("placed: ", NameOf(*server), " has made its blocks"));
  }
  server->ready = request.ready() && current && map_.has_value();
  server->rate_changes = current ? request.rate_changes() : 0;
  const bool running = phase_ == v1::RUNNING || phase_ == v1::SAVING;
  for (const v1::SeatReport& report : request.seat()) {
    if (current) replication_.Report(server->id, report, running, now_);
  }
  server->ready = server->ready && replication_.Ready(server->id);
  for (const v1::CutReport& report : request.cut()) {
    const ServerId of = replication_.enabled() ? ServerId(report.server()) : server->server;
    if (current && replication_.Serves(*server, of)) cuts_.Report(of, report, now_);
  }
}

void Coordinator::AddPlacement(const Member& member, v1::HeartbeatReply* reply) const {
  if (!map_.has_value() || ended() || wants_generation_) return;
  const bool goes_on = replication_.enabled() && phase_ >= v1::RUNNING;  // backups stand in for who is missing
  if (members_.servers() < want_servers_ && !goes_on) return;
  // A worker connects to the servers, whose addresses hold once all of them have their blocks.
  if (!member.is_server && phase_ == v1::PLACING) return;
  for (const TensorSpec& spec : admission_.specs()) *reply->add_tensors() = ToMessage(spec);
  *reply->mutable_map() = ToMessage(*map_);
  for (std::string& address : addresses()) reply->mutable_map()->add_address(std::move(address));
  if (!member.is_server || !restore_.has_value() || replication_.adopted()) return;
  reply->mutable_restore()->set_folder(restore_->folder);
  reply->mutable_restore()->set_number(restore_->number);
  for (uint64_t clock : restore_->clocks) reply->mutable_restore()->add_clock(clock);
}

void Coordinator::TakeProgress(const Member& worker, const v1::HeartbeatRequest& request) {
  // Of a rank that has moved on, only its holder is believed.
  const auto held = [&](uint32_t rank) { return rank < ranks_.size() && leases_.holder(Rank(rank)) == worker.id; };
  for (const v1::RankProgress& progress : request.progress()) {
    if (!held(progress.rank())) continue;
    const uint64_t clock = std::min(progress.clock(), clocks_);
    if (ranks_.Report(Rank(progress.rank()), clock, progress.examples(), progress.done(), now_)) advanced_ = now_;
  }
  if (replication_.MayBeTold() && request.moves() == replication_.moves()) {
    for (Rank rank : leases_.RanksOf(worker.id)) ranks_.BeginSettling(rank);
  }
  for (const v1::TrainingPart& part : request.training()) {
    if (!held(part.rank()) || part.first() >= clocks_ || part.clocks() > clocks_ - part.first()) continue;
    metrics_.AddTraining(part);
  }
  for (const v1::EvaluationPart& part : request.evaluation()) {
    if (!held(part.rank()) || part.clock() > clocks_) continue;
    advanced_ = now_;
    ranks_.Touch(Rank(part.rank()), now_);
    const uint64_t before = metrics_.evaluations();
    for (std::string& text : metrics_.AddEvaluation(part, now_)) log_.Warning(std::move(text));
    if (metrics_.evaluations() == before) continue;
    steering_.Evaluated(*metrics_.last_evaluation(), clocks_);
    evaluated_ = now_;
  }
  for (const v1::RankProgress& progress : request.progress()) {
    if (held(progress.rank()) && progress.done()) metrics_.Done(Rank(progress.rank()));
  }
  metrics_.CloseWindows(now_, members_.Steps());
}

absl::Status Coordinator::TakeScalars(ServerId server, const v1::ScalarPartials& partials) {
  ScalarMerge& merge = partials.before_step() ? metrics_.step_scalars() : metrics_.scalars();
  const bool norms = metrics_.wants_norms() && !partials.before_step();
  const std::string refused = partials.norms_only() ? metrics_.norms_refusal(server) : merge.refusal(server);
  absl::Status added;
  if (!partials.norms_only()) added = merge.Add(server, partials, *map_);
  if (added.ok() && norms) added = metrics_.AddNorms(server, partials, *map_, admission_.specs(), now_);
  if (!added.ok() && added.message() != refused) log_.Warning(absl::StrCat("scalars refused: ", added.message()));
  return added;
}

absl::StatusOr<v1::ScalarTotals> Coordinator::AgreeScalars(const v1::ScalarPartials& partials, absl::Time now) {
  Advance(now);
  Member* const member = members_.Find(MemberId(partials.member()));
  if (member == nullptr || !member->is_server) {
    return absl::NotFoundError(absl::StrCat("member ", partials.member(), " is not a server of this job"));
  }
  if (partials.generation() != generation_.value || !map_.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat("scalars of generation ", partials.generation(), "; expected ",
                                                      generation_.value,
                                                      map_.has_value() ? "" : ", once blocks are placed"));
  }
  member->heard = now_;
  const ServerId server = replication_.enabled() ? ServerId(partials.server()) : member->server;
  if (!replication_.Serves(*member, server)) {
    return absl::FailedPreconditionError(
        absl::StrCat("scalars of server ", server.value, ", which ", NameOf(*member), " does not serve"));
  }
  DESCENT_RETURN_IF_ERROR(TakeScalars(server, partials));
  for (const v1::ScalarPartials& also : partials.also()) DESCENT_RETURN_IF_ERROR(TakeScalars(server, also));
  const ScalarMerge& merge = partials.before_step() ? metrics_.step_scalars() : metrics_.scalars();
  v1::ScalarTotals reply;
  if (const ScalarTotals* totals = merge.Totals(partials.clock()); totals != nullptr) {
    reply = ToMessage(*totals);
    reply.set_square(SumOfSquares(*totals));
  }
  return reply;
}

}  // namespace descent
