#include "server/core/engine.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

absl::Time At(int seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

// Carries out whatever the engine asks for, and records it.
class Driver {
 public:
  explicit Driver(const EngineOptions& options) : options_(options), engine_(options) {}

  struct Result {
    struct Rejected {
      Rejection why;
      std::string message;
    };
    std::optional<Rejected> rejected;
    std::vector<uint32_t> admitted, later;
  };
  Result Push(uint32_t rank, uint64_t clock, std::vector<uint32_t> blocks, uint32_t announced, uint32_t span = 1,
              uint64_t incarnation = 1, double weight = 1) {
    Result result;
    const std::vector<double> weights(std::min(span, options_.ranks - rank), weight);
    std::vector<Action> verdicts;
    engine_.Step(PushArrived{Rank(rank), span, {Generation(1), incarnation}, Clock(clock), weights, announced, blocks},
                 &verdicts);
    for (const Action& action : verdicts) {
      if (const auto* rejected = std::get_if<PushRejected>(&action)) {
        result.rejected = {rejected->why, engine_.rejection()};
        return result;
      }
      const auto& admit = std::get<Admit>(action);
      (admit.later ? result.later : result.admitted).push_back(admit.block);
      Run(ContributionIn{admit.block, Rank(rank), span, Clock(clock)});
    }
    Run(PushDone{Rank(rank), span, Clock(clock), now});
    return result;
  }
  void Pull(uint32_t ticket, uint32_t rank, uint64_t clock, bool ungated = false) {
    Run(PullArrived{ticket, Rank(rank), Clock(clock), ungated, now});
  }
  void Run(const Event& event) {
    std::vector<Action> actions;
    engine_.Step(event, &actions);
    for (size_t i = 0; i < actions.size(); ++i) {
      const Action action = actions[i];
      if (const auto* commit = std::get_if<CommitBlock>(&action)) {
        commits.emplace_back(commit->block, commit->clock.value);
        engine_.Step(BlockCommitted{commit->block}, &actions);
      } else if (const auto* slots = std::get_if<CommitSlots>(&action)) {
        rounds.push_back(slots->clock.value);
        engine_.Step(SlotsCommitted{now}, &actions);
      } else if (const auto* reduce = std::get_if<ReduceBlock>(&action)) {
        reduced.push_back(reduce->block);
        engine_.Step(BlockReduced{reduce->block}, &actions);
      } else if (const auto* all = std::get_if<ReduceSlots>(&action)) {
        measured.push_back(all->clock.value);
        engine_.Step(SlotsReduced{}, &actions);
      } else if (const auto* done = std::get_if<RankCompleted>(&action)) {
        completed.emplace_back(done->rank.value, done->clock.value);
      } else if (const auto* block = std::get_if<ReleaseBlock>(&action)) {
        released_blocks.emplace_back(block->ticket, block->block);
      } else if (const auto* release = std::get_if<Release>(&action)) {
        released.push_back(release->ticket);
      } else if (const auto* waiting = std::get_if<TellWaiting>(&action)) {
        told.push_back(*waiting);
      }
    }
  }

  const EngineOptions options_;
  Engine engine_;
  absl::Time now = At(0);
  std::vector<std::pair<uint32_t, uint64_t>> commits, completed;
  std::vector<std::pair<uint32_t, uint32_t>> released_blocks;
  std::vector<uint64_t> rounds, measured;
  std::vector<uint32_t> released, reduced;
  std::vector<TellWaiting> told;
};

EngineOptions Options(uint32_t ranks, uint32_t blocks, uint64_t s, bool push, uint32_t slots = 0) {
  EngineOptions o;
  o.ranks = ranks;
  o.dense_blocks = blocks;
  o.slots = slots;
  o.staleness = s;
  o.apply_push = push;
  return o;
}

TEST(BlockMarks, BehindIsTooEarlyAheadIsDuplicate) {
  BlockMarks marks(2, 2);
  std::vector<uint64_t> floor = {0, 0};
  EXPECT_EQ(marks.Check(0, 0, 1, 0, floor), Verdict::kAdmit);
  EXPECT_EQ(marks.Check(0, 0, 1, 1, floor), Verdict::kTooEarly);
  EXPECT_TRUE(marks.Advance(0, 0, 0, floor));
  EXPECT_FALSE(marks.Advance(0, 0, 0, floor));
  EXPECT_EQ(marks.Check(0, 0, 1, 0, floor), Verdict::kDuplicate);
  EXPECT_EQ(marks.Check(0, 0, 2, 0, floor), Verdict::kAdmit);  // rank 1 is new
  EXPECT_EQ(marks.Check(1, 0, 1, 0, floor), Verdict::kAdmit);  // each block for itself
  floor = {3, 0};
  EXPECT_EQ(marks.Check(1, 0, 1, 2, floor), Verdict::kDuplicate);  // its clock is over
  EXPECT_EQ(marks.mark(1, 0, floor), 3u);
}

TEST(Engine, BlockCommitsWithItsLastContributionInEveryOrder) {
  // 3 ranks x 2 blocks, each contribution a message: all 720 orders end alike, and no block waits for another.
  std::vector<int> order(6);
  std::iota(order.begin(), order.end(), 0);
  do {
    Driver d(Options(3, 2, 0, false));
    d.Pull(7, 0, 1);
    int in[2] = {0, 0};
    for (int i : order) {
      const uint32_t block = i % 2;
      d.Push(i / 2, 0, {block}, 2);
      ++in[block];
      const bool committed =
          std::count(d.commits.begin(), d.commits.end(), std::pair<uint32_t, uint64_t>(block, 0)) > 0;
      ASSERT_EQ(committed, in[block] == 3);
      ASSERT_EQ(std::count(d.released_blocks.begin(), d.released_blocks.end(), std::pair<uint32_t, uint32_t>(7, block)),
                in[block] == 3);
    }
    ASSERT_EQ(d.commits.size(), 2u);
    ASSERT_THAT(d.rounds, ElementsAre(0));
    ASSERT_THAT(d.released, ElementsAre(7));
    ASSERT_EQ(d.engine_.round(), 1u);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(Engine, DuplicatesChangeNothing) {
  Driver d(Options(2, 2, 0, false));
  EXPECT_THAT(d.Push(0, 0, {0}, 2).admitted, ElementsAre(0));
  const std::string before = d.engine_.DebugState();
  const auto again = d.Push(0, 0, {0}, 2);
  EXPECT_FALSE(again.rejected);
  EXPECT_THAT(again.admitted, IsEmpty());
  EXPECT_EQ(d.engine_.DebugState(), before);
  EXPECT_THAT(d.Push(0, 0, {0, 1}, 2).admitted, ElementsAre(1));  // decided one by one
  EXPECT_THAT(d.completed, ElementsAre(std::pair<uint32_t, uint64_t>(0, 0)));
  ASSERT_TRUE(d.Push(0, 0, {0, 1}, 2).rejected);
  EXPECT_EQ(d.Push(0, 0, {0, 1}, 2).rejected->why, Rejection::kDuplicate);
  EXPECT_EQ(d.Push(0, 3, {0, 1}, 2).rejected->why, Rejection::kTooEarly);
  EXPECT_EQ(d.Push(0, 3, {0, 1}, 2).rejected->message, "rank 0 pushes clock 3, but its clock 1 is not complete here");
}

TEST(Engine, OlderIncarnationsAreFenced) {
  Driver d(Options(2, 1, 0, false));
  d.Push(0, 0, {}, 1, 1, 5);
  auto old = d.Push(0, 0, {0}, 1, 1, 4);
  ASSERT_TRUE(old.rejected);
  EXPECT_EQ(old.rejected->why, Rejection::kFenced);
  EXPECT_EQ(old.rejected->message, "rank 0: incarnation (1, 4) is fenced by (1, 5)");
  d.Run(FenceRaised{Rank(1), {Generation(1), 9}});
  EXPECT_EQ(d.Push(1, 0, {0}, 1, 1, 8).rejected->why, Rejection::kFenced);
  EXPECT_FALSE(d.Push(1, 0, {0}, 1, 1, 9).rejected);
  EXPECT_FALSE(d.Push(0, 0, {0}, 1, 1, 6).rejected);  // a newer one takes over in mid-clock
  EXPECT_EQ(d.engine_.round(), 1u);

  EngineOptions faulty = Options(2, 1, 0, false);
  faulty.fault = EngineFault::kFenceIgnored;
  Driver f(faulty);
  f.Push(0, 0, {}, 1, 1, 5);
  EXPECT_FALSE(f.Push(0, 0, {0}, 1, 1, 4).rejected);
}

TEST(Engine, SpansAndSinglesMix) {
  Driver d(Options(3, 2, 0, false));
  EXPECT_THAT(d.Push(0, 0, {0}, 2).admitted, ElementsAre(0));
  // Rank 0 is in for block 0 already; the span brings rank 1, and both for block 1.
  EXPECT_THAT(d.Push(0, 0, {0, 1}, 2, 2).admitted, ElementsAre(0, 1));
  EXPECT_EQ(d.completed.size(), 2u);
  EXPECT_EQ(d.Push(1, 0, {1}, 2).rejected->why, Rejection::kDuplicate);
  EXPECT_THAT(d.Push(2, 0, {0, 1}, 2, 2).admitted, ElementsAre(0, 1));  // reaches past the last rank
  EXPECT_EQ(d.engine_.round(), 1u);
  // A whole tree of four, of which half is complete.
  Driver e(Options(4, 1, 0, false));
  e.Push(0, 0, {0}, 1, 2);
  EXPECT_THAT(e.Push(0, 0, {0}, 1, 4).admitted, ElementsAre(0));
  EXPECT_EQ(e.engine_.round(), 1u);
  EXPECT_EQ(e.commits.size(), 1u);
}

TEST(Engine, EmptyBatchesAdvanceTheClock) {
  Driver d(Options(3, 2, 0, false));
  d.Push(0, 0, {0, 1}, 2);
  d.Push(1, 0, {}, 0, 1, 1, 0);
  EXPECT_THAT(d.commits, IsEmpty());
  d.Push(2, 0, {}, 0, 1, 1, 0);
  EXPECT_EQ(d.commits.size(), 2u);
  EXPECT_EQ(d.engine_.round(), 1u);
  for (uint32_t r = 0; r < 3; ++r) d.Push(r, 1, {}, 0, 1, 1, 0);  // nobody has anything
  EXPECT_EQ(d.engine_.round(), 2u);
  d.Push(1, 2, {}, 0, 1, 1, 0);
  d.Push(2, 2, {}, 0, 1, 1, 0);
  d.Push(0, 2, {1}, 2);  // each block by itself
  EXPECT_EQ(d.commits.back(), (std::pair<uint32_t, uint64_t>(1, 2)));
  d.Push(0, 2, {0}, 2);
  EXPECT_EQ(d.engine_.round(), 3u);
}

TEST(Engine, ServerWithoutBlocksFollowsTheClocks) {
  Driver d(Options(2, 0, 0, false));
  d.Pull(1, 0, 1);
  for (uint64_t c = 0; c < 100; ++c) d.Push(0, c, {}, 0);
  EXPECT_THAT(d.released, IsEmpty());
  d.Push(1, 0, {}, 0);
  EXPECT_THAT(d.released, ElementsAre(1));
  EXPECT_EQ(d.engine_.round(), 1u);
}

TEST(Engine, WrongCountsAreRefusedAndChangeNothing) {
  Driver d(Options(2, 2, 0, false, 4));
  const std::string before = d.engine_.DebugState();
  EXPECT_EQ(d.Push(0, 0, {0}, 1).rejected->message,
            "rank 0, clock 0: contributes to some dense blocks but, of 1 announced, not to all 2 of this server");
  EXPECT_EQ(d.Push(0, 0, {0, 1}, 1).rejected->message, "rank 0, clock 0: 2 contributions, but 1 were announced");
  d.Push(0, 0, {2}, 3);
  EXPECT_EQ(d.Push(0, 0, {3}, 4).rejected->message, "rank 0, clock 0: announced 3 contributions before, 4 now");
  EXPECT_EQ(d.Push(0, 0, {3}, 3, 1, 1, 2).rejected->message, "rank 0, clock 0: weight 1 before, 2 now");
  EXPECT_FALSE(d.Push(0, 0, {3}, 3).rejected);
  EXPECT_THAT(d.Push(0, 0, {0}, 3).rejected->message, HasSubstr("not to all 2"));
  EXPECT_FALSE(d.Push(0, 0, {4}, 3).rejected);
  EXPECT_EQ(d.engine_.clock(Rank(0)), 1u);
  EXPECT_NE(d.engine_.DebugState(), before);
}

TEST(Engine, RoundWithStalenessKeepsLaterClocksWithinTheLead) {
  Driver d(Options(2, 1, 1, false, 1));
  for (uint64_t c = 0; c < 3; ++c) {
    const auto r = d.Push(0, c, {0, 1}, 2);
    EXPECT_EQ(r.admitted.size(), c == 0 ? 2u : 0u);
    EXPECT_EQ(r.later.size(), c == 0 ? 0u : 2u);
  }
  EXPECT_EQ(d.Push(0, 3, {0, 1}, 2).rejected->message,
            "rank 0 pushes clock 3, more than 2 ahead of the round in progress, 0");
  d.Pull(1, 0, 3);  // version 2
  d.Push(1, 0, {0, 1}, 2);
  EXPECT_THAT(d.released, IsEmpty());
  d.Push(1, 1, {0, 1}, 2);
  EXPECT_THAT(d.released, ElementsAre(1));
  EXPECT_THAT(d.released_blocks, ElementsAre(std::pair<uint32_t, uint32_t>(1, 0)));
  EXPECT_EQ(d.commits.size(), 2u);
  EXPECT_THAT(d.rounds, ElementsAre(0, 1));
}

TEST(Engine, PushGateFollowsTheSlowestRank) {
  for (bool off : {false, true}) {
    EngineOptions o = Options(2, 1, 1, true);
    if (off) o.fault = EngineFault::kGateOffByOne;
    Driver d(o);
    for (uint64_t c = 0; c < 5; ++c) EXPECT_THAT(d.Push(0, c, {0}, 1).admitted, ElementsAre(0));
    d.Pull(1, 0, 1);
    d.Pull(2, 0, 2);
    d.Pull(3, 0, 3);
    d.Pull(4, 0, 9, true);
    if (off) {
      EXPECT_THAT(d.released, ElementsAre(1, 2, 4));
      continue;
    }
    EXPECT_THAT(d.released, ElementsAre(1, 4));
    d.Run(PullGone{3});
    d.Push(1, 0, {0}, 1);
    d.Push(1, 1, {0}, 1);
    EXPECT_THAT(d.released, ElementsAre(1, 4, 2));
  }
  Driver unbounded(Options(2, 1, kUnbounded, true));
  unbounded.Pull(1, 0, 1000);
  EXPECT_THAT(unbounded.released, ElementsAre(1));
}

TEST(Engine, TheBoundChangesAtSetClocks) {
  EngineOptions o = Options(2, 1, 3, true);
  o.changes = {{0, 1}, {4, 3}, {8, 0}};
  Driver d(o);
  for (uint64_t clock = 0; clock < 10; ++clock) d.Push(0, clock, {0}, 1);
  // Rank 1 has completed nothing, so a read for clock c waits unless c - s <= 0.
  for (uint32_t clock = 0; clock < 10; ++clock) d.Pull(clock, 0, clock);
  EXPECT_THAT(d.released, ElementsAre(0, 1));
  for (uint64_t clock = 0; clock < 6; ++clock) d.Push(1, clock, {0}, 1);
  EXPECT_THAT(d.released, ElementsAre(0, 1, 2, 4, 3, 5, 6, 7)) << "2, 4 - 3, 3 - 1 ..., 7 - 3; not 8 - 0";
  for (uint64_t clock = 6; clock < 8; ++clock) d.Push(1, clock, {0}, 1);
  EXPECT_THAT(d.released, ElementsAre(0, 1, 2, 4, 3, 5, 6, 7, 8));

  // ROUND: which version is read follows, too.
  EngineOptions round = Options(2, 1, 3, false);
  round.changes = {{0, 1}, {4, 3}, {8, 0}};
  const Engine engine(round);
  EXPECT_EQ(engine.VersionFor(Clock(3)).version, 2u);
  EXPECT_EQ(engine.VersionFor(Clock(4)).version, 1u);
  EXPECT_EQ(engine.VersionFor(Clock(7)).version, 4u);
  EXPECT_EQ(engine.VersionFor(Clock(8)).version, 8u);
}

TEST(Engine, ScalarsHoldTheUpdateBackUntilAgreed) {
  EngineOptions o = Options(2, 2, 0, false, 1);
  o.scalars_before_apply = true;
  Driver d(o);
  d.Push(0, 0, {0, 1}, 2);
  d.Push(1, 0, {0}, 3);
  EXPECT_THAT(d.reduced, ElementsAre(0));
  d.Push(1, 0, {1}, 3);
  EXPECT_THAT(d.reduced, ElementsAre(0, 1));
  EXPECT_THAT(d.measured, IsEmpty()) << "a slot's contribution is missing";
  d.Run(ScalarsAgreed{Clock(0)});
  EXPECT_THAT(d.commits, IsEmpty()) << "nobody has waited for it yet";
  d.Push(1, 0, {2}, 3);
  EXPECT_THAT(d.measured, ElementsAre(0));
  EXPECT_TRUE(d.engine_.awaits_scalars());
  d.Run(ScalarsAgreed{Clock(1)});
  EXPECT_THAT(d.commits, IsEmpty()) << "of another clock";
  EXPECT_EQ(d.engine_.round(), 0u);
  // What came early for the next round is reduced, and no more, once this one is over.
  EXPECT_THAT(d.Push(0, 1, {0, 1}, 2).later, ElementsAre(0, 1));
  d.Pull(3, 1, 1);
  EXPECT_EQ(d.engine_.Why(1),
            "held until every rank has completed clock 0, and all servers have told the norms of their gradients");
  d.Run(ScalarsAgreed{Clock(0)});
  EXPECT_THAT(d.commits, ElementsAre(Pair(0, 0), Pair(1, 0)));
  EXPECT_THAT(d.rounds, ElementsAre(0));
  EXPECT_THAT(d.released, ElementsAre(3));
  EXPECT_EQ(d.engine_.round(), 1u);
  d.Run(ScalarsAgreed{Clock(0)});
  d.Push(1, 1, {0, 1}, 2);
  EXPECT_THAT(d.reduced, ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(d.measured, ElementsAre(0, 1));
  EXPECT_EQ(d.engine_.round(), 1u);

  // Another engine goes on from here.
  Driver other(o);
  ASSERT_TRUE(other.engine_.LoadState(d.engine_.SaveState()).ok());
  EXPECT_TRUE(other.engine_.awaits_scalars());
  other.Run(ScalarsAgreed{Clock(1)});
  EXPECT_EQ(other.engine_.round(), 2u);
}

TEST(Engine, ScalarsOfAServerWithoutDenseBlocks) {
  EngineOptions o = Options(2, 0, 0, false, 1);
  o.scalars_before_apply = true;
  Driver d(o);
  d.Push(0, 0, {0}, 1);
  d.Push(1, 0, {}, 0);
  EXPECT_THAT(d.measured, ElementsAre(0));
  EXPECT_THAT(d.rounds, IsEmpty());
  d.Run(ScalarsAgreed{Clock(0)});
  EXPECT_THAT(d.rounds, ElementsAre(0));
}

TEST(Engine, HeldReadsAreToldForWhomAndSinceWhen) {
  Driver d(Options(3, 2, 0, false));
  d.Push(0, 0, {0, 1}, 2);
  d.Push(1, 0, {0}, 2);
  d.Pull(4, 0, 1);
  EXPECT_EQ(d.engine_.next_timer(), At(2));
  d.Run(TimerFired{At(1)});
  EXPECT_THAT(d.told, IsEmpty());
  d.Run(TimerFired{At(2)});
  ASSERT_EQ(d.told.size(), 1u);
  EXPECT_THAT(d.engine_.Behind(d.told[0].need), ElementsAre(Rank(1), Rank(2)));
  EXPECT_EQ(d.told[0].since, At(0));
  EXPECT_EQ(d.engine_.Why(d.told[0].need),
            "held until every rank has completed clock 0: rank 1 is at clock 0 (1 of 2 contributions in); rank 2 is at "
            "clock 0");
  EXPECT_EQ(d.engine_.next_timer(), At(4));
  d.now = At(3);
  d.Push(1, 0, {1}, 2);
  const auto culprits = d.engine_.Culprits();
  ASSERT_EQ(culprits.size(), 1u);
  EXPECT_EQ(culprits[0].rank, Rank(2));
  EXPECT_EQ(culprits[0].since, At(0));
  EXPECT_EQ(culprits[0].why, "clock 0 of 1 not begun");
  d.Push(2, 0, {0, 1}, 2);
  EXPECT_EQ(d.engine_.next_timer(), absl::InfiniteFuture());
}

TEST(Engine, RoundGoesOnFromACut) {
  Driver d(Options(2, 2, 1, false, 1));
  d.engine_.Restore(std::vector<uint64_t>{7, 7});
  EXPECT_EQ(d.engine_.round(), 7u);
  EXPECT_EQ(d.engine_.mark(1, Rank(1)), 7u);
  // The version that a rank at clock 7 would read, 6, is gone.
  EXPECT_EQ(d.engine_.VersionFor(Clock(7)).version, 7u);
  EXPECT_EQ(d.engine_.VersionFor(Clock(8)).version, 7u);
  EXPECT_EQ(d.engine_.VersionFor(Clock(9)).version, 8u);
  d.Pull(1, 0, 8);
  d.Pull(2, 0, 9);
  EXPECT_THAT(d.released, ElementsAre(1));
  EXPECT_EQ(d.Push(0, 6, {0, 1, 2}, 3).rejected->why, Rejection::kDuplicate);
  EXPECT_EQ(d.Push(0, 8, {0, 1, 2}, 3).rejected->why, Rejection::kTooEarly);
  for (uint64_t c = 7; c < 9; ++c) {
    for (uint32_t r = 0; r < 2; ++r) EXPECT_THAT(d.Push(r, c, {0, 1, 2}, 3).admitted, ElementsAre(0, 1, 2));
  }
  EXPECT_THAT(d.rounds, ElementsAre(7, 8));
  EXPECT_THAT(d.released, ElementsAre(1, 2));
}

TEST(Engine, PushCountsOnceWhatABlockHasFromBeforeACut) {
  Driver d(Options(2, 2, 0, true, 2));
  // Of rank 0, block 0 has clocks 5 and 6 already, slot 3 has clock 5; of rank 1 nothing is ahead.
  d.engine_.Restore(std::vector<uint64_t>{5, 9});
  d.engine_.RestoreMark(0, Rank(0), 7);
  d.engine_.RestoreMark(3, Rank(0), 6);
  EXPECT_EQ(d.engine_.round(), 5u);
  EXPECT_EQ(d.engine_.mark(0, Rank(0)), 7u);
  EXPECT_EQ(d.engine_.mark(1, Rank(0)), 5u);
  EXPECT_EQ(d.engine_.mark(0, Rank(1)), 9u);
  EXPECT_EQ(d.Push(0, 4, {0, 1}, 2).rejected->why, Rejection::kDuplicate);
  EXPECT_THAT(d.Push(0, 5, {0, 3}, 4).admitted, IsEmpty());
  EXPECT_EQ(d.engine_.admitted(Rank(0)), 2u);
  EXPECT_THAT(d.Push(0, 5, {0, 3}, 4).admitted, IsEmpty());  // the same message again
  EXPECT_EQ(d.engine_.admitted(Rank(0)), 2u);
  EXPECT_EQ(d.Push(0, 5, {1, 2}, 5).rejected->message, "rank 0, clock 5: announced 4 contributions before, 5 now");
  EXPECT_THAT(d.Push(0, 5, {1, 2}, 4).admitted, ElementsAre(1, 2));
  EXPECT_THAT(d.completed, ElementsAre(std::pair<uint32_t, uint64_t>(0, 5)));
  // Slot 3 is not ahead any more, and slot 2 has nothing in this clock.
  EXPECT_THAT(d.Push(0, 6, {0, 1, 3}, 3).admitted, ElementsAre(1, 3));
  EXPECT_EQ(d.completed.size(), 2u);
  EXPECT_THAT(d.Push(0, 7, {0, 1}, 2).admitted, ElementsAre(0, 1));
  EXPECT_THAT(d.Push(1, 9, {0, 1}, 2).admitted, ElementsAre(0, 1));
  EXPECT_EQ(d.engine_.round(), 8u);
}

TEST(Engine, CompleteEarlyIsSeen) {
  EngineOptions o = Options(1, 2, 0, true);
  o.fault = EngineFault::kCompleteEarly;
  Driver d(o);
  d.Push(0, 0, {0}, 2);
  EXPECT_EQ(d.completed.size(), 1u);
}

EngineOptions Backup(uint32_t ranks, uint32_t blocks, uint32_t backup, uint64_t full_every = 0, uint32_t slots = 0) {
  EngineOptions o = Options(ranks, blocks, 0, false, slots);
  o.backup_ranks = backup;
  o.full_every = full_every;
  return o;
}

TEST(BackupRanks, ARoundClosesWithTheRanksThatBeginItFirst) {
  Driver d(Backup(4, 2, 1));
  d.Pull(7, 0, 1);
  d.Push(3, 0, {0}, 2, 1, 1, 5);
  d.Push(0, 0, {0, 1}, 2, 1, 1, 2);
  EXPECT_THAT(d.engine_.participants(Clock(0)), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(d.commits, IsEmpty());
  // The third fixes the set: block 0 has all of it.
  d.Push(2, 0, {0, 1}, 2, 1, 1, 3);
  EXPECT_THAT(d.engine_.participants(Clock(0)), ElementsAre(1, 0, 1, 1));
  EXPECT_THAT(d.commits, ElementsAre(std::pair(0u, 0u)));
  EXPECT_THAT(d.released_blocks, ElementsAre(std::pair(7u, 0u)));
  EXPECT_THAT(d.engine_.weights(Clock(0)), ElementsAre(2, 0, 3, 5));
  // Rank 1 is too late, though the round is still open; it is to go on with clock 1.
  const auto late = d.Push(1, 0, {0, 1}, 2);
  ASSERT_TRUE(late.rejected.has_value());
  EXPECT_EQ(late.rejected->why, Rejection::kTooLate);
  EXPECT_EQ(d.engine_.clock(Rank(1)), 1u);
  EXPECT_EQ(d.engine_.mark(0, Rank(1)), 1u);
  EXPECT_EQ(d.engine_.round(), 0u);
  // Whoever is in the set is waited for.
  d.Push(3, 0, {1}, 2, 1, 1, 5);
  EXPECT_EQ(d.engine_.round(), 1u);
  EXPECT_THAT(d.released, ElementsAre(7));
  // What has contributed has completed, nobody else.
  EXPECT_THAT(d.completed, testing::UnorderedElementsAre(std::pair(0u, 0u), std::pair(2u, 0u), std::pair(3u, 0u)));
  // Late copies: of a participant a duplicate, of the other one still too late; both change nothing.
  EXPECT_EQ(d.Push(3, 0, {1}, 2, 1, 1, 5).rejected->why, Rejection::kDuplicate);
  EXPECT_EQ(d.Push(1, 0, {0, 1}, 2).rejected->why, Rejection::kTooLate);
  EXPECT_THAT(d.engine_.participants(Clock(1)), ElementsAre(0, 0, 0, 0));
  d.Push(1, 1, {0, 1}, 2);
  EXPECT_THAT(d.engine_.participants(Clock(1)), ElementsAre(0, 1, 0, 0));
}

TEST(BackupRanks, TooLateTellsTheClockToGoOnWith) {
  Driver d(Backup(3, 1, 1));
  for (uint64_t c = 0; c < 5; ++c) {
    for (uint32_t r : {0, 1}) d.Push(r, c, {0}, 1);
  }
  EXPECT_EQ(d.engine_.round(), 5u);
  EXPECT_EQ(d.Push(2, 0, {0}, 1).rejected->why, Rejection::kTooLate);
  EXPECT_EQ(d.engine_.clock(Rank(2)), 5u);
  EXPECT_EQ(d.Push(2, 3, {0}, 1).rejected->why, Rejection::kTooLate);
  EXPECT_THAT(d.Push(2, 5, {0}, 1).admitted, ElementsAre(0));
  d.Push(0, 5, {0}, 1);
  EXPECT_EQ(d.engine_.round(), 6u);
  EXPECT_THAT(d.engine_.weights(Clock(5)), ElementsAre(1, 0, 1));
  EXPECT_EQ(d.Push(1, 5, {0}, 1).rejected->why, Rejection::kTooLate);
  EXPECT_EQ(d.Push(2, 5, {0}, 1).rejected->why, Rejection::kDuplicate);
}

TEST(BackupRanks, WhoCameEarlyForTheNextRoundMayLeaveOutOneThatIsStillInThis) {
  // Dense blocks are at version 1, but rank 2's slot is missing; the others begin clock 1 without it.
  Driver d(Backup(3, 1, 1, 0, 1));
  d.Push(2, 0, {0}, 2);
  d.Push(0, 0, {0, 1}, 2);
  EXPECT_THAT(d.commits, ElementsAre(std::pair(0u, 0u)));
  EXPECT_EQ(d.Push(1, 0, {0}, 1).rejected->why, Rejection::kTooLate);
  EXPECT_THAT(d.Push(1, 1, {0}, 1).later, IsEmpty());
  d.Push(0, 1, {0}, 1);
  EXPECT_EQ(d.engine_.round(), 0u);
  d.Push(2, 0, {1}, 2);
  EXPECT_EQ(d.engine_.round(), 2u);
  EXPECT_EQ(d.engine_.clock(Rank(2)), 2u);
  EXPECT_EQ(d.Push(2, 1, {0}, 1).rejected->why, Rejection::kTooLate);
}

TEST(BackupRanks, RoundsAtWhichTheModelIsEvaluatedTakeEveryRank) {
  Driver d(Backup(3, 1, 2, 2));
  for (uint64_t c = 0; c < 2; ++c) d.Push(0, c, {0}, 1);
  EXPECT_EQ(d.engine_.round(), 2u);
  d.Push(0, 2, {0}, 1);
  d.Push(1, 2, {0}, 1);
  EXPECT_EQ(d.engine_.round(), 2u);
  d.Push(2, 2, {0}, 1);
  EXPECT_EQ(d.engine_.round(), 3u);
  EXPECT_THAT(d.engine_.weights(Clock(2)), ElementsAre(1, 1, 1));
}

TEST(BackupRanks, EmptyBatchesAndServersWithoutBlocks) {
  Driver d(Backup(3, 1, 1));
  d.Push(0, 0, {}, 0, 1, 1, 0);
  d.Push(2, 0, {}, 0, 1, 1, 0);
  EXPECT_THAT(d.commits, ElementsAre(std::pair(0u, 0u)));
  EXPECT_EQ(d.engine_.round(), 1u);
  Driver none(Backup(3, 0, 1));
  for (uint64_t c = 0; c < 7; ++c) {
    none.Push(1, c, {}, 0);
    none.Push(2, c, {}, 0);
    EXPECT_EQ(none.engine_.round(), c + 1);
    EXPECT_EQ(none.engine_.clock(Rank(0)), c + 1);
  }
}

TEST(BackupRanks, ASpanCountsAllItsRanksAndIsRefusedWhereSomeAreLeftOut) {
  Driver d(Backup(4, 1, 2));
  d.Push(2, 0, {0}, 1, 2);
  EXPECT_EQ(d.engine_.round(), 1u);
  EXPECT_THAT(d.engine_.participants(Clock(0)), ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(d.Push(0, 0, {0}, 1, 2).rejected->why, Rejection::kTooLate);
  d.Push(0, 1, {0}, 2);
  d.Push(2, 1, {0}, 1);
  const auto refused = d.Push(0, 1, {0}, 2, 2);
  EXPECT_EQ(refused.rejected->why, Rejection::kRefused);
  EXPECT_THAT(refused.rejected->message, HasSubstr("goes on without some of the 2 ranks from rank 0"));
}

TEST(BackupRanks, AfterARestartNobodyIsLate) {
  Driver d(Backup(3, 1, 1));
  const uint64_t clocks[] = {6, 6, 6};
  d.engine_.Restore(clocks);
  EXPECT_EQ(d.Push(1, 5, {0}, 1).rejected->why, Rejection::kDuplicate);
  d.Push(0, 6, {0}, 1);
  d.Push(1, 6, {0}, 1);
  EXPECT_EQ(d.engine_.round(), 7u);
  EXPECT_EQ(d.Push(2, 6, {0}, 1).rejected->why, Rejection::kTooLate);
}

TEST(BackupRanks, WhoIsWaitedForIsToldWithWhatIsIn) {
  Driver d(Backup(3, 2, 1));
  d.Push(0, 0, {0, 1}, 2);
  d.now = At(3);
  d.Push(1, 0, {0}, 2);
  d.Pull(7, 0, 1);
  EXPECT_THAT(d.engine_.Why(1), HasSubstr("held until 2 of the 3 ranks have completed clock 0: rank 1 is at clock 0"));
  const auto culprits = d.engine_.Culprits();
  ASSERT_EQ(culprits.size(), 1u);
  EXPECT_EQ(culprits[0].clock, 0u);
  EXPECT_TRUE(culprits[0].begun);
  EXPECT_EQ(culprits[0].admitted, 1u);
  EXPECT_EQ(culprits[0].announced, 2u);
}

}  // namespace
}  // namespace descent
