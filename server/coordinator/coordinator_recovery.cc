// What becomes of a run when a server, or the coordinator before this one, has died; and the cuts that it goes on from.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/control/messages.h"
#include "server/coordinator/coordinator.h"

namespace descent {
namespace {

// A run whose servers die as soon as they train would go round for ever.
constexpr uint32_t kMostFruitless = 20;

// Who is to hold a copy is to be well.
constexpr absl::Duration kHeardOfLately = absl::Seconds(1);

}  // namespace

bool Coordinator::GoesOnWithout(const Member& server) {
  if (!replicated_ || !replicas_.running() || wants_generation_) return false;
  if (phase_ != v1::RUNNING && phase_ != v1::SAVING) return false;
  const ReplicaTable::Loss loss = replicas_.Lost(server.id);
  for (ServerId lost : loss.lost) {
    Log(LogLine::Level::kWarning,
        absl::StrCat("server ", lost.value, " is lost with ", Name(server), ": it had no backup that held everything"));
  }
  if (!loss.lost.empty()) return false;
  for (ServerId promoted : loss.promoted) {
    ++promotions_;
    const ReplicaTable::View& view = replicas_.views()[promoted.value];
    const auto it = members_.find(view.primary);
    Log(LogLine::Level::kWarning,
        absl::StrCat("server ", promoted.value, ": its backup takes over, at ", view.primary_address, " on ",
                     it == members_.end() ? "a process that is gone too" : Name(it->second)));
    if (it == members_.end()) return false;
  }
  if (!loss.promoted.empty()) Unsettle();
  for (ServerId alone : loss.alone) {
    Log(LogLine::Level::kWarning, absl::StrCat("server ", alone.value, " goes on without a backup"));
  }
  // Whoever is there without being anybody's backup can be one now.
  for (const auto& [id, member] : members_) {
    if (!member.is_server || replicas_.SeatsOf(id).size() > 0) continue;
    replicas_.Joined(id);
  }
  cuts_.Disturbed(absl::StrCat(Name(server), " is gone"), now_);
  return true;
}

void Coordinator::WatchBackup(const v1::SeatReport& report) {
  const ServerId server(report.server());
  const bool held_up = watch_.HoldsUp(server, report.view(), report.unconfirmed(), now_);
  if (!held_up || (phase_ != v1::RUNNING && phase_ != v1::SAVING)) return;
  const std::optional<MemberId> backup = replicas_.GiveUpBackup(server);
  if (!backup.has_value()) return;
  const absl::Duration pause = watch_.GaveUp(server, *backup, now_);
  const auto it = members_.find(*backup);
  Log(LogLine::Level::kWarning,
      absl::StrCat("server ", server.value, ": its backup on ",
                   it == members_.end() ? "a process that is gone" : Name(it->second),
                   " confirms nothing, they may not reach each other; it goes on without it, for ",
                   absl::FormatDuration(pause), " at least"));
}

void Coordinator::TendBackups() {
  if (phase_ != v1::RUNNING || !replicas_.running()) return;
  for (const auto& [server, backup] : watch_.Due(now_)) {
    const auto it = members_.find(backup);
    if (it == members_.end() || now_ - it->second.heard > kHeardOfLately) continue;
    if (!replicas_.Join(server, backup)) continue;  // it has another, or serves it by now
    watch_.Back(server, backup, now_);
    Log(LogLine::Level::kInfo,
        absl::StrCat("server ", server.value, ": ", Name(it->second), " becomes its backup again"));
  }
}

void Coordinator::AdoptOrRestore() {
  if (!options_.adopt.has_value() || phase_ != v1::STARTING) return;
  std::vector<ReplicaTable::Held> held;
  std::vector<MemberId> servers;
  for (const auto& [id, member] : members_) {
    if (!member.is_server) continue;
    servers.push_back(id);
    for (const v1::SeatReport& seat : member.held) held.push_back({id, seat, member.held_generation});
  }
  const bool same = options_.adopt->view_size() == static_cast<int>(want_servers_);
  adopted_ = replicated_ && same && replicas_.Adopt(*options_.adopt, held, servers);
  if (!adopted_) {
    Log(LogLine::Level::kWarning, "the servers that are there do not hold all blocks between them");
    Restore();
    return;
  }
  // How far ranks are, their workers will say; the cut's clocks are a floor.
  for (uint32_t r = 0; r < ranks_.size() && restore_.has_value() && r < restore_->clocks.size(); ++r) {
    ranks_[r].clock = restore_->clocks[r];
  }
  begun_at_ = round();
  Log(LogLine::Level::kWarning,
      absl::StrCat("generation ", generation_.value, " goes on with what the servers hold: nothing is rolled back"));
}

std::optional<Coordinator::LastingViews> Coordinator::WantsViews() const {
  if (!replicas_.running() || wants_generation_ || ended() || phase_ < v1::PLACING) return std::nullopt;
  if (replicas_.changes() == lasting_change_ && replicas_.news() == lasting_news_) return std::nullopt;
  LastingViews out{replicas_.changes(), replicas_.news(), replicas_.Lasting()};
  out.views.set_run(options_.run.value);
  out.views.set_generation(generation_.value);
  return out;
}

void Coordinator::ViewsLasting(uint64_t change, uint64_t news, absl::Time now) {
  Advance(now);
  lasting_change_ = std::max(lasting_change_, change);
  lasting_news_ = std::max(lasting_news_, news);
  if (replicas_.changes() == lasting_change_) moves_ = replicas_.moves();
}

void Coordinator::PlaceReplicas() {
  if (!replicated_ || adopted_) return;
  std::vector<MemberId> home(want_servers_);
  std::vector<std::string> addresses(want_servers_);
  for (const auto& [id, member] : members_) {
    if (!member.is_server) continue;
    home[member.server.value] = id;
    addresses[member.server.value] = member.address;
  }
  // Nothing has been pushed yet: a process that was replaced meanwhile is no loss.
  if (!replicas_.IsOf(home)) replicas_.Begin(home, addresses);
}

void Coordinator::ServerDied(const Member& server, absl::string_view why) {
  if (phase_ == v1::STARTING || ended()) return;  // it holds nothing yet, or nothing that is still wanted
  if (GoesOnWithout(server)) return;
  replicas_.Halt();
  watch_.Clear();
  moves_ = 0;
  if (std::exchange(adopted_, false) && phase_ == v1::PLACING) wants_generation_ = true;  // what was held counts
  if (stopping_) {
    Fail(absl::StrCat(Name(server), " is gone: ", Clip(why),
                      ", while the run was being stopped; its last cut is that of ", cuts_.last()));
    return;
  }
  const bool trained = phase_ != v1::PLACING;
  cuts_.Halt();
  for (auto& [id, member] : members_) member.ready = false;
  if (!trained && !wants_generation_)
    return;  // nothing was pushed since: whoever takes its place joins this generation
  wants_generation_ = true;
  if (phase_ != v1::PLACING) SetPhase(v1::PLACING, absl::StrCat(Name(server), " died: ", Clip(why)));
}

void Coordinator::BeginGeneration(Generation generation, std::optional<RestoreFrom> restore, absl::Time now) {
  Advance(now);
  if (!wants_generation_ || ended() || generation <= generation_) return;
  wants_generation_ = false;
  generation_ = generation;
  restore_ = std::move(restore);
  ++recoveries_;
  first_ = FirstCause(lease_ + absl::Minutes(1));  // what has been mended is no cause
  const uint64_t before = round();
  Restore();
  if (ended()) return;
  Log(LogLine::Level::kWarning,
      absl::StrCat("generation ", generation_.value, ": ", before - std::min(before, round()),
                   " clocks are rolled back; waiting for ",
                   want_servers_ - std::min<uint64_t>(want_servers_, servers_there()), " servers"));
  phase_since_ = now_;
  Evolve();
}

// The state of the ranks and of all that is merged, as the cut has it.
void Coordinator::Restore() {
  const uint64_t reached = round();
  fruitless_ = reached > begun_at_ ? 0 : fruitless_ + 1;
  if (fruitless_ > kMostFruitless) {
    Fail(absl::StrCat("no clock was finished in ", kMostFruitless, " generations; the last to go was ", last_death_));
    return;
  }
  leases_.Reset();
  orphans_since_.reset();
  for (uint32_t r = 0; r < ranks_.size(); ++r) {
    RankState& rank = ranks_[r];
    rank.examples_before += rank.examples;
    rank.examples = 0;
    rank.clock = restore_.has_value() && r < restore_->clocks.size() ? restore_->clocks[r] : 0;
    rank.done = false;
    rank.settles = 0;
    rank.advanced = now_;
  }
  training_ = TrainingMerge(static_cast<uint32_t>(ranks_.size()), metrics_every_);
  evaluation_ = EvaluationMerge(static_cast<uint32_t>(ranks_.size()), options_.job.evaluation());
  scalars_ = ScalarMerge();
  samples_.clear();
  begun_at_ = round();
  Log(LogLine::Level::kInfo,
      restore_.has_value()
          ? absl::StrCat("generation ", generation_.value, " goes on from cut ", restore_->number, ", clock ", round())
          : absl::StrCat("generation ", generation_.value, " begins with the initial values: there is no cut"));
  MetricRecord record;
  record.kind = MetricRecord::Kind::kRolledBack;
  record.time = now_;
  record.clock = round();
  record.epoch = EpochOf(record.clock);
  record.generation = generation_.value;
  records_.push_back(std::move(record));
}

bool Coordinator::CheckRestore() {
  if (!restore_.has_value() || restore_->tensors == admission_.specs()) return true;
  Fail(absl::StrCat("the cut ", restore_->folder, " is of another model: it has ", restore_->tensors.size(),
                    " tensors, the workers' model has ", admission_.specs().size(),
                    ", or their names, shapes or roles differ"));
  return false;
}

uint64_t Coordinator::FurthestRound() const {
  uint64_t round = 0;
  for (const auto& [id, member] : members_) {
    if (member.is_server) round = std::max<uint64_t>(round, member.load.round());
  }
  return round;
}

void Coordinator::TendCuts() {
  if (!cuts_.enabled()) return;
  if (phase_ == v1::RUNNING || phase_ == v1::SAVING) cuts_.Advance(std::max(FurthestRound(), round()), clocks_, now_);
  for (std::string& trouble : cuts_.DrainTroubles()) Log(LogLine::Level::kWarning, std::move(trouble));
}

void Coordinator::AddPlacement(const Member& member, const v1::HeartbeatRequest&, v1::HeartbeatReply* reply) const {
  if (!map_.has_value() || ended() || wants_generation_) return;
  const bool goes_on = replicated_ && phase_ >= v1::RUNNING;  // backups stand in for who is missing
  if (servers_there() < want_servers_ && !goes_on) return;
  // A worker connects to the servers, whose addresses hold once all of them have their blocks.
  if (!member.is_server && phase_ == v1::PLACING) return;
  for (const TensorSpec& spec : admission_.specs()) *reply->add_tensors() = ToMessage(spec);
  *reply->mutable_map() = ToMessage(*map_);
  for (std::string& address : addresses()) reply->mutable_map()->add_address(std::move(address));
  if (!member.is_server || !restore_.has_value() || adopted_) return;
  reply->mutable_restore()->set_folder(restore_->folder);
  reply->mutable_restore()->set_number(restore_->number);
  for (uint64_t clock : restore_->clocks) reply->mutable_restore()->add_clock(clock);
}

}  // namespace descent
