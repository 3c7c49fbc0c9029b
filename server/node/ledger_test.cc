// The ledger: rank r at clock c adds exactly 1 to element r of each block, so that what a pull holds can be counted.
// Over seeded random schedules with duplicates and late copies, every pull must hold what the staleness bound promises,
// under ROUND exactly that, and at the end each update exactly once. With each seeded bug switched on, some schedule
// shows it.
#include <algorithm>
#include <iterator>
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
constexpr uint64_t kClocks = 12;

struct Schedule {
  uint64_t seed = 0;
  uint64_t staleness = 0;
  bool apply_push = false;
  EngineFault fault = EngineFault::kNone;
};

class Ledger {
 public:
  explicit Ledger(const Schedule& schedule)
      : schedule_(schedule), random_(schedule.seed, Purpose::kTest, 0, 0), h_(Options(schedule), 1) {}

  // Empty: all held. Else the first thing that was wrong.
  std::string Run() {
    for (int step = 0; step < 200000; ++step) {
      if (Finished()) return CheckEnd();
      Act(static_cast<uint32_t>(random_.Below(draw_++, kRanks)));
      for (const Reply& reply : h_.Take()) Receive(reply);
      if (!wrong_.empty()) return wrong_;
      if (!h_.failure.ok()) return std::string(h_.failure.message());
    }
    return absl::StrCat("stalled\n", h_.node->DebugState());
  }
  const ServerNodeStats& stats() const { return h_.node->stats(); }
  const std::string& trace() const { return trace_; }

 private:
  struct Worker {
    uint64_t clock = 0;  // to be computed next
    bool has_parameters = false;
    uint64_t pull = 0;  // request under way
    std::map<uint32_t, std::vector<float>> got;
    std::vector<Request> unsent, sent;  // messages of the pushes so far
    uint64_t acked = 0;                 // clocks below are complete
  };

  static ServerNodeOptions Options(const Schedule& s) {
    ServerNodeOptions o = H::AddingJob({H::Dense("w", kRanks * kBlocks)}, {kRanks, 4}, kRanks);
    o.staleness = s.staleness;
    o.store.apply_push = s.apply_push;
    // Under ROUND the weighted mean at rate -kRanks: a wrong total weight shows.
    o.store.reduce_sum = s.apply_push;
    if (!s.apply_push) o.store.rate = [](Clock) { return -static_cast<float>(kRanks); };
    o.fault = s.fault;
    return o;
  }

  bool Finished() const {
    return std::all_of(std::begin(workers_), std::end(workers_), [](const Worker& w) { return w.acked >= kClocks; });
  }

  void Act(uint32_t r) {
    Worker& w = workers_[r];
    const uint64_t what = random_.Below(draw_++, 10);
    if (what == 0 && !w.sent.empty()) {  // a late copy
      h_.node->OnRequest(ConnectionId(0), w.sent[random_.Below(draw_++, w.sent.size())], h_.now);
      return;
    }
    if (!w.unsent.empty()) {
      w.sent.push_back(w.unsent.back());
      w.unsent.pop_back();
      h_.node->OnRequest(ConnectionId(0), w.sent.back(), h_.now);
      return;
    }
    if (w.acked < w.clock) return;  // the push is not complete: nothing is lost here, so the ack comes
    if (w.clock >= kClocks) return;
    if (!w.has_parameters) {
      if (w.pull != 0) return;
      Request pull = h_.PullOf(r, w.clock);
      w.pull = pull.id;
      w.got.clear();
      h_.node->OnRequest(ConnectionId(0), std::move(pull), h_.now);
      return;
    }
    // Compute: one message per block, in any order.
    w.has_parameters = false;
    std::vector<float> gradient(kRanks, 0.0f);
    gradient[r] = 1;
    const uint32_t first = static_cast<uint32_t>(random_.Below(draw_++, kBlocks));
    for (uint32_t b = 0; b < kBlocks; ++b) {
      w.unsent.push_back(h_.PushOf(r, w.clock, {(first + b) % kBlocks}, kBlocks, Floats(gradient)));
    }
    ++w.clock;
  }

  void Receive(const Reply& reply) {
    if (reply.ack && reply.ack->complete) {
      Worker& w = workers_[reply.ack->rank.value];
      w.acked = std::max(w.acked, reply.ack->clock.value + 1);
    }
    for (uint32_t r = 0; r < kRanks; ++r) {
      Worker& w = workers_[r];
      if (w.pull == 0 || w.pull != reply.id) continue;
      if (!reply.refusal.ok()) wrong_ = std::string(reply.refusal.message());
      const std::vector<float> values = ToFloats(reply.payload);
      for (size_t i = 0; i < reply.dense.size(); ++i) {
        w.got[reply.dense[i].id.index].assign(values.begin() + i * kRanks, values.begin() + (i + 1) * kRanks);
      }
      if (!reply.pull_done) continue;
      w.pull = 0;
      w.has_parameters = true;
      CheckPull(r, w);
    }
  }

  void CheckPull(uint32_t r, const Worker& w) {
    const uint64_t s = schedule_.staleness;
    const uint64_t promised = w.clock - std::min(w.clock, s);
    if (w.got.size() != kBlocks) wrong_ = "blocks are missing";
    for (const auto& [block, values] : w.got) {
      for (uint32_t q = 0; q < kRanks; ++q) {
        const bool exact = !schedule_.apply_push && s != kUnbounded;
        const auto count = static_cast<double>(values[q]);
        absl::StrAppend(&trace_, count, ",");
        const bool good = count >= promised && (!exact || count == promised) && count <= workers_[q].clock;
        if (!good && wrong_.empty()) {
          wrong_ = absl::StrCat("rank ", r, " at clock ", w.clock, " read ", count, " updates of rank ", q,
                                " in block ", block, ", promised ", promised, ", pushed ", workers_[q].clock);
        }
      }
    }
  }

  std::string CheckEnd() {
    for (uint32_t b = 0; b < kBlocks; ++b) {
      for (float value : ToFloats(h_.node->store().Read(BlockId{TensorId(0), b}, std::nullopt).value())) {
        if (value != kClocks)
          return absl::StrCat("at the end block ", b, " holds ", value, " of ", kClocks, " updates");
      }
    }
    return {};
  }

  const Schedule schedule_;
  const RandomStream random_;
  uint64_t draw_ = 0;
  NodeHarness h_;
  Worker workers_[kRanks];
  std::string wrong_;
  std::string trace_;
};

TEST(Ledger, EveryPullHoldsWhatTheBoundPromises) {
  for (bool apply_push : {false, true}) {
    for (uint64_t s : {uint64_t{0}, uint64_t{1}, uint64_t{4}, kUnbounded}) {
      uint64_t duplicates = 0, held = 0, lead = 0;
      for (uint64_t seed = 0; seed < 40; ++seed) {
        Ledger ledger({seed, s, apply_push});
        ASSERT_EQ(ledger.Run(), "") << "seed " << seed << ", s " << s << (apply_push ? ", PUSH" : ", ROUND");
        duplicates += ledger.stats().duplicates;
        held += ledger.stats().held;
        lead = std::max(lead, ledger.stats().largest_lead);
      }
      EXPECT_GT(duplicates, 0u);
      if (s <= 1) {
        EXPECT_GT(held, 0u);
        EXPECT_EQ(lead, s);
      }
    }
  }
}

TEST(Ledger, ASeedReplaysToTheSameTrace) {
  for (bool apply_push : {false, true}) {
    Ledger a({7, 1, apply_push}), b({7, 1, apply_push});
    ASSERT_EQ(a.Run(), "");
    ASSERT_EQ(b.Run(), "");
    ASSERT_EQ(a.trace(), b.trace());
    ASSERT_FALSE(a.trace().empty());
  }
}

bool Found(EngineFault fault, uint64_t s, bool apply_push) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    if (!Ledger({seed, s, apply_push, fault}).Run().empty()) return true;
  }
  return false;
}

TEST(Ledger, SeededBugsAreFound) {
  for (uint64_t s : {0, 1, 4}) {
    EXPECT_TRUE(Found(EngineFault::kGateOffByOne, s, true)) << s;
    EXPECT_TRUE(Found(EngineFault::kGateOffByOne, s, false)) << s;
  }
  EXPECT_TRUE(Found(EngineFault::kDedupeOff, 1, true));
  // (Under ROUND a late copy here is replaced by, or equal to, the true contribution: the fold forgives it.)
  EXPECT_TRUE(Found(EngineFault::kAckBeforeApply, 0, true));
  EXPECT_TRUE(Found(EngineFault::kAckBeforeApply, 0, false));
  EXPECT_TRUE(Found(EngineFault::kWeightDropped, 0, false));
  EXPECT_TRUE(Found(EngineFault::kCompleteEarly, 0, true));
}

}  // namespace
}  // namespace descent
