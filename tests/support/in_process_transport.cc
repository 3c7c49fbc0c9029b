#include "tests/support/in_process_transport.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/random/philox.h"

namespace descent::testing {
namespace {

constexpr size_t kQueueMessages = 256;  // per connection, towards the server

// The same bytes in memory of their own, in up to three pieces.
Payload Copy(const Payload& from, uint64_t bits) {
  Payload to;
  if (from.empty()) return to;
  std::shared_ptr<std::byte[]> bytes(new std::byte[from.size()]);
  from.CopyTo(bytes.get());
  size_t a = bits % (from.size() + 1), b = (bits >> 32) % (from.size() + 1);
  if (a > b) std::swap(a, b);
  to.Append(bytes.get(), a, bytes);
  to.Append(bytes.get() + a, b - a, bytes);
  to.Append(bytes.get() + b, from.size() - b, bytes);
  return to;
}

class Chances {
 public:
  explicit Chances(const NetworkFaults& faults) : faults_(faults), stream_(faults.seed, Purpose::kTest, 0, 0) {}
  uint64_t Bits() { return stream_.Bits64(next_.fetch_add(1, std::memory_order_relaxed)); }
  bool Drop() { return Hit(faults_.drop, &dropped_); }
  bool Duplicate() { return Hit(faults_.duplicate, &duplicated_); }
  absl::Time NotBefore(absl::Time now) {
    if (faults_.max_delay <= absl::ZeroDuration()) return absl::InfinitePast();
    return now + faults_.max_delay * Fraction();
  }
  uint64_t dropped() const { return dropped_.load(); }
  uint64_t duplicated() const { return duplicated_.load(); }

 private:
  double Fraction() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }
  bool Hit(double probability, std::atomic<uint64_t>* count) {
    if (probability <= 0 || Fraction() >= probability) return false;
    count->fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  const NetworkFaults faults_;
  const RandomStream stream_;
  std::atomic<uint64_t> next_{0}, dropped_{0}, duplicated_{0};
};

class Server;

// The client's end: events for one thread. Replies are bounded by the servers' send windows.
struct Inbox {
  struct Item {
    ServerId server;
    ConnectionId connection;
    absl::Time not_before;
    enum class What { kOpen, kReply, kClosed } what;
    Reply reply;
  };
  Mutex mu;
  CondVar changed;
  std::map<uint32_t, std::deque<Item>> items ABSL_GUARDED_BY(mu);  // per server, in order
  absl::Time wake ABSL_GUARDED_BY(mu) = absl::InfiniteFuture();
  bool stopped ABSL_GUARDED_BY(mu) = false;

  void Push(Item item) {
    MutexLock lock(&mu);
    if (stopped) return;
    items[item.server.value].push_back(std::move(item));
    changed.SignalAll();
  }
};

// Adds up what the servers have measured, once all of them have: what the coordinator does on a cluster.
class Agreement {
 public:
  explicit Agreement(uint32_t servers) : servers_(servers) {}
  // The totals, with the last part.
  std::optional<ScalarTotals> Add(Clock clock, size_t tensors, std::vector<BlockScalars> parts) {
    MutexLock lock(&mu_);
    auto& [told, all] = pending_[clock];
    all.insert(all.end(), parts.begin(), parts.end());
    if (++told < servers_) return std::nullopt;
    std::sort(all.begin(), all.end(), [](const BlockScalars& a, const BlockScalars& b) { return a.id < b.id; });
    ScalarTotals totals = AddInBlockOrder(clock, tensors, all);
    pending_.erase(clock);
    return totals;
  }

 private:
  const uint32_t servers_;  // that hold something
  Mutex mu_;
  std::map<Clock, std::pair<uint32_t, std::vector<BlockScalars>>> pending_ ABSL_GUARDED_BY(mu_);
};

class Server final : public ServerNode::Output {
 public:
  using TellAll = std::function<void(const ScalarTotals&)>;
  Server(ServerId id, Chances* chances, Agreement* agreement, TellAll tell_all)
      : id_(id), chances_(chances), agreement_(agreement), tell_all_(std::move(tell_all)) {}
  ~Server() override { Stop(); }
  void Stop() {
    if (!thread_.joinable()) return;
    {
      MutexLock lock(&mu_);
      stopped_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }

  absl::Status Start(ServerNodeOptions options) {
    tensors_ = options.store.tensors.size();
    auto node = ServerNode::Create(std::move(options), this);
    if (!node.ok()) return node.status();
    node_ = *std::move(node);
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  ConnectionId Connect(std::shared_ptr<Inbox> inbox) {
    MutexLock lock(&mu_);
    return ConnectLocked(std::move(inbox));
  }

  void Disconnect(const Inbox* inbox) {
    MutexLock lock(&mu_);
    for (auto it = lines_.begin(); it != lines_.end();) {
      if (it->second.inbox.get() != inbox) {
        ++it;
        continue;
      }
      const ConnectionId id(it->first);
      control_.push_back([this, id] { node_->OnClose(id, absl::Now()); });
      it = lines_.erase(it);
    }
    changed_.SignalAll();
  }

  void Break() {
    MutexLock lock(&mu_);
    std::map<uint64_t, Line> old = std::move(lines_);
    lines_.clear();
    for (auto& [value, line] : old) {
      const ConnectionId id(value);
      control_.push_back([this, id] { node_->OnClose(id, absl::Now()); });
      line.inbox->Push({id_, id, absl::InfinitePast(), Inbox::Item::What::kClosed, {}});
      ConnectLocked(line.inbox);
    }
    changed_.SignalAll();
  }

  // Blocks while the connection's queue is full.
  void Enqueue(ConnectionId id, Request request) {
    if (chances_->Drop()) return;
    const bool twice = chances_->Duplicate();
    request.payload = Copy(request.payload, chances_->Bits());
    MutexLock lock(&mu_);
    for (;;) {
      const auto it = lines_.find(id.value);
      if (it == lines_.end() || stopped_) return;  // the connection is gone: dropped
      if (it->second.requests.size() < kQueueMessages) {
        std::deque<Queued>& queue = it->second.requests;
        absl::Time when = chances_->NotBefore(absl::Now());
        if (!queue.empty()) when = std::max(when, queue.back().not_before);
        if (twice) queue.push_back({when, request});
        queue.push_back({when, std::move(request)});
        changed_.SignalAll();
        return;
      }
      changed_.WaitUntil(&mu_, absl::InfiniteFuture());
    }
  }

  void Sent(ConnectionId id) {
    MutexLock lock(&mu_);
    control_.push_back([this, id] { node_->OnSent(id, absl::Now()); });
    changed_.SignalAll();
  }

  void Tell(const ScalarTotals& totals) {
    MutexLock lock(&mu_);
    control_.push_back([this, totals] { node_->Agreed(totals, absl::Now()).IgnoreError(); });
    changed_.SignalAll();
  }

  void Call(const std::function<void(ServerNode&)>& f) {
    bool done = false;
    MutexLock lock(&mu_);
    control_.push_back([&] {
      f(*node_);
      MutexLock inner(&mu_);
      done = true;
      changed_.SignalAll();
    });
    changed_.SignalAll();
    while (!done) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
  }

  void Pause(bool paused) {
    MutexLock lock(&mu_);
    paused_ = paused;
    changed_.SignalAll();
  }

  absl::Status failure() {
    MutexLock lock(&mu_);
    return failure_;
  }

 private:
  struct Queued {
    absl::Time not_before;
    Request request;
  };
  struct Line {
    std::shared_ptr<Inbox> inbox;
    std::deque<Queued> requests;
    absl::Time last_reply = absl::InfinitePast();
  };

  ConnectionId ConnectLocked(std::shared_ptr<Inbox> inbox) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const ConnectionId id(++next_connection_);
    control_.push_back([this, id] { node_->OnOpen(id, absl::Now()); });
    inbox->Push({id_, id, absl::InfinitePast(), Inbox::Item::What::kOpen, {}});
    lines_[id.value].inbox = std::move(inbox);
    changed_.SignalAll();
    return id;
  }

  // --- ServerNode::Output, on the node's thread without the lock ---
  void Send(ConnectionId to, Reply reply) override {
    if (chances_->Drop()) return Sent(to);
    const bool twice = chances_->Duplicate();
    reply.payload = Copy(reply.payload, chances_->Bits());
    std::shared_ptr<Inbox> inbox;
    absl::Time when;
    {
      MutexLock lock(&mu_);
      const auto it = lines_.find(to.value);
      if (it == lines_.end()) return;
      when = it->second.last_reply = std::max(it->second.last_reply, chances_->NotBefore(absl::Now()));
      inbox = it->second.inbox;
    }
    if (twice) {  // the copy is not one of the node's: it is not reported as sent
      Inbox::Item copy{id_, ConnectionId(0), when, Inbox::Item::What::kReply, reply};
      inbox->Push(std::move(copy));
    }
    inbox->Push({id_, to, when, Inbox::Item::What::kReply, std::move(reply)});
  }
  void Fail(absl::Status cause) override {
    MutexLock lock(&mu_);
    if (failure_.ok()) failure_ = std::move(cause);
  }
  void Scalars(Clock, std::vector<BlockSquare>) override {}
  void Measured(Clock clock, std::vector<BlockScalars> parts) override {
    if (const auto totals = agreement_->Add(clock, tensors_, std::move(parts))) tell_all_(*totals);
  }

  void Run() {
    mu_.Lock();
    while (!stopped_) {
      if (!control_.empty()) {
        std::function<void()> f = std::move(control_.front());
        control_.pop_front();
        mu_.Unlock();
        f();
        mu_.Lock();
        continue;
      }
      const absl::Time now = absl::Now();
      if (timer_ <= now) {
        mu_.Unlock();
        node_->OnTimer(now);
        ReadTimer();
        mu_.Lock();
        continue;
      }
      absl::Time next = timer_;
      std::vector<uint64_t> ready;
      if (!paused_) {
        for (const auto& [id, line] : lines_) {
          if (line.requests.empty()) continue;
          if (line.requests.front().not_before <= now) {
            ready.push_back(id);
          } else {
            next = std::min(next, line.requests.front().not_before);
          }
        }
      }
      if (ready.empty()) {
        changed_.WaitUntil(&mu_, next);
        continue;
      }
      const uint64_t id = ready[chances_->Bits() % ready.size()];
      std::deque<Queued>& queue = lines_[id].requests;
      Request request = std::move(queue.front().request);
      queue.pop_front();
      changed_.SignalAll();
      mu_.Unlock();
      node_->OnRequest(ConnectionId(id), std::move(request), absl::Now());
      ReadTimer();
      mu_.Lock();
    }
    mu_.Unlock();
  }
  void ReadTimer() {
    const absl::Time next = node_->next_timer();
    MutexLock lock(&mu_);
    timer_ = next;
  }

  const ServerId id_;
  Chances* const chances_;
  Agreement* const agreement_;
  const TellAll tell_all_;
  size_t tensors_ = 0;
  std::unique_ptr<ServerNode> node_;  // of the thread, once it runs
  Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> control_ ABSL_GUARDED_BY(mu_);  // before any request
  std::map<uint64_t, Line> lines_ ABSL_GUARDED_BY(mu_);
  uint64_t next_connection_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time timer_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

class InProcessTransport final : public ClientTransport {
 public:
  explicit InProcessTransport(const std::vector<std::unique_ptr<Server>>* servers)
      : servers_(servers), inbox_(std::make_shared<Inbox>()) {}
  ~InProcessTransport() override { Stop(); }

  void Start(Handler* handler) override {
    handler_ = handler;
    for (uint32_t s = 0; s < servers_->size(); ++s) (*servers_)[s]->Connect(inbox_);
    thread_ = std::thread([this] { Run(); });
  }
  void Send(ServerId server, Request request) override {
    ConnectionId connection;
    {
      MutexLock lock(&mu_);
      const auto it = open_.find(server.value);
      if (it == open_.end()) return;
      connection = it->second;
    }
    (*servers_)[server.value]->Enqueue(connection, std::move(request));
  }
  void WakeAt(absl::Time when) override {
    MutexLock lock(&inbox_->mu);
    inbox_->wake = when;
    inbox_->changed.SignalAll();
  }
  void Stop() override {
    {
      MutexLock lock(&inbox_->mu);
      inbox_->stopped = true;
      inbox_->changed.SignalAll();
    }
    // Disconnecting also frees a Send that waits for room.
    for (const auto& server : *servers_) server->Disconnect(inbox_.get());
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() {
    for (;;) {
      Inbox::Item item;
      {
        MutexLock lock(&inbox_->mu);
        for (;;) {
          if (inbox_->stopped) return;
          const absl::Time now = absl::Now();
          absl::Time next = inbox_->wake;
          std::deque<Inbox::Item>* ready = nullptr;
          for (auto& [server, queue] : inbox_->items) {
            if (queue.empty()) continue;
            if (queue.front().not_before <= now) {
              ready = &queue;
              break;
            }
            next = std::min(next, queue.front().not_before);
          }
          if (ready != nullptr) {
            item = std::move(ready->front());
            ready->pop_front();
            break;
          }
          if (inbox_->wake <= now) {
            inbox_->wake = absl::InfiniteFuture();
            item.server = ServerId(~0u);
            break;
          }
          inbox_->changed.WaitUntil(&inbox_->mu, next);
        }
      }
      if (item.server.value == ~0u) {
        handler_->OnWake(absl::Now());
        continue;
      }
      switch (item.what) {
        case Inbox::Item::What::kOpen: {
          {
            MutexLock lock(&mu_);
            open_[item.server.value] = item.connection;
          }
          handler_->OnOpen(item.server);
          break;
        }
        case Inbox::Item::What::kClosed: {
          {
            MutexLock lock(&mu_);
            open_.erase(item.server.value);
          }
          handler_->OnClosed(item.server, absl::UnavailableError("connection broken"));
          break;
        }
        case Inbox::Item::What::kReply:
          if (item.connection.value != 0) (*servers_)[item.server.value]->Sent(item.connection);
          handler_->OnReply(item.server, std::move(item.reply));
          break;
      }
    }
  }

  const std::vector<std::unique_ptr<Server>>* const servers_;
  const std::shared_ptr<Inbox> inbox_;
  Handler* handler_ = nullptr;
  Mutex mu_;
  std::map<uint32_t, ConnectionId> open_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

class Cluster final : public InProcessCluster {
 public:
  explicit Cluster(NetworkFaults faults) : chances_(faults) {}
  ~Cluster() override {
    for (const auto& server : servers_) server->Stop();  // they talk to each other
  }
  absl::Status Start(std::vector<ServerNodeOptions> nodes) {
    uint32_t holding = 0;
    for (uint32_t s = 0; s < nodes.size(); ++s) {
      const auto& placement = nodes[s].store.map.placement;
      holding += std::any_of(placement.begin(), placement.end(), [&](const std::vector<ServerId>& of) {
        return std::find(of.begin(), of.end(), ServerId(s)) != of.end();
      });
    }
    agreement_ = std::make_unique<Agreement>(holding);
    for (uint32_t s = 0; s < nodes.size(); ++s) {
      servers_.push_back(std::make_unique<Server>(ServerId(s), &chances_, agreement_.get(), [this](const auto& totals) {
        for (const auto& server : servers_) server->Tell(totals);
      }));
    }
    for (uint32_t s = 0; s < nodes.size(); ++s) {
      Server* server = servers_[s].get();
      if (absl::Status status = server->Start(std::move(nodes[s])); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::unique_ptr<ClientTransport> NewTransport() override { return std::make_unique<InProcessTransport>(&servers_); }
  void BreakConnections(ServerId server) override { servers_[server.value]->Break(); }
  void Pause(ServerId server, bool paused) override { servers_[server.value]->Pause(paused); }
  void OnNode(ServerId server, const std::function<void(ServerNode&)>& f) override { servers_[server.value]->Call(f); }
  absl::Status failure() const override {
    for (const auto& server : servers_) {
      if (absl::Status status = server->failure(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  uint64_t dropped() const override { return chances_.dropped(); }
  uint64_t duplicated() const override { return chances_.duplicated(); }

 private:
  Chances chances_;
  std::unique_ptr<Agreement> agreement_;
  std::vector<std::unique_ptr<Server>> servers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<InProcessCluster>> InProcessCluster::Create(std::vector<ServerNodeOptions> nodes,
                                                                           NetworkFaults faults) {
  auto cluster = std::make_unique<Cluster>(faults);
  if (absl::Status status = cluster->Start(std::move(nodes)); !status.ok()) return status;
  return std::unique_ptr<InProcessCluster>(std::move(cluster));
}

}  // namespace descent::testing
