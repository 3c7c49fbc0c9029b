#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/simulation/node_options.h"
#include "tests/simulation/simulation_world.h"

namespace descent::simulation {

void Simulation::HandleFault(Event& event) {
  Process* process = &processes_[event.worker];
  switch (event.kind) {
    case Kind::kBreak: {
      const uint32_t w = AnyWorker(), s = static_cast<uint32_t>(dice_.Below(schedule_.servers));
      if (processes_[w].line[s] == 0) break;
      ++coverage_.breaks;
      Close(processes_[w].line[s]);
      processes_[w].worker->OnClosed(ServerId(s));
      Event& open = Push(dice_.Between(absl::Milliseconds(1), absl::Milliseconds(50)), Kind::kOpen);
      open.worker = w;
      open.server = s;
      open.life = processes_[w].life;
      Commit();
      break;
    }
    case Kind::kKill: {
      const uint32_t w = AnyWorker();
      if (processes_[w].worker == nullptr || done_ == job_.ranks) break;
      ++coverage_.kills;
      StopWorker(w);
      Event& start = Push(dice_.Between(absl::Milliseconds(1), absl::Milliseconds(100)), Kind::kStart);
      start.worker = w;
      Commit();
      for (uint32_t r = 0; r < job_.ranks; ++r) {
        if (leases_[r].worker != w || leases_[r].done) continue;
        Grant(Rank(r), AnyWorker(), dice_.Between(absl::Milliseconds(1), absl::Milliseconds(50)));
      }
      break;
    }
    case Kind::kStart:
      if (process->worker == nullptr) StartWorker(event.worker);
      break;
    case Kind::kCut:
      CutServer(event.server);
      AfterNode(event.server);
      break;
    case Kind::kDie:
      Die();
      break;
    case Kind::kMove: {
      const Rank rank(static_cast<uint32_t>(dice_.Below(job_.ranks)));
      const Lease old = leases_[rank.value];
      if (old.done) break;
      ++coverage_.moves;
      Grant(rank, (old.worker + 1) % schedule_.workers, dice_.Between(absl::ZeroDuration(), absl::Milliseconds(20)));
      if (dice_.Chance(schedule_.move_announced)) {
        for (uint32_t s = 0; s < schedule_.servers; ++s) {
          Event& fence = Push(dice_.Between(absl::ZeroDuration(), absl::Milliseconds(20)), Kind::kFence);
          fence.server = s;
          fence.rank = rank;
          fence.incarnation = leases_[rank.value].incarnation;
          Commit();
        }
      }
      if (dice_.Chance(0.3)) {
        Event& told = Push(dice_.Between(absl::ZeroDuration(), absl::Milliseconds(50)), Kind::kTold);
        told.worker = old.worker;
        told.rank = rank;
        told.incarnation = old.incarnation;
        Commit();
      }
      break;
    }
    case Kind::kLease: {
      const Lease& lease = leases_[event.rank.value];
      if (lease.incarnation != event.incarnation || lease.done) break;
      if (process->worker == nullptr) {
        Grant(event.rank, AnyWorker(), absl::Milliseconds(10));
        break;
      }
      process->worker->Lease(event.rank, event.incarnation);
      AfterWorker(event.worker);
      break;
    }
    case Kind::kFence:
      nodes_[event.server]->node->Fence(event.rank, event.incarnation);
      nodes_[event.server]->newest[event.rank.value] =
          std::max(nodes_[event.server]->newest[event.rank.value], event.incarnation);
      AfterNode(event.server);
      break;
    case Kind::kTold:
      if (process->worker == nullptr) break;
      process->worker->Drop(event.rank, event.incarnation);
      AfterWorker(event.worker);
      break;
    default:
      break;
  }
}

bool Simulation::MakeNodes(const std::vector<std::shared_ptr<ServerImages>>& images) {
  std::vector<uint64_t> restart(job_.ranks, ~uint64_t{0});
  for (const auto& of_server : images) of_server->Lower(&restart);
  for (uint32_t s = 0; s < schedule_.servers; ++s) {
    ServerNodeOptions node = MakeNodeOptions(job_, schedule_, map_, envelope_, ServerId(s));
    node.fault = options_.server_fault;
    if (!images.empty()) {
      node.restored.emplace();
      for (uint64_t clock : restart) node.restored->restart.push_back(Clock(clock));
    }
    nodes_.push_back(std::make_unique<Node>());
    auto made = ServerNode::Create(std::move(node), nodes_.back().get());
    if (!made.ok()) {
      Wrong(made.status().ToString());
      return false;
    }
    nodes_.back()->node = *std::move(made);
    absl::Status restored;
    for (const auto& of_server : images) {
      for (const auto& [image, marks] : of_server->records()) {
        if (map_.server(image.id) == ServerId(s)) restored.Update(nodes_.back()->node->Install(image, marks));
      }
    }
    if (!images.empty()) restored.Update(nodes_.back()->node->FinishRestore());
    if (!restored.ok()) {
      Wrong(restored.ToString());
      return false;
    }
    nodes_.back()->newest.resize(job_.ranks);
  }
  return true;
}

void Simulation::CutServer(uint32_t server) {
  // Under PUSH each at a moment of its own; a round is the same one for all.
  uint64_t round = 0;
  for (const auto& node : nodes_) round = std::max(round, node->node->stats().round + 1);
  if (round >= job_.clocks) return;
  for (uint32_t s = 0; s < nodes_.size(); ++s) {
    if (job_.apply_push && s != server) continue;
    nodes_[s]->images = std::make_shared<ServerImages>();
    absl::Status begun = nodes_[s]->node->BeginCut(Clock(round), nodes_[s]->images);
    if (!begun.ok()) Wrong(begun.ToString());
  }
}

void Simulation::DieIfAllAreCut() {
  if (dies_) return;
  for (const auto& node : nodes_) {
    if (node->images == nullptr || !node->images->done()) return;
  }
  dies_ = true;
  Push(dice_.Between(absl::ZeroDuration(), absl::Milliseconds(100)), Kind::kDie), Commit();
}

void Simulation::Die() {
  if (done_ == job_.ranks) return;
  ++coverage_.restores;
  for (uint32_t w = 0; w < schedule_.workers; ++w) {
    if (processes_[w].worker != nullptr) StopWorker(w);
  }
  CountNodes();
  std::vector<std::shared_ptr<ServerImages>> images;
  for (const auto& node : nodes_) images.push_back(node->images);
  nodes_.clear();
  envelope_.generation = Generation(envelope_.generation.value + 1);
  if (!MakeNodes(images)) return;
  for (uint32_t w = 0; w < schedule_.workers; ++w) StartWorker(w);
  done_ = 0;
  for (uint32_t r = 0; r < job_.ranks; ++r) {
    leases_[r].done = false;
    Grant(Rank(r), AnyWorker(), absl::ZeroDuration());
  }
}

void Simulation::Grant(Rank rank, uint32_t worker, absl::Duration after) {
  Lease& lease = leases_[rank.value];
  lease.worker = worker;
  lease.incarnation = Incarnation{envelope_.generation, lease.incarnation.number + 1};
  Event& event = Push(after, Kind::kLease);
  event.worker = worker;
  event.rank = rank;
  event.incarnation = lease.incarnation;
  Commit();
}

void Simulation::RankDone(Rank rank) {
  if (leases_[rank.value].done) return;
  leases_[rank.value].done = true;
  ++done_;
}

void Simulation::RankLost(Rank rank, Incarnation incarnation, const absl::Status& why) {
  const Lease& lease = leases_[rank.value];
  if (lease.incarnation != incarnation || lease.done) return;  // a zombie has learned of it
  if (absl::IsAborted(why) && absl::StrContains(why.message(), "has moved on")) {
    // A zombie was still at work when the new holder asked where to begin: it asks again.
    ++coverage_.overtaken;
    Grant(rank, lease.worker, dice_.Between(absl::ZeroDuration(), absl::Milliseconds(10)));
    return;
  }
  Wrong(absl::StrCat("the holder of rank ", rank.value, " was told: ", why.ToString()));
}

}  // namespace descent::simulation
