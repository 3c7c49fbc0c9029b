#include "tests/simulation/simulation.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/node/server_node.h"
#include "tests/simulation/final_state.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/node_options.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/server_images.h"
#include "tests/simulation/simulated_worker.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kResendAfter = absl::Milliseconds(100);
constexpr absl::Duration kVirtualLimit = absl::Seconds(300);
constexpr uint64_t kEventLimit = 500'000;
const absl::Time kStart = absl::UnixEpoch() + absl::Hours(24);

Payload Copy(const Payload& from) {
  Payload to;
  if (from.empty()) return to;
  std::shared_ptr<std::byte[]> bytes(new std::byte[from.size()]);
  from.CopyTo(bytes.get());
  // In two pieces, cut anywhere: a float may straddle them.
  const size_t cut = from.size() / 3;
  to.Append(bytes.get(), cut, bytes);
  to.Append(bytes.get() + cut, from.size() - cut, bytes);
  return to;
}

class Simulation final : public SimulatedWorker::Host {
 public:
  explicit Simulation(const SimulationOptions& options)
      : options_(options),
        dice_(options.seed),
        job_(MakeJob(options.seed % kJobs)),
        schedule_(MakeSchedule(job_, dice_)),
        ledger_(job_) {
    envelope_.run = RunId(1);
    envelope_.generation = Generation(1);
    envelope_.map_epoch = 1;
    specs_ = job_.tensors();
    map_ = MakePartitionMap(specs_, job_.geometry(), schedule_.servers);
  }

  SimulationResult Run();

  // --- SimulatedWorker::Host ---
  absl::Time now() const override { return now_; }
  void Send(uint32_t worker, ServerId server, Request request) override;
  void Compute(uint32_t worker, Rank rank, Incarnation incarnation) override;
  void RankDone(Rank rank) override;
  void RankLost(Rank rank, Incarnation incarnation, const absl::Status& why) override;
  void Wrong(std::string what) override {
    if (error_.empty()) error_ = std::move(what);
  }

 private:
  enum class Kind : uint8_t {
    kRequest,
    kReply,
    kSent,
    kNodeTimer,
    kWake,
    kComputed,
    kOpen,
    kBreak,
    kKill,
    kStart,
    kMove,
    kLease,
    kFence,
    kTold,
    kCut,
    kDie
  };
  struct Event {
    absl::Time when;
    uint64_t sequence = 0;
    Kind kind = Kind::kWake;
    uint32_t worker = 0, server = 0;
    uint64_t life = 0;  // of the worker process
    ConnectionId connection;
    Rank rank;
    Incarnation incarnation;
    std::unique_ptr<Request> request;
    std::unique_ptr<Reply> reply;
    uint64_t sent_as = 0;  // number of the message in its direction of its connection
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
  };
  struct Line {
    uint32_t worker = 0, server = 0;
    bool alive = false;
    absl::Time last[2] = {absl::InfinitePast(), absl::InfinitePast()};  // latest delivery, per direction
    uint64_t sent[2] = {0, 0}, delivered[2] = {0, 0};
    absl::flat_hash_set<uint64_t> seen, to_be_fenced;  // pushes delivered to the server; never iterated
  };
  struct Process {
    uint64_t life = 0;
    std::unique_ptr<SimulatedWorker> worker;  // null: dead
    std::vector<uint64_t> line;               // per server; 0: none
    absl::Time wake = absl::InfiniteFuture();
  };
  struct Node final : ServerNode::Output {
    void Send(ConnectionId to, Reply reply) override { out.emplace_back(to, std::move(reply)); }
    void Fail(absl::Status cause) override { failure = std::move(cause); }
    void Scalars(Clock, std::vector<BlockSquare>) override {}
    std::unique_ptr<ServerNode> node;
    std::vector<std::pair<ConnectionId, Reply>> out;
    absl::Status failure;
    absl::Time timer = absl::InfiniteFuture();
    std::vector<Incarnation> newest;       // per rank, as it was told
    std::shared_ptr<ServerImages> images;  // of the cut
  };

  Event& Push(absl::Duration after, Kind kind);
  void Commit();
  // On from the images of the servers before, where there are any.
  bool MakeNodes(const std::vector<std::shared_ptr<ServerImages>>& images);
  void CutServer(uint32_t server);
  void DieIfAllAreCut();
  void Die();
  void CountNodes();
  void StopWorker(uint32_t worker);
  void StartWorker(uint32_t worker);
  void Close(uint64_t line);
  void Transmit(Line& line, int direction, Event event);
  void Handle(Event& event);
  void HandleRequest(Event& event);
  void AfterNode(uint32_t server);
  void AfterWorker(uint32_t worker);
  void Grant(Rank rank, uint32_t worker, absl::Duration after);
  bool Deliverable(const Event& event, int direction);
  void CheckEnd(SimulationResult* result);
  uint32_t AnyWorker() { return static_cast<uint32_t>(dice_.Below(schedule_.workers)); }

  const SimulationOptions options_;
  Dice dice_;
  const Job job_;
  const Schedule schedule_;
  Ledger ledger_;
  Envelope envelope_;
  std::vector<TensorSpec> specs_;
  PartitionMap map_;

  absl::Time now_ = kStart;
  std::vector<Event> events_;  // a heap
  Event next_;
  uint64_t sequence_ = 0;
  std::vector<Line> lines_{1};  // by connection id
  std::vector<Process> processes_;
  std::vector<std::unique_ptr<Node>> nodes_;
  struct Lease {
    uint32_t worker = 0;
    Incarnation incarnation;
    bool done = false;
  };
  std::vector<Lease> leases_;
  uint32_t done_ = 0;
  bool dies_ = false;  // an event is under way that ends all servers
  std::string error_;
  uint64_t trace_ = 0;
  uint64_t handled_ = 0;
  Coverage coverage_;
};

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

void Simulation::StopWorker(uint32_t w) {
  coverage_.retried += processes_[w].worker->core().stats().resends;
  for (uint64_t id : processes_[w].line) {
    if (id != 0) Close(id);
  }
  processes_[w].worker.reset();
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

    absl::Time end = kStart + kVirtualLimit;
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

void Simulation::StartWorker(uint32_t w) {
  Process& process = processes_[w];
  ++process.life;
  ClientOptions options;
  options.envelope = envelope_;
  options.tensors = specs_;
  options.geometry = job_.geometry();
  options.map = map_;
  options.resend_after = kResendAfter;
  options.max_payload_bytes = schedule_.max_payload_bytes;
  process.worker = std::make_unique<SimulatedWorker>(w, job_, std::move(options), options_.client_faults,
                                                     schedule_.pipelined, &ledger_, this);
  process.wake = absl::InfiniteFuture();
  for (uint32_t s = 0; s < schedule_.servers; ++s) {
    Event& open = Push(dice_.Between(absl::ZeroDuration(), schedule_.delay), Kind::kOpen);
    open.worker = w;
    open.server = s;
    open.life = process.life;
    Commit();
  }
}

void Simulation::Close(uint64_t id) {
  Line& line = lines_[id];
  line.alive = false;
  processes_[line.worker].line[line.server] = 0;
  nodes_[line.server]->node->OnClose(ConnectionId(id), now_);
  AfterNode(line.server);
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

void Simulation::Transmit(Line& line, int direction, Event event) {
  ++line.sent[direction];
  event.sent_as = line.sent[direction];
  if (dice_.Chance(schedule_.drop)) {
    ++coverage_.dropped;
    return;
  }
  const int copies = dice_.Chance(schedule_.duplicate) ? 2 : 1;
  coverage_.duplicated += copies - 1;
  for (int i = 0; i < copies; ++i) {
    absl::Duration delay = dice_.Between(absl::ZeroDuration(), schedule_.delay);
    if (dice_.Chance(schedule_.late)) delay = delay * 20;
    absl::Time when = now_ + delay;
    if (schedule_.keep_order) when = line.last[direction] = std::max(when, line.last[direction]);
    next_ = Event();
    next_.when = when;
    next_.sequence = ++sequence_;
    next_.kind = event.kind;
    next_.connection = event.connection;
    next_.sent_as = event.sent_as;
    if (event.request != nullptr) next_.request = std::make_unique<Request>(*event.request);
    if (event.reply != nullptr) next_.reply = std::make_unique<Reply>(*event.reply);
    Commit();
  }
}

void Simulation::Send(uint32_t worker, ServerId server, Request request) {
  const uint64_t id = processes_[worker].line[server.value];
  if (id == 0) return;
  Event event;
  event.kind = Kind::kRequest;
  event.connection = ConnectionId(id);
  request.payload = Copy(request.payload);
  event.request = std::make_unique<Request>(std::move(request));
  Transmit(lines_[id], 0, std::move(event));
}

void Simulation::Compute(uint32_t worker, Rank rank, Incarnation incarnation) {
  const bool slow = rank.value == schedule_.slow_rank;
  Event& event = Push(slow ? dice_.Between(absl::Milliseconds(15), absl::Milliseconds(60))
                           : dice_.Between(absl::Milliseconds(1), absl::Milliseconds(4)),
                      Kind::kComputed);
  event.worker = worker;
  event.life = processes_[worker].life;
  event.rank = rank;
  event.incarnation = incarnation;
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

bool Simulation::Deliverable(const Event& event, int direction) {
  Line& line = lines_[event.connection.value];
  if (!line.alive) return false;
  if (event.sent_as < line.delivered[direction]) ++coverage_.reordered;
  line.delivered[direction] = std::max(line.delivered[direction], event.sent_as);
  return true;
}

void Simulation::Handle(Event& event) {
  trace_ = Mix(trace_, static_cast<uint64_t>(absl::ToInt64Nanoseconds(now_ - kStart)));
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
  }
}

void Simulation::HandleRequest(Event& event) {
  const uint32_t server = lines_[event.connection.value].server;
  Node& node = *nodes_[server];
  trace_ = Mix(trace_, event.request->id << 1 | event.request->push.has_value());
  // Once a server has heard of a newer incarnation, an older one must be told that it is fenced, whatever it pushes. (A
  // copy of what came before may still be answered as it was then.)
  if (event.request->push.has_value()) {
    Line& line = lines_[event.connection.value];
    Incarnation& newest = node.newest[event.request->push->rank.value];
    if (line.seen.insert(event.request->id).second && event.request->push->incarnation < newest) {
      line.to_be_fenced.insert(event.request->id);
    }
    newest = std::max(newest, event.request->push->incarnation);
  }
  node.node->OnRequest(event.connection, std::move(*event.request), now_);
  AfterNode(server);
}

void Simulation::AfterNode(uint32_t server) {
  Node& node = *nodes_[server];
  std::vector<std::pair<ConnectionId, Reply>> out = std::move(node.out);
  node.out.clear();
  for (auto& [to, reply] : out) {
    Line& line = lines_[to.value];
    if (!line.alive) continue;
    if (reply.ack.has_value() && reply.ack->outcome != Outcome::kFenced && line.to_be_fenced.contains(reply.id)) {
      Wrong("a push of an older incarnation was not answered as fenced");
    }
    Event& sent = Push(dice_.Between(absl::ZeroDuration(), absl::Microseconds(200)), Kind::kSent);
    sent.connection = to;
    sent.server = server;
    Commit();
    Event event;
    event.kind = Kind::kReply;
    event.connection = to;
    reply.payload = Copy(reply.payload);
    event.reply = std::make_unique<Reply>(std::move(reply));
    Transmit(line, 1, std::move(event));
  }
  if (!node.failure.ok()) Wrong(absl::StrCat("server ", server, " failed: ", node.failure.ToString()));
  if (node.images != nullptr) {
    if (!node.images->done() && dice_.Chance(0.1)) node.node->PumpCut();
    DieIfAllAreCut();
  }
  const absl::Time next = node.node->next_timer();
  if (next < node.timer) {
    node.timer = next;
    Event& timer = Push(std::max(next - now_, absl::ZeroDuration()), Kind::kNodeTimer);
    timer.server = server;
    Commit();
  }
}

void Simulation::AfterWorker(uint32_t w) {
  Process& process = processes_[w];
  const absl::Time next = process.worker->next_timer();
  if (next >= process.wake) return;
  process.wake = next;
  Event& wake = Push(std::max(next - now_, absl::ZeroDuration()), Kind::kWake);
  wake.worker = w;
  wake.life = process.life;
  Commit();
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

}  // namespace

SimulationResult Simulate(const SimulationOptions& options) { return Simulation(options).Run(); }

}  // namespace descent::simulation
