// A server's seat in this process, around a real node and its thread.
#include "server/process/seat.h"

#include <unistd.h>

#include <filesystem>
#include <future>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/control/messages.h"
#include "common/job/job.h"
#include "gtest/gtest.h"
#include "server/node/kept_cut.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(60);
constexpr char kFolder[] = "cut-000000000001-g1";

class SeatTest : public testing::Test {
 protected:
  SeatTest() : root_(testing::TempDir() + absl::StrCat("/seat-", getpid())) {
    v1::JobSpec& job = *context_.job.mutable_job();
    job.set_ranks(2);
    job.set_slots(16);
    job.mutable_consistency()->set_mode(v1::ASYNC);
    job.mutable_optimizer()->mutable_sgd();
    job.mutable_checkpoint()->set_every_rounds(10);
    context_.registration.set_run(7);
    context_.storage = MakePosixStorage(root_);
    context_.log = &log_;
    EXPECT_TRUE(context_.storage->MakeFolder(kFolder).ok());
    rpc_ = RpcServer::Start({Endpoint{"127.0.0.1", 0}}, services_.service(), {}).value();
    seat_ = std::make_unique<Seat>(&context_, ServerId(0), &services_, "127.0.0.1:1");

    TensorSpec table;
    table.name = "t";
    table.sparse = true;
    table.shape = {2};
    news_.set_generation(1);
    news_.set_clocks(1000);
    *news_.add_tensors() = ToMessage(table);
    *news_.mutable_map() = ToMessage(MakePartitionMap({table}, GeometryOf(job), 1));
    news_.mutable_map()->add_address("127.0.0.1:1");
    want_.set_primary(true);
    want_.set_view(1);
    seat_->Tend(news_, want_);
    EXPECT_TRUE(seat_->AwaitPlaced(absl::Now() + kDeadline));
    EXPECT_EQ(seat_->Poll(), absl::OkStatus());
  }
  ~SeatTest() override {
    seat_.reset();
    rpc_->Stop(absl::ZeroDuration());
    std::filesystem::remove_all(root_);
  }
  void Order(uint64_t attempt) {
    news_.mutable_cut()->set_number(1);
    news_.mutable_cut()->set_folder(kFolder);
    news_.mutable_cut()->set_attempt(attempt);
  }
  // What the seat says of its cut, after so many beats at most.
  std::optional<v1::CutReport> Report() {
    for (const absl::Time deadline = absl::Now() + kDeadline; absl::Now() < deadline;) {
      seat_->Tend(news_, want_);
      v1::HeartbeatRequest beat;
      seat_->Report(&beat);
      if (beat.cut_size() > 0) return beat.cut(0);
    }
    return std::nullopt;
  }

  const std::string root_;
  const Logger log_{"test"};
  SeatContext context_;
  ServerServices services_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<Seat> seat_;
  v1::HeartbeatReply news_;
  v1::Seat want_;
};

// As when a backup is just being sent the images of another.
TEST_F(SeatTest, AnOrderThatMeetsAnotherCutWaitsForItsEnd) {
  std::promise<void> posted;
  services_.service()->Post([&](ServerNode*) { posted.get_future().wait(); });
  auto other = std::make_shared<KeptCut>();
  absl::Status begun;
  services_.service()->Post([&](ServerNode* node) { begun = node->BeginCut(Clock(0), other); });
  Order(1);
  seat_->Tend(news_, want_);  // is asked of the node right after the other
  posted.set_value();
  const std::optional<v1::CutReport> report = Report();
  ASSERT_TRUE(report.has_value());
  EXPECT_TRUE(begun.ok()) << begun;
  EXPECT_TRUE(other->done());
  EXPECT_EQ(report->failure(), "");
  EXPECT_EQ(report->part().records(), 16u);
}

TEST_F(SeatTest, TheSameCutOrderedAgainIsTakenAgain) {
  Order(1);
  std::optional<v1::CutReport> report = Report();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->attempt(), 1u);
  // The coordinator begins it anew, with an empty folder.
  ASSERT_TRUE(context_.storage->Remove(kFolder).ok());
  ASSERT_TRUE(context_.storage->MakeFolder(kFolder).ok());
  Order(2);
  report = Report();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->attempt(), 2u);
  EXPECT_EQ(report->failure(), "");
  EXPECT_TRUE(context_.storage->Size(absl::StrCat(kFolder, "/server-0.part")).ok());
}

}  // namespace
}  // namespace descent
