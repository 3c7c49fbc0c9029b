#include "worker/client/client_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"

namespace descent {
namespace {

// A push of hundreds of MiB on a slow link takes longer than resend_after; asking again meanwhile would only add to it.
// So each of these that is on its way to a server buys its requests another resend_after.
constexpr uint64_t kPatienceBytes = uint64_t{16} << 20;
constexpr uint32_t kMaxBackoff = 3;  // doublings

std::string Ranks(const std::vector<Rank>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ",
                      absl::StrJoin(ranks, ", ", [](std::string* out, Rank r) { absl::StrAppend(out, r.value); }));
}

std::string Of(const ClientCore::PushIdentity& push) {
  std::string who = push.span == 1 ? absl::StrCat("rank ", push.rank.value)
                                   : absl::StrCat("ranks ", push.rank.value, "-", push.rank.value + push.span - 1);
  return absl::StrCat(who, "'s push of clock ", push.clock.value);
}

bool Overlap(const ClientCore::PushIdentity& a, const ClientCore::PushIdentity& b) {
  return a.rank.value < b.rank.value + b.span && b.rank.value < a.rank.value + a.span;
}

}  // namespace

bool ClientCore::Leg::done() const {
  return push_done && query.done && std::all_of(chunk.begin(), chunk.end(), [](const Unit& u) { return u.done; });
}

ClientCore::ClientCore(Options options)
    : options_(std::move(options)), open_(options_.servers, false), unacknowledged_bytes_(options_.servers, 0) {}

ClientCore::Ticket ClientCore::Begin(TicketSpec spec, absl::Time now, Actions* out) {
  if (cancelled_) return BeginFailed(absl::CancelledError("the client was cancelled"), out);
  const Ticket id = next_ticket_++;
  TicketState& ticket = tickets_[id];
  ++unfinished_;
  ticket.push = spec.push;
  ticket.expected_of = std::move(spec.expected_of);
  ticket.legs.resize(spec.legs.size());
  for (size_t i = 0; i < spec.legs.size(); ++i) {
    Leg& leg = ticket.legs[i];
    leg.spec = std::move(spec.legs[i]);
    DESCENT_CHECK(leg.spec.server.value < options_.servers);
    DESCENT_CHECK(leg.spec.push_bytes.empty() || ticket.push.has_value());
    leg.push.resize(leg.spec.push_bytes.size());
    leg.push_done = leg.push.empty();
    for (uint64_t bytes : leg.spec.push_bytes) leg.push_bytes += bytes;
    unacknowledged_bytes_[leg.spec.server.value] += leg.push_bytes;
    leg.chunk.resize(leg.spec.chunks);
    leg.missing.resize(leg.spec.chunks);
    for (const PullItem& item : leg.spec.items) ++leg.missing[item.chunk];
    leg.received.resize(leg.spec.items.size());
    leg.query.done = ticket.expected_of.empty();
    // While the connection is down a request would only be dropped: OnOpen sends it.
    if (open_[leg.spec.server.value]) SendLeg(id, ticket, static_cast<uint32_t>(i), now, out);
  }
  FinishIfDone(id, ticket, out);
  return id;
}

ClientCore::Ticket ClientCore::BeginFailed(absl::Status status, Actions* out) {
  const Ticket id = next_ticket_++;
  ++unfinished_;
  Finish(id, tickets_[id], std::move(status), out);
  return id;
}

void ClientCore::SendLeg(Ticket id, TicketState& ticket, uint32_t leg_index, absl::Time now, Actions* out) {
  Leg& leg = ticket.legs[leg_index];
  // The pull goes first, so that every block can come back as soon as it is ready.
  uint32_t first_push = 0;
  for (uint32_t c = 0; c < leg.chunk.size(); ++c) {
    if (leg.chunk[c].done) continue;
    const bool together = c == 0 && leg.spec.piggyback && !leg.push_done && !leg.push[0].done;
    SendUnit(id, ticket, leg_index, together ? 0 : kNone, c, !leg.query.done && c == 0, now, out);
    if (together) first_push = 1;
  }
  if (!leg.push_done) {
    for (uint32_t m = first_push; m < leg.push.size(); ++m) SendUnit(id, ticket, leg_index, m, kNone, false, now, out);
  }
  if (!leg.query.done && leg.chunk.empty()) SendUnit(id, ticket, leg_index, kNone, kNone, true, now, out);
}

void ClientCore::SendUnit(Ticket id, TicketState& ticket, uint32_t leg_index, uint32_t push, uint32_t chunk, bool query,
                          absl::Time now, Actions* out) {
  Leg& leg = ticket.legs[leg_index];
  Send send;
  send.server = leg.spec.server;
  send.request = next_request_++;
  send.ticket = id;
  send.leg = leg_index;
  send.push = push;
  send.chunk = chunk;
  send.expected = query;
  bool again = false;
  const auto sent = [&](Unit& unit) {
    again |= unit.request != 0;
    unit.request = send.request;
    unit.blocked = false;
    Arm(unit, leg.spec.server, now);
    ++unit.tries;
  };
  if (push != kNone) sent(leg.push[push]);
  if (query) sent(leg.query);
  if (chunk != kNone) {
    sent(leg.chunk[chunk]);
    uint32_t all = 0;
    for (uint32_t i = 0; i < leg.spec.items.size(); ++i) {
      if (leg.spec.items[i].chunk != chunk) continue;
      ++all;
      if (!leg.received[i]) send.items.push_back(i);
    }
    send.whole_chunk = all == send.items.size();
  }
  if (again && options_.faults.never_resend) return;
  stats_.resends += again;
  requests_.emplace(send.request, RequestState{Place{id, leg_index}, leg.spec.server, push, chunk});
  ticket.requests.push_back(send.request);
  out->send.push_back(std::move(send));
}

void ClientCore::Arm(Unit& unit, ServerId server, absl::Time now) {
  const uint64_t patience = 1 + unacknowledged_bytes_[server.value] / kPatienceBytes;
  unit.deadline = now + options_.resend_after * static_cast<int64_t>(patience << std::min(unit.tries, kMaxBackoff));
  next_timer_ = std::min(next_timer_, unit.deadline);
}

void ClientCore::OnOpen(ServerId server, absl::Time now, Actions* out) {
  if (server.value >= options_.servers) return;
  open_[server.value] = true;
  for (auto& [id, ticket] : tickets_) {
    if (ticket.finished) continue;
    for (uint32_t i = 0; i < ticket.legs.size(); ++i) {
      if (ticket.legs[i].spec.server == server && !ticket.legs[i].done()) SendLeg(id, ticket, i, now, out);
    }
  }
}

void ClientCore::OnClosed(ServerId server) {
  if (server.value < options_.servers) open_[server.value] = false;
}

std::optional<ClientCore::Place> ClientCore::Find(ServerId server, uint64_t request) const {
  const auto it = requests_.find(request);
  if (it == requests_.end() || it->second.server != server) return std::nullopt;
  return it->second.place;
}

void ClientCore::OnReply(ServerId server, const Reply& reply, absl::Time now, Actions* out) {
  out->accepted.assign(reply.dense.size() + reply.sparse.size(), kNone);
  const auto found = requests_.find(reply.id);
  if (found == requests_.end() || found->second.server != server) {
    ++stats_.late_replies;
    return;
  }
  const RequestState request = found->second;
  const Ticket id = request.place.ticket;
  TicketState& ticket = tickets_.at(id);
  Leg& leg = ticket.legs[request.place.leg];

  if (absl::IsResourceExhausted(reply.refusal) && request.chunk != kNone && !reply.ack.has_value()) {
    // Too many pulls of ours are held there: this one is asked for again when its time comes.
    return;
  }
  if (absl::IsOutOfRange(reply.refusal) && options_.backup_ranks) {
    // Other servers may still wait for the push that goes with this pull.
    ticket.passed = absl::StrCat("server ", server.value, ": ", reply.refusal.message());
    if (request.chunk != kNone) leg.chunk[request.chunk].done = true;
    if (reply.ack.has_value() && ticket.push.has_value()) {
      OnAck(id, ticket, request.place.leg, request, reply.id, *reply.ack, now, out);
    }
    if (!ticket.finished) FinishIfDone(id, ticket, out);
    return;
  }
  if (absl::IsOutOfRange(reply.refusal)) {
    // An older holder of the lease was still at work when this one asked for its clock; or this one is the older.
    return Finish(id, ticket,
                  absl::AbortedError(absl::StrCat("the rank has moved on meanwhile: server ", server.value, ": ",
                                                  reply.refusal.message())),
                  out);
  }
  if (!reply.refusal.ok()) {
    const std::string text = absl::StrCat("server ", server.value, " refused: ", reply.refusal.message());
    // Another generation, map or run; or, of a server that was started again, none yet.
    const bool over = absl::IsAborted(reply.refusal) || absl::IsFailedPrecondition(reply.refusal) ||
                      absl::IsUnavailable(reply.refusal);
    return Finish(id, ticket, over ? absl::AbortedError(text) : absl::InvalidArgumentError(text), out);
  }
  if (reply.ack.has_value() && ticket.push.has_value()) {
    OnAck(id, ticket, request.place.leg, request, reply.id, *reply.ack, now, out);
    if (ticket.finished) return;
  }
  const bool parts = !out->accepted.empty();
  if ((parts || reply.pull_done || !reply.expected.empty()) && !(reply.envelope == options_.envelope)) {
    return Finish(id, ticket,
                  absl::AbortedError(absl::StrCat("server ", server.value, " answers for generation ",
                                                  reply.envelope.generation.value, " and map epoch ",
                                                  reply.envelope.map_epoch, " of run ", reply.envelope.run.value,
                                                  "; ours are ", options_.envelope.generation.value, ", ",
                                                  options_.envelope.map_epoch, " and ", options_.envelope.run.value)),
                  out);
  }
  size_t part = 0;
  const auto take = [&](BlockId block) {
    const size_t place = part++;
    const auto it = std::lower_bound(leg.spec.items.begin(), leg.spec.items.end(), block,
                                     [](const PullItem& item, BlockId b) { return item.id < b; });
    if (it == leg.spec.items.end() || it->id != block) return;
    const auto index = static_cast<uint32_t>(it - leg.spec.items.begin());
    if (leg.received[index]) {
      ++stats_.duplicates;
      if (!options_.faults.count_parts_twice) return;
    } else {
      leg.received[index] = true;
      out->accepted[place] = index;
    }
    if (leg.missing[it->chunk] > 0 && --leg.missing[it->chunk] == 0) leg.chunk[it->chunk].done = true;
  };
  for (const DensePart& dense : reply.dense) take(dense.id);
  for (const SparsePart& sparse : reply.sparse) take(sparse.id);

  if (reply.waiting.has_value()) {
    leg.notice = reply.waiting;
    leg.notice_at = now;
    last_waiting_ = reply.waiting;
  }
  if (request.chunk != kNone && !leg.chunk[request.chunk].done) {
    Unit& chunk = leg.chunk[request.chunk];
    if (reply.pull_done && leg.missing[request.chunk] == 0) chunk.done = true;
    if (parts || reply.waiting.has_value()) {
      chunk.tries = 0;
      Arm(chunk, server, now);
    }
  }
  if (!leg.query.done && !reply.expected.empty() && reply.expected.size() == ticket.expected_of.size()) {
    leg.expected = reply.expected;
    leg.query.done = true;
  }
  FinishIfDone(id, ticket, out);
}

void ClientCore::OnAck(Ticket id, TicketState& ticket, uint32_t leg_index, const RequestState& request,
                       uint64_t request_id, const PushAck& ack, absl::Time now, Actions* out) {
  Leg& leg = ticket.legs[leg_index];
  if (ack.rank != ticket.push->rank || ack.clock != ticket.push->clock) return;
  const auto text = [&](absl::string_view what) {
    return absl::StrCat("server ", leg.spec.server.value, ": ", Of(*ticket.push), " ", what,
                        ack.message.empty() ? "" : ": ", ack.message);
  };
  switch (ack.outcome) {
    case Outcome::kFenced:
      return Finish(id, ticket, absl::AbortedError(text("is fenced")), out);
    case Outcome::kStaleGeneration:
      return Finish(id, ticket,
                    absl::AbortedError(text(
                        absl::StrCat("belongs to another generation than ours, ", options_.envelope.generation.value))),
                    out);
    case Outcome::kWrongMap:
      return Finish(id, ticket,
                    absl::AbortedError(text(absl::StrCat("was split by another partition map than ours, "
                                                         "epoch ",
                                                         options_.envelope.map_epoch))),
                    out);
    case Outcome::kRefused:
      return Finish(id, ticket, absl::InvalidArgumentError(text("was refused")), out);
    case Outcome::kTooEarly:
      ++stats_.too_early;
      // An answer to an older copy says nothing about the one that is on its way.
      if (request.push != kNone && !leg.push_done && leg.push[request.push].request == request_id) {
        OnTooEarly(id, ticket, leg_index, request.push, now, out);
      }
      return;
    case Outcome::kDuplicate:
      ++stats_.duplicates;
      break;
    case Outcome::kTooLate:  // its round is over without it: nothing is left to send
      if (!leg.push_done) leg.too_late = true;
      break;
    case Outcome::kApplied:
      break;
  }
  if (leg.push_done) return;
  if (ack.complete || ack.expected > ticket.push->clock || ack.outcome == Outcome::kTooLate ||
      options_.faults.done_on_any_ack) {
    return FinishPush(ticket, leg_index, now, out);
  }
  // The server has this message and lacks others: they have deadlines of their own. Its own runs on, since the word
  // that all is complete can get lost too.
  if (request.push != kNone) Arm(leg.push[request.push], leg.spec.server, now);
}

void ClientCore::OnTooEarly(Ticket id, TicketState& ticket, uint32_t leg_index, uint32_t push, absl::Time now,
                            Actions* out) {
  Leg& leg = ticket.legs[leg_index];
  const ServerId server = leg.spec.server;
  const uint64_t refused = leg.push[push].request;
  bool earlier = false;
  for (auto& [other_id, other] : tickets_) {
    if (other_id == id || other.finished || !other.push.has_value()) continue;
    if (other.push->clock >= ticket.push->clock || !Overlap(*other.push, *ticket.push)) continue;
    for (uint32_t i = 0; i < other.legs.size(); ++i) {
      Leg& missing = other.legs[i];
      if (missing.spec.server != server || missing.push_done) continue;
      earlier = true;
      for (uint32_t m = 0; m < missing.push.size(); ++m) {
        // What went out after the message that came too early may still arrive.
        if (missing.push[m].request < refused) SendUnit(other_id, other, i, m, kNone, false, now, out);
      }
    }
  }
  Unit& unit = leg.push[push];
  if (earlier) {
    unit.blocked = true;
    Arm(unit, server, now);
  } else if (++unit.too_early == 1) {
    SendUnit(id, ticket, leg_index, push, kNone, false, now, out);
  } else {
    Arm(unit, server, now);
  }
}

void ClientCore::FinishPush(TicketState& ticket, uint32_t leg_index, absl::Time now, Actions* out) {
  Leg& leg = ticket.legs[leg_index];
  leg.push_done = true;
  unacknowledged_bytes_[leg.spec.server.value] -= leg.push_bytes;
  for (Unit& unit : leg.push) unit.done = true;
  for (auto& [other_id, other] : tickets_) {
    if (other.finished || !other.push.has_value() || !Overlap(*other.push, *ticket.push)) continue;
    for (uint32_t i = 0; i < other.legs.size(); ++i) {
      if (other.legs[i].spec.server != leg.spec.server || other.legs[i].push_done) continue;
      for (uint32_t m = 0; m < other.legs[i].push.size(); ++m) {
        if (other.legs[i].push[m].blocked) SendUnit(other_id, other, i, m, kNone, false, now, out);
      }
    }
  }
}

void ClientCore::OnTimer(absl::Time now, Actions* out) {
  if (now < next_timer_) return;
  next_timer_ = absl::InfiniteFuture();
  for (auto& [id, ticket] : tickets_) {
    if (ticket.finished) continue;
    for (uint32_t i = 0; i < ticket.legs.size(); ++i) {
      Leg& leg = ticket.legs[i];
      if (!open_[leg.spec.server.value]) continue;  // OnOpen sends again what is missing
      // SendUnit sets a new deadline, so what is due is asked again once.
      const auto due = [&](const Unit& unit) {
        if (unit.done) return false;
        if (unit.deadline <= now) return true;
        next_timer_ = std::min(next_timer_, unit.deadline);
        return false;
      };
      for (uint32_t c = 0; c < leg.chunk.size(); ++c) {
        if (due(leg.chunk[c])) SendUnit(id, ticket, i, kNone, c, false, now, out);
      }
      for (uint32_t m = 0; m < leg.push.size(); ++m) {
        if (due(leg.push[m])) SendUnit(id, ticket, i, m, kNone, false, now, out);
      }
      if (due(leg.query)) SendUnit(id, ticket, i, kNone, kNone, true, now, out);
    }
  }
}

void ClientCore::FinishIfDone(Ticket id, TicketState& ticket, Actions* out) {
  if (options_.backup_ranks) {
    bool pushed = true, late = ticket.push.has_value();
    for (const Leg& leg : ticket.legs) {
      pushed = pushed && leg.push_done;
      late = late && leg.too_late;
    }
    if (pushed && late) {
      return Finish(id, ticket, absl::OutOfRangeError(absl::StrCat(Of(*ticket.push), " has come too late")), out);
    }
    if (pushed && !ticket.passed.empty()) return Finish(id, ticket, absl::NotFoundError(ticket.passed), out);
  }
  for (const Leg& leg : ticket.legs) {
    if (!leg.done()) return;
  }
  Finish(id, ticket, absl::OkStatus(), out);
}

void ClientCore::Finish(Ticket id, TicketState& ticket, absl::Status status, Actions* out) {
  if (ticket.finished) return;
  ticket.finished = true;
  ticket.status = std::move(status);
  for (Leg& leg : ticket.legs) {
    if (!leg.push_done) unacknowledged_bytes_[leg.spec.server.value] -= leg.push_bytes;
  }
  for (uint64_t request : ticket.requests) requests_.erase(request);
  ticket.requests.clear();
  --unfinished_;
  out->finished.push_back(id);
}

void ClientCore::Fail(Ticket id, absl::Status status, Actions* out) {
  Finish(id, tickets_.at(id), std::move(status), out);
}

void ClientCore::Cancel(Actions* out) {
  cancelled_ = true;
  for (auto& [id, ticket] : tickets_) {
    if (!ticket.finished) Finish(id, ticket, absl::CancelledError("the client was cancelled"), out);
  }
}

bool ClientCore::finished(Ticket ticket) const { return tickets_.at(ticket).finished; }
const absl::Status& ClientCore::status(Ticket ticket) const { return tickets_.at(ticket).status; }

std::vector<Clock> ClientCore::expected(Ticket id) const {
  const TicketState& ticket = tickets_.at(id);
  std::vector<Clock> least(ticket.expected_of.size(), Clock(kUnbounded));
  for (const Leg& leg : ticket.legs) {
    for (size_t i = 0; i < leg.expected.size(); ++i) least[i] = std::min(least[i], leg.expected[i]);
  }
  return least;
}

void ClientCore::Forget(Ticket id) {
  const auto it = tickets_.find(id);
  if (it == tickets_.end()) return;
  if (!it->second.finished) {
    Actions ignored;
    Finish(id, it->second, absl::CancelledError("forgotten"), &ignored);
  }
  tickets_.erase(it);
}

std::string ClientCore::Describe(Ticket id, absl::Time now) const {
  std::vector<std::string> parts;
  for (const Leg& leg : tickets_.at(id).legs) {
    if (leg.done()) continue;
    std::string text = absl::StrCat("server ", leg.spec.server.value);
    if (leg.notice.has_value()) {
      const double since = absl::ToDoubleSeconds(leg.notice->since + (now - leg.notice_at));
      absl::StrAppend(&text, " waits for ", Ranks(leg.notice->ranks), " since ",
                      absl::StrCat(static_cast<int64_t>(since * 10) / 10.0), " s");
      if (!leg.notice->why.empty()) absl::StrAppend(&text, " (", leg.notice->why, ")");
    } else {
      absl::StrAppend(&text, open_[leg.spec.server.value] ? " has not answered" : " is not connected");
    }
    if (!leg.push_done) absl::StrAppend(&text, ", push not acknowledged");
    const size_t lacking = std::count(leg.received.begin(), leg.received.end(), false);
    if (lacking > 0) absl::StrAppend(&text, ", ", lacking, " of ", leg.received.size(), " parts to come");
    parts.push_back(std::move(text));
  }
  return absl::StrJoin(parts, "; ");
}

}  // namespace descent
