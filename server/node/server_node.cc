#include "server/node/server_node.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/node/node_impl.h"

namespace descent {

namespace {

EngineOptions ForEngine(const ServerNodeOptions& options, const BlockIndex& index, bool measures) {
  EngineOptions out;
  out.ranks = options.store.ranks;
  out.dense_blocks = index.dense();
  out.slots = index.slots();
  out.staleness = options.staleness;
  out.changes = options.changes;
  out.apply_push = options.store.apply_push;
  out.scalars_before_apply = measures && !options.store.apply_push;
  out.backup_ranks = options.backup_ranks;
  out.full_every = options.full_every;
  out.waiting_notice = options.waiting_notice;
  out.fault = options.fault;
  return out;
}

}  // namespace

NodeImpl::NodeImpl(ServerNodeOptions options, std::unique_ptr<BlockStore> store, Output* output)
    : options_(std::move(options)),
      store_(std::move(store)),
      output_(output),
      index_(options_.store.tensors, options_.store.geometry, options_.store.map, options_.store.self,
             options_.encoding),
      check_(&index_, options_.store.ranks),
      engine_(ForEngine(options_, index_, store_->measures())),
      later_dense_(index_.dense()),
      totals_(2),
      push_weight_(options_.store.ranks, 0.0),
      last_rpc_(options_.store.ranks) {
  for (auto& squares : squares_) squares.resize(index_.dense());
  if (options_.record_order) {
    order_ =
        std::make_unique<OrderLog>(options_.store.ranks, index_.dense(), index_.slots(), options_.store.apply_push);
  }
  place_.resize(index_.dense());
  uint32_t local = 0;
  for (uint32_t t = 0; t < options_.store.tensors.size(); ++t) {
    if (options_.store.tensors[t].sparse) continue;
    for (ServerId server : options_.store.map.placement[t]) {
      if (server == options_.store.self) place_[local++] = static_cast<uint32_t>(dense_of_model_);
      ++dense_of_model_;
    }
  }
  if (options_.restored.has_value()) {
    restoring_ = std::make_unique<Restoring>();
    restoring_->marks.resize(size_t{index_.size()} * options_.store.ranks);
    restoring_->came.resize(index_.size());
    restoring_->running = options_.restored->restart.empty();
  }
}

NodeImpl::Connection* NodeImpl::Find(ConnectionId id) {
  auto it = connections_.find(id);
  return it == connections_.end() ? nullptr : it->second.get();
}

Reply NodeImpl::NewReply(uint64_t id) const {
  Reply reply;
  reply.envelope = options_.envelope;
  reply.id = id;
  return reply;
}

void NodeImpl::OnOpen(ConnectionId connection, absl::Time, bool unary) {
  DESCENT_CHECK(restoring_ == nullptr);
  auto& c = connections_[connection];
  DESCENT_CHECK(c == nullptr);
  c = std::make_unique<Connection>();
  c->id = connection;
  c->unary = unary;
}

void NodeImpl::OnClose(ConnectionId connection, absl::Time) {
  auto node = connections_.extract(connection);
  if (node.empty()) return;
  for (uint32_t ticket = 0; ticket < pulls_.size() && node.mapped()->pulls > 0; ++ticket) {
    Pull& pull = *pulls_[ticket];
    if (pull.open && pull.connection == connection) {
      actions_.clear();
      engine_.Step(PullGone{ticket}, &actions_);
      EndPull(ticket);
      --node.mapped()->pulls;
    }
  }
}

void NodeImpl::OnRequest(ConnectionId connection, Request request, absl::Time now) {
  Connection* c = Find(connection);
  if (c == nullptr) return;  // closed meanwhile
  Outcome outcome = Outcome::kRefused;
  absl::Status status = RequestCheck::CheckEnvelope(options_.envelope, request.envelope, &outcome);
  if (status.ok()) {
    outcome = Outcome::kRefused;
    status = check_.Check(request);
  }
  if (!status.ok()) {
    ++(outcome == Outcome::kStaleGeneration ? stats_.stale : stats_.refused);
    Reply reply = NewReply(request.id);
    if (request.push) {
      PushAck ack;
      ack.outcome = outcome;
      ack.rank = request.push->rank;
      ack.span = request.push->span;
      ack.clock = request.push->clock;
      if (ack.rank.value < options_.store.ranks) ack.expected = Clock(engine_.clock(ack.rank));
      ack.message = std::string(status.message());
      reply.ack = std::move(ack);
    }
    reply.refusal = std::move(status);
    Control(c, std::move(reply));
    Flush();
    return;
  }
  NoteRpc(request, now);
  if (request.push) HandlePush(c, request, now);
  if (!request.expected_of.empty()) {
    Reply reply = NewReply(request.id);
    if (request.push && !c->control.empty() && c->control.back().id == request.id) {
      reply = std::move(c->control.back());
      c->control.pop_back();
    }
    for (Rank rank : request.expected_of) reply.expected.push_back(Clock(engine_.clock(rank)));
    Control(c, std::move(reply));
  }
  std::optional<uint32_t> ticket;
  if (request.pull) ticket = HandlePull(c, request, now);
  Flush();
  if (ticket && pulls_[*ticket]->open) KeepKeys(*ticket);  // it outlives the request
  ApplyDeferred();
}

void NodeImpl::OnSent(ConnectionId connection, absl::Time) {
  Connection* c = Find(connection);
  if (c == nullptr) return;
  DESCENT_CHECK(c->in_flight > 0);
  --c->in_flight;
  Pump(c);
}

void NodeImpl::OnTimer(absl::Time now) {
  Run(TimerFired{now}, now);
  Flush();
}

void NodeImpl::Fence(Rank rank, Incarnation incarnation) {
  if (rank.value >= options_.store.ranks) return;
  actions_.clear();
  engine_.Step(FenceRaised{rank, incarnation}, &actions_);
}

std::vector<WaitingNotice> NodeImpl::Waiting(absl::Time now) const {
  std::vector<WaitingNotice> out;
  for (Culprit& culprit : engine_.Culprits()) {
    out.push_back(WaitingNotice{
        {culprit.rank}, now - culprit.since, std::move(culprit.why), culprit.clock, LastRpcText(culprit, now)});
  }
  return out;
}

void NodeImpl::NoteRpc(const Request& request, absl::Time now) {
  const auto note = [&](Rank rank, RpcKind kind, Clock clock) { last_rpc_[rank.value] = {kind, clock, now}; };
  for (Rank rank : request.expected_of) note(rank, RpcKind::kQuestion, Clock(0));
  if (request.pull) note(request.pull->rank, RpcKind::kPull, request.pull->clock);
  if (!request.push) return;
  for (uint32_t i = 0; i < request.push->weight.size(); ++i) {
    note(Rank(request.push->rank.value + i), RpcKind::kPush, request.push->clock);
  }
}

std::string NodeImpl::LastRpcText(const Culprit& culprit, absl::Time now) const {
  const LastRpc& last = last_rpc_[culprit.rank.value];
  std::string text;
  switch (last.kind) {
    case RpcKind::kNone:
      return "none yet";
    case RpcKind::kQuestion:
      text = "question which clock is expected";
      break;
    case RpcKind::kPull:
      text = absl::StrCat("read for clock ", last.clock.value);
      break;
    case RpcKind::kPush:
      text = absl::StrCat("push of clock ", last.clock.value);
      if (culprit.begun && culprit.clock == last.clock.value) {
        absl::StrAppend(&text, ", ", culprit.admitted, " of ", culprit.announced, " contributions");
      }
  }
  return absl::StrFormat("%s, %.1f s ago", text, absl::ToDoubleSeconds(now - last.at));
}

std::vector<uint64_t> NodeImpl::Marks(BlockId id) const {
  std::vector<uint64_t> marks;
  absl::StatusOr<uint32_t> local = index_.Find(
      id, id.tensor.value < options_.store.tensors.size() && options_.store.tensors[id.tensor.value].sparse);
  if (!local.ok()) return marks;
  for (uint32_t r = 0; r < options_.store.ranks; ++r) marks.push_back(engine_.mark(*local, Rank(r)));
  return marks;
}

}  // namespace descent
