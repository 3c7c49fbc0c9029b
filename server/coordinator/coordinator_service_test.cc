// The service and its client over a real socket: what the wire adds to the machine's own tests.
#include "server/coordinator/coordinator_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/control/control_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

class CoordinatorServiceTest : public ::testing::Test {
 protected:
  CoordinatorServiceTest() {
    CoordinatorOptions options;
    options.job.set_name("wire");
    options.job.set_ranks(2);
    options.job.set_batch_size(4);
    options.job.set_rounds(10);
    options.job_fingerprint = 42;
    options.run = RunId(7);
    host_ = std::make_unique<CoordinatorHost>(*Coordinator::Create(options, time_.Now()), &time_);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(host_->service());
    server_ = builder.BuildAndStart();
  }
  ~CoordinatorServiceTest() override { server_->Shutdown(); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  std::unique_ptr<ControlClient> Client() {
    ControlClientOptions options;
    options.address = address();
    return ControlClient::Create(options);
  }
  static v1::RegisterWorkerRequest Worker() {
    v1::RegisterWorkerRequest request;
    request.set_protocol(1);
    request.set_job_fingerprint(42);
    request.set_host("b");
    v1::TensorSpec* spec = request.add_tensors();
    spec->set_name("w");
    spec->add_shape(3);
    return request;
  }
  static v1::RegisterServerRequest Server() {
    v1::RegisterServerRequest request;
    request.set_protocol(1);
    request.set_job_fingerprint(42);
    request.set_host("a");
    request.set_address("a:1");
    return request;
  }

  RealTimeSource time_;
  int port_ = 0;
  std::unique_ptr<CoordinatorHost> host_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(CoordinatorServiceTest, AJobFromRegistrationToItsEnd) {
  std::unique_ptr<ControlClient> worker = Client(), server = Client();
  const absl::StatusOr<v1::GetJobReply> job = worker->WaitForJob(absl::Seconds(20));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->job().name(), "wire");
  EXPECT_EQ(job->run(), 7u);
  const absl::StatusOr<v1::RegisterReply> w = worker->RegisterWorker(Worker()), s = server->RegisterServer(Server());
  ASSERT_TRUE(w.ok() && s.ok()) << w.status() << s.status();
  EXPECT_EQ(worker->RegisterWorker(Worker())->member(), w->member()) << "sent again, it is the same registration";

  v1::HeartbeatRequest beat;
  beat.set_run(7);
  beat.set_generation(1);
  beat.set_member(s->member());
  EXPECT_EQ(server->Heartbeat(beat)->map().address(0), "a:1");
  beat.set_ready(true);
  EXPECT_EQ(server->Heartbeat(beat)->phase(), v1::RUNNING);
  beat.set_member(w->member());
  EXPECT_EQ(worker->Heartbeat(beat)->leases_size(), 2);

  v1::ScalarPartials partials;
  partials.set_member(s->member());
  partials.set_generation(1);
  partials.set_clock(0);
  v1::TensorPartials* tensor = partials.add_tensor();
  tensor->add_block(0);
  tensor->add_square(2.5);
  EXPECT_EQ(server->AgreeScalars(partials)->square(), 2.5);
  partials.set_member(w->member());
  EXPECT_EQ(server->AgreeScalars(partials).status().code(), absl::StatusCode::kNotFound);

  for (uint32_t r : {0, 1}) {
    v1::RankProgress* progress = beat.add_progress();
    progress->set_rank(r);
    progress->set_clock(10);
    progress->set_done(true);
  }
  EXPECT_EQ(worker->Heartbeat(beat)->phase(), v1::SAVING);
  host_->With([](Coordinator& c, absl::Time now) { c.SaveFinished(absl::OkStatus(), "/m", "aa", "bb", now); });
  const absl::StatusOr<v1::StatusReply> status = worker->Status();
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->phase(), v1::FINISHED);
  EXPECT_EQ(status->parameters_sha256(), "aa");
  EXPECT_TRUE(worker->Leave(w->member(), "done").ok());
  EXPECT_EQ(worker->Heartbeat(beat)->unknown_member(), true);
}

TEST_F(CoordinatorServiceTest, ARefusalIsOneLinePerMismatch) {
  v1::RegisterServerRequest request = Server();
  request.set_protocol(9);
  request.set_job_fingerprint(43);
  const absl::Status status = Client()->RegisterServer(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "the server on host a speaks protocol version 9; expected 1\n"
            "the server on host a was started for another job: its fingerprint is 000000000000002b; expected "
            "000000000000002a");
}

TEST_F(CoordinatorServiceTest, StopAndFailureReportsReachTheMachine) {
  std::unique_ptr<ControlClient> client = Client();
  v1::FailureReport report;
  report.set_role("worker");
  report.set_host("b");
  report.set_pid(5);
  report.set_own(true);
  report.set_cause("no such file");
  ASSERT_TRUE(client->ReportFailure(report).ok());
  EXPECT_EQ(client->Status()->first_cause(), "worker on host b (pid 5): no such file");
  ASSERT_TRUE(client->Stop(15, false).ok());
  EXPECT_EQ(client->Status()->phase(), v1::FAILED) << "what has ended is not stopped";
}

TEST_F(CoordinatorServiceTest, AProxyInTheEnvironmentIsIgnored) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  setenv("grpc_proxy", "http://127.0.0.1:1", 1);
  EXPECT_TRUE(Client()->GetJob().ok());
  unsetenv("http_proxy");
  unsetenv("grpc_proxy");
}

// 72 servers tell their norms to a coordinator with as many threads as it has in a process (server/rpc/rpc_server.cc).
TEST(CoordinatorHostTest, ManyServersThatWaitForNormsLeaveThreadsForOthers) {
  constexpr uint32_t kServers = 72;
  constexpr int kThreads = 64;
  CoordinatorOptions options;
  options.job.set_name("many");
  options.job.set_ranks(1);
  options.job.set_batch_size(4);
  options.job.set_rounds(10);
  options.job.mutable_cluster()->set_servers(kServers);
  options.job_fingerprint = 42;
  options.run = RunId(7);
  options.geometry.block_elements = 1;
  RealTimeSource time;
  // Nobody is answered for having waited long: who is answered before the last server has told was not made to wait.
  CoordinatorHost host(*Coordinator::Create(options, time.Now()), &time, absl::Hours(1));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(host.service());
  grpc::ResourceQuota quota("control");
  quota.SetMaxThreads(kThreads);
  builder.SetResourceQuota(quota);
  const std::unique_ptr<grpc::Server> grpc_server = builder.BuildAndStart();
  const auto client = [&] {
    ControlClientOptions control;
    control.address = absl::StrCat("127.0.0.1:", port);
    control.call_timeout = absl::Minutes(10);
    return ControlClient::Create(control);
  };
  const std::unique_ptr<ControlClient> other = client();
  std::vector<uint64_t> members;
  PartitionMap map;
  host.With([&](Coordinator& c, absl::Time now) {
    for (uint32_t s = 0; s < kServers; ++s) {
      v1::RegisterServerRequest request;
      request.set_protocol(1);
      request.set_job_fingerprint(42);
      request.set_address(absl::StrCat("a:", s + 1));
      members.push_back(c.RegisterServer(request, now).member());
    }
    v1::RegisterWorkerRequest worker;
    worker.set_protocol(1);
    worker.set_job_fingerprint(42);
    v1::TensorSpec* spec = worker.add_tensors();
    spec->set_name("w");
    spec->add_shape(kServers);
    c.RegisterWorker(worker, now);
    ASSERT_TRUE(c.map().has_value());
    map = *c.map();
  });
  const auto told = [&](uint32_t s) {
    v1::ScalarPartials partials;
    partials.set_member(members[s]);
    partials.set_generation(1);
    partials.set_before_step(true);
    v1::TensorPartials* tensor = partials.add_tensor();
    for (uint32_t block = 0; block < map.placement[0].size(); ++block) {
      if (map.placement[0][block] != ServerId(s)) continue;
      tensor->add_block(block);
      tensor->add_square(1);
    }
    return partials;
  };
  // A burst of calls may still use all threads for a moment; who is refused comes again, as in a process.
  const auto insist = [](const auto& call) {
    auto answer = call();
    while (absl::IsResourceExhausted(answer.status())) answer = call();
    return answer;
  };
  Mutex mu;
  CondVar changed;
  uint32_t answered = 0, agreed = 0;
  std::vector<std::thread> servers;
  for (uint32_t s = 0; s + 1 < kServers; ++s) {
    servers.emplace_back([&, s] {
      const std::unique_ptr<ControlClient> server = client();
      const absl::StatusOr<v1::ScalarTotals> totals = insist([&] { return server->AgreeScalars(told(s)); });
      MutexLock lock(&mu);
      EXPECT_TRUE(totals.ok()) << totals.status();
      ++answered;
      agreed += totals.ok() && totals->ready() ? 1 : 0;
      changed.SignalAll();
    });
  }
  {
    MutexLock lock(&mu);
    while (answered < kServers - 1 - CoordinatorHost::kMostWaiting) changed.WaitUntil(&mu, absl::InfiniteFuture());
    EXPECT_EQ(agreed, 0u);
  }
  EXPECT_TRUE(insist([&] { return other->Status(); }).ok());
  const absl::StatusOr<v1::ScalarTotals> last = insist([&] { return other->AgreeScalars(told(kServers - 1)); });
  EXPECT_TRUE(last.ok() && last->ready()) << last.status();
  for (std::thread& server : servers) server.join();
  EXPECT_EQ(answered, kServers - 1);
  EXPECT_EQ(agreed, CoordinatorHost::kMostWaiting);
  grpc_server->Shutdown();
}

// A port that nobody listens on: bound, so that it stays ours.
class SilentPort {
 public:
  SilentPort() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in bound{};
    bound.sin_family = AF_INET;
    bound.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(bound);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&bound), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &size), 0);
    address_ = absl::StrCat("127.0.0.1:", ntohs(bound.sin_port));
  }
  ~SilentPort() { Release(); }
  void Release() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  const std::string& address() const { return address_; }

 private:
  int fd_;
  std::string address_;
};

TEST(ControlClientTest, WaitsWithAReasonAndGivesUpAtTheDeadline) {
  SilentPort port;
  std::vector<std::string> lines;
  ControlClientOptions options;
  options.address = port.address();
  options.progress = [&](const std::string& line) { lines.push_back(line); };
  std::unique_ptr<ControlClient> client = ControlClient::Create(options);
  EXPECT_EQ(client->WaitForJob(absl::Milliseconds(1600)).status(),
            absl::DeadlineExceededError(absl::StrCat("the coordinator at ", port.address(),
                                                     " did not answer within 1.6s: Connection refused")));
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines[0], absl::StrCat("waiting 1 s for the coordinator at ", port.address(), ": Connection refused"));
  EXPECT_EQ(client->GetJob().status(),
            absl::UnavailableError(absl::StrCat("the coordinator at ", port.address(), ": Connection refused")));
}

TEST_F(CoordinatorServiceTest, ACoordinatorThatComesUpLaterIsFound) {
  SilentPort port;
  std::unique_ptr<grpc::Server> late;
  ControlClientOptions options;
  options.address = port.address();
  options.progress = [&](const std::string& line) {
    if (late != nullptr) return;
    port.Release();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(port.address(), grpc::InsecureServerCredentials());
    builder.RegisterService(host_->service());
    late = builder.BuildAndStart();
  };
  server_->Shutdown();
  std::unique_ptr<ControlClient> client = ControlClient::Create(options);
  const absl::StatusOr<v1::GetJobReply> job = client->WaitForJob(absl::Seconds(30));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->run(), 7u);
  ASSERT_NE(late, nullptr);
  late->Shutdown();
}

TEST(ControlClientTest, CancelEndsAWait) {
  ControlClientOptions options;
  options.address = "127.0.0.1:1";
  std::unique_ptr<ControlClient> client = ControlClient::Create(options);
  absl::Status status;
  std::thread waiter([&] { status = client->WaitForJob(absl::Seconds(60)).status(); });
  client->Cancel();
  waiter.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(client->GetJob().status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace descent
