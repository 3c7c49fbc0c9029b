// The ledger with backup ranks: rank r at clock c adds exactly 1 to element r of each block of one server, by the mean
// of the round at a rate that only the right total weight makes 1. Over seeded random schedules with late copies and
// workers that die half-way through a push, every block holds each push that was acknowledged once, none that was told
// too late, and of every round as many as it has participants.
#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "server/node/node_harness.h"

namespace descent {
namespace {

using H = NodeHarness;

constexpr uint32_t kRanks = 4;
constexpr uint32_t kBlocks = 3;  // of kRanks elements
constexpr uint64_t kClocks = 15;

struct Schedule {
  uint64_t seed = 0;
  uint32_t backup = 1;
  uint64_t full_every = 0;
  EngineFault fault = EngineFault::kNone;
};

class Ledger {
 public:
  explicit Ledger(const Schedule& schedule)
      : schedule_(schedule), random_(schedule.seed, Purpose::kTest, 0, 0), h_(Options(schedule), 1) {}

  // Empty: all held. Else the first thing that was wrong.
  std::string Run() {
    for (int step = 0; step < 200000; ++step) {
      if (std::all_of(workers_.begin(), workers_.end(), [](const Worker& w) { return w.clock >= kClocks; })) {
        return CheckEnd();
      }
      // Rank 0 is slow.
      const uint64_t who = random_.Below(draw_++, 4 * kRanks - 3);
      Act(static_cast<uint32_t>((who + 3) / 4));
      for (const Reply& reply : h_.Take()) Receive(reply);
      if (!h_.failure.ok()) return std::string(h_.failure.message());
    }
    return absl::StrCat("stalled\n", h_.node->DebugState());
  }
  uint64_t late = 0, passed = 0, deaths = 0;

 private:
  enum class State { kStart, kAsked, kReady, kReading, kComputing, kPushing };
  struct Worker {
    State state = State::kStart;
    uint64_t clock = 0;
    uint64_t incarnation = 1;
    uint64_t request = 0;  // under way
    std::vector<Request> unsent, sent;
    uint64_t counted = 0;  // clocks
  };

  static uint32_t Members(const Schedule& s, uint64_t clock) {
    const bool full = s.full_every > 0 && clock > 0 && clock % s.full_every == 0;
    return full ? kRanks : kRanks - s.backup;
  }
  static ServerNodeOptions Options(const Schedule& s) {
    ServerNodeOptions o = H::AddingJob({H::Dense("w", kRanks * kBlocks)}, {kRanks, 4}, kRanks);
    o.store.reduce_sum = false;
    o.store.rate = [s](Clock clock) { return -static_cast<float>(Members(s, clock.value)); };
    o.backup_ranks = s.backup;
    o.full_every = s.full_every;
    o.fault = s.fault;
    return o;
  }

  void Act(uint32_t r) {
    Worker& w = workers_[r];
    const uint64_t what = random_.Below(draw_++, 20);
    if (what == 0 && !w.sent.empty()) {  // a late copy
      Deliver(w.sent[random_.Below(draw_++, w.sent.size())]);
      return;
    }
    if (what == 1 && w.clock < kClocks && w.state == State::kPushing && !w.unsent.empty()) {  // another holder
      ++deaths;
      w.unsent.clear();
      ++w.incarnation;
      w.state = State::kStart;
      return;
    }
    switch (w.state) {
      case State::kStart: {
        Request ask = h_.NewRequest();
        ask.expected_of = {Rank(r)};
        w.request = ask.id;
        w.state = State::kAsked;
        Deliver(ask);
        return;
      }
      case State::kReady:  // the round may go past its clock
        Read(r);
        return;
      case State::kComputing: {
        if (w.clock >= kClocks) return;
        std::vector<float> gradient(kRanks, 0.0f);
        gradient[r] = 1;
        const auto first = static_cast<uint32_t>(random_.Below(draw_++, kBlocks));
        for (uint32_t b = 0; b < kBlocks; ++b) {
          w.unsent.push_back(h_.PushOf(r, w.clock, {(first + b) % kBlocks}, kBlocks, Floats(gradient)));
          w.unsent.back().push->incarnation.number = w.incarnation;
        }
        w.state = State::kPushing;
        return;
      }
      case State::kPushing:
        if (w.unsent.empty()) return;
        w.sent.push_back(w.unsent.back());
        w.unsent.pop_back();
        Deliver(w.sent.back());
        return;
      case State::kAsked:
      case State::kReading:
        return;
    }
  }

  void Deliver(Request request) { h_.node->OnRequest(ConnectionId(0), std::move(request), h_.now); }

  void Read(uint32_t r) {
    Worker& w = workers_[r];
    Request pull = h_.PullOf(r, w.clock);
    w.request = pull.id;
    w.state = State::kReading;
    Deliver(pull);
  }

  void Receive(const Reply& reply) {
    for (uint32_t r = 0; r < kRanks; ++r) {
      Worker& w = workers_[r];
      if (reply.ack && reply.ack->rank == Rank(r) && w.state == State::kPushing && reply.ack->clock == Clock(w.clock) &&
          reply.ack->outcome != Outcome::kFenced) {
        if (reply.ack->outcome == Outcome::kTooLate) {
          ++late;
          w.clock = reply.ack->expected.value;
        } else if (reply.ack->complete) {
          ++w.counted;
          ++w.clock;
        } else {
          continue;
        }
        w.unsent.clear();
        w.state = State::kReady;
      } else if (w.request == reply.id && w.state == State::kAsked && !reply.expected.empty()) {
        w.clock = reply.expected[0].value;
        w.state = State::kReady;
      } else if (w.request == reply.id && w.state == State::kReading && !reply.refusal.ok()) {
        ++passed;
        w.state = State::kStart;
      } else if (w.request == reply.id && w.state == State::kReading && reply.pull_done) {
        w.state = State::kComputing;
      }
    }
  }

  std::string CheckEnd() {
    uint64_t total = 0, expected = 0;
    for (uint64_t c = 0; c < kClocks; ++c) expected += Members(schedule_, c);
    for (const Worker& w : workers_) total += w.counted;
    if (total != expected) return absl::StrCat(total, " pushes were acknowledged, the rounds have ", expected);
    for (uint32_t b = 0; b < kBlocks; ++b) {
      const std::vector<float> values = ToFloats(h_.node->store().Read(BlockId{TensorId(0), b}, std::nullopt).value());
      for (uint32_t r = 0; r < kRanks; ++r) {
        if (std::abs(values[r] - static_cast<float>(workers_[r].counted)) < 1e-4f) continue;
        return absl::StrCat("block ", b, " holds ", values[r], " pushes of rank ", r, ", ", workers_[r].counted,
                            " were acknowledged");
      }
    }
    return {};
  }

  const Schedule schedule_;
  const RandomStream random_;
  uint64_t draw_ = 0;
  NodeHarness h_;
  std::vector<Worker> workers_ = std::vector<Worker>(kRanks);
};

TEST(BackupLedger, EveryAcknowledgedPushCountsOnceAndNoLateOne) {
  for (uint32_t backup : {1, 2, 3}) {
    for (uint64_t full_every : {0, 4}) {
      uint64_t late = 0, passed = 0, deaths = 0;
      for (uint64_t seed = 0; seed < 60; ++seed) {
        Ledger ledger({seed, backup, full_every});
        ASSERT_EQ(ledger.Run(), "") << "seed " << seed << ", " << backup << " backup ranks, full every " << full_every;
        late += ledger.late;
        passed += ledger.passed;
        deaths += ledger.deaths;
      }
      EXPECT_GT(late, 0u);
      EXPECT_GT(passed, 0u);
      EXPECT_GT(deaths, 0u);
    }
  }
}

TEST(BackupLedger, SeededBugsAreFound) {
  for (EngineFault fault : {EngineFault::kWeightDropped, EngineFault::kAckBeforeApply}) {
    bool found = false;
    for (uint64_t seed = 0; seed < 60 && !found; ++seed) found = !Ledger({seed, 1, 0, fault}).Run().empty();
    EXPECT_TRUE(found) << static_cast<int>(fault);
  }
}

TEST(BackupLedger, WhoIsWaitedForIsToldWithItsLastRequest) {
  ServerNodeOptions options = H::AddingJob({H::Dense("w", kRanks * kBlocks)}, {kRanks, 4}, kRanks);
  options.backup_ranks = 1;
  H h(options);
  const Payload one = Floats(std::vector<float>(kRanks, 1.0f));
  h.Do(h.PushOf(1, 0, {0}, 3, one));
  Request ask = h.NewRequest();
  ask.expected_of = {Rank(2)};
  h.Do(ask);
  // A rank that asks, while it computes, whether its round has closed waits for nobody.
  Request question = h.PullOf(3, 1);
  question.pull->all_dense = false;
  h.Do(question);
  h.now += absl::Milliseconds(4200);
  EXPECT_TRUE(h.node->Waiting(h.now).empty());
  h.now -= absl::Milliseconds(4200);
  h.Do(h.PullOf(3, 0));
  h.Do(h.PullOf(0, 1));
  h.now += absl::Milliseconds(4200);
  const std::vector<WaitingNotice> waiting = h.node->Waiting(h.now);
  ASSERT_EQ(waiting.size(), 4u);
  EXPECT_EQ(waiting[0].last_rpc, "read for clock 1, 4.2 s ago");
  EXPECT_EQ(waiting[1].last_rpc, "push of clock 0, 1 of 3 contributions, 4.2 s ago");
  EXPECT_EQ(waiting[1].clock, 0u);
  EXPECT_EQ(waiting[2].last_rpc, "question which clock is expected, 4.2 s ago");
  EXPECT_EQ(waiting[3].last_rpc, "read for clock 0, 4.2 s ago");
}

TEST(BackupLedger, OptionsThatContradictAreRefused) {
  ServerNodeOptions options = H::AddingJob({H::Dense("w", 4)}, {4, 4}, 4);
  H output(options);
  options.backup_ranks = 4;
  EXPECT_EQ(ServerNode::Create(options, &output).status().message(), "backup_ranks: 4 of 4 ranks");
  options.backup_ranks = 1;
  options.staleness = 1;
  EXPECT_EQ(ServerNode::Create(options, &output).status().message(),
            "backup_ranks: they are for apply: ROUND without staleness");
}

}  // namespace
}  // namespace descent
