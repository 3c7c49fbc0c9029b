// What the coordinator tells people: names, messages, status.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/job/job.h"
#include "server/coordinator/coordinator.h"

namespace descent {

uint64_t Coordinator::round() const {
  // Rounds at which the model is evaluated do not close without backup ranks.
  const uint64_t told = ranks_.Round(EvaluateEvery(options_.job.evaluation(), clocks_per_epoch_));
  // A stop's cut is of rounds that servers have completed, and nobody need be left who told of the last ones.
  const bool stopped = phase_ == v1::SAVING || phase_ == v1::STOPPED;
  return stopped && !options_.apply_push ? std::max(told, cuts_.last()) : told;
}

Throughput::Totals Coordinator::Totals() const { return {now_, ranks_.Examples(), round(), members_.Bytes()}; }

std::string Coordinator::WaitingText() const {
  std::string text = absl::StrCat("waiting ", absl::ToInt64Seconds(now_ - created_), " s: ", members_.servers(), "/",
                                  want_servers_, " servers, ", members_.workers(), "/", want_workers_, " workers");
  if (members_.workers() >= want_workers_ && !leases_.CanHoldAll()) {
    absl::StrAppend(&text, "; they take fewer than the job's ", ranks_.size(), " ranks (--ranks)");
  }
  if (const std::string progress = statistics_.ProgressText(); !progress.empty())
    absl::StrAppend(&text, "; ", progress);
  return text;
}

std::string Coordinator::MissingText() const {
  std::vector<std::string> missing, there;
  if (phase_ == v1::PLACING) {
    std::vector<bool> here(want_servers_, false);
    for (const auto& [id, member] : members_) {
      if (member.is_server) here[member.server.value] = true;
    }
    for (uint32_t s = 0; s < want_servers_; ++s) {
      if (!here[s]) missing.push_back(absl::StrCat("server ", s, ", which is to come back"));
    }
    for (const auto& [id, member] : members_) {
      if (member.is_server && !member.ready) missing.push_back(NameOf(member));
    }
    return absl::StrCat("not ready: ", absl::StrJoin(missing, ", "),
                        last_death_.empty() ? "" : "; gone: ", last_death_);
  }
  const uint64_t servers = members_.servers(), workers = members_.workers();
  if (servers < want_servers_)
    missing.push_back(absl::StrCat(want_servers_ - servers, " of ", want_servers_, " servers"));
  if (workers < want_workers_)
    missing.push_back(absl::StrCat(want_workers_ - workers, " of ", want_workers_, " workers"));
  if (missing.empty()) missing.push_back(absl::StrCat("workers for all of the ", ranks_.size(), " ranks"));
  for (const auto& [id, member] : members_) {
    if (there.size() < 16) there.push_back(NameOf(member));
  }
  return absl::StrCat("missing: ", absl::StrJoin(missing, ", "),
                      "; registered: ", there.empty() ? "nobody" : absl::StrJoin(there, ", "),
                      last_death_.empty() ? "" : "; gone: ", last_death_);
}

std::map<uint32_t, v1::Waited> Coordinator::Waits() const {
  std::map<uint32_t, v1::Waited> waits;
  for (const auto& [id, member] : members_) {
    for (const v1::Waited& w : member.load.waited()) {
      if (w.rank() >= ranks_.size()) continue;
      const auto [slot, added] = waits.try_emplace(w.rank());
      if (!added && w.seconds() <= slot->second.seconds()) continue;
      v1::Waited told;
      told.set_rank(w.rank());
      told.set_seconds(w.seconds());
      told.set_why(Clip(w.why()));
      told.set_clock(w.clock());
      if (!w.last_rpc().empty()) {
        told.set_last_rpc(absl::StrCat(Clip(w.last_rpc()), ", to server ", member.server.value));
      }
      if (const std::optional<MemberId> holder = leases_.holder(Rank(w.rank())); holder.has_value()) {
        told.set_host(members_.Find(*holder)->host);
        told.set_pid(members_.Find(*holder)->pid);
      }
      slot->second = std::move(told);
    }
  }
  return waits;
}

std::string Coordinator::HeldText() const {
  const std::optional<uint64_t> cut = steering_.wants_cut();
  if (!cut.has_value() || !held_.has_value()) return "";
  std::string text =
      absl::StrCat("the checkpoint of the best model, of clock ", *cut, ", before the next clock begins");
  if (cuts_.stage() == CutSchedule::Stage::kOrdered) {
    absl::StrAppend(&text, "; ", cuts_.reports().size(), " of ", want_servers_, " parts are there");
  }
  if (!cuts_.last_trouble().empty()) absl::StrAppend(&text, "; the last attempt failed: ", cuts_.last_trouble());
  return text;
}

std::string Coordinator::NormsText() const {
  if (!map_.has_value()) return "";
  const std::optional<ScalarMerge::Awaited> awaited = metrics_.step_scalars().awaited(*map_);
  if (!awaited.has_value()) return "";
  std::vector<std::string> servers;
  for (ServerId server : awaited->servers) {
    const auto member = std::find_if(members_.begin(), members_.end(), [&](const auto& m) {
      return m.second.is_server && replication_.Serves(m.second, server);
    });
    // One that waits for ranks itself can't tell them yet.
    if (member == members_.end() || member->second.load.waited_size() > 0) continue;
    const std::string refused = metrics_.step_scalars().refusal(server);
    servers.push_back(absl::StrCat("server ", server.value, ", which ", NameOf(member->second), " serves",
                                   refused.empty() ? "" : absl::StrCat(" (refused: ", Clip(refused), ")")));
  }
  if (servers.empty()) return "";
  return absl::StrCat("the norms of clock ", awaited->clock, " of ", absl::StrJoin(servers, ", "));
}

std::string Coordinator::StallText() const {
  std::string held = HeldText();
  if (held.empty()) held = NormsText();
  if (!held.empty()) {
    return absl::StrCat("no rank finished a clock for ", absl::FormatDuration(stall_timeout_), ": waiting for ", held);
  }
  const std::map<uint32_t, v1::Waited> waits = Waits();
  uint32_t slowest = 0;
  bool found = false;
  for (uint32_t r = 0; r < ranks_.size(); ++r) {
    if (!waits.empty() && !waits.contains(r)) continue;
    if (ranks_[r].done || (found && ranks_[r].clock >= ranks_[slowest].clock)) continue;
    slowest = r;
    found = true;
  }
  const std::optional<MemberId> holder = leases_.holder(Rank(slowest));
  const auto wait = waits.find(slowest);
  return absl::StrCat("no rank finished a clock for ", absl::FormatDuration(stall_timeout_), ": waiting for rank ",
                      slowest, " of ", holder.has_value() ? NameOf(*members_.Find(*holder)) : "no worker",
                      ", whose last finished clock is ", ranks_[slowest].clock,
                      wait == waits.end() || wait->second.last_rpc().empty()
                          ? ""
                          : absl::StrCat("; the last RPC from it: ", wait->second.last_rpc()));
}

std::string Coordinator::Message() const {
  switch (phase_) {
    case v1::STARTING:
      return WaitingText();
    case v1::PLACING:
      return absl::StrCat("placing ", absl::ToInt64Seconds(now_ - phase_since_), " s: ", MissingText());
    case v1::RUNNING:
      if (stopping()) return "stopping: workers finish the clock in hand";
      if (orphans_since_.has_value()) {
        return absl::StrCat("waiting ", absl::ToInt64Seconds(now_ - *orphans_since_),
                            " s for a worker: ", leases_.Orphans().size(), " of ", ranks_.size(),
                            " ranks have none; the last to go was ", last_death_);
      }
      for (const auto& [id, member] : members_) {
        if (now_ - member.heard <= lease_ / 2) continue;
        return absl::StrCat("nothing heard of ", NameOf(member), " for ", absl::ToInt64Seconds(now_ - member.heard),
                            " s");
      }
      if (held_.has_value() && (now_ - held_->since > absl::Seconds(5) || cuts_.failures() > held_->failures)) {
        return absl::StrCat("waiting ", absl::ToInt64Seconds(now_ - held_->since), " s for ", HeldText());
      }
      if (now_ - advanced_ > absl::Seconds(5)) {
        const std::string norms = NormsText();
        return absl::StrCat("waiting ", absl::ToInt64Seconds(now_ - advanced_), " s for ",
                            norms.empty() ? "a clock to be finished" : norms);
      }
      return "";
    case v1::FAILED:
      return first_.Text();
    default:
      return "";
  }
}

uint32_t Coordinator::NextMs() const {
  const int64_t in_phase = absl::ToInt64Milliseconds(now_ - phase_since_);
  const int64_t steady = std::min<int64_t>(1000, absl::ToInt64Milliseconds(lease_ / 5));
  switch (phase_) {
    case v1::STARTING:
    case v1::PLACING:
      return static_cast<uint32_t>(std::min<int64_t>({250, steady, 20 + in_phase / 20}));
    case v1::RUNNING: {
      // A job of a second is not held up by a heartbeat of a second; nor is one that is about to end.
      const bool ending = stopping() || ranks_.AnyDone();
      return static_cast<uint32_t>(ending ? std::min<int64_t>(50, steady)
                                          : std::min<int64_t>(steady, 20 + in_phase / 10));
    }
    default:
      return static_cast<uint32_t>(std::min<int64_t>(50, steady));
  }
}

void Coordinator::AddRates(absl::Time now, v1::StatusReply* status) const {
  const absl::Time end = ended() ? ended_at_ : now;
  status->set_seconds(absl::ToDoubleSeconds(end - *running_since_));
  Throughput::Totals last = Totals();
  last.time = end;
  status->set_payload_bytes(last.bytes);
  // Recently while it runs; over all once it is over.
  const Throughput::Rates rates =
      ended() ? Throughput::Between({*running_since_, 0, 0, 0}, last) : throughput_.Since(last);
  status->set_examples_per_second(rates.examples);
  status->set_bytes_per_second(rates.bytes);
  if (rates.rounds > 0 && !ended()) {
    status->set_seconds_left(static_cast<double>(clocks_ - last.round) / rates.rounds);
  }
}

v1::StatusReply Coordinator::Status(absl::Time now) const {
  now = std::max(now, now_);
  v1::StatusReply status;
  status.set_job(options_.job.name());
  status.set_phase(phase_);
  status.set_run(options_.run.value);
  status.set_generation(generation_.value);
  std::map<uint32_t, v1::Waited> waited = Waits();
  for (const auto& [id, member] : members_) {
    v1::MemberStatus* out = status.add_member();
    out->set_member(id.value);
    out->set_role(member.is_server ? "server" : "worker");
    out->set_host(member.host);
    out->set_pid(member.pid);
    out->set_address(member.address);
    out->set_silent_seconds(absl::ToDoubleSeconds(now - member.heard));
    out->set_standby(!member.is_server && phase_ >= v1::RUNNING && leases_.RanksOf(id).empty());
    out->set_server(member.server.value);
  }
  for (uint32_t r = 0; r < ranks_.size(); ++r) {
    v1::RankStatus* out = status.add_rank();
    out->set_rank(r);
    out->set_clock(ranks_[r].clock);
    const std::optional<MemberId> holder = leases_.holder(Rank(r));
    if (holder.has_value()) out->set_member(holder->value);
    out->set_incarnation(leases_.number(Rank(r)));
    if (phase_ == v1::RUNNING) out->set_since_seconds(absl::ToDoubleSeconds(now - ranks_[r].advanced));
    if (const auto w = waited.find(r); w != waited.end()) out->set_last_rpc(w->second.last_rpc());
  }
  if (phase_ == v1::RUNNING) {
    for (auto& [rank, w] : waited) *status.add_waited() = std::move(w);
  }
  status.set_clocks(clocks_);
  status.set_clocks_per_epoch(admission_.train_rows() > 0 ? clocks_per_epoch_ : 0);  // without data there are no epochs
  status.set_round(round());
  // What workers say of their clocks is of different moments; servers see all ranks at one.
  uint64_t spread = ranks_.Furthest() - round();
  bool measured = false;
  for (const auto& [id, member] : members_) {
    if (!member.load.has_lead()) continue;
    spread = std::max(measured ? spread : 0, member.load.lead());
    measured = true;
  }
  status.set_staleness_spread(spread);
  if (const auto& last = metrics_.last_training(); last.has_value()) status.set_loss(last->loss);
  if (const std::optional<double> square = metrics_.scalars().Last(); square.has_value()) {
    status.set_gradient_norm(std::sqrt(*square));
  }
  if (options_.job.has_clip()) {
    const std::optional<double> share = ClippedShare({}, members_.Steps());
    if (share.has_value()) status.set_clipped(*share);
  }
  if (phase_ >= v1::RUNNING && running_since_.has_value()) AddRates(now, &status);
  status.set_batch_size(options_.job.batch_size());
  status.set_message(Message());
  status.set_last_evaluation(metrics_.EvaluationText());
  if (phase_ == v1::FAILED) status.set_first_cause(first_.Text());
  status.set_end_reason(end_reason_);
  status.set_model_dir(model_dir_);
  status.set_parameters_sha256(parameters_sha256_);
  status.set_state_sha256(state_sha256_);
  status.set_memory(memory_line_);
  status.set_last_cut(cuts_.last());
  status.set_recoveries(recoveries_);
  status.set_promotions(replication_.promotions());
  for (uint32_t s = 0; s < replication_.views().size(); ++s) {
    const ReplicaTable::View& view = replication_.views()[s];
    v1::ServerStatus* out = status.add_server();
    out->set_server(s);
    out->set_primary(view.primary.value);
    out->set_backup(view.backup.value_or(MemberId()).value);
    out->set_synced(view.synced);
    out->set_view(view.number);
  }
  return status;
}

}  // namespace descent
