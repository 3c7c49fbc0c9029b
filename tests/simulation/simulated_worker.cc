#include "tests/simulation/simulated_worker.h"

#include <algorithm>
#include <utility>

namespace descent::simulation {

SimulatedWorker::SimulatedWorker(uint32_t index, const Job& job, ClientOptions options, ClientFaults faults,
                                 bool pipelined, Ledger* ledger, Host* host)
    : index_(index),
      job_(job),
      pipelined_(pipelined),
      ledger_(ledger),
      host_(host),
      session_(std::move(options), faults) {}

void SimulatedWorker::Lease(Rank rank, Incarnation incarnation) {
  if (const auto it = runs_.find(rank); it != runs_.end()) {
    if (it->second.incarnation >= incarnation) return;
    Drop(rank, it->second.incarnation);
  }
  Run& run = runs_[rank];
  run.incarnation = incarnation;
  run.ledger.resize(kLedgerBlocks * kBlockElements);
  run.values.resize(kValueBlocks * kBlockElements - 3);
  ClientSession::Output out;
  run.ticket = session_.AskExpected(rank, host_->now(), &out);
  Deliver(std::move(out));
}

void SimulatedWorker::Drop(Rank rank, Incarnation incarnation) {
  const auto it = runs_.find(rank);
  if (it == runs_.end() || it->second.incarnation != incarnation) return;
  session_.Forget(it->second.ticket);
  for (const auto& [ticket, sums] : it->second.pushes) session_.Forget(ticket);
  runs_.erase(it);
}

uint64_t SimulatedWorker::completed(Rank rank) const {
  const auto it = runs_.find(rank);
  if (it == runs_.end() || it->second.stage == Stage::kAsking) return 0;
  return it->second.clock - std::min<uint64_t>(it->second.clock, it->second.pushes.size());
}

PullSpec SimulatedWorker::Pull(Rank rank, Run& run, uint64_t clock) {
  // Whatever is not written is seen by the check.
  std::fill(run.ledger.begin(), run.ledger.end(), -1e9f);
  std::fill(run.values.begin(), run.values.end(), -1e9f);
  PullSpec pull;
  pull.rank = rank;
  pull.clock = Clock(clock);
  pull.dense = {run.ledger.data(), run.values.data()};
  if (job_.sparse) {
    pull.dense.push_back(nullptr);
    run.pull_keys = ledger_->keys(rank, clock);
    run.rows.assign(run.pull_keys.size() * kDim, -1e9f);
    if (!run.pull_keys.empty()) pull.sparse = {{TensorId(kCounts), run.pull_keys, run.rows.data()}};
  }
  return pull;
}

void SimulatedWorker::Push(Rank rank, const Run& run, Sums& sums) {
  sums.ledger.resize(run.ledger.size());
  sums.values.resize(run.values.size());
  PushSpec& push = sums.push;
  push.rank = rank;
  push.incarnation = run.incarnation;
  push.clock = Clock(run.clock);
  push.read_clock = Clock(job_.staleness >= run.clock ? 0 : run.clock - job_.staleness);
  ledger_->Pushed(rank, run.clock);
  if (!ledger_->has_batch(rank, run.clock)) {
    push.weight = {0};
    return;
  }
  push.weight = {1};
  for (uint32_t e = 0; e < sums.ledger.size(); ++e) {
    sums.ledger[e] = e % kBlockElements == rank.value ? job_.gradient(1) : 0;
  }
  for (uint32_t e = 0; e < sums.values.size(); ++e) {
    sums.values[e] = job_.gradient(job_.noise(rank, run.clock, e) - run.values[e] * 0x1p-6f);
  }
  push.dense = {sums.ledger.data(), sums.values.data()};
  if (job_.sparse) {
    push.dense.push_back(nullptr);
    const std::vector<uint64_t>& keys = ledger_->keys(rank, run.clock);
    sums.rows.assign(keys.size() * kDim, job_.gradient(1));
    push.sparse = {{TensorId(kCounts), keys, sums.rows.data()}};
  }
}

void SimulatedWorker::CheckRead(Rank rank, const Run& run) {
  std::string wrong = ledger_->CheckPull(rank, run.clock, run.ledger, run.pull_keys, run.rows);
  for (float value : run.values) {
    if (!(value > -100 && value < 100)) wrong = "a block of `values` did not arrive";
  }
  if (!wrong.empty()) host_->Wrong(std::move(wrong));
}

void SimulatedWorker::Computed(Rank rank, Incarnation incarnation) {
  const auto it = runs_.find(rank);
  if (it == runs_.end() || it->second.incarnation != incarnation || it->second.stage != Stage::kComputing) return;
  Run& run = it->second;
  auto sums = std::make_unique<Sums>();
  Push(rank, run, *sums);
  const PushSpec& push = sums->push;
  ++run.clock;
  if (stopping_) {
    run.stage = Stage::kDraining;
    Pushes one;
    one.push_back(std::move(sums));
    return SendAgain(rank, std::move(one));
  }
  const bool last = run.clock == job_.clocks;
  std::optional<PullSpec> pull;
  if (!last) pull = Pull(rank, run, run.clock);
  run.stage = last ? Stage::kDraining : Stage::kReading;
  ClientSession::Output out;
  if (pipelined_) {
    run.pushes[session_.Exchange(push, std::nullopt, nullptr, host_->now(), &out)] = std::move(sums);
    run.ticket = last ? 0 : session_.Exchange(std::nullopt, pull, nullptr, host_->now(), &out);
  } else {
    run.ticket = session_.Exchange(push, pull, nullptr, host_->now(), &out);
    run.pushes[run.ticket] = std::move(sums);
  }
  Deliver(std::move(out));
}

void SimulatedWorker::OnOpen(ServerId server) {
  ClientSession::Output out;
  session_.OnOpen(server, host_->now(), &out);
  Deliver(std::move(out));
}

void SimulatedWorker::OnReply(ServerId server, const Reply& reply) {
  ClientSession::Output out;
  session_.OnReply(server, reply, host_->now(), &out);
  WriteParts(reply.payload, out.writes);
  Deliver(std::move(out));
}

void SimulatedWorker::OnTimer() {
  ClientSession::Output out;
  session_.OnTimer(host_->now(), &out);
  Deliver(std::move(out));
}

void SimulatedWorker::Deliver(ClientSession::Output out) {
  for (auto& [server, request] : out.send) host_->Send(index_, server, std::move(request));
  for (Ticket ticket : out.finished) Finished(ticket);
}

void SimulatedWorker::Finished(Ticket ticket) {
  const auto it = std::find_if(runs_.begin(), runs_.end(), [&](const auto& entry) {
    return entry.second.ticket == ticket || entry.second.pushes.contains(ticket);
  });
  if (it == runs_.end()) return;
  const Rank rank = it->first;
  Run& run = it->second;
  const absl::Status status = session_.core().status(ticket);
  if (!status.ok()) {
    const Incarnation incarnation = run.incarnation;
    const bool behind = job_.backup_ranks > 0 && (absl::IsOutOfRange(status) || absl::IsNotFound(status));
    if (stopping_) {
      if (!behind) return host_->PushRefused(rank);
      session_.Forget(ticket);
      run.pushes.erase(ticket);
      return Drained(rank);
    }
    Drop(rank, incarnation);
    if (behind) {
      host_->RankLeftBehind();
      return Lease(rank, incarnation);
    }
    return host_->RankLost(rank, incarnation, status);
  }
  run.pushes.erase(ticket);
  if (ticket == run.ticket) {
    if (run.stage == Stage::kAsking) run.clock = session_.core().expected(ticket)[0].value;
    if (run.stage == Stage::kReading) CheckRead(rank, run);
    run.ticket = 0;
  }
  const bool asked = run.stage == Stage::kAsking;
  session_.Forget(ticket);
  if (stopping_) return Drained(rank);
  if (asked && run.clock < job_.clocks) {
    run.stage = Stage::kReading;
    ClientSession::Output out;
    run.ticket = session_.Exchange(std::nullopt, Pull(rank, run, run.clock), nullptr, host_->now(), &out);
    return Deliver(std::move(out));
  }
  Advance(rank);
}

void SimulatedWorker::Stop() {
  stopping_ = true;
  std::vector<Rank> ranks;
  for (const auto& [rank, run] : runs_) {
    if (run.stage != Stage::kComputing) ranks.push_back(rank);  // what is in hand is finished
  }
  for (Rank rank : ranks) PushAgain(rank);
}

void SimulatedWorker::PushAgain(Rank rank) {
  const auto it = runs_.find(rank);
  if (it == runs_.end()) return;
  Run& run = it->second;
  if (run.ticket != 0) session_.Forget(std::exchange(run.ticket, 0));
  Pushes pushes;
  for (auto& [ticket, sums] : std::exchange(run.pushes, {})) {
    session_.Forget(ticket);
    pushes.push_back(std::move(sums));
  }
  SendAgain(rank, std::move(pushes));
}

void SimulatedWorker::SendAgain(Rank rank, Pushes pushes) {
  Run& run = runs_.at(rank);
  if (run.stage != Stage::kComputing) run.stage = Stage::kDraining;
  ClientSession::Output out;
  for (auto& sums : pushes) {
    const Ticket ticket = session_.Exchange(sums->push, std::nullopt, nullptr, host_->now(), &out);
    run.pushes[ticket] = std::move(sums);
  }
  Deliver(std::move(out));
  Drained(rank);
}

void SimulatedWorker::Drained(Rank rank) {
  const auto it = runs_.find(rank);
  if (it == runs_.end() || it->second.stage == Stage::kComputing || !it->second.pushes.empty()) return;
  const uint64_t clock = it->second.clock;
  runs_.erase(it);
  host_->RankStopped(rank, clock);
}

std::map<Rank, SimulatedWorker::Unfinished> SimulatedWorker::TakeUnfinished() {
  std::map<Rank, Unfinished> all;
  for (auto& [rank, run] : runs_) {
    Unfinished& of_rank = all[rank];
    of_rank.incarnation = run.incarnation;
    of_rank.clock = run.clock;
    for (auto& [ticket, sums] : run.pushes) of_rank.pushes.push_back(std::move(sums));
  }
  runs_.clear();
  return all;
}

void SimulatedWorker::Resume(std::map<Rank, Unfinished> unfinished) {
  stopping_ = true;
  for (auto& [rank, of_rank] : unfinished) {
    Run& run = runs_[rank];
    run.incarnation = of_rank.incarnation;
    run.clock = of_rank.clock;
    run.stage = Stage::kDraining;
    SendAgain(rank, std::move(of_rank.pushes));
  }
}

void SimulatedWorker::Advance(Rank rank) {
  Run& run = runs_.at(rank);
  if (run.ticket != 0 || run.stage == Stage::kComputing) return;
  if (run.clock >= job_.clocks) {
    if (!run.pushes.empty()) return;
    runs_.erase(rank);
    return host_->RankDone(rank);
  }
  if (run.pushes.size() > 2) return;
  run.stage = Stage::kComputing;
  host_->Compute(index_, rank, run.incarnation);
}

}  // namespace descent::simulation
