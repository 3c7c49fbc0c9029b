// The adapters over real connections, with a node that answers in scripted ways: the zero-copy path both ways, streams
// that end and come back, unary calls by a plain generated client, and messages that are no messages.
#include "server/rpc/parameter_service.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/net/grpc_channel.h"
#include "common/net/grpc_client_transport.h"
#include "common/net/local_socket.h"
#include "descent/v1/parameter.grpc.pb.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr absl::Duration kSoon = absl::Seconds(30);  // by then what is awaited has come, or never will

// Echoes the payload of every request in as many replies as `expected_of` has ranks (at least one), the last of which
// is the pull's end and the ack. A request of id 666 is never answered.
class EchoNode final : public ServerNode {
 public:
  explicit EchoNode(Output* output) : output_(output) {}

  void OnOpen(ConnectionId, absl::Time, bool) override { ++open_; }
  void OnClose(ConnectionId, absl::Time) override { --open_; }
  void OnRequest(ConnectionId connection, Request request, absl::Time now) override {
    ++stats_.pushes;
    if (request.id == 666) return;
    if (request.id == 777) {
      due_ = now + absl::Milliseconds(1);
      late_ = {connection, request.id};
      return;
    }
    const size_t replies = std::max<size_t>(1, request.expected_of.size());
    for (size_t i = 0; i < replies; ++i) {
      Reply reply;
      reply.id = request.id;
      reply.payload = request.payload;
      if (i + 1 == replies) {
        if (request.push.has_value()) reply.ack = PushAck{};
        reply.pull_done = request.pull.has_value();
      }
      for (size_t k = 0; k < request.expected_of.size(); ++k)
        reply.expected.push_back(Clock(request.expected_of[k].value));
      output_->Send(connection, std::move(reply));
    }
  }
  void OnSent(ConnectionId, absl::Time) override { ++sent_; }
  void Carry(Generation) override { ++carried_; }
  void OnTimer(absl::Time) override {
    due_ = absl::InfiniteFuture();
    Reply reply;
    reply.id = late_.second;
    output_->Send(late_.first, std::move(reply));
  }
  absl::Time next_timer() const override { return due_; }
  void Fence(Rank, Incarnation) override {}
  const ServerNodeStats& stats() const override { return stats_; }
  BlockStore& store() override { std::abort(); }
  std::vector<WaitingNotice> Waiting(absl::Time) const override { return {{{Rank(3)}, absl::Seconds(1), "rank 3"}}; }
  std::vector<uint64_t> Marks(BlockId) const override { return {}; }
  std::string DebugState() const override { return ""; }

  int open() const { return open_; }
  int sent() const { return sent_; }
  int carried() const { return carried_; }

 private:
  Output* const output_;
  ServerNodeStats stats_;
  int open_ = 0, sent_ = 0, carried_ = 0;
  absl::Time due_ = absl::InfiniteFuture();
  std::pair<ConnectionId, uint64_t> late_;
};

class Server {
 public:
  explicit Server(uint16_t port = 0, ParameterServiceOptions options = {}) {
    service_ = ParameterService::Create(options, {});
    auto rpc = RpcServer::Start({.bind = {"127.0.0.1", port}}, service_.get(), {});
    if (!rpc.ok()) ADD_FAILURE() << rpc.status();
    rpc_ = *std::move(rpc);
  }
  // Over local sockets too.
  void ServeLocally(const std::string& address) {
    const absl::Status served = rpc_->ServeLocally(address);
    EXPECT_TRUE(served.ok()) << served;
  }
  ~Server() { Stop(); }
  void Stop() { rpc_->Stop(absl::ZeroDuration()); }

  // Runs on the owning thread, after everything posted before.
  template <typename F>
  auto Ask(F f) {
    std::promise<decltype(f(nullptr))> answer;
    auto future = answer.get_future();
    service_->Post([&](ServerNode* node) { answer.set_value(f(static_cast<EchoNode*>(node))); });
    return future.get();
  }
  EchoNode* Place() {
    auto node = std::make_unique<EchoNode>(service_->output());
    EchoNode* out = node.get();
    service_->Install({}, std::move(node));
    Ask([](EchoNode*) { return 0; });  // it is there now
    return out;
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", rpc_->port()); }
  uint16_t port() const { return rpc_->port(); }
  RpcServer& rpc() { return *rpc_; }

 private:
  std::unique_ptr<ParameterService> service_;
  std::unique_ptr<RpcServer> rpc_;
};

// Keeps what the transport says.
class Log final : public ClientTransport::Handler {
 public:
  void OnOpen(ServerId) override {
    MutexLock lock(&mu_);
    ++opened_;
    changed_.SignalAll();
  }
  void OnReply(ServerId, Reply reply) override {
    MutexLock lock(&mu_);
    replies_.push_back(std::move(reply));
    changed_.SignalAll();
  }
  void OnClosed(ServerId, absl::Status why) override {
    MutexLock lock(&mu_);
    closed_.push_back(std::move(why));
    changed_.SignalAll();
  }
  void OnWake(absl::Time now) override {
    MutexLock lock(&mu_);
    woken_.push_back(now);
    changed_.SignalAll();
  }

  bool AwaitOpened(int n) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return opened_ >= n; });
  }
  bool AwaitReplies(size_t n) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return replies_.size() >= n; });
  }
  bool AwaitClosed(size_t n) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return closed_.size() >= n; });
  }
  bool AwaitWoken(size_t n) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return woken_.size() >= n; });
  }
  std::deque<Reply> TakeReplies() {
    MutexLock lock(&mu_);
    return std::exchange(replies_, {});
  }
  absl::Status closed(size_t i) {
    MutexLock lock(&mu_);
    return closed_[i];
  }
  absl::Time woken(size_t i) {
    MutexLock lock(&mu_);
    return woken_[i];
  }
  size_t closes() {
    MutexLock lock(&mu_);
    return closed_.size();
  }

 private:
  template <typename F>
  bool Await(F f) {
    MutexLock lock(&mu_);
    const absl::Time deadline = absl::Now() + kSoon;
    while (!f()) {
      if (absl::Now() >= deadline) return false;
      changed_.WaitUntil(&mu_, deadline);
    }
    return true;
  }

  Mutex mu_;
  CondVar changed_;
  int opened_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Reply> replies_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Status> closed_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Time> woken_ ABSL_GUARDED_BY(mu_);
};

// Over TCP, and over a local socket that the server offers beside it.
class ParameterStreamTest : public testing::TestWithParam<bool> {
 protected:
  void Offer(Server& server) {
    if (GetParam()) server.ServeLocally(server.address());
  }
};
INSTANTIATE_TEST_SUITE_P(, ParameterStreamTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Local" : "Tcp"; });

TEST_P(ParameterStreamTest, ManyMegabytesBothWays) {
  Server server;
  Offer(server);
  EchoNode* node = server.Place();
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));

  // 64 messages of two pieces each, at odd lengths, all under way at once.
  auto data = std::make_shared<std::vector<uint8_t>>(64 << 20);
  for (size_t i = 0; i < data->size(); ++i) (*data)[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  const size_t each = (1 << 20) - 13;
  for (uint64_t i = 0; i < 64; ++i) {
    Request request;
    request.id = i;
    request.payload.Append(data->data() + i * each, 1001, data);
    request.payload.Append(data->data() + i * each + 1001, each - 1001, data);
    client->Send(ServerId(0), std::move(request));
  }
  ASSERT_TRUE(log.AwaitReplies(64));
  auto replies = log.TakeReplies();
  for (uint64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(replies[i].id, i);
    std::vector<uint8_t> back(replies[i].payload.size());
    ASSERT_EQ(back.size(), each);
    replies[i].payload.CopyTo(back.data());
    EXPECT_EQ(std::memcmp(back.data(), data->data() + i * each, each), 0) << i;
  }
  EXPECT_EQ(server.Ask([&](EchoNode*) { return node->open(); }), 1);
  client->Stop();
  replies.clear();
  EXPECT_EQ(data.use_count(), 1);  // nothing is held by what was sent
}

TEST_P(ParameterStreamTest, WakesWhenAsked) {
  Server server;
  Offer(server);
  server.Place();
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  const absl::Time now = absl::Now();
  client->WakeAt(now + absl::Hours(1));
  client->WakeAt(now + absl::Milliseconds(20));
  ASSERT_TRUE(log.AwaitWoken(1));
  EXPECT_GE(log.woken(0), now + absl::Milliseconds(20));
  client->WakeAt(absl::InfinitePast());
  ASSERT_TRUE(log.AwaitWoken(2));
}

TEST_P(ParameterStreamTest, ClosesAndComesBack) {
  auto server = std::make_unique<Server>();
  Offer(*server);
  server->Place();
  const uint16_t port = server->port();
  Log log;
  auto client = MakeGrpcClientTransport({{server->address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));
  server.reset();
  ASSERT_TRUE(log.AwaitClosed(2));  // the loss, and an attempt that failed
  EXPECT_EQ(log.closed(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(log.closed(1).message()),
              testing::StartsWith(absl::StrCat("server 0 at 127.0.0.1:", port, ": ")));
  client->Send(ServerId(0), Request());  // dropped
  server = std::make_unique<Server>(port);
  Offer(*server);
  server->Place();
  ASSERT_TRUE(log.AwaitOpened(2));
  Request request;
  request.id = 5;
  client->Send(ServerId(0), request);
  ASSERT_TRUE(log.AwaitReplies(1));
  auto replies = log.TakeReplies();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].id, 5u);
}

TEST_P(ParameterStreamTest, AnotherNodeEndsTheStreamsOfTheFirst) {
  Server server;
  Offer(server);
  server.Place();
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  Request request;
  request.id = 5;
  ASSERT_TRUE(log.AwaitOpened(1));
  client->Send(ServerId(0), request);
  ASSERT_TRUE(log.AwaitReplies(1));
  server.Place();
  ASSERT_TRUE(log.AwaitClosed(1));
  EXPECT_THAT(std::string(log.closed(0).message()), testing::HasSubstr("a new generation has begun"));
  ASSERT_TRUE(log.AwaitOpened(2));
  client->Send(ServerId(0), request);
  ASSERT_TRUE(log.AwaitReplies(2));
}

TEST_P(ParameterStreamTest, AStreamWaitsForTheFirstNode) {
  Server server;
  Offer(server);
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));
  client->Send(ServerId(0), Request());
  server.Place();
  ASSERT_TRUE(log.AwaitReplies(1));
  EXPECT_EQ(log.closes(), 0u);
}

TEST_P(ParameterStreamTest, AStreamWithoutANodeIsRefused) {
  Server server(0, {.placing_patience = absl::Milliseconds(1)});
  Offer(server);
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitClosed(3));
  EXPECT_EQ(log.closed(2).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(log.closed(2).message()), testing::HasSubstr("not placed yet"));
}

TEST_P(ParameterStreamTest, TimersOfTheNodeRun) {
  Server server;
  Offer(server);
  server.Place();
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));
  Request request;
  request.id = 777;
  client->Send(ServerId(0), request);
  ASSERT_TRUE(log.AwaitReplies(1));
  EXPECT_EQ(log.TakeReplies()[0].id, 777u);
}

// A few replies may be on their way, so a slow reader stops the reading of its requests.
TEST_P(ParameterStreamTest, SmallRequestsAreAnsweredInOrder) {
  Server server(0, {.max_unsent = 2});
  Offer(server);
  server.Place();
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));
  for (uint64_t i = 0; i < 2000; ++i) {
    Request request;
    request.id = i + 1000;
    client->Send(ServerId(0), request);
  }
  ASSERT_TRUE(log.AwaitReplies(2000));
  auto replies = log.TakeReplies();
  for (uint64_t i = 0; i < 2000; ++i) EXPECT_EQ(replies[i].id, i + 1000);
}

class PlainClient {
 public:
  explicit PlainClient(const Server& server)
      : stub_(
            v1::ParameterService::NewStub(grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials()))) {}
  grpc::Status Call(const v1::ExchangeRequest& request, v1::ExchangeReply* reply) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoSeconds(kSoon));
    return stub_->PushPull(&context, request, reply);
  }
  v1::ParameterService::Stub* stub() { return stub_.get(); }

 private:
  std::unique_ptr<v1::ParameterService::Stub> stub_;
};

TEST(ParameterServiceTest, UnaryByAPlainClient) {
  Server server;
  PlainClient client(server);
  v1::ExchangeRequest request;
  v1::ExchangeReply reply;
  request.set_request(9);
  EXPECT_EQ(client.Call(request, &reply).error_code(), grpc::StatusCode::UNAVAILABLE);
  EchoNode* node = server.Place();
  request.mutable_push()->set_rank(1);
  request.mutable_pull()->set_rank(1);
  request.set_payload("four");
  for (uint32_t rank : {4, 5, 6}) request.add_expected_of(rank);
  ASSERT_TRUE(client.Call(request, &reply).ok());
  EXPECT_EQ(reply.request(), 9u);
  EXPECT_TRUE(reply.has_ack());
  EXPECT_TRUE(reply.pull_done());
  EXPECT_EQ(reply.payload(), "fourfourfour");  // three replies as one
  EXPECT_EQ(reply.expected_clock(2), 6u);
  // A connection of its own that is over, and every reply reported as sent.
  EXPECT_EQ(server.Ask([&](EchoNode*) { return node->open(); }), 0);
}

TEST(ParameterServiceTest, UnaryAnswersAfterItsPatience) {
  Server server(0, {.unary_patience = absl::Milliseconds(10)});
  server.Place();
  PlainClient client(server);
  v1::ExchangeRequest request;
  v1::ExchangeReply reply;
  request.set_request(666);
  request.mutable_pull()->set_rank(1);
  ASSERT_TRUE(client.Call(request, &reply).ok());
  EXPECT_EQ(reply.request(), 666u);
  EXPECT_FALSE(reply.pull_done());
  EXPECT_EQ(reply.waiting().why(), "rank 3");
}

TEST(ParameterServiceTest, UnaryAnswerTooLargeIsRefusedWithAdvice) {
  Server server;
  server.Place();
  PlainClient client(server);
  v1::ExchangeRequest request;
  v1::ExchangeReply reply;
  request.mutable_push()->set_rank(1);
  request.mutable_pull()->set_rank(1);
  request.set_payload(std::string(1 << 20, 'x'));
  for (uint32_t rank : {4, 5, 6, 7}) request.add_expected_of(rank);
  ASSERT_TRUE(client.Call(request, &reply).ok());
  EXPECT_EQ(reply.refusal().code(), static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED));
  EXPECT_EQ(
      reply.refusal().message(),
      "the pull's answer has 4194304 bytes and a message at most 4194304; list fewer blocks or keys in one call, or "
      "use the stream");
  EXPECT_TRUE(reply.has_ack());
}

// Sends bytes as they are.
grpc::Status RawCall(const Server& server, const std::string& method, const std::string& bytes) {
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(
      grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials()));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  grpc::Slice slice(bytes);
  grpc::ByteBuffer in, request(&slice, 1);
  grpc::Status status;
  auto call = stub.PrepareCall(&context, method, &queue);
  void* tag;
  bool ok;
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  call->Write(request, nullptr);
  queue.Next(&tag, &ok);
  call->Read(&in, nullptr);
  queue.Next(&tag, &ok);
  EXPECT_FALSE(ok) << "a reply to what is no request";
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return status;
}

TEST(ParameterServiceTest, OversizedAndMalformedMessagesLeaveTheServerAlive) {
  Server server;
  EchoNode* node = server.Place();
  const std::string service = "/descent.v1.ParameterService/";
  grpc::Status status = RawCall(server, service + "Exchange", "\x7a\x7f");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "malformed message at byte 2: a field of 127 bytes where 0 are left");
  status = RawCall(server, service + "PushPull", "\x07");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  status = RawCall(server, service + "Export", "\x07");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  status = RawCall(server, service + "Exchange", std::string(kMaxMessageBytes + 1, 'x'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  status = RawCall(server, service + "PushPull", std::string(kMaxMessageBytes + 1, 'x'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  status = RawCall(server, service + "Nothing", "x");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);

  PlainClient client(server);
  v1::ExchangeRequest request;
  v1::ExchangeReply reply;
  request.set_payload("alive");
  ASSERT_TRUE(client.Call(request, &reply).ok());
  EXPECT_EQ(reply.payload(), "alive");
  EXPECT_EQ(server.Ask([&](EchoNode*) { return node->stats().pushes; }), 1u);  // nothing else reached the node
}

TEST(ParameterServiceTest, APlainStreamThatClosesItsHalfGetsItsReplies) {
  Server server(0, {.unary_patience = absl::Milliseconds(50)});
  server.Place();
  PlainClient client(server);
  grpc::ClientContext context;
  auto stream = client.stub()->Exchange(&context);
  v1::ExchangeRequest request;
  request.set_payload("a");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Write(request));
  stream->WritesDone();
  v1::ExchangeReply reply;
  ASSERT_TRUE(stream->Read(&reply));
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST(ParameterServiceTest, ATakenPortIsNamed) {
  Server server;
  auto service = ParameterService::Create({}, {});
  const auto second = RpcServer::Start({.bind = {"127.0.0.1", server.port()}}, service.get(), {});
  EXPECT_EQ(second.status(), absl::UnavailableError(absl::StrCat("cannot listen on 127.0.0.1:", server.port(),
                                                                 ": Address already in use")));
}

TEST_P(ParameterStreamTest, StopsWithCallsUnderWay) {
  auto server = std::make_unique<Server>();
  Offer(*server);
  EchoNode* node = server->Place();
  Log log;
  auto client = MakeGrpcClientTransport({{server->address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));
  Request request;
  request.id = 666;
  client->Send(ServerId(0), request);
  PlainClient plain(*server);
  std::thread unary([&] {
    v1::ExchangeRequest message;
    v1::ExchangeReply reply;
    message.set_request(666);
    message.mutable_pull()->set_rank(1);
    EXPECT_FALSE(plain.Call(message, &reply).ok());
  });
  while (server->Ask([&](EchoNode*) { return node->stats().pushes; }) < 2) std::this_thread::yield();
  server.reset();
  unary.join();
}

// TCP would not find this address.
std::string NoTcpAddress() { return absl::StrCat("no-host.invalid:", getpid()); }

TEST(LocalServiceTest, TheLocalSocketIsTakenWhereThereIsOne) {
  Server server;
  server.Place();
  server.ServeLocally(NoTcpAddress());
  Log log;
  auto client = MakeGrpcClientTransport({{NoTcpAddress()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitOpened(1));
  client->Send(ServerId(0), Request());
  EXPECT_TRUE(log.AwaitReplies(1));
  EXPECT_EQ(log.closes(), 0u);
}

TEST(LocalServiceTest, TcpWhereTheNameIsAnothers) {
  Server server;
  server.Place();
  std::atomic<int> strays = 0;
  // Somebody else who answers nothing.
  auto other = LocalListener::Listen(server.address(), [&](FileDescriptor) { ++strays; });
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(server.rpc().ServeLocally(server.address()).code(), absl::StatusCode::kAlreadyExists);
  Log log;
  auto client = MakeGrpcClientTransport({{server.address()}});
  client->Start(&log);
  ASSERT_TRUE(log.AwaitClosed(1));
  // Over TCP then. What is sent before it is open is lost.
  for (const absl::Time deadline = absl::Now() + kSoon; log.TakeReplies().empty(); std::this_thread::yield()) {
    ASSERT_LT(absl::Now(), deadline);
    client->Send(ServerId(0), Request());
  }
  EXPECT_EQ(strays, 1);
}

TEST(LocalServiceTest, StopDoesNotWaitForOneThatSaysNothing) {
  auto server = std::make_unique<Server>();
  server->ServeLocally(NoTcpAddress());
  auto silent = ConnectLocally(NoTcpAddress());
  ASSERT_TRUE(silent.ok()) << silent.status();
  // The server's greeting: it has taken the connection.
  pollfd wait{silent->get(), POLLIN, 0};
  ASSERT_EQ(poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(kSoon))), 1);
  const absl::Time begin = absl::Now();
  server.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));  // keepalive would take longer
  EXPECT_EQ(ConnectLocally(NoTcpAddress()).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace descent
