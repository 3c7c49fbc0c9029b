#include "worker/client/client_session.h"

#include <utility>

namespace descent {

ClientSession::ClientSession(ClientOptions options, ClientFaults faults)
    : options_(std::move(options)),
      layout_(std::make_shared<ModelLayout>(options_.tensors, options_.geometry, options_.map,
                                            options_.max_payload_bytes, options_.encoding)),
      core_(ClientCore::Options{options_.envelope, options_.map.servers, options_.resend_after, faults,
                                options_.backup_ranks}) {}

Ticket ClientSession::Exchange(const std::optional<PushSpec>& push, const std::optional<PullSpec>& pull,
                               std::shared_ptr<const void> owner, absl::Time now, Output* out) {
  auto plan = ExchangePlan::Make(layout_, push, pull);
  ClientCore::Actions actions;
  Ticket ticket;
  if (!plan.ok()) {
    ticket = core_.BeginFailed(plan.status(), &actions);
    plans_[ticket] = Plan{nullptr, {}, std::move(owner)};
  } else {
    ticket = core_.Begin((*plan)->Spec(), now, &actions);
    plans_[ticket] = Plan{*std::move(plan), {}, std::move(owner)};
  }
  Build(actions, out);
  return ticket;
}

Ticket ClientSession::AskExpected(Rank rank, absl::Time now, Output* out) {
  ClientCore::TicketSpec spec;
  spec.expected_of = {rank};
  spec.legs.resize(options_.map.servers);
  for (uint32_t s = 0; s < options_.map.servers; ++s) spec.legs[s].server = ServerId(s);
  ClientCore::Actions actions;
  const Ticket ticket = core_.Begin(std::move(spec), now, &actions);
  plans_[ticket] = Plan{nullptr, {rank}, nullptr};
  Build(actions, out);
  return ticket;
}

void ClientSession::OnOpen(ServerId server, absl::Time now, Output* out) {
  ClientCore::Actions actions;
  core_.OnOpen(server, now, &actions);
  Build(actions, out);
}

void ClientSession::OnReply(ServerId server, const Reply& reply, absl::Time now, Output* out) {
  stats_.payload_bytes_in += reply.payload.size();
  ClientCore::Actions actions;
  const std::optional<ClientCore::Place> place = core_.Find(server, reply.id);
  const ExchangePlan* plan = place.has_value() ? plans_.at(place->ticket).plan.get() : nullptr;
  // What another generation's server says need not fit our plan: the core tells it by its envelope.
  if (!(reply.envelope == options_.envelope)) plan = nullptr;
  if (plan != nullptr) {
    if (absl::Status status = plan->Check(place->leg, reply); !status.ok()) {
      core_.Fail(place->ticket, std::move(status), &actions);
      return Build(actions, out);
    }
  }
  core_.OnReply(server, reply, now, &actions);
  if (plan != nullptr) {
    out->writes = plan->Writes(place->leg, reply, actions.accepted);
    plan->Versions(reply, actions.accepted);
    for (const PartWrite& write : out->writes) stats_.payload_bytes_copied += write.bytes;
  }
  Build(actions, out);
}

void ClientSession::OnTimer(absl::Time now, Output* out) {
  ClientCore::Actions actions;
  core_.OnTimer(now, &actions);
  Build(actions, out);
}

void ClientSession::Cancel(Output* out) {
  ClientCore::Actions actions;
  core_.Cancel(&actions);
  Build(actions, out);
}

void ClientSession::Build(ClientCore::Actions& actions, Output* out) {
  for (const ClientCore::Send& send : actions.send) {
    const Plan& plan = plans_.at(send.ticket);
    Request request;
    if (plan.plan != nullptr) {
      request = plan.plan->Build(options_.envelope, send, plan.expected_of, plan.owner, &stats_.payload_bytes_copied);
    } else {
      request.envelope = options_.envelope;
      request.id = send.request;
      request.expected_of = plan.expected_of;
    }
    stats_.payload_bytes_out += request.payload.size();
    out->send.emplace_back(send.server, std::move(request));
  }
  out->finished.insert(out->finished.end(), actions.finished.begin(), actions.finished.end());
}

std::shared_ptr<const void> ClientSession::ReleaseOwner(Ticket ticket) {
  const auto it = plans_.find(ticket);
  return it == plans_.end() ? nullptr : std::exchange(it->second.owner, nullptr);
}

std::shared_ptr<const void> ClientSession::Forget(Ticket ticket) {
  std::shared_ptr<const void> owner = ReleaseOwner(ticket);
  plans_.erase(ticket);
  core_.Forget(ticket);
  return owner;
}

ClientStats ClientSession::stats() const {
  ClientStats stats = stats_;
  stats.resends = core_.stats().resends;
  stats.duplicates = core_.stats().duplicates;
  return stats;
}

}  // namespace descent
