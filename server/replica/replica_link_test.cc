// A primary and its backup on two real parameter services: a plain client is answered when the backup has what it sent,
// and goes on with the backup when the primary is gone.
#include "server/replica/replica_link.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "descent/v1/job.pb.h"
#include "descent/v1/parameter.grpc.pb.h"
#include "server/replica/backup_node.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(30);

ServerNodeOptions Options() {
  TensorSpec dense;
  dense.name = "w";
  dense.shape = {5};
  TensorSpec table;
  table.name = "t";
  table.sparse = true;
  table.shape = {2};
  ServerNodeOptions options;
  options.envelope = {kProtocolVersion, 7, RunId(8), Generation(1), 1};
  options.store.tensors = {dense, table};
  options.store.geometry = {.block_elements = 4, .slots = 1};
  options.store.map = MakePartitionMap(options.store.tensors, options.store.geometry, 1);
  v1::Optimizer adam;
  adam.mutable_adam();
  options.store.rule = *UpdateRule::Make(adam);
  options.store.rate = [](Clock) { return 0.5f; };
  return options;
}

// One server process's service.
class Server {
 public:
  Server() {
    ParameterServiceOptions options;
    options.unary_patience = absl::Milliseconds(300);
    service = ParameterService::Create(options, {});
    rpc = std::move(RpcServer::Start({.bind = {"127.0.0.1", 0}}, service.get(), {}).value());
    EXPECT_TRUE(rpc->ServeLocally(address()).ok());  // so the link goes over a local socket, the stub over TCP
    stub = v1::ParameterService::NewStub(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials()));
  }
  ~Server() { Stop(); }
  void Stop() {
    if (rpc != nullptr) rpc->Stop(absl::ZeroDuration());
    rpc.reset();
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", rpc->port()); }

  void InstallPrimary() {
    service->Install(Options(), std::move(PrimaryNode::Create(Options(), {}, service->output()).value()));
  }
  void InstallBackup(uint64_t view, bool fresh) {
    service->Install(
        Options(),
        std::move(PrimaryNode::Create(Options(), {}, service->output(),
                                      [&](ServerNodeOptions o,
                                          ServerNode::Output* output) -> absl::StatusOr<std::unique_ptr<ServerNode>> {
                                        auto made = BackupNode::Create(std::move(o), view, fresh, output);
                                        if (made.ok()) backup = made->get();
                                        return made;
                                      })
                      .value()));
  }
  // On the owning thread, with the node.
  template <typename F>
  auto Ask(F f) {
    std::promise<decltype(f(std::declval<PrimaryNode&>()))> answer;
    service->Post([&](ServerNode* node) { answer.set_value(f(*static_cast<PrimaryNode*>(node))); });
    return answer.get_future().get();
  }
  void Await(const std::function<bool(PrimaryNode&)>& state) {
    const absl::Time deadline = absl::Now() + kDeadline;
    while (!Ask(state)) ASSERT_LT(absl::Now(), deadline) << Ask([](PrimaryNode& n) { return n.DebugState(); });
  }

  std::unique_ptr<ParameterService> service;
  std::unique_ptr<RpcServer> rpc;
  std::unique_ptr<v1::ParameterService::Stub> stub;
  BackupNode* backup = nullptr;  // the service's thread's
};

class ReplicaLinkTest : public testing::Test {
 protected:
  void Connect(uint64_t view, bool fresh) {
    ReplicaLinkOptions options;
    options.address = second_.address();
    options.view = view;
    options.trouble = [this](const absl::Status& why) {
      MutexLock lock(&mu_);
      trouble_.push_back(why);
      changed_.SignalAll();
    };
    link_ = MakeReplicaLink(std::move(options), first_.service.get());
    first_.Ask([&](PrimaryNode& node) {
      node.SetBackup(view, link_, fresh);
      return 0;
    });
  }
  v1::ExchangeRequest Push(uint64_t clock) {
    v1::ExchangeRequest request;
    v1::Envelope* envelope = request.mutable_envelope();
    envelope->set_protocol(kProtocolVersion);
    envelope->set_job(7);
    envelope->set_run(8);
    envelope->set_generation(1);
    envelope->set_map_epoch(1);
    request.set_request(++last_id_);
    v1::PushPart* push = request.mutable_push();
    push->mutable_incarnation()->set_generation(1);
    push->mutable_incarnation()->set_number(1);
    push->set_clock(clock);
    push->add_weight(1);
    push->add_dense()->set_block(0);
    push->add_dense()->set_block(1);
    v1::SparseId* rows = push->add_sparse();
    rows->set_table(1);
    rows->set_keys(1);
    push->set_contributions(3);
    std::string payload;
    const auto add = [&](auto value) { payload.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
    for (int i = 0; i < 5; ++i) add(static_cast<float>(i + clock));
    add(uint64_t{clock % 3});
    for (int i = 0; i < 2; ++i) add(static_cast<float>(clock) - 2);
    request.set_payload(payload);
    request.mutable_pull()->set_clock(clock + 1);
    request.mutable_pull()->set_all_dense(true);
    return request;
  }
  static v1::ExchangeReply Call(Server& server, const v1::ExchangeRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kDeadline));
    context.set_wait_for_ready(true);
    v1::ExchangeReply reply;
    const grpc::Status status = server.stub->PushPull(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  // What the server answers once it does, asked again as clients do.
  v1::ExchangeReply Until(Server& server, uint64_t clock) {
    const absl::Time deadline = absl::Now() + kDeadline;
    while (absl::Now() < deadline) {
      v1::ExchangeReply reply = Call(server, Push(clock));
      if (reply.ack().complete() && reply.pull_done()) return reply;
    }
    ADD_FAILURE() << "no answer to clock " << clock;
    return {};
  }
  // What a server that nothing happened to answers to the same pushes.
  std::string Undisturbed(uint64_t clock) {
    Server alone;
    alone.InstallPrimary();
    alone.Await([](PrimaryNode&) { return true; });
    std::string payload;
    for (uint64_t c = 0; c <= clock; ++c) payload = Until(alone, c).payload();
    return payload;
  }
  void Promote(uint64_t view) {
    ASSERT_TRUE(second_.Ask([&](PrimaryNode& node) {
      const absl::Status status = second_.backup->Promote();
      EXPECT_TRUE(status.ok()) << status;
      node.GoAlone(view);
      return status.ok();
    }));
  }

  Mutex mu_;
  CondVar changed_;
  std::vector<absl::Status> trouble_ ABSL_GUARDED_BY(mu_);
  Server first_, second_;  // the primary has the link, which tells of trouble
  std::shared_ptr<BackupLink> link_;
  uint64_t last_id_ = 0;
};

TEST_F(ReplicaLinkTest, TheClientGoesOnWithTheBackup) {
  first_.InstallPrimary();
  second_.InstallBackup(1, true);
  Connect(1, true);
  for (uint64_t clock = 0; clock < 20; ++clock) Until(first_, clock);
  EXPECT_EQ(first_.Ask([](PrimaryNode& node) { return node.unconfirmed_bytes(); }), 0u);
  first_.Stop();
  link_.reset();
  Promote(2);
  // The last push is sent again, as a client does that does not know what became of it.
  const v1::ExchangeReply again = Until(second_, 19);
  EXPECT_EQ(again.ack().outcome(), v1::DUPLICATE);
  Until(second_, 20);
  EXPECT_EQ(Until(second_, 21).payload(), Undisturbed(21));
}

TEST_F(ReplicaLinkTest, NobodyIsAnsweredUntilTheBackupIsThere) {
  first_.InstallPrimary();
  Connect(1, true);
  const v1::ExchangeReply reply = Call(first_, Push(0));
  EXPECT_FALSE(reply.has_ack());
  EXPECT_FALSE(reply.pull_done());
  EXPECT_TRUE(reply.has_waiting());
  second_.InstallBackup(1, true);
  EXPECT_EQ(Until(first_, 0).payload(), Undisturbed(0));
}

TEST_F(ReplicaLinkTest, ABackupJoinsWhileTrainingGoesOn) {
  first_.InstallPrimary();
  first_.Await([](PrimaryNode&) { return true; });
  uint64_t clock = 0;
  for (; clock < 10; ++clock) Until(first_, clock);
  second_.InstallBackup(4, false);
  Connect(4, false);
  const absl::Time deadline = absl::Now() + kDeadline;
  while (!first_.Ask([](PrimaryNode& node) { return node.synced(); })) {
    ASSERT_LT(absl::Now(), deadline);
    Until(first_, clock++);
  }
  Until(first_, clock);
  first_.Stop();
  link_.reset();
  Promote(5);
  EXPECT_EQ(Until(second_, clock + 1).payload(), Undisturbed(clock + 1));
}

TEST_F(ReplicaLinkTest, APrimaryThatWasReplacedIsToldAndAnswersNobody) {
  first_.InstallPrimary();
  second_.InstallBackup(1, true);
  Connect(1, true);
  Until(first_, 0);
  Promote(2);
  EXPECT_FALSE(Call(first_, Push(1)).has_ack());
  const absl::Time deadline = absl::Now() + kDeadline;
  {
    MutexLock lock(&mu_);
    while (trouble_.empty() || trouble_.back().code() != absl::StatusCode::kAborted) {
      ASSERT_LT(absl::Now(), deadline);
      changed_.WaitUntil(&mu_, deadline);
    }
  }
  EXPECT_GT(first_.Ask([](PrimaryNode& node) { return node.unconfirmed_bytes(); }), 0u);
}

}  // namespace
}  // namespace descent
