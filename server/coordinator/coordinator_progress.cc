// Heartbeats: leases renewed, progress taken in, metrics merged, and the news given back.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/control/messages.h"
#include "common/job/learning_rate_schedule.h"
#include "server/coordinator/coordinator.h"

namespace descent {
namespace {

// Where cuts are ordered an order must reach every server soon; with replicas whoever is promoted, and whoever talks to
// it.
constexpr uint32_t kServerBeatMs = 100;

}  // namespace

// ----------------------------------------------------------------------------------------------------------

v1::HeartbeatReply Coordinator::Heartbeat(const v1::HeartbeatRequest& request, absl::Time now) {
  Advance(now);
  v1::HeartbeatReply reply;
  auto it = members_.find(MemberId(request.member()));
  if (it != members_.end() && !IsOf(it->second, request.nonce())) it = members_.end();
  if (it == members_.end() || request.run() != options_.run.value) {
    reply.set_unknown_member(true);
    reply.set_phase(phase_);
    reply.set_generation(generation_.value);
    reply.set_message(it == members_.end()
                          ? absl::StrCat("member ", request.member(), " is not known: its lease of ",
                                         absl::FormatDuration(lease_), " ended, or it left; register again")
                          : absl::StrFormat("run %016x; expected run %016x", request.run(), options_.run.value));
    reply.set_next_ms(NextMs());
    return reply;
  }
  Member& member = it->second;
  member.heard = now_;
  // What is said of a generation that is over counts no more.
  const bool current = request.generation() == generation_.value && !wants_generation_;
  if (member.is_server) {
    if (request.has_load() && current) {
      if (request.load().round() > member.load.round()) advanced_ = now_;
      member.load = request.load();
    }
    if (request.ready() && current && phase_ == v1::PLACING && !member.ready) {
      Log(LogLine::Level::kInfo, absl::StrCat("placed: ", Name(member), " has made its blocks"));
    }
    member.ready = request.ready() && current && map_.has_value();
    for (const v1::SeatReport& report : request.seat()) {
      if (current && replicas_.Report(member.id, report) && report.primary()) WatchBackup(report);
    }
    if (replicated_) member.ready = member.ready && replicas_.Ready(member.id);
    for (const v1::CutReport& report : request.cut()) {
      if (!current) break;
      const ServerId server = replicated_ ? ServerId(report.server()) : member.server;
      if (!replicated_ || replicas_.IsPrimary(member.id, server)) cuts_.Report(server, report, now_);
    }
  } else {
    member.ready = request.ready() && current;
    if (!current) {
      // Its ranks begin where the new generation has them.
    } else if (phase_ == v1::RUNNING || phase_ == v1::SAVING)
      TakeProgress(member, request);
  }
  Evolve();

  reply.set_phase(phase_);
  reply.set_generation(generation_.value);
  // Nobody hears of primaries and backups that have changed before that is lasting.
  const bool lasting = replicas_.changes() == lasting_change_;
  if (lasting && (!member.ready || (!member.is_server && request.moves() != moves_))) {
    AddPlacement(member, request, &reply);
  }
  reply.set_moves(moves_);
  if (lasting && member.is_server && replicated_ && !wants_generation_ && !ended()) {
    for (v1::Seat& seat : replicas_.SeatsOf(member.id)) *reply.add_seat() = std::move(seat);
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
  reply.set_stop(stop_told_.has_value() || (stopping_ && phase_ != v1::RUNNING));
  reply.set_message(Message());
  reply.set_next_ms(NextMs());
  if (member.is_server ? cuts_.enabled() || replicated_ : replicated_) {
    reply.set_next_ms(std::min<uint32_t>(reply.next_ms(), kServerBeatMs));
  }
  reply.set_clocks(clocks_);
  reply.set_clocks_per_epoch(clocks_per_epoch_);
  reply.set_train_rows(admission_.train_rows());
  if (ended()) member.told_end = true;
  return reply;
}

void Coordinator::TakeProgress(const Member& worker, const v1::HeartbeatRequest& request) {
  // Of a rank that has moved on, only its holder is believed.
  const auto held = [&](uint32_t rank) { return rank < ranks_.size() && leases_.holder(Rank(rank)) == worker.id; };
  for (const v1::RankProgress& progress : request.progress()) {
    if (!held(progress.rank())) continue;
    RankState& rank = ranks_[progress.rank()];
    const uint64_t clock = std::min(progress.clock(), clocks_);
    if (clock > rank.clock) {
      rank.clock = clock;
      rank.advanced = advanced_ = now_;
    }
    rank.examples = std::max(rank.examples, progress.examples());
    if (progress.done() && !rank.done) {
      rank.done = true;
      rank.advanced = advanced_ = now_;
    }
  }
  const bool placed = replicas_.changes() == lasting_change_ && request.moves() == moves_;
  for (uint32_t r = 0; r < ranks_.size() && placed; ++r) {
    if (ranks_[r].settles == kUnbounded && held(r)) ranks_[r].settles = ranks_[r].clock + 1;
  }
  for (const v1::TrainingPart& part : request.training()) {
    if (!held(part.rank()) || part.first() >= clocks_ || part.clocks() > clocks_ - part.first()) continue;
    training_.Add(part);
  }
  for (const v1::EvaluationPart& part : request.evaluation()) {
    if (!held(part.rank()) || part.clock() > clocks_) continue;
    advanced_ = ranks_[part.rank()].advanced = now_;
    std::vector<std::string> dropped;
    std::optional<MetricRecord> record = evaluation_.Add(part, &dropped);
    for (std::string& text : dropped) Log(LogLine::Level::kWarning, std::move(text));
    if (record.has_value()) EmitEvaluation(*std::move(record));
  }
  for (const v1::RankProgress& progress : request.progress()) {
    if (held(progress.rank()) && progress.done()) training_.Done(Rank(progress.rank()));
  }
  EmitTraining();
}

void Coordinator::EmitTraining() {
  // Several windows may come with one heartbeat; they share the time since the last one that came.
  std::vector<MetricRecord> fresh;
  double examples = 0;
  while (std::optional<MetricRecord> record = training_.Next()) {
    examples += static_cast<double>(record->weight);
    fresh.push_back(*std::move(record));
  }
  if (fresh.empty()) return;
  const double seconds = absl::ToDoubleSeconds(now_ - training_told_);
  training_told_ = now_;
  const StepCounts steps = Steps();
  std::optional<double> clipped;
  if (options_.job.has_clip()) clipped = ShareSince(clipped_told_, steps);
  clipped_told_ = steps;
  const LearningRateSchedule rate(options_.job, clocks_per_epoch_);
  for (MetricRecord& record : fresh) {
    record.time = now_;
    record.epoch = EpochOf(record.clock);
    const uint64_t first = record.clock == 0 ? 0 : (record.clock - 1) / metrics_every_ * metrics_every_;
    record.rate = rate.At(record.clock - 1);
    if (seconds > 0) record.examples_per_second = examples / seconds;
    const std::optional<double> square = scalars_.SquareWithin(first, record.clock);
    if (square.has_value()) record.gradient_norm = std::sqrt(*square);
    record.clipped = clipped;
    last_training_ = record;
    records_.push_back(std::move(record));
  }
}

Coordinator::StepCounts Coordinator::Steps() const {
  StepCounts counts;
  for (const auto& [id, member] : members_) {
    counts.steps += member.load.steps();
    counts.clipped += member.load.clipped();
  }
  return counts;
}

std::optional<double> Coordinator::ShareSince(const StepCounts& before, const StepCounts& now) {
  // A server that began again counts from 0.
  if (now.steps <= before.steps || now.clipped < before.clipped) return std::nullopt;
  return static_cast<double>(now.clipped - before.clipped) / static_cast<double>(now.steps - before.steps);
}

void Coordinator::EmitEvaluation(MetricRecord record) {
  record.time = now_;
  record.epoch = EpochOf(record.clock);
  last_evaluation_ = record;
  records_.push_back(std::move(record));
}

absl::StatusOr<v1::ScalarTotals> Coordinator::AgreeScalars(const v1::ScalarPartials& partials, absl::Time now) {
  Advance(now);
  const auto it = members_.find(MemberId(partials.member()));
  if (it == members_.end() || !it->second.is_server) {
    return absl::NotFoundError(absl::StrCat("member ", partials.member(), " is not a server of this job"));
  }
  if (partials.generation() != generation_.value || !map_.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat("scalars of generation ", partials.generation(), "; expected ",
                                                      generation_.value,
                                                      map_.has_value() ? "" : ", once blocks are placed"));
  }
  it->second.heard = now_;
  const ServerId server = replicated_ ? ServerId(partials.server()) : it->second.server;
  if (replicated_ && !replicas_.IsPrimary(it->first, server)) {
    return absl::FailedPreconditionError(
        absl::StrCat("scalars of server ", server.value, ", which ", Name(it->second), " does not serve"));
  }
  ScalarMerge& merge = partials.before_step() ? step_scalars_ : scalars_;
  const absl::Status added = merge.Add(server, partials, *map_);
  if (!added.ok()) return added;
  v1::ScalarTotals reply;
  if (const ScalarTotals* totals = merge.Totals(partials.clock()); totals != nullptr) {
    reply = ToMessage(*totals);
    reply.set_square(SumOfSquares(*totals));
  }
  return reply;
}

}  // namespace descent
