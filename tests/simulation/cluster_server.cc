#include "tests/simulation/cluster_server.h"

#include <algorithm>
#include <utility>

#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_coordinator.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

}  // namespace

std::shared_ptr<ClusterSeat> Cluster::SeatAt(const std::string& address) const {
  for (const ClusterServer* server : servers) {
    for (const auto& [id, seat] : server->seats()) {
      if (seat->address() == address) return seat;
    }
  }
  return nullptr;
}

void ClusterServer::After(absl::Duration after, void (ClusterServer::*then)()) {
  cluster_->net.On(process(), after, [this, then] { (this->*then)(); });
}

void ClusterServer::Start(bool elsewhere) {
  moved_ = elsewhere && moves_ > 0;
  zombie_ = false;
  if (elsewhere || address_.empty()) address_ = absl::StrCat("s", index_, ":", ++moves_);
  storage_ = cluster_->MakeStorage(process());
  nonce_ = cluster_->next_nonce++;
  heard_ = cluster_->net.now();
  registration_.Clear();
  generation_ = 0;
  exited_ = false;
  Register();
}

void ClusterServer::Killed() { seats_.clear(); }

void ClusterServer::End() {
  seats_.clear();
  exited_ = true;
  if (index_ != 0) cluster_->net.Kill(process());
}

void ClusterServer::Register() {
  v1::RegisterServerRequest request;
  cluster_->Sign(&request);
  request.set_address(address_);
  request.set_host(absl::StrCat("host", index_));
  request.set_pid(1000 + cluster_->net.life(process()));
  request.set_nonce(nonce_);
  for (const auto& [server, seat] : seats_) {
    v1::HeartbeatRequest held;
    seat->Report(&held);
    request.mutable_seat()->MergeFrom(held.seat());
  }
  request.set_seat_generation(generation_);
  request.set_seat_run(registration_.run());
  cluster_->net.Call<v1::RegisterReply>(
      process(), 0,
      [this, request] {
        return cluster_->coordinator->Serve(
            [&](Coordinator& c) { return c.RegisterServer(request, cluster_->net.now()); });
      },
      [this](absl::StatusOr<v1::RegisterReply> reply) {
        if (exited_) return;
        if (reply.ok() && reply->mismatch_size() == 0) {
          registration_ = *std::move(reply);
          cluster_->Note(name(), absl::StrCat("is server ", registration_.server(), " at ", address_));
          if (std::exchange(moved_, false)) cluster_->truth.coverage.Add("servers moved");
          if (std::exchange(zombie_, false)) cluster_->truth.coverage.Add("zombies back");
          return Beat();
        }
        const Coordinator* c = cluster_->coordinator->coordinator();
        if (reply.ok() && !reply->later() && c != nullptr && c->ended()) return End();  // too late
        if (cluster_->net.now() - heard_ > kPatience) return End();
        After(absl::Milliseconds(200), &ClusterServer::Register);
      });
}

bool ClusterServer::ready() const {
  return !seats_.empty() &&
         std::all_of(seats_.begin(), seats_.end(), [&](const auto& s) { return s.second->ready(generation_); });
}

void ClusterServer::Beat() {
  v1::HeartbeatRequest beat;
  beat.set_member(registration_.member());
  beat.set_run(registration_.run());
  // With replicas some of what it holds may be ready and some not: each seat says so of itself.
  const bool told = ready() || (cluster_->schedule.replicas && !seats_.empty());
  beat.set_generation(told ? generation_ : 0);
  beat.set_ready(ready());
  beat.set_nonce(nonce_);
  for (const auto& [server, seat] : seats_) seat->Report(&beat);
  cluster_->net.Call<v1::HeartbeatReply>(
      process(), 0,
      [this, beat] {
        return cluster_->coordinator->Serve([&](Coordinator& c) { return c.Heartbeat(beat, cluster_->net.now()); });
      },
      [this](absl::StatusOr<v1::HeartbeatReply> news) {
        if (exited_) return;
        if (!news.ok()) {
          if (cluster_->net.now() - heard_ > kPatience) return End();
          return After(kBeatAgain, &ClusterServer::Beat);
        }
        heard_ = cluster_->net.now();
        TakeNews(*news);
      });
}

void ClusterServer::TakeNews(const v1::HeartbeatReply& news) {
  if (news.phase() >= v1::FINISHED) return End();
  if (news.unknown_member()) {
    zombie_ = true;
    if (cluster_->fault == ClusterFault::kZombieStays) return After(kBeatAgain, &ClusterServer::Beat);
    if (cluster_->schedule.replicas) {
      for (const auto& [server, seat] : seats_) seat->Rest();
    } else {
      seats_.clear();
      generation_ = 0;
    }
    nonce_ = cluster_->next_nonce++;
    return Register();
  }
  TendSeats(news);
  for (const auto& [server, seat] : seats_) {
    if (seat->ready(generation_)) seat->Speak(registration_.member());
  }
  absl::Duration pause = absl::Milliseconds(std::max<uint32_t>(1, news.next_ms()));
  for (const auto& [server, seat] : seats_) {
    if (seat->writing()) pause = std::min(pause, absl::Milliseconds(20));
  }
  After(pause, &ClusterServer::Beat);
}

std::shared_ptr<ClusterSeat> ClusterServer::MakeSeat(const v1::Seat& want) {
  // A backup listens from the beginning, so that it can be told where it will be reached once it is promoted.
  const std::string address = want.primary() ? address_ : absl::StrCat(address_, "/", ++ports_);
  return std::make_shared<ClusterSeat>(cluster_, process(), storage_.get(), ServerId(want.server()), address,
                                       want.primary());
}

void ClusterServer::TendSeats(const v1::HeartbeatReply& news) {
  const bool replicated = cluster_->schedule.replicas;
  std::map<uint32_t, v1::Seat> wanted;
  if (replicated) {
    for (const v1::Seat& seat : news.seat()) wanted[seat.server()] = seat;
  } else {
    v1::Seat& seat = wanted[registration_.server()];
    seat.set_server(registration_.server());
    seat.set_primary(true);
  }
  if (news.has_map() && generation_ != news.generation()) {
    // The process's own seat keeps its address; the others belonged to the generation before, unless this one goes on
    // with them.
    std::erase_if(seats_, [&](const auto& s) {
      const auto want = wanted.find(s.first);
      const bool carried = want != wanted.end() && want->second.carried() && s.second->ready(generation_);
      if (carried) s.second->Carry(Generation(news.generation()));
      const bool own = s.second->own() && want != wanted.end() && want->second.primary();
      return !carried && !own;
    });
    generation_ = news.generation();
  }
  std::erase_if(seats_, [&](const auto& s) {
    if (!replicated || news.generation() != generation_ || news.seat_size() == 0) return false;
    const auto want = wanted.find(s.first);
    // The process's own address is its primary's: before anything was pushed it may have become another server's.
    return want == wanted.end() || (s.second->own() && !want->second.primary());
  });
  for (const auto& [server, want] : wanted) {
    auto& seat = seats_[server];
    if (seat == nullptr) {
      if (!news.has_map()) {
        seats_.erase(server);
        continue;
      }
      seat = MakeSeat(want);
    }
    seat->Tend(news, want);
  }
}

}  // namespace descent::simulation
