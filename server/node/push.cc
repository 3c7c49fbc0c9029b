#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/read_vector.h"
#include "server/node/node_impl.h"

namespace descent {

namespace {

// One buffer of its own, so that what is held pins no read buffer.
Payload Compact(const Payload& payload) {
  std::shared_ptr<std::byte[]> bytes(new std::byte[payload.size()]);
  payload.CopyTo(bytes.get());
  Payload out;
  out.Append(bytes.get(), payload.size(), bytes);
  return out;
}

Outcome ToOutcome(Rejection why) {
  switch (why) {
    case Rejection::kDuplicate:
      return Outcome::kDuplicate;
    case Rejection::kFenced:
      return Outcome::kFenced;
    case Rejection::kTooEarly:
      return Outcome::kTooEarly;
    case Rejection::kTooLate:
      return Outcome::kTooLate;
    case Rejection::kRefused:
      break;
  }
  return Outcome::kRefused;
}

// In the order of the elements.
double SquaredDistance(const Payload& a, const Payload& b) {
  PayloadReader from(a), to(b);
  double sum = 0;
  for (size_t left = a.size(); left > 0;) {
    float before[256], after[256];
    const size_t bytes = std::min(left, sizeof(before));
    from.CopyTo(before, bytes);
    to.CopyTo(after, bytes);
    for (size_t i = 0; i < bytes / sizeof(float); ++i) {
      const double step = static_cast<double>(after[i]) - before[i];
      sum += step * step;
    }
    left -= bytes;
  }
  return sum;
}

}  // namespace

void NodeImpl::HandlePush(Connection* c, const Request& request, absl::Time now) {
  const PushFrame& push = *request.push;
  const CheckedRequest& parts = check_.checked();
  ++stats_.pushes;
  stats_.payload_bytes_in += parts.push_size;
  PushAck ack;
  ack.rank = push.rank;
  ack.span = push.span;
  ack.clock = push.clock;
  bool answer = c->unary;

  std::string refused;
  if (options_.store.apply_push && push.span != 1) {
    refused = absl::StrCat("push of rank ", push.rank.value, ": span ", push.span, ", but one step is made per push");
  } else if (options_.store.apply_push && (order_ != nullptr || options_.tells_reads) && push.weight[0] > 0) {
    refused = TakeRead(push);
  }
  verdicts_.clear();
  if (refused.empty()) {
    engine_.Step(PushArrived{push.rank, push.span, push.incarnation, push.clock, push.weight, push.contributions,
                             parts.push_blocks, now},
                 &verdicts_);
  }
  if (!refused.empty()) {
    ack.outcome = Outcome::kRefused;
  } else if (verdicts_.size() == 1 && std::holds_alternative<PushRejected>(verdicts_[0])) {
    const auto& rejected = std::get<PushRejected>(verdicts_[0]);
    ack.outcome = ToOutcome(rejected.why);
    refused = engine_.rejection();
    stats_.duplicates += rejected.why == Rejection::kDuplicate ? std::max<uint64_t>(1, parts.push_blocks.size()) : 0;
    stats_.fenced += rejected.why == Rejection::kFenced;
    stats_.too_early += rejected.why == Rejection::kTooEarly;
    stats_.too_late += rejected.why == Rejection::kTooLate;
  } else {
    bool fail = false;
    PayloadReader reader(request.payload);
    uint32_t next = 0, admitted = 0;
    push_weight_[push.rank.value] = push.weight[0];
    for (const Action& action : verdicts_) {
      const Admit& admit = std::get<Admit>(action);
      for (; next < admit.part; ++next) reader.Skip(parts.push_bytes[next]);
      const bool sparse = admit.block >= index_.dense();
      const Payload part =
          FromWire(reader.Take(parts.push_bytes[next]), sparse ? push.sparse[next - push.dense.size()].keys : 0);
      ++next;
      if (!TakeIn(admit, push, part, &refused, &fail)) continue;
      ++admitted;
      ++stats_.contributions;
      Run(ContributionIn{admit.block, push.rank, push.span, push.clock}, now);
    }
    stats_.duplicates += parts.push_blocks.size() - verdicts_.size();
    if (!refused.empty()) {
      ack.outcome = Outcome::kRefused;
    } else if (admitted == 0 && !parts.push_blocks.empty()) {
      ack.outcome = Outcome::kDuplicate;
    }
    if (fail) Fail(absl::InvalidArgumentError(refused));
    Run(PushDone{push.rank, push.span, push.clock, now}, now);
  }
  ack.message = std::move(refused);
  stats_.refused += ack.outcome == Outcome::kRefused;

  // Where the ranks stand now.
  ack.complete = true;
  ack.admitted = ack.outcome == Outcome::kTooLate ? 0 : push.contributions;
  for (uint32_t i = 0; i < push.weight.size(); ++i) {
    const Rank rank(push.rank.value + i);
    const uint64_t at = engine_.clock(rank);
    if (at > push.clock.value) continue;
    ack.complete = false;
    ack.admitted = at == push.clock.value ? std::min(ack.admitted, engine_.admitted(rank)) : 0;
  }
  ack.expected = Clock(engine_.clock(push.rank));
  if (options_.fault == EngineFault::kAckBeforeApply && ack.outcome == Outcome::kApplied) ack.complete = true;
  answer |= ack.complete || ack.outcome != Outcome::kApplied;
  if (!answer) return;
  Reply reply = NewReply(request.id);
  reply.ack = std::move(ack);
  Control(c, std::move(reply));
}

std::string NodeImpl::TakeRead(const PushFrame& push) {
  absl::StatusOr<ReadVector> read = DecodeRead(push.read, dense_of_model_);
  if (read.ok() && read->dense.size() != dense_of_model_) {
    read = absl::InvalidArgumentError(
        absl::StrCat("it names ", read->dense.size(), " dense blocks, the model has ", dense_of_model_));
  }
  if (!read.ok()) {
    return absl::StrCat("push of rank ", push.rank.value, " at clock ", push.clock.value, ": ",
                        order_ != nullptr ? "the order is recorded" : "steps depend on it",
                        ", so it must say what it was computed from: ", read.status().message());
  }
  read_ = *std::move(read);
  return "";
}

std::optional<uint64_t> NodeImpl::ReadVersion(uint32_t block) const {
  if (!options_.tells_reads) return std::nullopt;
  return block < index_.dense() ? read_.dense[place_[block]] : read_.VersionOf(index_.id(block));
}

Payload NodeImpl::FromWire(const Payload& part, uint32_t keys) const {
  if (options_.encoding == WireEncoding::kF32) return part;
  const Payload flat = Compact(part);
  const size_t head = size_t{keys} * sizeof(uint64_t), n = (flat.size() - head) / sizeof(uint16_t);
  std::shared_ptr<std::byte[]> bytes(new std::byte[head + n * sizeof(float)]);
  if (flat.empty()) return flat;
  const std::byte* from = flat.pieces()[0].data;
  std::memcpy(bytes.get(), from, head);
  DecodeHalves(options_.encoding, n, from + head, reinterpret_cast<float*>(bytes.get() + head));
  Payload out;
  out.Append(bytes.get(), head + n * sizeof(float), bytes);
  return out;
}

bool NodeImpl::TakeIn(const Admit& admit, const PushFrame& push, const Payload& part, std::string* why, bool* fail) {
  const bool sparse = admit.block >= index_.dense();
  const uint32_t keys = sparse ? push.sparse[admit.part - push.dense.size()].keys : 0;
  const auto refuse = [&](absl::Status status, bool nonfinite) {
    if (!why->empty()) return;
    *why = absl::StrCat(status.message(), " (from rank ", push.rank.value,
                        push.span > 1 ? absl::StrCat(" and the ", push.weight.size() - 1, " after it") : "",
                        " at clock ", push.clock.value, ")");
    *fail = nonfinite;
  };
  const bool defer = options_.fault == EngineFault::kAckBeforeApply;
  if (admit.later || defer) {
    Later later{admit.block, push.clock, push.rank, push.span, keys, push.weight[0], Compact(part)};
    stats_.payload_bytes_copied += part.size();
    const std::byte* data = later.payload.empty() ? nullptr : later.payload.pieces()[0].data;
    PartFault fault = CheckPart(index_, options_.store.geometry, admit.block, keys, data, part.size());
    if (!fault.status.ok()) {
      refuse(fault.status, fault.nonfinite);
      return false;
    }
    if (defer) {
      deferred_.push_back(std::move(later));
    } else if (sparse) {
      later_slots_.push_back(std::move(later));
    } else {
      later_dense_[admit.block].push_back(std::move(later));
    }
    return true;
  }
  const absl::Status status = StorePart(admit.block, push.rank, push.span, push.clock, keys, part, push.weight[0]);
  if (status.ok()) {
    if (order_ != nullptr && options_.store.apply_push && push.weight[0] > 0) {
      order_->OnPush(admit.block, push.rank, push.clock, push.read, sparse ? store_->steps(index_.id(admit.block)) : 0);
    }
    return true;
  }
  // The store tells a wrong form and a wrong value apart in words only; what it was decides whether the job can go on.
  const Payload copy = Compact(part);
  const std::byte* data = copy.empty() ? nullptr : copy.pieces()[0].data;
  refuse(status, CheckPart(index_, options_.store.geometry, admit.block, keys, data, part.size()).nonfinite);
  return false;
}

absl::Status NodeImpl::StorePart(uint32_t block, Rank rank, uint32_t span, Clock clock, uint32_t keys,
                                 const Payload& payload, double weight) {
  const BlockId id = index_.id(block);
  const bool sparse = block >= index_.dense();
  if (options_.store.apply_push) {
    if (weight == 0) return absl::OkStatus();  // an empty batch is no step
    if (!sparse) return store_->Apply(id, weight, payload, ReadVersion(block));
    BeforeSlotStep(block);
    absl::Status status = store_->ApplySparse(id, weight, keys, payload, ReadVersion(block));
    AfterSlotStep(block);
    return status;
  }
  return sparse ? store_->HoldSparse(id, rank, span, keys, payload) : store_->Hold(id, rank, span, payload);
}

double NodeImpl::TotalWeight(Clock clock) {
  auto& [key, total] = totals_[clock.value % totals_.size()];
  if (key != clock.value + 1) {
    absl::Span<const double> weights = engine_.weights(clock);
    if (options_.fault == EngineFault::kWeightDropped && weights.size() > 1) weights.remove_suffix(1);
    key = clock.value + 1;
    total = 0;
    for (double weight : weights) total += weight;
  }
  return total;
}

void NodeImpl::Commit(const CommitBlock& commit) {
  const BlockId id = index_.id(commit.block);
  double square = 0;
  const bool scalars = WantsScalars(commit.clock), norms = WantsNorms(commit.clock);
  // Of full-gradient methods what is evaluated: their newest versions are points that are tried.
  const bool tried = options_.store.rule->products() > 0;
  const auto read = [&] { return tried ? store_->ReadAverage(id, std::nullopt) : store_->Read(id, std::nullopt); };
  const bool statistic = options_.store.tensors[id.tensor.value].role == TensorRole::kStatistic;  // no parameter
  const absl::StatusOr<Payload> before = scalars && !statistic ? read() : Payload();
  if (absl::Status status = store_->Commit(id, TotalWeight(commit.clock), norms ? &square : nullptr); !status.ok()) {
    Fail(absl::FailedPreconditionError(
        absl::StrCat(status.message(), " (the round of clock ", commit.clock.value, ")")));
    return;
  }
  if (order_ != nullptr) order_->OnRound(commit.block, commit.clock, LeftOut(commit.clock));
  if (scalars) {
    const absl::StatusOr<Payload> after = statistic ? Payload() : read();
    const double step = before.ok() && after.ok() ? SquaredDistance(*before, *after) : 0;
    squares_[commit.clock.value % 2][commit.block] = {id, square, step};
  } else if (norms) {
    squares_[commit.clock.value % 2][commit.block] = {id, square, 0};
  }
  Feed(&later_dense_[commit.block], commit.clock.value + 1);
  engine_.Step(BlockCommitted{commit.block}, &actions_);
}

bool NodeImpl::Measure(BlockId id, Clock clock) {
  absl::StatusOr<BlockScalars> scalars = store_->Measure(id, TotalWeight(clock));
  if (scalars.ok()) {
    measured_.push_back(*scalars);
    return true;
  }
  Fail(absl::FailedPreconditionError(
      absl::StrCat(scalars.status().message(), " (the round of clock ", clock.value, ")")));
  return false;
}

void NodeImpl::Reduce(uint32_t block, Clock clock) {
  if (Measure(index_.id(block), clock)) engine_.Step(BlockReduced{block}, &actions_);
}

void NodeImpl::ReduceHeldSlots(Clock clock) {
  for (BlockId id : store_->HeldSlots()) {
    if (!Measure(id, clock)) return;
  }
  std::sort(measured_.begin(), measured_.end(),
            [](const BlockScalars& a, const BlockScalars& b) { return a.id < b.id; });
  engine_.Step(SlotsReduced{}, &actions_);
  output_->Measured(clock, std::exchange(measured_, {}));
}

absl::Status NodeImpl::Agreed(const ScalarTotals& totals, absl::Time now) {
  DESCENT_RETURN_IF_ERROR(CheckTotals(totals, options_.store.tensors.size(), options_.store.rule->products()));
  if (!engine_.awaits_scalars() || totals.clock.value != engine_.round()) return absl::OkStatus();
  store_->Agree(totals);
  Run(ScalarsAgreed{totals.clock}, now);
  Flush();
  return absl::OkStatus();
}

void NodeImpl::CommitAllSlots(Clock clock, absl::Time now) {
  std::vector<BlockSquare> squares;
  const bool scalars = WantsScalars(clock), norms = WantsNorms(clock);
  if (norms) squares = squares_[clock.value % 2];
  if (index_.slots() > 0) {
    // Said here too: on a server without dense blocks and held slots no Commit says it.
    if (TotalWeight(clock) == 0) store_->SkipStep(clock);
    for (BlockId id : store_->HeldSlots()) {
      double square = 0;
      const uint32_t slot = *index_.Find(id, true);
      BeforeSlotStep(slot);
      if (absl::Status status = store_->Commit(id, TotalWeight(clock), norms ? &square : nullptr); !status.ok()) {
        Fail(absl::FailedPreconditionError(absl::StrCat(status.message(), " (the round of clock ", clock.value, ")")));
        return;
      }
      AfterSlotStep(slot);
      if (norms) squares.push_back({id, square, 0});
    }
    store_->AdvanceSlots(clock.value + 1);
    if (order_ != nullptr) order_->OnSlotsRound(clock, LeftOut(clock));
    Feed(&later_slots_, clock.value + 1);
  }
  engine_.Step(SlotsCommitted{now}, &actions_);
  WatchRound();
  if (!norms) return;
  std::sort(squares.begin(), squares.end(), [](const BlockSquare& a, const BlockSquare& b) { return a.id < b.id; });
  if (scalars) {
    output_->Scalars(clock, std::move(squares));
  } else {
    output_->Norms(clock, std::move(squares));
  }
}

std::vector<Rank> NodeImpl::LeftOut(Clock clock) const {
  std::vector<Rank> out;
  const absl::Span<const uint8_t> participants = engine_.participants(clock);
  for (uint32_t r = 0; r < participants.size(); ++r) {
    if (participants[r] == 0) out.push_back(Rank(r));
  }
  return out;
}

void NodeImpl::Feed(std::vector<Later>* later, uint64_t clock) {
  size_t kept = 0;
  for (size_t i = 0; i < later->size(); ++i) {
    Later& l = (*later)[i];
    if (l.clock.value != clock) {
      if (kept != i) (*later)[kept] = std::move(l);
      ++kept;
      continue;
    }
    // Checked when it came.
    if (absl::Status status = StorePart(l.block, l.rank, l.span, l.clock, l.keys, l.payload, l.weight); !status.ok()) {
      Fail(absl::InternalError(
          absl::StrCat(status.message(), " (kept from rank ", l.rank.value, " for clock ", clock, ")")));
    }
  }
  later->resize(kept);
}

void NodeImpl::ApplyDeferred() {
  for (const Later& l : deferred_) {
    StorePart(l.block, l.rank, l.span, l.clock, l.keys, l.payload, l.weight).IgnoreError();
  }
  deferred_.clear();
}

void NodeImpl::Fail(absl::Status cause) {
  if (failed_) return;  // the first cause
  failed_ = true;
  output_->Fail(std::move(cause));
}

void NodeImpl::Run(const Event& event, absl::Time now) {
  actions_.clear();
  engine_.Step(event, &actions_);
  WatchRound();
  for (size_t i = 0; i < actions_.size(); ++i) {
    const Action action = actions_[i];  // the vector grows underneath
    if (const auto* commit = std::get_if<CommitBlock>(&action)) {
      Commit(*commit);
    } else if (const auto* reduce = std::get_if<ReduceBlock>(&action)) {
      Reduce(reduce->block, reduce->clock);
    } else if (const auto* slots = std::get_if<ReduceSlots>(&action)) {
      ReduceHeldSlots(slots->clock);
    } else if (const auto* slots = std::get_if<CommitSlots>(&action)) {
      CommitAllSlots(slots->clock, now);
    } else if (const auto* completed = std::get_if<RankCompleted>(&action)) {
      if (options_.store.apply_push && index_.slots() > 0 && push_weight_[completed->rank.value] > 0) {
        store_->AdvanceSlotsByPush();
      }
    } else if (const auto* block = std::get_if<ReleaseBlock>(&action)) {
      OnReleaseBlock(*block);
    } else if (const auto* release = std::get_if<Release>(&action)) {
      OnRelease(release->ticket);
    } else if (const auto* waiting = std::get_if<TellWaiting>(&action)) {
      OnTellWaiting(*waiting, now);
    } else {
      DESCENT_CHECK(false);  // pushes are decided in HandlePush
    }
  }
}

}  // namespace descent
