#include "server/core/engine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace descent {

namespace {

uint64_t Lead(const EngineOptions& o) { return std::min(o.staleness, o.max_lead) + 1; }

// Under PUSH only a rank's current clock is kept.
uint64_t Window(const EngineOptions& o) { return o.apply_push ? 1 : Lead(o) + 2; }

std::string Name(Incarnation i) { return absl::StrCat("(", i.generation.value, ", ", i.number, ")"); }

}  // namespace

Engine::Engine(const EngineOptions& options)
    : options_(options),
      lead_(Lead(options)),
      window_(Window(options)),
      marks_(options.ranks, options.dense_blocks + options.slots),
      clock_(options.ranks, 0),
      progress_(options.ranks),
      newest_(options.ranks),
      weight_(window_ * options.ranks, 0.0),
      begun_(window_, 0),
      member_(options.backup_ranks > 0 ? window_ * options.ranks : 0, 0),
      counted_(options.backup_ranks > 0 ? options.ranks : 0, 0),
      empty_(window_, 0),
      arrived_(options.apply_push ? 0 : size_t{options.dense_blocks} * window_, 0),
      block_round_(options.dense_blocks, 0),
      stage_(options.dense_blocks, Stage::kOpen),
      behind_(options.ranks) {
  DESCENT_CHECK(options.ranks > options.backup_ranks);
  DESCENT_CHECK(options.backup_ranks == 0 || (!options.apply_push && options.staleness == 0));
}

void Engine::Restore(absl::Span<const uint64_t> clock) {
  DESCENT_CHECK(clock.size() == options_.ranks);
  clock_.assign(clock.begin(), clock.end());
  round_ = *std::min_element(clock_.begin(), clock_.end());
  behind_ = static_cast<uint32_t>(std::count(clock_.begin(), clock_.end(), round_));
  if (!counted_.empty()) counted_ = clock_;
  if (options_.apply_push) return;
  DESCENT_CHECK(behind_ == options_.ranks);
  start_ = round_;
  std::fill(block_round_.begin(), block_round_.end(), round_);
}

void Engine::Step(const Event& event, std::vector<Action>* out) {
  std::visit([&](const auto& e) { On(e, out); }, event);
}

uint64_t Engine::bound(Clock clock) const {
  if (options_.staleness == kUnbounded) return kUnbounded;
  return StalenessAt(options_.changes, options_.staleness, clock.value) +
         (options_.fault == EngineFault::kGateOffByOne ? 1 : 0);
}

Engine::ReadVersion Engine::VersionFor(Clock clock) const {
  if (options_.apply_push || options_.staleness == kUnbounded) return {};
  return {true, std::max(start_, clock.value - std::min(clock.value, bound(clock)))};
}

absl::Span<const double> Engine::weights(Clock clock) const {
  return absl::MakeConstSpan(weight_).subspan(ring(clock.value) * options_.ranks, options_.ranks);
}

void Engine::Reject(Rejection why, std::string message, std::vector<Action>* out) {
  rejection_ = std::move(message);
  out->push_back(PushRejected{why});
}

void Engine::On(const PushArrived& e, std::vector<Action>* out) {
  const uint32_t last = end(e.rank, e.span);
  for (uint32_t r = e.rank.value; r < last && options_.fault != EngineFault::kFenceIgnored; ++r) {
    if (e.incarnation >= newest_[r]) continue;
    Reject(Rejection::kFenced,
           absl::StrCat("rank ", r, ": incarnation ", Name(e.incarnation), " is fenced by ", Name(newest_[r])), out);
    return;
  }
  for (uint32_t r = e.rank.value; r < last; ++r) newest_[r] = std::max(newest_[r], e.incarnation);

  const uint64_t c = e.clock.value;
  bool fresh = false;
  for (uint32_t r = e.rank.value; r < last; ++r) {
    if (clock_[r] < c) {
      Reject(Rejection::kTooEarly,
             absl::StrCat("rank ", r, " pushes clock ", c, ", but its clock ", clock_[r], " is not complete here"),
             out);
      return;
    }
    fresh |= clock_[r] == c;
  }
  if (!fresh) {
    if (options_.fault == EngineFault::kDedupeOff) {
      for (uint32_t i = 0; i < e.blocks.size(); ++i) out->push_back(Admit{i, e.blocks[i], false});
      return;
    }
    const bool late = LeftOut(e) == last - e.rank.value;
    Reject(late ? Rejection::kTooLate : Rejection::kDuplicate,
           late ? absl::StrCat("the round of clock ", c, " goes on without rank ", e.rank.value) : "", out);
    return;
  }
  if (LeftOut(e) > 0) {
    Reject(Rejection::kRefused,
           absl::StrCat("the round of clock ", c, " goes on without some of the ", e.span, " ranks from rank ",
                        e.rank.value, ": with backup ranks each is to be sent on its own"),
           out);
    return;
  }
  if (!free_running() && c > round_ + lead_) {
    Reject(Rejection::kTooEarly,
           absl::StrCat("rank ", e.rank.value, " pushes clock ", c, ", more than ", lead_,
                        " ahead of the round in progress, ", round_),
           out);
    return;
  }
  if (std::string wrong = CheckCounts(e); !wrong.empty()) {
    Reject(Rejection::kRefused, std::move(wrong), out);
    return;
  }
  const bool was_fixed = Fixed(c);
  for (uint32_t r = e.rank.value; r < last; ++r) {
    Progress& p = progress_[r];
    if (clock_[r] != c || p.begun) continue;
    p.begun = true;
    p.announced = e.announced;
    weight_[ring(c) * options_.ranks + r] = e.weight[r - e.rank.value];
    if (!member_.empty()) member_[ring(c) * options_.ranks + r] = 1;
    ++begun_[ring(c)];
  }
  if (options_.backup_ranks > 0 && !was_fixed && Fixed(c)) {
    for (uint32_t r = 0; r < options_.ranks; ++r) PassOver(r, e.now);
  }
  for (uint32_t i = 0; i < e.blocks.size(); ++i) {
    const uint32_t block = e.blocks[i];
    Verdict verdict = marks_.Check(block, e.rank.value, last, c, clock_);
    DESCENT_CHECK(verdict != Verdict::kTooEarly);  // clock_ is a floor under the marks
    if (verdict == Verdict::kDuplicate && options_.fault != EngineFault::kDedupeOff) continue;
    if (c < marks_.had(block, e.rank.value)) {
      DESCENT_CHECK(last == e.rank.value + 1);  // PUSH
      On(ContributionIn{block, e.rank, e.span, e.clock}, out);
      continue;
    }
    const uint64_t at = block < options_.dense_blocks ? block_round_[block] : round_;
    out->push_back(Admit{i, block, !options_.apply_push && c > at});
  }
}

uint32_t Engine::LeftOut(const PushArrived& e) const {
  uint32_t count = 0;
  for (uint32_t r = e.rank.value; r < end(e.rank, e.span) && options_.backup_ranks > 0; ++r) {
    count += e.clock.value >= counted_[r] && e.clock.value < clock_[r];
  }
  return count;
}

void Engine::PassOver(uint32_t rank, absl::Time now) {
  // At most to round_ + lead_ + 1, of which nobody has begun.
  while (Fixed(clock_[rank]) && member_[ring(clock_[rank]) * options_.ranks + rank] == 0) {
    behind_ -= clock_[rank] == round_;
    ++clock_[rank];
    progress_[rank].since = std::max(progress_[rank].since, now);
  }
}

std::string Engine::CheckCounts(const PushArrived& e) const {
  const uint32_t last = end(e.rank, e.span);
  for (uint32_t r = e.rank.value; r < last; ++r) {
    if (clock_[r] != e.clock.value) continue;
    const Progress& p = progress_[r];
    const auto who = [&] { return absl::StrCat("rank ", r, ", clock ", e.clock.value, ": "); };
    if (p.begun && p.announced != e.announced) {
      return absl::StrCat(who(), "announced ", p.announced, " contributions before, ", e.announced, " now");
    }
    const double weight = e.weight[r - e.rank.value];
    const double before = weight_[ring(e.clock.value) * options_.ranks + r];
    if (p.begun && before != weight) return absl::StrCat(who(), "weight ", before, " before, ", weight, " now");
    uint32_t fresh = 0, dense = 0;
    for (uint32_t block : e.blocks) {
      if (marks_.mark(block, r, clock_) > e.clock.value) continue;
      ++fresh;
      dense += block < options_.dense_blocks;
    }
    const uint64_t total = uint64_t{p.admitted} + fresh;
    const uint64_t dense_total = uint64_t{p.dense} + dense;
    if (total > e.announced) {
      return absl::StrCat(who(), total, " contributions, but ", e.announced, " were announced");
    }
    // All dense blocks or none: seen as soon as the announcement leaves no room for the rest.
    if (dense_total > 0 && e.announced - total < options_.dense_blocks - dense_total) {
      return absl::StrCat(who(), "contributes to some dense blocks but, of ", e.announced, " announced, not to all ",
                          options_.dense_blocks, " of this server");
    }
  }
  return {};
}

void Engine::On(const ContributionIn& e, std::vector<Action>* out) {
  const uint32_t last = end(e.rank, e.span);
  const bool dense = e.block < options_.dense_blocks;
  uint32_t fresh = 0;
  for (uint32_t r = e.rank.value; r < last; ++r) {
    if (!marks_.Advance(e.block, r, e.clock.value, clock_)) continue;
    ++fresh;
    ++progress_[r].admitted;
    progress_[r].dense += dense;
  }
  if (fresh == 0 || !dense || options_.apply_push) return;
  arrived_[e.block * window_ + ring(e.clock.value)] += fresh;
  if (block_round_[e.block] == e.clock.value) MaybeCommit(e.block, out);
}

void Engine::MaybeCommit(uint32_t block, std::vector<Action>* out) {
  const uint64_t c = block_round_[block];
  if (c > round_ || stage_[block] != Stage::kOpen) return;  // one version ahead of the round, no more
  if (!Fixed(c) || arrived_[block * window_ + ring(c)] + empty_[ring(c)] < begun_[ring(c)]) return;
  if (options_.scalars_before_apply) {
    stage_[block] = Stage::kReducing;
    out->push_back(ReduceBlock{block, Clock(c)});
  } else {
    stage_[block] = Stage::kCommitting;
    out->push_back(CommitBlock{block, Clock(c)});
  }
}

void Engine::On(const BlockReduced& e, std::vector<Action>* out) {
  DESCENT_CHECK(stage_[e.block] == Stage::kReducing);
  stage_[e.block] = Stage::kReduced;
  ++blocks_reduced_;
  MaybeFinishRound(out);
}

void Engine::On(const SlotsReduced&, std::vector<Action>*) {
  DESCENT_CHECK(scalars_ == Scalars::kReducingSlots);
  scalars_ = Scalars::kAwaited;
}

void Engine::On(const ScalarsAgreed& e, std::vector<Action>* out) {
  if (scalars_ != Scalars::kAwaited || e.clock.value != round_) return;
  scalars_ = Scalars::kAgreed;
  blocks_reduced_ = 0;
  for (uint32_t b = 0; b < options_.dense_blocks; ++b) {
    DESCENT_CHECK(stage_[b] == Stage::kReduced);
    stage_[b] = Stage::kCommitting;
    out->push_back(CommitBlock{b, e.clock});
  }
  MaybeFinishRound(out);
}

void Engine::On(const BlockCommitted& e, std::vector<Action>* out) {
  const uint64_t c = block_round_[e.block];
  DESCENT_CHECK(stage_[e.block] == Stage::kCommitting && c == round_);
  stage_[e.block] = Stage::kOpen;
  arrived_[e.block * window_ + ring(c)] = 0;
  block_round_[e.block] = c + 1;
  ++blocks_ahead_;
  for (const Held& held : held_) {
    if (held.open && held.need == c + 1) out->push_back(ReleaseBlock{held.ticket, e.block});
  }
  MaybeFinishRound(out);
}

void Engine::On(const PushDone& e, std::vector<Action>* out) {
  const uint32_t last = end(e.rank, e.span);
  const uint32_t slack = options_.fault == EngineFault::kCompleteEarly ? 1 : 0;
  for (uint32_t r = e.rank.value; r < last; ++r) {
    const Progress& p = progress_[r];
    if (clock_[r] == e.clock.value && p.begun && p.admitted + slack >= p.announced) Complete(r, e.now, out);
  }
}

void Engine::Complete(uint32_t rank, absl::Time now, std::vector<Action>* out) {
  const uint64_t c = clock_[rank]++;
  const bool empty = progress_[rank].dense == 0 && options_.dense_blocks > 0;
  progress_[rank] = Progress{};
  progress_[rank].since = now;
  out->push_back(RankCompleted{Rank(rank), Clock(c)});
  if (options_.backup_ranks > 0) {
    counted_[rank] = c + 1;
    PassOver(rank, now);
  }
  if (options_.apply_push) {
    begun_[0] = 0;
  } else if (empty) {
    ++empty_[ring(c)];
    if (Fixed(c)) {
      for (uint32_t b = 0; b < options_.dense_blocks; ++b) {
        if (block_round_[b] == c) MaybeCommit(b, out);
      }
    }
  }
  if (c != round_) return;
  --behind_;
  if (free_running()) {
    if (behind_ == 0) AdvanceRound(out);
  } else {
    MaybeFinishRound(out);
  }
}

void Engine::MaybeFinishRound(std::vector<Action>* out) {
  if (behind_ > 0) return;
  if (options_.scalars_before_apply && scalars_ != Scalars::kAgreed) {
    if (scalars_ != Scalars::kOpen || blocks_reduced_ < options_.dense_blocks) return;
    scalars_ = Scalars::kReducingSlots;
    out->push_back(ReduceSlots{Clock(round_)});
    return;
  }
  if (blocks_ahead_ < options_.dense_blocks || committing_slots_) return;
  committing_slots_ = true;
  out->push_back(CommitSlots{Clock(round_)});
}

void Engine::On(const SlotsCommitted& e, std::vector<Action>* out) {
  DESCENT_CHECK(committing_slots_);
  committing_slots_ = false;
  AdvanceRound(out);
}

void Engine::AdvanceRound(std::vector<Action>* out) {
  if (free_running()) {
    round_ = *std::min_element(clock_.begin(), clock_.end());
  } else {
    begun_[ring(round_)] = 0;
    empty_[ring(round_)] = 0;
    ++round_;
    blocks_ahead_ = 0;
    scalars_ = Scalars::kOpen;
    if (options_.backup_ranks > 0) {  // of the next round, which nobody has begun
      std::fill_n(weight_.begin() + ring(round_ + 1) * options_.ranks, options_.ranks, 0.0);
      std::fill_n(member_.begin() + ring(round_ + 1) * options_.ranks, options_.ranks, uint8_t{0});
    }
  }
  behind_ = static_cast<uint32_t>(std::count(clock_.begin(), clock_.end(), round_));
  size_t kept = 0;
  for (Held& held : held_) {
    if (held.need <= round_) {
      out->push_back(Release{held.ticket});
      continue;
    }
    if (!options_.apply_push && !held.open && held.need == round_ + 1) Open(&held, out);
    held_[kept++] = held;
  }
  held_.resize(kept);
  if (free_running()) return;
  // What came early for this round may already be all of it.
  if (Fixed(round_)) {
    for (uint32_t b = 0; b < options_.dense_blocks; ++b) MaybeCommit(b, out);
    MaybeFinishRound(out);
  }
}

void Engine::Open(Held* held, std::vector<Action>* out) {
  held->open = true;
  for (uint32_t b = 0; b < options_.dense_blocks; ++b) {
    if (block_round_[b] >= held->need) out->push_back(ReleaseBlock{held->ticket, b});
  }
}

void Engine::On(const PullArrived& e, std::vector<Action>* out) {
  uint64_t need = 0;
  if (!e.ungated && options_.staleness != kUnbounded) need = e.clock.value - std::min(e.clock.value, bound(e.clock));
  if (need <= round_) {
    out->push_back(Release{e.ticket});
    return;
  }
  Held held{e.ticket, e.rank, need, false, e.now, e.now + options_.waiting_notice, e.idle};
  if (!options_.apply_push && need == round_ + 1) Open(&held, out);
  held_.push_back(held);
}

void Engine::On(const PullGone& e, std::vector<Action>*) {
  held_.erase(std::remove_if(held_.begin(), held_.end(), [&](const Held& h) { return h.ticket == e.ticket; }),
              held_.end());
}

void Engine::On(const FenceRaised& e, std::vector<Action>*) {
  newest_[e.rank.value] = std::max(newest_[e.rank.value], e.incarnation);
}

void Engine::On(const TimerFired& e, std::vector<Action>* out) {
  for (Held& held : held_) {
    if (held.notice > e.now) continue;
    held.notice = e.now + options_.waiting_notice;
    out->push_back(TellWaiting{held.ticket, held.need, held.since});
  }
}

absl::Time Engine::next_timer() const {
  absl::Time next = absl::InfiniteFuture();
  for (const Held& held : held_) next = std::min(next, held.notice);
  return next;
}

std::vector<Rank> Engine::Behind(uint64_t need) const {
  std::vector<Rank> ranks;
  for (uint32_t r = 0; r < options_.ranks; ++r) {
    if (clock_[r] < need) ranks.push_back(Rank(r));
  }
  return ranks;
}

std::string Engine::Why(uint64_t need) const {
  std::string why =
      absl::StrCat("held until ",
                   options_.backup_ranks > 0 ? absl::StrCat(needed(need - 1), " of the ", options_.ranks, " ranks have")
                                             : "every rank has",
                   " completed clock ", need - 1);
  if (awaits_scalars() && need == round_ + 1) {
    absl::StrAppend(&why, ", and all servers have told the norms of their gradients");
  }
  int named = 0;
  for (Rank r : Behind(need)) {
    if (++named > 4) {
      absl::StrAppend(&why, "; ...");
      break;
    }
    const Progress& p = progress_[r.value];
    absl::StrAppend(&why, named == 1 ? ": " : "; ", "rank ", r.value, " is at clock ", clock_[r.value]);
    if (p.begun) absl::StrAppend(&why, " (", p.admitted, " of ", p.announced, " contributions in)");
  }
  return why;
}

std::vector<Culprit> Engine::Culprits() const {
  // Of each rank: the earliest held read that needs more of it than it has done.
  std::vector<Culprit> out;
  for (uint32_t r = 0; r < options_.ranks; ++r) {
    absl::Time since = absl::InfiniteFuture();
    uint64_t need = 0;
    for (const Held& held : held_) {
      if (held.idle || clock_[r] >= held.need || held.since >= since) continue;
      since = held.since;
      need = held.need;
    }
    if (need == 0) continue;
    const Progress& p = progress_[r];
    std::string why = absl::StrCat("clock ", clock_[r], " of ", need, p.begun ? " begun" : " not begun");
    if (p.begun) absl::StrAppend(&why, ", ", p.admitted, " of ", p.announced, " contributions in");
    out.push_back(
        Culprit{Rank(r), std::max(since, p.since), std::move(why), clock_[r], p.begun, p.admitted, p.announced});
  }
  return out;
}

std::string Engine::DebugState() const {
  std::string out = absl::StrCat("round ", round_, ", behind ", behind_, ", blocks ahead ", blocks_ahead_, " of ",
                                 options_.dense_blocks, ", held reads ", held_.size(), "\n");
  for (uint32_t r = 0; r < options_.ranks; ++r) {
    const Progress& p = progress_[r];
    absl::StrAppend(&out, "rank ", r, ": clock ", clock_[r], ", incarnation ", Name(newest_[r]));
    if (p.begun) absl::StrAppend(&out, ", ", p.admitted, "/", p.announced, " in, ", p.dense, " dense");
    absl::StrAppend(&out, "\n");
  }
  for (const Held& held : held_) {
    absl::StrAppend(&out, "read ", held.ticket, " of rank ", held.rank.value, ": waits for round ", held.need, "\n");
  }
  return out;
}

}  // namespace descent
