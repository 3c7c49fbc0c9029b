#include "worker/loop/control_link.h"

#include <deque>
#include <memory>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

// A coordinator as a script: answers heartbeats by a function the test sets, keeps what it was told.
class Script {
 public:
  ControlCalls calls() {
    ControlCalls calls;
    calls.register_worker = [this](const v1::RegisterWorkerRequest&, bool again) -> absl::StatusOr<v1::RegisterReply> {
      MutexLock lock(&mu_);
      ++registrations_;
      again_ |= again;
      if (!refuse_.ok()) return refuse_;
      v1::RegisterReply reply;
      reply.set_member(100 + registrations_);
      return reply;
    };
    calls.heartbeat = [this](const v1::HeartbeatRequest& beat) -> absl::StatusOr<v1::HeartbeatReply> {
      MutexLock lock(&mu_);
      beats_.push_back(beat);
      changed_.SignalAll();
      if (!answer_.ok()) return answer_;
      v1::HeartbeatReply reply = reply_;
      reply.set_unknown_member(beat.member() == forgotten_);
      reply.set_next_ms(1);
      return reply;
    };
    calls.log = [](const std::string&) {};
    return calls;
  }
  void Answer(absl::Status status, v1::HeartbeatReply reply = {}) {
    MutexLock lock(&mu_);
    answer_ = std::move(status);
    reply_ = std::move(reply);
  }
  void Forget(uint64_t member) {
    MutexLock lock(&mu_);
    forgotten_ = member;
  }
  void Refuse(absl::Status status) {
    MutexLock lock(&mu_);
    refuse_ = std::move(status);
  }
  // The first beat from now on that satisfies the predicate.
  template <typename F>
  v1::HeartbeatRequest WaitForBeat(F&& wanted) {
    MutexLock lock(&mu_);
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    size_t seen = beats_.size();
    while (absl::Now() < deadline) {
      for (; seen < beats_.size(); ++seen) {
        if (wanted(beats_[seen])) return beats_[seen];
      }
      changed_.WaitUntil(&mu_, deadline);
    }
    ADD_FAILURE() << "no such heartbeat";
    return {};
  }
  int registrations() {
    MutexLock lock(&mu_);
    return registrations_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int registrations_ ABSL_GUARDED_BY(mu_) = 0;
  bool again_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t forgotten_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status refuse_ ABSL_GUARDED_BY(mu_);
  absl::Status answer_ ABSL_GUARDED_BY(mu_);
  v1::HeartbeatReply reply_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::HeartbeatRequest> beats_ ABSL_GUARDED_BY(mu_);
};

v1::HeartbeatReply Running(std::vector<uint32_t> ranks, uint64_t number = 1) {
  v1::HeartbeatReply reply;
  reply.set_phase(v1::RUNNING);
  reply.set_clocks(12);
  reply.mutable_map()->set_epoch(1);
  for (uint32_t rank : ranks) {
    v1::Lease* lease = reply.add_leases();
    lease->set_rank(rank);
    lease->set_generation(1);
    lease->set_number(number);
  }
  return reply;
}

class ControlLinkTest : public ::testing::Test {
 protected:
  std::unique_ptr<ControlLink> Link(absl::Duration give_up = absl::Seconds(30)) {
    ControlLink::Options options;
    options.window = 5;
    options.give_up_after = give_up;
    return std::make_unique<ControlLink>(options, script_.calls(), v1::RegisterWorkerRequest(), &time_);
  }
  RealTimeSource time_;
  Script script_;
};

TEST_F(ControlLinkTest, RefusedAtTheDoor) {
  script_.Refuse(absl::FailedPreconditionError("job: expected 1, came 2"));
  EXPECT_THAT(Link()->Start().message(), HasSubstr("expected 1, came 2"));
}

TEST_F(ControlLinkTest, NewsAndLeases) {
  script_.Answer(absl::OkStatus(), Running({2, 0}));
  auto link = Link();
  ASSERT_TRUE(link->Start().ok());
  ASSERT_TRUE(link->AwaitRunning().ok());
  const auto leases = link->Leases();
  ASSERT_EQ(leases.size(), 2u);
  EXPECT_EQ(leases[0].rank, Rank(0));
  EXPECT_EQ(leases[1].incarnation, (Incarnation{Generation(1), 1}));
  EXPECT_TRUE(link->State().ok());
  v1::HeartbeatReply failed = Running({});
  failed.set_phase(v1::FAILED);
  failed.set_message("server 1 died");
  script_.Answer(absl::OkStatus(), failed);
  EXPECT_THAT(link->AwaitEnd(absl::Now() + absl::Seconds(30)).message(), HasSubstr("server 1 died"));
  EXPECT_TRUE(absl::IsFailedPrecondition(link->State()));
}

TEST_F(ControlLinkTest, LossIsToldInWholeWindowsAndOnce) {
  script_.Answer(absl::OkStatus(), Running({0}));
  auto link = Link();
  ASSERT_TRUE(link->Start().ok());
  ASSERT_TRUE(link->AwaitRunning().ok());
  script_.Answer(absl::UnavailableError("away"));
  for (uint64_t clock = 0; clock < 12; ++clock) link->Completed(Rank(0), Clock(clock), {.loss = 2, .weight = 3});
  // While the coordinator is away the parts are kept, and told again with every beat.
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.training_size() == 3; });
  EXPECT_EQ(beat.training(0).first(), 0u);
  EXPECT_EQ(beat.training(0).clocks(), 5u);
  EXPECT_EQ(beat.training(1).loss(), 10);
  EXPECT_EQ(beat.training(2).first(), 10u);
  EXPECT_EQ(beat.training(2).clocks(), 2u);  // the last window ends with the job
  EXPECT_EQ(beat.progress(0).clock(), 12u);
  EXPECT_EQ(beat.progress(0).examples(), 36u);
  script_.WaitForBeat([](const auto& b) { return b.training_size() == 3; });
  script_.Answer(absl::OkStatus(), Running({0}));
  script_.WaitForBeat([](const auto& b) { return b.training_size() == 0; });
}

TEST_F(ControlLinkTest, RegistersAgainWhenForgotten) {
  script_.Answer(absl::OkStatus(), Running({0}));
  auto link = Link();
  ASSERT_TRUE(link->Start().ok());
  ASSERT_TRUE(link->AwaitRunning().ok());
  script_.Forget(101);
  script_.WaitForBeat([](const auto& b) { return b.member() == 102; });
  EXPECT_EQ(script_.registrations(), 2);
  EXPECT_EQ(link->member(), 102u);
}

TEST_F(ControlLinkTest, GivesUpOnASilentCoordinator) {
  script_.Answer(absl::UnavailableError("connection refused"));
  auto link = Link(absl::Milliseconds(50));
  ASSERT_TRUE(link->Start().ok());
  const absl::Status status = link->AwaitEnd(absl::Now() + absl::Seconds(30));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("connection refused"));
}

}  // namespace
}  // namespace descent
