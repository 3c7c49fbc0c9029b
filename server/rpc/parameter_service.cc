#include "server/rpc/parameter_service.h"

#include <grpcpp/alarm.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <set>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/net/grpc_time.h"
#include "server/rpc/service_loop.h"

namespace descent {
namespace {

class ParameterServiceImpl final : public ParameterService, public ServiceLoop, private ServerNode::Output {
 public:
  ParameterServiceImpl(ParameterServiceOptions options, Callbacks callbacks)
      : options_(options), callbacks_(std::move(callbacks)) {}
  ~ParameterServiceImpl() override { Stop(); }

  // --- ParameterService
  // -----------------------------------------------------------------------------------------------
  ServerNode::Output* output() override { return this; }

  void Install(ServerNodeOptions options, std::unique_ptr<ServerNode> node) override {
    // std::function wants what it holds to be copyable.
    auto shared = std::make_shared<std::unique_ptr<ServerNode>>(std::move(node));
    Post([this, shared, options = std::move(options)](ServerNode*) { Replace(options, std::move(*shared)); });
  }

  void Carry(Generation generation) override {
    Post([this, generation](ServerNode* node) {
      if (node == nullptr) return;
      std::vector<ConnectionId> open;
      for (const auto& [id, connection] : connections_) open.push_back(id);
      for (ConnectionId id : open) Close(id);
      node->Carry(generation);
      node_options_.envelope.generation = generation;
      TellCalls();
    });
  }

  void Uninstall() override {
    struct Gone {
      Mutex mu;
      CondVar changed;
      bool yes ABSL_GUARDED_BY(mu) = false;
    };
    auto gone = std::make_shared<Gone>();
    // Told also where the service stops first and drops the task.
    auto tell = std::shared_ptr<void>(nullptr, [gone](void*) {
      MutexLock lock(&gone->mu);
      gone->yes = true;
      gone->changed.SignalAll();
    });
    Post([this, tell](ServerNode* node) {
      if (node != nullptr) Replace({}, nullptr);
    });
    tell.reset();
    MutexLock lock(&gone->mu);
    while (!gone->yes) gone->changed.WaitUntil(&gone->mu, absl::InfiniteFuture());
  }

  void Post(std::function<void(ServerNode*)> task) override {
    MutexLock lock(&mu_);
    if (stopped_) return;
    tasks_.push_back(std::move(task));
    if (started_ && !kicked_) Kick();
  }

  void Register(grpc::ServerBuilder* builder) override {
    DESCENT_CHECK(queue_ == nullptr);
    builder->RegisterService(&service_);
    queue_ = builder->AddCompletionQueue();
  }

  void Start() override {
    {
      MutexLock lock(&mu_);
      started_ = true;
      if (!tasks_.empty()) Kick();
    }
    thread_ = std::thread([this] { Run(); });
  }

  void Stop() override {
    {
      MutexLock lock(&mu_);
      if (stopped_) return;
      stopped_ = true;
      if (started_ && !kicked_) Kick();
    }
    if (thread_.joinable()) {
      thread_.join();
    } else if (queue_ != nullptr) {
      ShutDownQueue();
    }
  }

  // --- ServiceLoop
  // ----------------------------------------------------------------------------------------------------
  const ParameterServiceOptions& options() const override { return options_; }
  RawParameterService* service() override { return &service_; }
  grpc::ServerCompletionQueue* queue() override { return queue_.get(); }
  ServerNode* node() override { return node_.get(); }
  const ServerNodeOptions& node_options() const override { return node_options_; }

  void Enter(Call* call) override { calls_.insert({call, absl::InfiniteFuture()}); }
  void Leave(Call* call) override {
    SetTimer(call, absl::InfiniteFuture());
    calls_.erase(call);
  }
  void SetTimer(Call* call, absl::Time when) override {
    const auto it = calls_.find(call);
    if (it == calls_.end() || it->second == when) return;
    if (it->second != absl::InfiniteFuture()) timers_.erase({it->second, call});
    it->second = when;
    if (when != absl::InfiniteFuture()) timers_.insert({when, call});
  }
  void Defer(std::function<void()> task) override { deferred_.push_back(std::move(task)); }

  ConnectionId Open(Connection* connection, bool unary) override {
    const ConnectionId id(++last_connection_);
    connections_[id] = connection;
    node_->OnOpen(id, absl::Now(), unary);
    return id;
  }
  void Close(ConnectionId id) override {
    if (connections_.erase(id) > 0) node_->OnClose(id, absl::Now());
  }
  void Handle(ConnectionId id, Request request) override {
    if (connections_.contains(id)) node_->OnRequest(id, std::move(request), absl::Now());
  }
  void Sent(ConnectionId id) override {
    if (connections_.contains(id)) node_->OnSent(id, absl::Now());
  }

 private:
  // --- ServerNode::Output
  // ---------------------------------------------------------------------------------------------
  void Send(ConnectionId to, Reply reply) override {
    const auto it = connections_.find(to);
    if (it != connections_.end()) it->second->Send(std::move(reply));
  }
  void Fail(absl::Status cause) override {
    if (callbacks_.fail) callbacks_.fail(std::move(cause));
  }
  void Scalars(Clock clock, std::vector<BlockSquare> squares) override {
    if (callbacks_.scalars) callbacks_.scalars(clock, std::move(squares));
  }
  void Norms(Clock clock, std::vector<BlockSquare> squares) override {
    if (callbacks_.norms) callbacks_.norms(clock, std::move(squares));
  }
  void Measured(Clock clock, std::vector<BlockScalars> parts) override {
    if (callbacks_.measured) callbacks_.measured(clock, std::move(parts));
  }

  void Kick() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    kicked_ = true;
    kick_.Set(queue_.get(), ToGprTime(absl::Now()), nullptr);
  }

  void Replace(const ServerNodeOptions& options, std::unique_ptr<ServerNode> node) {
    connections_.clear();  // the old node is not told: it goes
    node_options_ = options;
    node_ = std::move(node);
    TellCalls();
  }

  void TellCalls() {
    std::vector<Call*> calls;
    for (const auto& [call, when] : calls_) calls.push_back(call);
    // A call that ends deletes itself in a later event, never in here.
    for (Call* call : calls) call->OnNode();
  }

  void Run() {
    AcceptExchange(this);
    AcceptPushPull(this);
    AcceptExport(this);
    // gRPC's server has been shut down before Stop is called, so that all calls end by themselves. The queue goes after
    // the last of them: nothing may be begun on it then.
    while (!stop_ || !calls_.empty()) {
      RunDeferred();
      const absl::Time deadline = RunTimers();
      RunDeferred();
      void* tag = nullptr;
      bool ok = false;
      // What a cut still lacks is imaged between events.
      const bool pumping = node_ != nullptr && node_->PumpCut();
      const auto got = queue_->AsyncNext(&tag, &ok, ToGprTime(pumping ? absl::InfinitePast() : deadline));
      DESCENT_CHECK(got != grpc::CompletionQueue::SHUTDOWN);
      if (got == grpc::CompletionQueue::TIMEOUT) continue;
      if (tag != nullptr) {
        const auto& event = *static_cast<Call::Tag*>(tag);
        event.call->OnEvent(event.kind, ok);
      } else {
        RunTasks();
      }
    }
    ShutDownQueue();
    connections_.clear();
    node_.reset();
  }

  void ShutDownQueue() {
    queue_->Shutdown();
    void* tag;
    bool ok;
    while (queue_->Next(&tag, &ok)) {
    }
  }

  void RunTasks() {
    std::vector<std::function<void(ServerNode*)>> tasks;
    {
      MutexLock lock(&mu_);
      kicked_ = false;
      stop_ = stopped_;
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task(node_.get());
  }

  void RunDeferred() {
    while (!deferred_.empty()) {
      std::vector<std::function<void()>> tasks;
      tasks.swap(deferred_);
      for (auto& task : tasks) task();
    }
  }

  // Fires what is due; returns when the next is.
  absl::Time RunTimers() {
    absl::Time next = Due();
    if (next == absl::InfiniteFuture()) return next;
    const absl::Time now = absl::Now();
    if (now < next) return next;
    if (node_ != nullptr && node_->next_timer() <= now) node_->OnTimer(now);
    while (!timers_.empty() && timers_.begin()->first <= now) {
      Call* call = timers_.begin()->second;
      SetTimer(call, absl::InfiniteFuture());
      call->OnTimer(now);
    }
    return Due();
  }
  absl::Time Due() const {
    absl::Time due = node_ != nullptr ? node_->next_timer() : absl::InfiniteFuture();
    if (!timers_.empty()) due = std::min(due, timers_.begin()->first);
    if (!deferred_.empty()) due = absl::InfinitePast();
    return due;
  }

  const ParameterServiceOptions options_;
  const Callbacks callbacks_;
  RawParameterService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::thread thread_;

  // The owning thread's.
  std::unique_ptr<ServerNode> node_;
  ServerNodeOptions node_options_;
  uint64_t last_connection_ = 0;
  absl::flat_hash_map<ConnectionId, Connection*> connections_;  // of node_
  absl::flat_hash_map<Call*, absl::Time> calls_;                // accepted, with their timers
  std::set<std::pair<absl::Time, Call*>> timers_;
  std::vector<std::function<void()>> deferred_;
  bool stop_ = false;

  Mutex mu_;
  std::vector<std::function<void(ServerNode*)>> tasks_ ABSL_GUARDED_BY(mu_);
  grpc::Alarm kick_ ABSL_GUARDED_BY(mu_);  // brings the owning thread to its tasks
  bool kicked_ ABSL_GUARDED_BY(mu_) = false;
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

std::unique_ptr<ParameterService> ParameterService::Create(ParameterServiceOptions options, Callbacks callbacks) {
  return std::make_unique<ParameterServiceImpl>(options, std::move(callbacks));
}

}  // namespace descent
