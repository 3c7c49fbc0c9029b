#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/simulation/simulation_world.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kResendAfter = absl::Milliseconds(100);

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

}  // namespace

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

void Simulation::StopWorker(uint32_t w) {
  coverage_.retried += processes_[w].worker->core().stats().resends;
  for (uint64_t id : processes_[w].line) {
    if (id != 0) Close(id);
  }
  processes_[w].worker.reset();
}

void Simulation::Close(uint64_t id) {
  Line& line = lines_[id];
  line.alive = false;
  processes_[line.worker].line[line.server] = 0;
  nodes_[line.server]->node->OnClose(ConnectionId(id), now_);
  AfterNode(line.server);
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

bool Simulation::Deliverable(const Event& event, int direction) {
  Line& line = lines_[event.connection.value];
  if (!line.alive) return false;
  if (event.sent_as < line.delivered[direction]) ++coverage_.reordered;
  line.delivered[direction] = std::max(line.delivered[direction], event.sent_as);
  return true;
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

}  // namespace descent::simulation
