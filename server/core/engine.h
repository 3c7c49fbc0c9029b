// The consistency engine of one server: which contribution counts, when a block may be updated, when a read may be
// answered. A pure state machine: no payload bytes, no float arithmetic (weights pass through), no threads, no I/O, no
// clock of its own. The same events give the same actions.
//
// Blocks are numbered by the caller: [0, dense_blocks) are dense blocks, the next `slots` are slots of sparse tables.
//
// Algorithm
//   clock[r]    clocks that rank r has completed on this server. Its contributions of clock[r] are being taken in;
//   those
//               of a later clock are too early, those of an earlier one duplicates.
//   complete    each message announces how many contributions this server gets of (rank, clock) in all; the clock of a
//               rank is complete when so many are in. Of the dense blocks a rank contributes to all or to none (an
//               empty batch).
//   round       R = min over ranks of clock[r].
//   PUSH        a contribution is applied when it is admitted, before its clock can complete. The stale
//               synchronous parallel gate (Ho et al., NIPS 2013): a read for clock c waits for R >= c - s.
//   ROUND       a dense block at version v takes in round v. It is committed (version v + 1) when each rank has
//               contributed to it or completed clock v without dense contributions; so its version is R or R + 1. Slots
//               are committed when every rank has completed clock R and every dense block is at R + 1; then R advances.
//               A read for clock c is of version v = max(0, c - s): dense blocks as soon as each reaches v, slots once
//               R >= v. With s unbounded the newest is read, at once.
//               Contributions of clocks (R, R + lead], lead = min(s, max_lead) + 1, are kept for later by the caller;
//               what is further ahead is too early. (s + 1, not s: a rank that reads dense blocks only may go on when
//               these are committed, before the slots are.)
//   scalars     where a step needs sums over whole tensors first (scalars_before_apply): a block whose contributions
//   are
//               in is reduced (ReduceBlock) and waits. When all blocks are and every rank has completed the clock,
//               slots are reduced too (ReduceSlots), and all wait for ScalarsAgreed of that clock. Else this stage is
//               skipped.
//   backup      SYNC with b backup ranks (Chen et al., "Revisiting distributed synchronous SGD", 2016): the
//   participants
//               of round c are the ranks that begin clock c first, until ranks - b have; a span counts all its ranks.
//               Then the set is fixed: blocks are committed when all of the set is in, and for every other rank clock c
//               is over, as if completed, but it has contributed nothing: what it sends of c is too late. Rounds that
//               full_every names take every rank. Other servers fix sets of their own.
//   restart     from a cut. ROUND: every rank and block is at the cut's clock; the versions before it are gone, so that
//   a
//               read for an older one is of the cut's. PUSH: each rank is at the least clock that a block lacks of it;
//               a block that is further counts what it is sent again, once, but does not take it in.
//   fencing     the newest incarnation seen of each rank; older ones are fenced. A push of a span carries one
//               incarnation, so it is for ranks that hold the same.
//
// Costs: O(span) per contribution, O(ranks) per round, O(held reads) per block commit. A scan of all blocks happens
// only when a rank completes with an empty batch after every rank has begun that clock.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_CORE_ENGINE_H_
#define DESCENT_SERVER_CORE_ENGINE_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/base/staleness.h"
#include "server/core/block_marks.h"

namespace descent {

// Seeded bugs, for tests alone: that the checks of tests and simulator can fail is shown by switching one on.
enum class EngineFault : uint8_t {
  kNone = 0,
  kDedupeOff,       // late copies are taken in again
  kAckBeforeApply,  // a push is acknowledged and counted before it is applied (carried out by the caller)
  kFenceIgnored,    // older incarnations are admitted
  kGateOffByOne,    // reads are gated at s + 1
  kWeightDropped,   // the last rank is left out of the total weight (carried out by the caller)
  kCompleteEarly,   // a clock is complete one contribution too soon
  kMarksNotInCut,   // restarts from a cut as if no block were ahead of its rank's clock (carried out by the caller)
  kCutTorn,         // a slot is imaged after the first step that should come after the cut (carried out by the caller)
};

struct EngineOptions {
  uint32_t ranks = 1;
  uint32_t dense_blocks = 0;
  uint32_t slots = 0;
  uint64_t staleness = 0;                     // kUnbounded: no bound; the largest, where it changes:
  std::vector<StalenessChange> changes = {};  // the first is of clock 0; empty: it stays
  bool apply_push = false;                    // PUSH instead of ROUND
  bool scalars_before_apply = false;
  uint32_t backup_ranks = 0;  // ROUND, s = 0: a round closes without so many
  uint64_t full_every = 0;    // rounds c > 0 divisible by it do not; 0: all do
  uint64_t max_lead = 64;     // ROUND without a bound: how far ahead of the round contributions are kept
  absl::Duration waiting_notice = absl::Seconds(2);
  EngineFault fault = EngineFault::kNone;
};

// --- Events
// -------------------------------------------------------------------------------------------------------------- A push
// message. The caller has checked ranks and span; `blocks` are this server's, each at most once, dense ones first.
// Answered by one PushRejected, or by an Admit for each part to take in (none for duplicates). The caller carries out
// each Admit, reports it with ContributionIn (or doesn't: that part is refused and changes nothing), then says
// PushDone.
struct PushArrived {
  Rank rank;
  uint32_t span = 1;
  Incarnation incarnation;
  Clock clock;
  absl::Span<const double> weight;  // per existing rank of the span
  uint32_t announced = 0;
  absl::Span<const uint32_t> blocks;
  absl::Time now = absl::InfinitePast();
};
struct ContributionIn {
  uint32_t block = 0;
  Rank rank;
  uint32_t span = 1;
  Clock clock;
};
struct PushDone {
  Rank rank;
  uint32_t span = 1;
  Clock clock;
  absl::Time now;
};
struct BlockReduced {
  uint32_t block = 0;
};
struct SlotsReduced {};
// Of a clock that does not wait for it: nothing happens.
struct ScalarsAgreed {
  Clock clock;
};
struct BlockCommitted {
  uint32_t block = 0;
};
struct SlotsCommitted {
  absl::Time now;
};
struct PullArrived {
  uint32_t ticket = 0;  // the caller's name for it, free again after Release or PullGone
  Rank rank;
  Clock clock;
  bool ungated = false;
  absl::Time now;
  bool idle = false;  // of nothing, while its rank is at work: nobody waits for the answer
};
struct PullGone {
  uint32_t ticket = 0;
};
struct FenceRaised {
  Rank rank;
  Incarnation incarnation;
};
struct TimerFired {
  absl::Time now;
};
using Event = std::variant<PushArrived, ContributionIn, PushDone, BlockReduced, SlotsReduced, ScalarsAgreed,
                           BlockCommitted, SlotsCommitted, PullArrived, PullGone, FenceRaised, TimerFired>;

// --- Actions
// -------------------------------------------------------------------------------------------------------------
enum class Rejection : uint8_t { kDuplicate, kFenced, kTooEarly, kTooLate, kRefused };

// The whole message changes nothing.
struct PushRejected {
  Rejection why = Rejection::kRefused;  // Engine::rejection() says it in words
};
// Take in part `part` of the push under way: now, or keep it for round `clock` (later).
struct Admit {
  uint32_t part = 0;
  uint32_t block = 0;
  bool later = false;
};
struct ReduceBlock {
  uint32_t block = 0;
  Clock clock;
};
// Every block is reduced; with the slots' parts this server's scalars are complete.
struct ReduceSlots {
  Clock clock;
};
struct CommitBlock {
  uint32_t block = 0;
  Clock clock;
};
struct CommitSlots {
  Clock clock;
};
// (rank, clock) is complete on this server.
struct RankCompleted {
  Rank rank;
  Clock clock;
};
// A block that the held read `ticket` asked for, should it have, is ready.
struct ReleaseBlock {
  uint32_t ticket = 0;
  uint32_t block = 0;
};
// All of it is ready: what ReleaseBlock has named, or everything where it has named nothing.
struct Release {
  uint32_t ticket = 0;
};
struct TellWaiting {
  uint32_t ticket = 0;
  uint64_t need = 0;  // Engine::Behind(need) are the culprits, Engine::Why(need) the text
  absl::Time since;
};
using Action = std::variant<PushRejected, Admit, ReduceBlock, ReduceSlots, CommitBlock, CommitSlots, RankCompleted,
                            ReleaseBlock, Release, TellWaiting>;

// A rank that held reads wait for.
struct Culprit {
  Rank rank;
  absl::Time since;
  std::string why;
  uint64_t clock = 0;  // clocks that it has completed here
  bool begun = false;  // the next one; then how much of it is in:
  uint32_t admitted = 0, announced = 0;
};

static_assert(std::is_trivially_copyable_v<Action>);

class Engine {
 public:
  explicit Engine(const EngineOptions& options);

  // Before the first event: rank r has completed clock[r] clocks. ROUND: all the same, and so is every block's version.
  void Restore(absl::Span<const uint64_t> clock);
  // PUSH, after Restore: the block has the rank's contributions of clocks < mark.
  void RestoreMark(uint32_t block, Rank rank, uint64_t mark) { marks_.Restore(block, rank.value, mark); }

  void Step(const Event& event, std::vector<Action>* out);

  // All that decides about further pushes, between two events whose actions have been carried out, so that an engine of
  // the same options goes on from it: who has contributed what, who is fenced. Not the held reads, and not the oldest
  // version (that is of the blocks, not of the engine). For the same build alone; engine_state.cc has the form.
  std::string SaveState() const;
  // INVALID_ARGUMENT says what is wrong with it, and nothing has changed. FAILED_PRECONDITION: reads are held.
  absl::Status LoadState(absl::string_view state);

  // Which version a read for `clock` is of; nullopt (has = false): the newest.
  struct ReadVersion {
    bool exact = false;
    uint64_t version = 0;
  };
  ReadVersion VersionFor(Clock clock) const;

  uint64_t round() const { return round_; }
  uint64_t clock(Rank rank) const { return clock_[rank.value]; }
  uint64_t mark(uint32_t block, Rank rank) const {
    return std::max(marks_.mark(block, rank.value, clock_), marks_.had(block, rank.value));
  }
  uint64_t block_round(uint32_t block) const { return block_round_[block]; }
  // ROUND: dense blocks that have made the step of the round in progress.
  uint32_t blocks_ahead() const { return blocks_ahead_; }
  // The round in progress waits for ScalarsAgreed.
  bool awaits_scalars() const { return scalars_ == Scalars::kAwaited; }
  // Contributions of the rank's current clock that are in.
  uint32_t admitted(Rank rank) const { return progress_[rank.value].admitted; }
  // Weights of a clock that each rank has begun, in rank order; ROUND, clocks [round, round + lead].
  absl::Span<const double> weights(Clock clock) const;
  // With backup ranks: per rank, 1 if it takes part in the round of `clock`: the one in progress, the next one or the
  // one before. While blocks and slots of a round are committed its set is fixed. Without: empty.
  absl::Span<const uint8_t> participants(Clock clock) const {
    if (member_.empty()) return {};
    return absl::MakeConstSpan(member_).subspan(ring(clock.value) * options_.ranks, options_.ranks);
  }
  Incarnation newest(Rank rank) const { return newest_[rank.value]; }

  // Of the last PushRejected.
  const std::string& rejection() const { return rejection_; }
  // Ranks that have completed fewer than `need` clocks, and how far they are.
  std::vector<Rank> Behind(uint64_t need) const;
  std::string Why(uint64_t need) const;

  absl::Time next_timer() const;
  size_t held() const { return held_.size(); }
  // Per rank that is behind what a held read needs, in rank order.
  std::vector<Culprit> Culprits() const;
  std::string DebugState() const;

 private:
  struct Progress {  // of a rank's current clock
    bool begun = false;
    uint32_t announced = 0;
    uint32_t admitted = 0;
    uint32_t dense = 0;
    absl::Time since = absl::InfinitePast();  // when its clock last advanced
  };
  struct Held {
    uint32_t ticket = 0;
    Rank rank;
    uint64_t need = 0;  // R that is waited for
    bool open = false;  // ROUND: gets ReleaseBlock
    absl::Time since;
    absl::Time notice;
    bool idle = false;
  };

  uint32_t end(Rank rank, uint32_t span) const {
    return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{rank.value} + span, options_.ranks));
  }
  size_t ring(uint64_t clock) const { return clock % window_; }
  bool has_blocks() const { return options_.dense_blocks + options_.slots > 0; }
  // No round is closed here: the ranks' clocks alone say how far it is.
  bool free_running() const { return options_.apply_push || (!has_blocks() && options_.backup_ranks == 0); }
  uint64_t bound(Clock clock) const;  // s of reads for it, with the seeded bug

  void On(const PushArrived& e, std::vector<Action>* out);
  void On(const ContributionIn& e, std::vector<Action>* out);
  void On(const PushDone& e, std::vector<Action>* out);
  void On(const BlockReduced& e, std::vector<Action>* out);
  void On(const SlotsReduced& e, std::vector<Action>* out);
  void On(const ScalarsAgreed& e, std::vector<Action>* out);
  void On(const BlockCommitted& e, std::vector<Action>* out);
  void On(const SlotsCommitted& e, std::vector<Action>* out);
  void On(const PullArrived& e, std::vector<Action>* out);
  void On(const PullGone& e, std::vector<Action>* out);
  void On(const FenceRaised& e, std::vector<Action>* out);
  void On(const TimerFired& e, std::vector<Action>* out);

  // Empty: the message may be taken in.
  std::string CheckCounts(const PushArrived& e) const;
  // No rank joins the round any more.
  bool Fixed(uint64_t clock) const { return begun_[ring(clock)] >= needed(clock); }
  uint32_t needed(uint64_t clock) const {
    const bool full = options_.full_every > 0 && clock > 0 && clock % options_.full_every == 0;
    return options_.ranks - (full ? 0 : options_.backup_ranks);
  }
  // Ranks of the push whose clock is over without them.
  uint32_t LeftOut(const PushArrived& e) const;
  // Moves the rank past clocks whose sets are fixed without it.
  void PassOver(uint32_t rank, absl::Time now);
  void MaybeCommit(uint32_t block, std::vector<Action>* out);
  void Complete(uint32_t rank, absl::Time now, std::vector<Action>* out);
  void MaybeFinishRound(std::vector<Action>* out);
  void AdvanceRound(std::vector<Action>* out);
  void Open(Held* held, std::vector<Action>* out);
  void Reject(Rejection why, std::string message, std::vector<Action>* out);

  const EngineOptions options_;
  const uint64_t lead_;
  const uint64_t window_;  // clocks of which anything is kept: ring buffers below
  BlockMarks marks_;
  std::vector<uint64_t> clock_;
  std::vector<Progress> progress_;
  std::vector<Incarnation> newest_;
  std::vector<double> weight_;     // [ring(clock)][rank]
  std::vector<uint32_t> begun_;    // [ring(clock)] ranks that have begun it
  std::vector<uint8_t> member_;    // [ring(clock)][rank] 1: it has; with backup ranks
  std::vector<uint64_t> counted_;  // [rank] past the last clock that it contributed to; with backup ranks
  std::vector<uint32_t> empty_;    // [ring(clock)] ranks that completed it without dense contributions
  std::vector<uint32_t> arrived_;  // [dense block][ring(clock)] ranks whose contributions are in
  std::vector<uint64_t> block_round_;
  enum class Stage : uint8_t { kOpen, kReducing, kReduced, kCommitting };
  std::vector<Stage> stage_;
  uint64_t round_ = 0;
  uint64_t start_ = 0;         // ROUND: the oldest version there is
  uint32_t behind_ = 0;        // ranks whose clock is round_
  uint32_t blocks_ahead_ = 0;  // dense blocks at round_ + 1
  bool committing_slots_ = false;
  enum class Scalars : uint8_t { kOpen, kReducingSlots, kAwaited, kAgreed };
  Scalars scalars_ = Scalars::kOpen;  // of the round in progress
  uint32_t blocks_reduced_ = 0;       // stage kReduced
  std::vector<Held> held_;
  std::string rejection_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_CORE_ENGINE_H_
