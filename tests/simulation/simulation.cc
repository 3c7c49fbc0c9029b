#include "tests/simulation/simulation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/simulation/final_state.h"
#include "tests/simulation/simulation_world.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kVirtualLimit = absl::Seconds(300);
constexpr uint64_t kEventLimit = 500'000;

}  // namespace

Simulation::Event& Simulation::Push(absl::Duration after, Kind kind) {
  next_ = Event();
  next_.when = now_ + after;
  next_.sequence = ++sequence_;
  next_.kind = kind;
  return next_;
}

void Simulation::Commit() {
  events_.push_back(std::move(next_));
  std::push_heap(events_.begin(), events_.end(), Later());
}

SimulationResult Simulation::Run() {
  SimulationResult result;
  result.job = job_.number;
  result.reproducible = job_.reproducible();
  result.staleness = job_.staleness;
  if (MakeNodes({})) {
    processes_.resize(schedule_.workers);
    leases_.resize(job_.ranks);
    for (uint32_t w = 0; w < schedule_.workers; ++w) {
      processes_[w].line.resize(schedule_.servers);
      StartWorker(w);
    }
    for (uint32_t r = 0; r < job_.ranks; ++r) Grant(Rank(r), r % schedule_.workers, absl::ZeroDuration());
    const auto some_time = [&] { return dice_.Between(absl::Milliseconds(5), absl::Milliseconds(400)); };
    for (uint32_t i = 0; i < schedule_.breaks; ++i) Push(some_time(), Kind::kBreak), Commit();
    for (uint32_t i = 0; i < schedule_.kills; ++i) Push(some_time(), Kind::kKill), Commit();
    for (uint32_t i = 0; i < schedule_.moves; ++i) Push(some_time(), Kind::kMove), Commit();
    for (uint32_t s = 0; s < schedule_.servers && schedule_.servers_die; ++s) {
      if (s > 0 && !job_.apply_push) break;
      Push(some_time(), Kind::kCut).server = s;
      Commit();
    }

    absl::Time end = kSimulationStart + kVirtualLimit;
    bool draining = false;
    while (!events_.empty() && error_.empty()) {
      std::pop_heap(events_.begin(), events_.end(), Later());
      Event event = std::move(events_.back());
      events_.pop_back();
      if (event.when > end) break;
      now_ = event.when;
      Handle(event);
      if (++handled_ > kEventLimit) Wrong("too many events");
      if (!draining && done_ == job_.ranks) {
        draining = true;
        end = now_ + absl::Seconds(20);  // for zombies and what is still under way
      }
    }
    if (error_.empty() && !draining) {
      std::string where;
      for (uint32_t r = 0; r < job_.ranks; ++r) {
        if (leases_[r].done) continue;
        absl::StrAppend(&where, " rank ", r, " of worker ", leases_[r].worker);
      }
      for (const auto& node : nodes_) absl::StrAppend(&where, "\n", node->node->DebugState());
      Wrong(absl::StrCat("no progress:", where));
    }
    if (error_.empty()) CheckEnd(&result);
  }
  CountNodes();
  for (const Process& process : processes_) {
    if (process.worker != nullptr) coverage_.retried += process.worker->core().stats().resends;
  }
  result.error = error_;
  result.lead_must_be_reached = schedule_.slow_rank < job_.ranks && job_.staleness != kUnbounded && !job_.empty_batches;
  result.largest_lead = ledger_.largest_lead();
  if (result.error.empty() && result.lead_must_be_reached && result.largest_lead != result.staleness) {
    result.error =
        absl::StrCat("with a slow rank the largest lead was ", result.largest_lead, ", not ", result.staleness);
  }
  result.pulls = ledger_.pulls();
  result.trace_hash = trace_;
  result.events = handled_;
  result.coverage = coverage_;
  return result;
}

void Simulation::Handle(Event& event) {
  trace_ = Mix(trace_, static_cast<uint64_t>(absl::ToInt64Nanoseconds(now_ - kSimulationStart)));
  trace_ = Mix(trace_, static_cast<uint64_t>(event.kind) << 32 | event.connection.value);
  Process* process = processes_.empty() ? nullptr : &processes_[event.worker];
  const bool alive = process->worker != nullptr && process->life == event.life;
  switch (event.kind) {
    case Kind::kRequest:
      if (Deliverable(event, 0)) HandleRequest(event);
      break;
    case Kind::kReply: {
      if (!Deliverable(event, 1)) break;
      const Line& line = lines_[event.connection.value];
      trace_ = Mix(trace_, event.reply->id << 8 | event.reply->dense.size() << 4 | event.reply->sparse.size());
      processes_[line.worker].worker->OnReply(ServerId(line.server), *event.reply);
      AfterWorker(line.worker);
      break;
    }
    case Kind::kSent:
      if (!lines_[event.connection.value].alive) break;
      nodes_[event.server]->node->OnSent(event.connection, now_);
      AfterNode(event.server);
      break;
    case Kind::kNodeTimer:
      nodes_[event.server]->timer = absl::InfiniteFuture();
      nodes_[event.server]->node->OnTimer(now_);
      AfterNode(event.server);
      break;
    case Kind::kWake:
      if (!alive) break;
      process->wake = absl::InfiniteFuture();
      process->worker->OnTimer();
      AfterWorker(event.worker);
      break;
    case Kind::kComputed:
      if (!alive) break;
      process->worker->Computed(event.rank, event.incarnation);
      AfterWorker(event.worker);
      break;
    case Kind::kOpen: {
      if (!alive || process->line[event.server] != 0) break;
      const uint64_t id = lines_.size();
      lines_.emplace_back();
      lines_[id].worker = event.worker;
      lines_[id].server = event.server;
      lines_[id].alive = true;
      process->line[event.server] = id;
      nodes_[event.server]->node->OnOpen(ConnectionId(id), now_);
      AfterNode(event.server);
      process->worker->OnOpen(ServerId(event.server));
      AfterWorker(event.worker);
      break;
    }
    default:
      HandleFault(event);
      break;
  }
}

void Simulation::CountNodes() {
  for (const auto& node : nodes_) {
    const ServerNodeStats& stats = node->node->stats();
    coverage_.duplicates += stats.duplicates;
    coverage_.fenced += stats.fenced;
    coverage_.held += stats.held;
    coverage_.waiting_notices += stats.waiting_notices;
    coverage_.too_early += stats.too_early;
  }
}

void Simulation::CheckEnd(SimulationResult* result) {
  for (uint32_t s = 0; s < nodes_.size(); ++s) {
    const uint64_t held = nodes_[s]->node->stats().held_pulls;
    if (held > 0) return Wrong(absl::StrCat("server ", s, " still holds ", held, " pulls"));
  }
  for (uint32_t w = 0; w < processes_.size(); ++w) {
    if (processes_[w].worker == nullptr || processes_[w].worker->core().unfinished() == 0) continue;
    return Wrong(absl::StrCat("worker ", w, " still has unfinished requests"));
  }
  std::vector<ServerNode*> servers;
  for (const auto& node : nodes_) servers.push_back(node->node.get());
  if (std::string wrong = CheckServers(job_, map_, ledger_, servers, &result->parameters_hash); !wrong.empty()) {
    Wrong(std::move(wrong));
  }
}

SimulationResult Simulate(const SimulationOptions& options) { return Simulation(options).Run(); }

}  // namespace descent::simulation
