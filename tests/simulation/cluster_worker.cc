#include "tests/simulation/cluster_worker.h"

#include <algorithm>
#include <utility>

#include "common/control/messages.h"
#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_coordinator.h"
#include "tests/simulation/cluster_seat.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr absl::Duration kResendAfter = absl::Milliseconds(100);
constexpr absl::Duration kFinishWithin = absl::Seconds(3);  // for pushes under way when the run is stopped

}  // namespace

void ClusterWorker::After(absl::Duration after, std::function<void()> then) {
  cluster_->net.On(process(), after, std::move(then));
}

void ClusterWorker::Start() {
  nonce_ = cluster_->next_nonce++;
  heard_ = now();
  era_ = moves_ = 0;
  beating_ = exited_ = zombie_ = followed_ = false;
  Register();
}

void ClusterWorker::Killed() { Enter(0); }

void ClusterWorker::Register() {
  v1::RegisterWorkerRequest request;
  cluster_->Sign(&request);
  request.set_host(absl::StrCat("worker", index_));
  request.set_pid(2000 + cluster_->net.life(process()));
  request.set_nonce(nonce_);
  for (const TensorSpec& spec : cluster_->job.tensors()) *request.add_tensors() = ToMessage(spec);
  cluster_->net.Call<v1::RegisterReply>(
      process(), 0,
      [this, request] {
        return cluster_->coordinator->Serve(
            [&](Coordinator& c) { return c.RegisterWorker(request, cluster_->net.now()); });
      },
      [this](absl::StatusOr<v1::RegisterReply> reply) {
        if (reply.ok() && reply->mismatch_size() == 0) {
          member_ = reply->member();
          leases_.clear();
          if (reply->generation() != era_) Enter(reply->generation());
          cluster_->Note(name(), absl::StrCat("is member ", member_));
          if (std::exchange(zombie_, false)) cluster_->truth.coverage.Add("zombies back");
          return Beat();
        }
        const Coordinator* c = cluster_->coordinator->coordinator();
        const bool too_late = reply.ok() && c != nullptr && c->ended();
        if (too_late || now() - heard_ > kPatience) {
          Enter(0);
          exited_ = true;
          return cluster_->net.Kill(process());
        }
        After(kBeatAgain, [this] { Register(); });
      });
}

void ClusterWorker::Beat() {
  if (std::exchange(beating_, true)) return;
  v1::HeartbeatRequest beat;
  beat.set_member(member_);
  beat.set_run(kRun.value);
  beat.set_generation(era_);
  beat.set_ready(core_ != nullptr);
  beat.set_moves(moves_);
  beat.set_nonce(nonce_);
  for (const auto& [rank, incarnation] : leases_) {
    const auto done = done_.find(rank);
    if (core_ == nullptr && done == done_.end()) continue;
    v1::RankProgress* progress = beat.add_progress();
    progress->set_rank(rank.value);
    progress->set_done(done != done_.end());
    progress->set_clock(progress->done() ? done->second : core_->completed(rank));
  }
  cluster_->net.Call<v1::HeartbeatReply>(
      process(), 0,
      [this, beat] {
        return cluster_->coordinator->Serve([&](Coordinator& c) { return c.Heartbeat(beat, cluster_->net.now()); });
      },
      [this](absl::StatusOr<v1::HeartbeatReply> news) {
        beating_ = false;
        if (news.ok()) {
          heard_ = now();
          return TakeNews(*news);
        }
        if (now() - heard_ > kPatience) {
          Enter(0);
          exited_ = true;
          return cluster_->net.Kill(process());
        }
        After(kBeatAgain, [this] { Beat(); });
      });
}

void ClusterWorker::TakeNews(const v1::HeartbeatReply& news) {
  if (news.phase() >= v1::FINISHED) {
    if (core_ != nullptr && core_->idle() && core_->core().unfinished() > 0) {
      Wrong("it is at the end, and has unfinished requests");
    }
    Enter(0);
    exited_ = true;
    return cluster_->net.Kill(process());
  }
  if (news.unknown_member()) {
    zombie_ = true;
    nonce_ = cluster_->next_nonce++;
    return Register();
  }
  std::map<Rank, SimulatedWorker::Unfinished> unfinished;
  if (news.generation() != era_) {
    Enter(news.generation());
    moves_ = news.moves();
  } else if (news.moves() != moves_ && news.has_map()) {
    // A backup has taken over. Nothing is rolled back: ranks go on at the clocks that the servers expect.
    moves_ = news.moves();
    followed_ = core_ != nullptr;
    if (stopping_ && core_ != nullptr) unfinished = core_->TakeUnfinished();
    LetGo();
  }
  if (core_ == nullptr && news.phase() >= v1::RUNNING && news.has_map()) Build(news);
  if (!unfinished.empty()) core_->Resume(std::move(unfinished));
  std::map<Rank, Incarnation> leases;
  for (const v1::Lease& lease : news.leases()) {
    leases[Rank(lease.rank())] = Incarnation{Generation(lease.generation()), lease.number()};
  }
  for (const auto& [rank, incarnation] : leases_) {
    const auto now_held = leases.find(rank);
    if (now_held != leases.end() && now_held->second == incarnation) continue;
    if (core_ != nullptr) core_->Drop(rank, Used(incarnation));
    done_.erase(rank);
  }
  leases_ = std::move(leases);
  if (news.stop() || stopping_) {
    Stop();
  } else {
    TakeLeases();
  }
  After(absl::Milliseconds(std::max<uint32_t>(1, news.next_ms())), [this] { Beat(); });
}

void ClusterWorker::Enter(uint64_t generation) {
  era_ = generation;
  moves_ = 0;
  LetGo();
  leases_.clear();
  done_.clear();
  stopping_ = false;  // unless it is said again
}

// Of the servers, and of what was under way.
void ClusterWorker::LetGo() {
  Disconnect();
  if (core_ != nullptr) cluster_->truth.coverage.Add("resends", core_->core().stats().resends);
  core_.reset();
  ++build_;
  wake_ = absl::InfiniteFuture();
}

void ClusterWorker::Build(const v1::HeartbeatReply& news) {
  ClientOptions options;
  options.envelope.job = kFingerprint;
  options.envelope.run = kRun;
  options.envelope.generation = Generation(news.generation());
  options.envelope.map_epoch = news.map().epoch();
  options.tensors = cluster_->job.tensors();
  options.geometry = cluster_->job.geometry();
  auto map = FromMessage(news.map(), options.tensors, options.geometry);
  if (!map.ok()) return Wrong(map.status().ToString());
  options.map = *std::move(map);
  options.resend_after = kResendAfter;
  options.backup_ranks = cluster_->job.backup_ranks > 0;
  options.max_payload_bytes = cluster_->schedule.max_payload_bytes;
  addresses_.assign(news.map().address().begin(), news.map().address().end());
  if (std::exchange(followed_, false)) cluster_->truth.coverage.Add("workers that followed a promotion");
  const Generation generation(news.generation());
  core_ = std::make_unique<SimulatedWorker>(index_, cluster_->job, std::move(options), cluster_->client_faults,
                                            cluster_->schedule.pipelined, &cluster_->truth.ledger(generation), this);
  ++build_;
  lines_.assign(addresses_.size(), nullptr);
  for (uint32_t s = 0; s < addresses_.size(); ++s) Connect(s);
}

Incarnation ClusterWorker::Used(Incarnation granted) const {
  return cluster_->fault == ClusterFault::kIncarnationReused ? Incarnation{granted.generation, 1} : granted;
}

void ClusterWorker::TakeLeases() {
  if (core_ == nullptr) return;
  for (const auto& [rank, incarnation] : leases_) {
    cluster_->truth.Granted(process(), cluster_->net.life(process()), rank, incarnation);
    if (!done_.contains(rank)) core_->Lease(rank, Used(incarnation));
  }
  AfterWorker();
}

void ClusterWorker::Connect(uint32_t s) {
  After(cluster_->net.Delay() * 2, [this, s, build = build_] {
    if (build != build_ || lines_[s] != nullptr) return;
    const std::shared_ptr<ClusterSeat> seat = cluster_->SeatAt(addresses_[s]);
    const ProcessId there = seat == nullptr ? process() : seat->process();
    const bool reached = seat != nullptr && cluster_->net.alive(there) && !cluster_->net.paused(there) &&
                         !cluster_->net.cut(process(), there) && !cluster_->net.cut(there, process());
    if (reached) {
      auto line = std::make_shared<ClusterLine>();
      line->id = cluster_->next_line++;
      line->worker = process();
      line->worker_life = cluster_->net.life(process());
      line->server = there;
      line->server_id = s;
      line->seat = seat;
      if (seat->Accept(line)) {
        lines_[s] = line;
        core_->OnOpen(ServerId(s));
        return AfterWorker();
      }
    }
    After(absl::Milliseconds(20), [this, s, build] {
      if (build == build_) Connect(s);
    });
  });
}

void ClusterWorker::Disconnect() {
  for (const std::shared_ptr<ClusterLine>& line : std::exchange(lines_, {})) {
    if (line == nullptr) continue;
    line->at_worker = false;
    const bool told = !cluster_->net.cut(process(), line->server);
    cluster_->net.On(line->server, told ? cluster_->net.Delay() : absl::Seconds(2), [line] {
      if (const auto seat = line->seat.lock()) seat->Close(line->id);
    });
  }
}

void ClusterWorker::OnClosed(const std::shared_ptr<ClusterLine>& line) {
  if (!line->at_worker) return;
  line->at_worker = false;
  lines_[line->server_id] = nullptr;
  core_->OnClosed(ServerId(line->server_id));
  Connect(line->server_id);
}

void ClusterWorker::OnReply(const std::shared_ptr<ClusterLine>& line, const Reply& reply) {
  if (!line->at_worker) return;
  core_->OnReply(ServerId(line->server_id), reply);
  AfterWorker();
}

void ClusterWorker::Send(uint32_t, ServerId server, Request request) {
  const std::shared_ptr<ClusterLine>& line = lines_[server.value];
  if (line == nullptr) return;
  request.payload = Copied(request.payload);
  cluster_->net.Message(process(), line->server, [line, sent = std::make_shared<Request>(std::move(request))] {
    if (const auto seat = line->seat.lock()) seat->OnRequest(line, *sent);
  });
}

void ClusterWorker::Compute(uint32_t, Rank rank, Incarnation incarnation) {
  After(cluster_->dice->Between(cluster_->schedule.compute, cluster_->schedule.compute * 2),
        [this, rank, incarnation, build = build_] {
          if (build != build_) return;
          core_->Computed(rank, incarnation);
          AfterWorker();
        });
}

// worker/loop/trainer.cc, FinishPushes
void ClusterWorker::Stop() {
  if (!std::exchange(stopping_, true)) {
    if (core_ != nullptr) core_->Stop();
    After(kFinishWithin, [this, era = era_] {
      if (era != era_ || !stopping_) return;
      for (const auto& [rank, incarnation] : leases_) {
        if (core_ != nullptr) core_->Drop(rank, Used(incarnation));
      }
      Stop();
    });
  }
  // The others have nothing under way.
  for (const auto& [rank, incarnation] : leases_) {
    if (core_ == nullptr || !core_->holds(rank)) Complete(rank, 0);
  }
  AfterWorker();
}

void ClusterWorker::PushRefused(Rank rank) {
  After(absl::Milliseconds(20), [this, rank, build = build_] {
    if (build != build_ || core_ == nullptr) return;
    core_->PushAgain(rank);
    AfterWorker();
  });
}

void ClusterWorker::Complete(Rank rank, uint64_t clock) {
  if (!done_.emplace(rank, clock).second) return;
  After(absl::ZeroDuration(), [this] { Beat(); });  // the coordinator is to know
}

void ClusterWorker::RankLost(Rank rank, Incarnation, const absl::Status& why) {
  // Fenced, of a generation that is over, or overtaken by a zombie: what the coordinator says next decides.
  if (!absl::IsAborted(why) && !absl::IsUnavailable(why)) {
    return Wrong(absl::StrCat("rank ", rank.value, " was told: ", why.ToString()));
  }
  After(absl::Milliseconds(20), [this, build = build_] {
    if (build == build_ && !stopping_) TakeLeases();
  });
}

void ClusterWorker::AfterWorker() {
  if (core_ == nullptr) return;
  const absl::Time next = core_->next_timer();
  if (next >= wake_) return;
  wake_ = next;
  After(std::max(next - now(), absl::ZeroDuration()), [this, build = build_] {
    if (build != build_) return;
    wake_ = absl::InfiniteFuture();
    core_->OnTimer();
    AfterWorker();
  });
}

}  // namespace descent::simulation
