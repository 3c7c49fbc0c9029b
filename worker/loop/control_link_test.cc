#include "worker/loop/control_link.h"

#include <deque>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A coordinator as a script: answers heartbeats by a function the test sets, keeps what it was told.
class Script {
 public:
  ControlCalls calls() {
    ControlCalls calls;
    calls.register_worker = [this](const v1::RegisterWorkerRequest&, bool again) -> absl::StatusOr<v1::RegisterReply> {
      MutexLock lock(&mu_);
      ++registrations_;
      again_ += again;
      changed_.SignalAll();
      if (!refuse_.ok()) return refuse_;
      v1::RegisterReply reply;
      reply.set_member(100 + registrations_);
      reply.set_run(run_);
      reply.set_generation(generation_);
      return reply;
    };
    calls.heartbeat = [this](const v1::HeartbeatRequest& beat) -> absl::StatusOr<v1::HeartbeatReply> {
      MutexLock lock(&mu_);
      beats_.push_back(beat);
      changed_.SignalAll();
      if (!answer_.ok()) return answer_;
      v1::HeartbeatReply reply = reply_;
      reply.set_generation(generation_);
      for (v1::Lease& lease : *reply.mutable_leases()) lease.set_generation(generation_);
      reply.set_unknown_member(beat.member() == forgotten_);
      reply.set_next_ms(1);
      return reply;
    };
    calls.log = [this](const std::string& line) {
      MutexLock lock(&mu_);
      log_ += line + "\n";
      changed_.SignalAll();
    };
    return calls;
  }
  void Answer(absl::Status status, v1::HeartbeatReply reply = {}) {
    MutexLock lock(&mu_);
    answer_ = std::move(status);
    reply_ = std::move(reply);
  }
  // All heartbeats and registrations from now on are of this generation.
  void Begin(uint64_t generation, v1::HeartbeatReply reply) {
    MutexLock lock(&mu_);
    generation_ = generation;
    answer_ = absl::OkStatus();
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
  // How many were of a new member.
  int new_registrations() {
    MutexLock lock(&mu_);
    return again_;
  }
  void WaitForRegistrations(int number) {
    MutexLock lock(&mu_);
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (registrations_ < number && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
    EXPECT_GE(registrations_, number);
  }
  // Waits for the text to be logged; gives all of the log.
  std::string WaitForLog(const std::string& text) {
    MutexLock lock(&mu_);
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (log_.find(text) == std::string::npos && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
    return log_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int registrations_ ABSL_GUARDED_BY(mu_) = 0;
  int again_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t run_ ABSL_GUARDED_BY(mu_) = 7;
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 1;
  std::string log_ ABSL_GUARDED_BY(mu_);
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
    options_.window = 5;
    options_.give_up_after = give_up;
    return std::make_unique<ControlLink>(options_, script_.calls(), v1::RegisterWorkerRequest(), &time_);
  }
  // A link whose generation 1 runs, with rank 0.
  std::unique_ptr<ControlLink> RunningLink() {
    script_.Answer(absl::OkStatus(), Running({0}));
    auto link = Link();
    EXPECT_TRUE(link->Start().ok());
    EXPECT_TRUE(link->AwaitRunning().ok());
    return link;
  }
  static absl::Status AwaitOver(ControlLink* link) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (link->State().ok() && absl::Now() < deadline) link->WaitForChange(deadline);
    return link->State();
  }
  ControlLink::Options options_;
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

TEST_F(ControlLinkTest, ServersThatHaveMovedAreNamedUntilThatIsTakenUp) {
  auto link = RunningLink();
  EXPECT_TRUE(link->MovedServers().empty());
  v1::HeartbeatReply moved = Running({0});
  moved.set_moves(1);
  moved.mutable_map()->add_address("a:1");
  script_.Answer(absl::OkStatus(), moved);
  EXPECT_TRUE(absl::IsAborted(AwaitOver(link.get())));
  EXPECT_THAT(link->MovedServers(), ElementsAre("a:1"));
  ASSERT_TRUE(link->AwaitRunning().ok());
  EXPECT_TRUE(link->MovedServers().empty());
  // Also while the run is being stopped, when nothing new is taken up.
  moved.set_moves(2);
  moved.set_stop(true);
  script_.Answer(absl::OkStatus(), moved);
  EXPECT_TRUE(absl::IsCancelled(AwaitOver(link.get())));
  EXPECT_THAT(link->MovedServers(), ElementsAre("a:1"));
}

TEST_F(ControlLinkTest, NoClockBeginsBeforeItMay) {
  v1::HeartbeatReply held = Running({0});
  held.set_begin_below(5);
  script_.Answer(absl::OkStatus(), held);
  auto link = Link();
  ASSERT_TRUE(link->Start().ok());
  ASSERT_TRUE(link->AwaitRunning().ok());
  EXPECT_TRUE(link->AwaitBegin(Clock(4), absl::Now()));
  EXPECT_FALSE(link->AwaitBegin(Clock(5), absl::Now()));
  held.set_begin_below(10);
  script_.Answer(absl::OkStatus(), held);
  EXPECT_TRUE(link->AwaitBegin(Clock(5), absl::Now() + absl::Seconds(30)));
  EXPECT_FALSE(link->AwaitBegin(Clock(10), absl::Now()));
  // Whoever waits hears of the end, and of leases that have changed.
  script_.Answer(absl::OkStatus(), [&] {
    v1::HeartbeatReply more = held;
    *more.add_leases() = more.leases(0);
    more.mutable_leases(1)->set_rank(1);
    return more;
  }());
  const absl::Time begin = absl::Now();
  EXPECT_FALSE(link->AwaitBegin(Clock(10), begin + absl::Seconds(30)));
  held.set_stop(true);
  script_.Answer(absl::OkStatus(), held);
  while (link->State().ok()) EXPECT_FALSE(link->AwaitBegin(Clock(10), begin + absl::Seconds(30)));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(30));
}

TEST_F(ControlLinkTest, LargeEvaluationsGoInSeveralBeatsAndTheEndIsToldWithTheLast) {
  auto link = RunningLink();
  script_.Answer(absl::UnavailableError("away"));
  RankEvaluation evaluation;
  evaluation.clock = Clock(12);
  evaluation.metrics.emplace().mutable_positive()->Resize(150000, 0.5f);
  for (uint32_t rank = 0; rank < 3; ++rank) {
    evaluation.rank = Rank(rank);
    link->Evaluated(evaluation);
  }
  link->Done(Rank(0));
  const auto first = script_.WaitForBeat([](const auto& b) { return b.evaluation_size() == 1; });
  EXPECT_FALSE(first.progress(0).done());
  script_.Answer(absl::OkStatus(), Running({0}));
  const auto last =
      script_.WaitForBeat([](const auto& b) { return b.evaluation_size() == 1 && b.evaluation(0).rank() == 2; });
  EXPECT_TRUE(last.progress(0).done());
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

TEST_F(ControlLinkTest, ClocksThatARankWasLeftOutOfEndWindowsToo) {
  script_.Answer(absl::OkStatus(), Running({0}));
  auto link = Link();
  ASSERT_TRUE(link->Start().ok());
  ASSERT_TRUE(link->AwaitRunning().ok());
  script_.Answer(absl::UnavailableError("away"));
  // Windows of 5 clocks, 12 in all.
  link->Completed(Rank(0), Clock(0), {.loss = 2, .weight = 3});
  link->Skipped(Rank(0), Clock(1), Clock(3));
  link->Skipped(Rank(0), Clock(3), Clock(6));
  link->Completed(Rank(0), Clock(6), {.loss = 5, .weight = 3});
  link->Skipped(Rank(0), Clock(7), Clock(12));
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.training_size() == 3; });
  EXPECT_EQ(beat.training(0).first(), 0u);
  EXPECT_EQ(beat.training(0).clocks(), 5u);
  EXPECT_EQ(beat.training(0).weight(), 3);
  EXPECT_EQ(beat.training(1).first(), 5u);
  EXPECT_EQ(beat.training(1).clocks(), 5u);
  EXPECT_EQ(beat.training(1).loss(), 5);
  EXPECT_EQ(beat.training(2).first(), 10u);
  EXPECT_EQ(beat.training(2).clocks(), 2u);
  EXPECT_EQ(beat.training(2).weight(), 0);
  EXPECT_EQ(beat.progress(0).clock(), 12u);
  EXPECT_EQ(beat.progress(0).examples(), 6u);
}

TEST_F(ControlLinkTest, WholeWindowsThatARankWasLeftOutOfMakeOnePart) {
  script_.Answer(absl::OkStatus(), Running({0}));
  auto link = Link();
  ASSERT_TRUE(link->Start().ok());
  ASSERT_TRUE(link->AwaitRunning().ok());
  script_.Answer(absl::UnavailableError("away"));
  link->Skipped(Rank(0), Clock(2), Clock(11));
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.training_size() == 1; });
  EXPECT_EQ(beat.training(0).first(), 2u);
  EXPECT_EQ(beat.training(0).clocks(), 8u);
  EXPECT_EQ(beat.progress(0).clock(), 11u);
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

v1::HeartbeatReply Placing() {
  v1::HeartbeatReply reply;
  reply.set_phase(v1::PLACING);
  reply.set_message("placing 1 s: not ready: server 1 on host b (pid 7)");
  return reply;
}

RankEvaluation Evaluation(uint64_t clock) {
  RankEvaluation evaluation;
  evaluation.clock = Clock(clock);
  return evaluation;
}

TEST_F(ControlLinkTest, ANewGenerationVoidsLeasesAndWhatWasNotTold) {
  auto link = RunningLink();
  script_.Answer(absl::UnavailableError("away"));
  for (uint64_t clock = 0; clock < 7; ++clock) link->Completed(Rank(0), Clock(clock), {.loss = 1, .weight = 1});
  link->Evaluated(Evaluation(6));
  script_.WaitForBeat([](const auto& b) { return b.training_size() == 1 && b.evaluation_size() == 1; });

  script_.Begin(2, Placing());
  const absl::Status over = AwaitOver(link.get());
  EXPECT_TRUE(absl::IsAborted(over)) << over;
  EXPECT_THAT(over.message(), HasSubstr("generation 1 is over; 2 has begun"));
  EXPECT_TRUE(link->Leases().empty());
  // What the old trainer still has to say is of clocks that are to be computed again.
  link->Completed(Rank(0), Clock(7), {.loss = 1, .weight = 1});
  link->Evaluated(Evaluation(8));
  link->Done(Rank(0));
  for (int beat = 0; beat < 2; ++beat) {
    const auto own = script_.WaitForBeat([](const auto&) { return true; });
    EXPECT_EQ(own.generation(), 1u) << "until it has built for the new one";
    EXPECT_FALSE(own.ready());
    EXPECT_EQ(own.progress_size() + own.training_size() + own.evaluation_size(), 0);
  }

  script_.Begin(2, Running({0, 1}));
  const auto news = link->AwaitRunning();
  ASSERT_TRUE(news.ok()) << news.status();
  EXPECT_EQ(news->generation(), 2u);
  EXPECT_TRUE(link->State().ok());
  ASSERT_EQ(link->Leases().size(), 2u);
  EXPECT_EQ(link->Leases()[0].incarnation, (Incarnation{Generation(2), 1}));
  link->Completed(Rank(1), Clock(3), {.loss = 1, .weight = 1});
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.progress_size() == 1; });
  EXPECT_EQ(beat.generation(), 2u);
  EXPECT_TRUE(beat.ready());
  EXPECT_EQ(beat.progress(0).clock(), 4u);
  EXPECT_EQ(beat.progress(0).examples(), 1u);
}

TEST_F(ControlLinkTest, TheOldLeasesAreNotSeenUntilTheNewGenerationIsBuilt) {
  auto link = RunningLink();
  script_.Begin(2, Running({0, 1}));
  EXPECT_TRUE(absl::IsAborted(AwaitOver(link.get())));
  EXPECT_TRUE(link->Leases().empty());
  ASSERT_TRUE(link->AwaitRunning().ok());
  EXPECT_EQ(link->Leases().size(), 2u);
}

TEST_F(ControlLinkTest, ACoordinatorThatWasStartedAgainIsRegisteredWith) {
  options_.tell_after = absl::ZeroDuration();
  auto link = RunningLink();
  script_.Answer(absl::UnavailableError("the coordinator at c:1: connection refused"));
  EXPECT_THAT(script_.WaitForLog("waiting for the coordinator since 0 s: the coordinator at c:1: connection refused"),
              HasSubstr("connection refused"));
  EXPECT_TRUE(link->State().ok()) << "training goes on meanwhile";
  script_.Forget(101);
  script_.Begin(2, Running({0}));
  const auto news = link->AwaitRunning();
  ASSERT_TRUE(news.ok()) << news.status();
  EXPECT_EQ(news->generation(), 2u);
  EXPECT_EQ(link->member(), 102u);
  EXPECT_EQ(link->run(), 7u);
  EXPECT_EQ(script_.new_registrations(), 1);
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.generation() == 2; });
  EXPECT_EQ(beat.member(), 102u);
  EXPECT_EQ(beat.run(), 7u);
}

TEST_F(ControlLinkTest, ARegistrationThatGotLostIsTheSameWhenSentAgain) {
  auto link = RunningLink();
  script_.Refuse(absl::UnavailableError("away"));
  script_.Forget(101);
  script_.WaitForRegistrations(3);
  script_.Refuse(absl::OkStatus());
  script_.WaitForBeat([](const auto& b) { return b.member() > 101; });
  EXPECT_EQ(script_.new_registrations(), 1);
}

TEST_F(ControlLinkTest, ARunThatHasEndedMeanwhileIsNotRegisteredWith) {
  auto link = RunningLink();
  v1::HeartbeatReply finished;
  finished.set_phase(v1::FINISHED);
  script_.Forget(101);
  script_.Answer(absl::OkStatus(), finished);
  EXPECT_TRUE(link->AwaitEnd(absl::Now() + absl::Seconds(30)).ok());
  EXPECT_EQ(link->phase(), v1::FINISHED);
}

TEST_F(ControlLinkTest, AStopHoldsForTheNextGenerationToo) {
  auto link = RunningLink();
  v1::HeartbeatReply stop = Running({0});
  stop.set_stop(true);
  script_.Answer(absl::OkStatus(), stop);
  EXPECT_TRUE(absl::IsCancelled(AwaitOver(link.get())));
  link->StopObeyed();
  script_.WaitForBeat([](const auto& b) { return b.progress_size() == 1 && b.progress(0).done(); });
  // Of the new generation it holds two ranks, and says that they rest.
  stop = Running({0, 1});
  stop.set_stop(true);
  script_.Begin(2, stop);
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.generation() == 2 && b.progress_size() == 2; });
  EXPECT_TRUE(beat.progress(0).done() && beat.progress(1).done());
  EXPECT_TRUE(absl::IsCancelled(link->State()));
}

TEST_F(ControlLinkTest, AStopThatTheNewCoordinatorDoesNotKnowOfIsOver) {
  auto link = RunningLink();
  v1::HeartbeatReply stop = Running({0});
  stop.set_stop(true);
  script_.Answer(absl::OkStatus(), stop);
  EXPECT_TRUE(absl::IsCancelled(AwaitOver(link.get())));
  link->StopObeyed();
  script_.Begin(2, Running({0}));
  const absl::Status end = link->AwaitEnd(absl::Now() + absl::Seconds(30));
  EXPECT_TRUE(absl::IsAborted(end)) << end;
  ASSERT_TRUE(link->AwaitRunning().ok());
  EXPECT_TRUE(link->State().ok());
  const auto beat = script_.WaitForBeat([](const auto& b) { return b.generation() == 2; });
  EXPECT_EQ(beat.progress_size(), 0) << "it computes";
}

TEST_F(ControlLinkTest, RegistersOnceTheCoordinatorIsBack) {
  script_.Refuse(absl::UnavailableError("away"));
  auto link = Link();
  absl::Status started;
  std::thread starting([&] { started = link->Start(); });
  script_.WaitForRegistrations(2);
  script_.Refuse(absl::OkStatus());
  starting.join();
  EXPECT_TRUE(started.ok()) << started;
}

TEST_F(ControlLinkTest, WhoLeavesDoesNotWaitLongForASilentCoordinator) {
  options_.tell_every = absl::Milliseconds(1);
  auto link = RunningLink();
  script_.Answer(absl::UnavailableError("away"));
  link->RequestStop();
  EXPECT_TRUE(absl::IsUnavailable(link->AwaitEnd(absl::Now() + absl::Seconds(30))));
}

}  // namespace
}  // namespace descent
