// How a run ends in the simulated cluster: the model saved and checked, or a stop and what it has left.
#include <algorithm>
#include <utility>

#include "tests/simulation/cluster_coordinator.h"
#include "tests/simulation/cluster_server.h"
#include "tests/simulation/final_state.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kTryAgain = absl::Milliseconds(200);
const absl::Duration kSettled = 2 * kSimulatedLease;

}  // namespace

// --- Stops -----------------------------------------------------------------------------------------------------------

void ClusterCoordinator::Stop(bool calm) {
  if (coordinator_ == nullptr || coordinator_->ended() || stop_.has_value()) return;
  const v1::Phase phase = coordinator_->phase();
  stop_.emplace();
  // What a worker had pushed half is on its way to the next holder.
  stop_->calm = calm && cluster_->net.now() - worker_gone_ > kSettled;
  stop_->trained = phase == v1::RUNNING;
  stop_->joining = phase == v1::RUNNING && Joining() != nullptr;
  v1::StopRequest request;
  request.set_signal(15);
  coordinator_->Stop(request, cluster_->net.now());
}

void ClusterCoordinator::Disturb(bool covered) {
  if (!stop_.has_value() || exited_) return;
  stop_->calm = stop_->calm && covered && !stop_->death;
  stop_->death = true;
}

void ClusterCoordinator::GoOn() {
  stop_.reset();
  exited_ = saved_ = false;
}

std::string ClusterCoordinator::CheckStop() {
  Coordinator& c = *coordinator_;
  ClusterTruth& truth = cluster_->truth;
  to_go_on_from_ = stop_->cut;
  if (stop_->cut.has_value()) {
    const auto cuts = disk_->folder().List();
    if (!cuts.ok()) return "";  // the disk fails
    const auto cut = std::find_if(cuts->begin(), cuts->end(), [&](const Cut& k) { return k.id == *stop_->cut; });
    const absl::Status whole =
        cut == cuts->end() ? absl::NotFoundError("it is not there") : disk_->folder().Verify(*cut);
    if (!whole.ok()) return absl::StrCat("the cut that the run was stopped with is not whole: ", whole.ToString());
  }
  if (!stop_->calm || !stop_->trained) return "";
  const bool there = stop_->cut.has_value() || (!cluster_->job.apply_push && c.cuts().last() == c.round());
  if (!there) return absl::StrCat("the run was stopped at clock ", c.round(), " without a cut of it");
  if (stop_->cut.has_value() && !cluster_->job.apply_push && stop_->cut->number != c.round()) {
    return absl::StrCat("the run was stopped at clock ", c.round(), " with a cut of clock ", stop_->cut->number);
  }
  if (!stop_->lacks.empty()) return stop_->lacks;
  if (!stop_->cut.has_value()) return "";
  truth.coverage.Add("stops, cut demanded");
  if (cluster_->schedule.replicas) truth.coverage.Add("stops with replicas, cut demanded");
  if (stop_->joining) truth.coverage.Add("stops while a backup joined, cut demanded");
  if (stop_->death) truth.coverage.Add("stops in which a server died, cut demanded");
  return "";
}

std::string ClusterCoordinator::WhatCutLacks() {
  if (!cluster_->job.apply_push) return "";
  for (const auto& [server, report] : coordinator_->cuts().reports()) {
    const std::vector<uint64_t>& told = cluster_->truth.told(coordinator_->generation(), server).marks();
    for (int r = 0; r < report.least_mark_size(); ++r) {
      if (report.least_mark(r) >= told[r]) continue;
      return absl::StrCat("the cut that the run was stopped with expects clock ", report.least_mark(r), " of rank ", r,
                          " on server ", server.value, ", of which clock ", told[r] - 1, " was acknowledged");
    }
  }
  return "";
}

// --- The end --------------------------------------------------------------------------------------------------------

// Reads one server after the other, where the coordinator says it is.
void ClusterCoordinator::Save(uint32_t s) {
  if (coordinator_ == nullptr) {
    saving_ = false;
    return;
  }
  if (s == cluster_->schedule.servers) return Saved();
  const std::shared_ptr<ClusterSeat> at = cluster_->SeatAt(coordinator_->addresses()[s]);
  const auto tried = [this](const absl::Status& status) {
    if (coordinator_ == nullptr || coordinator_->phase() != v1::SAVING) {
      saving_ = false;  // a server is gone, and all go back to a cut; or it gave up for its disk
      return;
    }
    tried_to_save_ = true;
    coordinator_->SaveFinished(absl::UnavailableError(status.message()), "", "", "", cluster_->net.now());
    cluster_->net.On(0, kTryAgain, [this] { saving_ = false; });
  };
  if (at == nullptr) return tried(absl::UnavailableError(absl::StrCat("server ", s, " has no address")));
  cluster_->net.Call<bool>(
      0, at->process(),
      [seat = std::weak_ptr<ClusterSeat>(at), generation = coordinator_->generation(),
       clock = cluster_->job.apply_push ? 0 : coordinator_->round()]() -> absl::StatusOr<bool> {
        const auto at = seat.lock();
        if (at == nullptr || !at->primary() || at->node() == nullptr || at->generation() != generation) {
          return absl::UnavailableError("it has no blocks of this generation");
        }
        if (at->node()->stats().round < clock) return absl::UnavailableError("its last step is not made yet");
        return true;
      },
      [this, s, tried](absl::StatusOr<bool> read) { read.ok() ? Save(s + 1) : tried(read.status()); });
}

std::vector<ServerNode*> ClusterCoordinator::Nodes() {
  std::vector<ServerNode*> nodes;
  for (const std::string& address : coordinator_->addresses()) {
    const std::shared_ptr<ClusterSeat> seat = cluster_->SeatAt(address);
    if (seat == nullptr || !seat->primary() || seat->node() == nullptr) return {};
    if (seat->generation() != coordinator_->generation() || !cluster_->net.alive(seat->process())) return {};
    nodes.push_back(seat->node());
  }
  return nodes;
}

std::string ClusterCoordinator::CheckEnd(const std::vector<ServerNode*>& nodes) {
  const Coordinator& c = *coordinator_;
  ClusterTruth& truth = cluster_->truth;
  std::string wrong;
  if (!c.stopping())
    wrong = CheckServers(cluster_->job, *c.map(), truth.ledger(c.generation()), nodes, &parameters_hash_);
  for (uint32_t s = 0; s < nodes.size() && wrong.empty(); ++s) {
    wrong = truth.told(c.generation(), ServerId(s))
                .Check(cluster_->job, *c.map(), ServerId(s), truth.ledger(c.generation()), *nodes[s]);
    if (!wrong.empty()) return absl::StrCat("in the end server ", s, ": ", wrong);
    if (const uint64_t held = nodes[s]->stats().held_pulls; held > 0 && !c.stopping()) {
      return absl::StrCat("in the end a server holds ", held, " pulls");
    }
  }
  return c.stopping() && wrong.empty() ? CheckStop() : wrong;
}

void ClusterCoordinator::Saved() {
  saving_ = false;
  Coordinator& c = *coordinator_;
  const std::vector<ServerNode*> nodes = Nodes();
  if (nodes.empty() || c.phase() != v1::SAVING) return;  // somebody has died since
  if (std::string wrong = CheckEnd(nodes); !wrong.empty()) return cluster_->truth.Wrong(std::move(wrong));
  if (std::exchange(tried_to_save_, false)) cluster_->truth.coverage.Add("saves tried again");
  if (!c.stopping()) {
    saved_ = true;
    const absl::Status lasting = storage_->CreateExclusive("finished", "model");
    if (!lasting.ok() && !absl::IsAlreadyExists(lasting)) {
      storage_->Remove("finished").IgnoreError();
      return c.SaveFinished(absl::UnavailableError(lasting.message()), "", "", "", cluster_->net.now());
    }
  }
  c.SaveFinished(absl::OkStatus(), "model", "", "", cluster_->net.now());
}

}  // namespace descent::simulation
