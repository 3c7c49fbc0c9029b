// A server process as a member, with real seats, nodes and ports, and a coordinator that says what the test wants.
#include "server/process/server_member.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/control/messages.h"
#include "common/job/job.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(60);
constexpr uint64_t kRun = 7;
constexpr uint32_t kServers = 3;

// Answers beats by a script, and ends the run once that has nothing more to say or takes too long.
class ScriptedControl final : public ControlClient {
 public:
  // What is answered to a beat; nullopt: the run is over.
  using Script = std::function<std::optional<v1::HeartbeatReply>(const v1::HeartbeatRequest&)>;
  ScriptedControl(v1::GetJobReply job, Script script) : job_(std::move(job)), script_(std::move(script)) {}

  absl::StatusOr<v1::GetJobReply> WaitForJob(absl::Duration) override { return job_; }
  absl::StatusOr<v1::GetJobReply> GetJob() override { return job_; }
  absl::StatusOr<v1::RegisterReply> RegisterServer(v1::RegisterServerRequest request) override {
    registrations.push_back(std::move(request));
    v1::RegisterReply reply;
    reply.set_member(registrations.size());
    reply.set_run(kRun);
    reply.set_generation(1);
    return reply;
  }
  absl::StatusOr<v1::RegisterReply> RegisterWorker(v1::RegisterWorkerRequest) override {
    return absl::UnimplementedError("no worker");
  }
  void ForgetRegistration() override { ++forgotten; }
  absl::StatusOr<v1::HeartbeatReply> Heartbeat(const v1::HeartbeatRequest& request) override {
    late = absl::Now() > deadline_;
    std::optional<v1::HeartbeatReply> reply = late ? std::nullopt : script_(request);
    if (!reply.has_value()) reply.emplace().set_phase(v1::FINISHED);
    reply->set_next_ms(1);
    return *std::move(reply);
  }
  absl::Status Leave(uint64_t member, const std::string&) override {
    left = member;
    return absl::OkStatus();
  }
  absl::StatusOr<v1::StatusReply> Status() override { return v1::StatusReply(); }
  absl::Status Stop(int, bool) override { return absl::OkStatus(); }
  absl::Status ReportFailure(const v1::FailureReport& report) override {
    ADD_FAILURE() << report.cause();
    return absl::OkStatus();
  }
  absl::StatusOr<v1::ScalarTotals> AgreeScalars(const v1::ScalarPartials&) override { return v1::ScalarTotals(); }
  absl::StatusOr<v1::ShareStatisticsReply> ShareStatistics(const v1::ShareStatisticsRequest&) override {
    return absl::UnimplementedError("not in this test");
  }
  void Cancel() override {}

  std::vector<v1::RegisterServerRequest> registrations;
  uint64_t left = 0;
  int forgotten = 0;
  bool late = false;  // the script did not come to its end

 private:
  const v1::GetJobReply job_;
  const Script script_;
  const absl::Time deadline_ = absl::Now() + kDeadline;
};

class ServerMemberTest : public testing::Test {
 protected:
  ServerMemberTest() {
    v1::JobSpec& job = *job_.mutable_job();
    job.set_ranks(2);
    job.set_replicas(1);
    job.mutable_cluster()->set_servers(kServers);
    job.mutable_consistency()->set_mode(v1::ASYNC);
    job.mutable_optimizer()->mutable_sgd();
    rpc_ = RpcServer::Start({Endpoint{"127.0.0.1", 0}}, services_.service(), {}).value();
    options_.address = Endpoint{"127.0.0.1", rpc_->port()}.ToString();
    options_.host = "here";
    options_.coordinator = "127.0.0.1:1";
    options_.replica_bind = Endpoint{"127.0.0.1", 0};
    options_.replica_host = "127.0.0.1";
    options_.local_sockets = false;

    TensorSpec tensor;
    tensor.name = "w";
    tensor.shape = {kElements};
    const PartitionMap map = MakePartitionMap({tensor}, GeometryOf(job), kServers);
    owner_ = map.server(BlockId{TensorId(0), 0}).value;
    news_.set_phase(v1::PLACING);
    news_.set_generation(1);
    news_.set_clocks(100);
    *news_.add_tensors() = ToMessage(tensor);
    *news_.mutable_map() = ToMessage(map);
    for (uint32_t s = 0; s < kServers; ++s) news_.mutable_map()->add_address("127.0.0.1:1");
  }
  ~ServerMemberTest() override { rpc_->Stop(absl::ZeroDuration()); }

  // The news of a generation that nothing was pushed in yet.
  v1::HeartbeatReply Fresh(uint32_t primary_of, uint32_t backup_of, uint64_t view) const {
    v1::HeartbeatReply news = news_;
    for (const uint32_t server : {primary_of, backup_of}) {
      v1::Seat* seat = news.add_seat();
      seat->set_server(server);
      seat->set_primary(server == primary_of);
      seat->set_await_backup(server == primary_of);
      seat->set_view(view + server);
      seat->set_fresh(true);
    }
    return news;
  }
  // Everything that the news want is held, in their views.
  static bool AllReady(const v1::HeartbeatRequest& beat, const v1::HeartbeatReply& news) {
    int ready = 0;
    for (const v1::Seat& want : news.seat()) {
      for (const v1::SeatReport& is : beat.seat()) {
        ready +=
            is.server() == want.server() && is.primary() == want.primary() && is.view() == want.view() && is.ready();
      }
    }
    return ready == news.seat_size() && beat.seat_size() == ready;
  }

  // A coordinator that knows the member no more, once, when it has made what it was to make.
  ScriptedControl::Script UnknownOnceReady() const {
    return [begins = Fresh(owner_, (owner_ + 1) % kServers, 1),
            unknown = false](const v1::HeartbeatRequest& beat) mutable -> std::optional<v1::HeartbeatReply> {
      if (unknown) return std::nullopt;
      if (!AllReady(beat, begins)) return begins;
      unknown = true;
      v1::HeartbeatReply reply;
      reply.set_unknown_member(true);
      return reply;
    };
  }

  static constexpr uint64_t kElements = 64;
  const Logger log_{"test"};
  ServerServices services_;
  std::unique_ptr<RpcServer> rpc_;
  ServerMemberOptions options_;
  v1::GetJobReply job_;
  v1::HeartbeatReply news_;
  uint32_t owner_ = 0;  // the server of the only block
};

// Where a process is replaced before anything was pushed, another may become the primary of another server, and the
// backup of the one that it served. It has one address of its own.
TEST_F(ServerMemberTest, OfAnotherServersPrimaryThereIsOneSeatAtItsAddress) {
  const uint32_t first = (owner_ + 1) % kServers, before = (owner_ + 2) % kServers;
  const v1::HeartbeatReply begins = Fresh(first, before, 1), changes = Fresh(owner_, first, 11);
  std::vector<v1::HeartbeatRequest> settled;
  ScriptedControl control(job_, [&](const v1::HeartbeatRequest& beat) -> std::optional<v1::HeartbeatReply> {
    const v1::HeartbeatReply& wanted = settled.empty() ? begins : changes;
    if (AllReady(beat, wanted)) settled.push_back(beat);
    // What is held stays held, for some beats.
    if (settled.size() == 6) return std::nullopt;
    return settled.empty() ? begins : changes;
  });
  ServerMember member(options_, &control, &services_, &log_);
  const absl::StatusOr<v1::Phase> end = member.Run();
  ASSERT_TRUE(end.ok()) << end.status();
  ASSERT_FALSE(control.late) << "stands still after " << settled.size();
  EXPECT_EQ(*end, v1::FINISHED);
  EXPECT_EQ(control.left, 1u);
  for (size_t i = 0; i < settled.size(); ++i) {
    for (const v1::SeatReport& seat : settled[i].seat()) {
      EXPECT_EQ(seat.address() == options_.address, seat.primary()) << i << ": server " << seat.server();
    }
    // And the one that is there has its server's blocks.
    EXPECT_EQ(settled[i].load().parameter_bytes(), i == 0 ? 0 : 4 * kElements) << i;
  }
}

// As a container that was off the network, and came back to it with another address.
TEST_F(ServerMemberTest, RegistersAgainWhereItsHostIsNow) {
  ScriptedControl control(job_, UnknownOnceReady());
  ServerMemberOptions options = options_;
  int asked = 0;
  options.find_address = [&asked] {
    ++asked;
    return std::string("10.0.0.9:7001");
  };
  ServerMember member(options, &control, &services_, &log_);
  ASSERT_TRUE(member.Run().ok());
  ASSERT_FALSE(control.late);
  ASSERT_EQ(control.registrations.size(), 2u);
  EXPECT_EQ(control.registrations[0].address(), options_.address);
  EXPECT_EQ(control.registrations[1].address(), "10.0.0.9:7001");
  EXPECT_EQ(asked, 1);
}

// Another coordinator is told what is held, which it may go on with.
TEST_F(ServerMemberTest, WhoIsUnknownRegistersAgainWithWhatItHolds) {
  ScriptedControl control(job_, UnknownOnceReady());
  ServerMember member(options_, &control, &services_, &log_);
  ASSERT_TRUE(member.Run().ok());
  ASSERT_FALSE(control.late);
  ASSERT_EQ(control.registrations.size(), 2u);
  EXPECT_EQ(control.forgotten, 1);
  EXPECT_EQ(control.left, 2u);
  EXPECT_EQ(control.registrations[0].seat_size(), 0);
  const v1::RegisterServerRequest& again = control.registrations[1];
  EXPECT_EQ(again.seat_run(), kRun);
  EXPECT_EQ(again.seat_generation(), 1u);
  ASSERT_EQ(again.seat_size(), 2);
  for (const v1::SeatReport& seat : again.seat()) {
    EXPECT_TRUE(seat.ready());
    EXPECT_EQ(seat.view(), 1 + seat.server());
    EXPECT_EQ(seat.primary(), seat.server() == owner_);
  }
}

}  // namespace
}  // namespace descent
