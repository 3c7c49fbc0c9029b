#include "server/node/order_log.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/wire/read_vector.h"
#include "common/wire/varint.h"

namespace descent {
namespace {

// Of an entry: rank * 4 + what it is.
constexpr uint64_t kNamed = 0;     // clock, digest, steps
constexpr uint64_t kWithRead = 1;  // the same, and the read vector
constexpr uint64_t kRestored = 2;  // PUSH: steps; ROUND: the clock
constexpr uint64_t kMissing = 3;   // ROUND: clock, how many ranks, each as its distance from the one before

constexpr size_t kDigestBytes = sizeof(uint32_t);

struct Cursor {
  uint64_t clock = 0, steps = 0;
};

void PutEntry(const BlockOrder::Entry& entry, OrderKind kind, Cursor* cursor, std::string* out) {
  if (entry.restored) {
    PutVarint(kRestored, out);
    PutDelta(cursor->steps, entry.steps, out);
    cursor->steps = entry.steps;
    return;
  }
  PutVarint(uint64_t{entry.rank.value} * 4 + (entry.read.has_value() ? kWithRead : kNamed), out);
  PutDelta(cursor->clock, entry.clock.value, out);
  cursor->clock = entry.clock.value;
  for (size_t i = 0; i < kDigestBytes; ++i) out->push_back(static_cast<char>(entry.digest >> (8 * i)));
  if (kind == OrderKind::kSlot) {
    PutDelta(cursor->steps, entry.steps, out);
    cursor->steps = entry.steps;
  }
  if (entry.read.has_value()) {
    PutVarint(entry.read->size(), out);
    *out += *entry.read;
  }
}

void PutRestoredAt(Clock clock, Cursor* cursor, std::string* out) {
  PutVarint(kRestored, out);
  PutDelta(cursor->clock, clock.value, out);
  cursor->clock = clock.value;
}

void PutRound(const BlockOrder::Round& round, Cursor* cursor, std::string* out) {
  PutVarint(kMissing, out);
  PutDelta(cursor->clock, round.clock.value, out);
  cursor->clock = round.clock.value;
  PutVarint(round.missing.size(), out);
  uint32_t before = 0;
  for (Rank rank : round.missing) {
    PutVarint(rank.value - before, out);
    before = rank.value;
  }
}

}  // namespace

uint64_t BlockOrder::steps_made() const {
  return static_cast<uint64_t>(
      std::count_if(entries.begin(), entries.end(), [](const Entry& e) { return !e.restored; }));
}

std::string EncodeOrder(const BlockOrder& order) {
  std::string out(1, static_cast<char>(order.kind));
  Cursor cursor;
  for (const BlockOrder::Entry& entry : order.entries) PutEntry(entry, order.kind, &cursor, &out);
  size_t round = 0;
  for (Clock restored : order.restored) {
    for (; round < order.rounds.size() && order.rounds[round].clock < restored; ++round) {
      PutRound(order.rounds[round], &cursor, &out);
    }
    PutRestoredAt(restored, &cursor, &out);
  }
  for (; round < order.rounds.size(); ++round) PutRound(order.rounds[round], &cursor, &out);
  return out;
}

absl::StatusOr<BlockOrder> DecodeOrder(absl::string_view bytes, uint32_t ranks) {
  const auto malformed = [](size_t at, auto... what) {
    return absl::InvalidArgumentError(absl::StrCat("its order, byte ", at, ": ", what...));
  };
  BlockOrder out;
  if (bytes.empty()) return malformed(0, "there is none");
  out.kind = static_cast<OrderKind>(bytes[0]);
  if (out.kind != OrderKind::kDense && out.kind != OrderKind::kSlot && out.kind != OrderKind::kRound) {
    return malformed(0, "no kind of log");
  }
  const bool push = out.kind != OrderKind::kRound;
  VarintReader reader(bytes.substr(1));
  Cursor cursor;
  while (!reader.done()) {
    const size_t at = reader.at() + 1;
    uint64_t tag = 0;
    if (!reader.Get(&tag)) return malformed(at, "an entry is cut off");
    const uint64_t what = tag % 4;
    if (tag / 4 >= ranks) return malformed(at, "rank ", tag / 4, ", but the job has ", ranks);
    if (what == kRestored) {
      if (out.kind == OrderKind::kDense || tag / 4 != 0) return malformed(at, "a restore that cannot be");
      const uint64_t before = cursor.clock;
      if (!reader.GetDelta(push ? &cursor.steps : &cursor.clock)) return malformed(at, "a restore is cut off");
      if (push) {
        out.entries.push_back(BlockOrder::Entry::Restored(cursor.steps));
      } else if (before > cursor.clock || (!out.restored.empty() && out.restored.back().value >= cursor.clock)) {
        return malformed(at, "restores that do not ascend");
      } else {
        out.restored.push_back(Clock(cursor.clock));
      }
      continue;
    }
    if (what == kMissing && tag / 4 != 0) return malformed(at, "a round that cannot be");
    if (push == (what == kMissing))
      return malformed(at, push ? "a round in a log of pushes" : "a push in one of rounds");
    const uint64_t clock_before = cursor.clock;
    if (!reader.GetDelta(&cursor.clock)) return malformed(at, "an entry is cut off");
    if (!push) {
      if (clock_before > cursor.clock || (!out.rounds.empty() && out.rounds.back().clock.value >= cursor.clock)) {
        return malformed(at, "rounds that do not ascend");
      }
      BlockOrder::Round round{Clock(cursor.clock), {}};
      uint64_t count = 0, rank = 0;
      if (!reader.Get(&count) || count == 0 || count > ranks) return malformed(at, count, " ranks of ", ranks);
      for (uint64_t i = 0; i < count; ++i) {
        uint64_t distance = 0;
        if (!reader.Get(&distance)) return malformed(at, "a round is cut off");
        if ((i > 0 && distance == 0) || distance >= ranks || (rank += distance) >= ranks) {
          return malformed(at, "ranks that do not ascend below ", ranks);
        }
        round.missing.push_back(Rank(static_cast<uint32_t>(rank)));
      }
      out.rounds.push_back(std::move(round));
      continue;
    }
    BlockOrder::Entry entry;
    entry.rank = Rank(static_cast<uint32_t>(tag / 4));
    entry.clock = Clock(cursor.clock);
    absl::string_view digest;
    if (!reader.GetBytes(kDigestBytes, &digest)) return malformed(at, "an entry is cut off");
    for (size_t i = 0; i < kDigestBytes; ++i) {
      entry.digest |= uint32_t{static_cast<unsigned char>(digest[i])} << (8 * i);
    }
    if (out.kind == OrderKind::kSlot) {
      if (!reader.GetDelta(&cursor.steps)) return malformed(at, "an entry is cut off");
      entry.steps = cursor.steps;
    }
    if (what == kWithRead) {
      uint64_t size = 0;
      absl::string_view read;
      if (!reader.Get(&size) || !reader.GetBytes(size, &read)) return malformed(at, "a read vector is cut off");
      if (ReadDigest(read) != entry.digest) return malformed(at, "a read vector that has another digest");
      entry.read = std::string(read);
    }
    out.entries.push_back(std::move(entry));
  }
  return out;
}

OrderLog::OrderLog(uint32_t ranks, uint32_t dense, uint32_t slots, bool apply_push)
    : ranks_(ranks), dense_(dense), apply_push_(apply_push), logs_(size_t{dense} + slots), seen_(ranks) {
  for (uint32_t block = 0; block < logs_.size(); ++block) {
    const OrderKind kind = !apply_push ? OrderKind::kRound : block < dense ? OrderKind::kDense : OrderKind::kSlot;
    logs_[block].bytes.assign(1, static_cast<char>(kind));
  }
}

void OrderLog::OnPush(uint32_t block, Rank rank, Clock clock, absl::string_view read, uint64_t steps) {
  DESCENT_CHECK(apply_push_);
  BlockOrder::Entry entry{false, rank, clock, ReadDigest(read), steps, std::nullopt};
  Seen& seen = seen_[rank.value];
  if (seen.clock != clock) seen = {clock, {}};
  if (std::find(seen.digests.begin(), seen.digests.end(), entry.digest) == seen.digests.end()) {
    seen.digests.push_back(entry.digest);
    entry.read = std::string(read);
  }
  Log& log = logs_[block];
  Cursor cursor{log.clock, log.steps};
  PutEntry(entry, block < dense_ ? OrderKind::kDense : OrderKind::kSlot, &cursor, &log.bytes);
  log.clock = cursor.clock;
  log.steps = cursor.steps;
}

void OrderLog::OnRound(uint32_t block, Clock clock, absl::Span<const Rank> missing) {
  DESCENT_CHECK(!apply_push_ && block < dense_);
  if (!missing.empty()) logs_[block].rounds.push_back({clock, {missing.begin(), missing.end()}});
}

void OrderLog::OnSlotsRound(Clock clock, absl::Span<const Rank> missing) {
  DESCENT_CHECK(!apply_push_);
  if (!missing.empty()) slot_rounds_.push_back({clock, {missing.begin(), missing.end()}});
}

std::string OrderLog::Image(uint32_t block, uint64_t version) const {
  const Log& log = logs_[block];
  std::string out = log.bytes;
  if (apply_push_) return out;
  Cursor cursor{log.clock, 0};
  for (const BlockOrder::Round& round : block < dense_ ? log.rounds : slot_rounds_) {
    if (round.clock.value < version) PutRound(round, &cursor, &out);
  }
  return out;
}

absl::Status OrderLog::Install(uint32_t block, absl::string_view bytes, uint64_t version, uint64_t steps,
                               bool running) {
  DESCENT_ASSIGN_OR_RETURN(const BlockOrder order, DecodeOrder(bytes, ranks_));
  Log& log = logs_[block];
  if (static_cast<char>(order.kind) != log.bytes[0]) {
    return absl::InvalidArgumentError(absl::StrCat("its order is of another kind than the block: '", bytes.substr(0, 1),
                                                   "', expected '", log.bytes.substr(0, 1), "'"));
  }
  if (apply_push_ && order.steps_made() != version) {
    return absl::InvalidArgumentError(
        absl::StrCat("its order has ", order.steps_made(), " pushes, but its version is ", version));
  }
  const uint64_t last_round = std::max(order.rounds.empty() ? 0 : order.rounds.back().clock.value + 1,
                                       order.restored.empty() ? 0 : order.restored.back().value);
  if (!apply_push_ && last_round > version) {
    return absl::InvalidArgumentError(
        absl::StrCat("its order tells of round ", last_round, ", but its version is ", version));
  }
  Cursor cursor;
  for (const BlockOrder::Entry& entry : order.entries) {
    if (!entry.restored) cursor.clock = entry.clock.value;
    if (entry.restored || order.kind == OrderKind::kSlot) cursor.steps = entry.steps;
  }
  log.bytes = std::string(bytes);
  if (order.kind == OrderKind::kSlot) {
    // Twice out of the same cut is once.
    if (!running && (order.entries.empty() || !order.entries.back().restored || order.entries.back().steps != steps)) {
      PutEntry(BlockOrder::Entry::Restored(steps), order.kind, &cursor, &log.bytes);
    }
  } else if (order.kind == OrderKind::kRound) {
    cursor.clock = std::max(order.rounds.empty() ? 0 : order.rounds.back().clock.value,
                            order.restored.empty() ? 0 : order.restored.back().value);
    if (!running && version > 0 && (order.restored.empty() || order.restored.back().value != version)) {
      PutRestoredAt(Clock(version), &cursor, &log.bytes);
    }
  }
  log.clock = cursor.clock;
  log.steps = cursor.steps;
  return absl::OkStatus();
}

}  // namespace descent
