// The ledger across a death under PUSH: rank r at clock c adds exactly 2^c to element r of each block, so that a sum
// tells which clocks are in it. Servers are cut at moments of their own, later all die, others are made from the
// images, each rank goes on at the least clock that some block lacks, and in the end every (rank, clock, block) is in
// once.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"

namespace descent {
namespace {

using H = NodeHarness;

constexpr uint32_t kRanks = 3;
constexpr uint32_t kBlocks = 3;  // of kRanks elements
constexpr uint32_t kSlots = 4;
constexpr uint64_t kKeys = 9;
constexpr uint64_t kClocks = 20;  // 2^20 - 1 is a float
constexpr uint64_t kAhead = 3;    // clocks that one server may be ahead of another

bool HasKey(uint32_t rank, uint64_t clock, uint64_t key) {
  return RandomStream(rank * 1000 + clock, Purpose::kTest, 3, 0).Below(key, 2) == 0;
}

class CutLedger {
 public:
  CutLedger(uint64_t seed, EngineFault fault) : fault_(fault), random_(seed, Purpose::kTest, 4, 0) {}

  // Empty: all held. Else the first thing that was wrong.
  std::string Run() {
    std::vector<uint64_t> restart(kRanks, 0);
    WholeCut cut;
    for (int life = 0; life < 3; ++life) {
      Start(life == 0 ? nullptr : &cut, restart);
      if (std::string wrong = Live(life < 2, &cut); !wrong.empty()) return absl::StrCat("life ", life, ": ", wrong);
      if (life == 2) return CheckEnd();
      for (uint32_t r = 0; r < kRanks; ++r) {
        restart[r] = ~uint64_t{0};
        for (const auto& [id, record] : cut) restart[r] = std::min(restart[r], record.marks[r]);
        for (const auto& [id, record] : cut) ahead_ += record.marks[r] - restart[r];
      }
    }
    return {};
  }
  uint64_t ahead() const { return ahead_; }  // blocks that were ahead of their rank after a restart, in clocks
  uint64_t counted_again() const { return counted_again_; }

 private:
  struct Leg {            // of a rank to a server
    uint64_t clock = 0;   // clocks below are complete there
    uint64_t oldest = 0;  // that this life has sent
  };
  struct Server {
    ServerNodeOptions options;
    std::unique_ptr<NodeHarness> h;
    std::shared_ptr<KeptCut> cut;
    uint64_t cut_at = 0;  // step
    std::vector<Leg> legs;
  };

  uint64_t Below(uint64_t n) { return random_.Below(draw_++, n); }

  void Start(const WholeCut* cut, const std::vector<uint64_t>& restart) {
    servers_.clear();
    servers_.resize(1 + Below(5));
    for (uint32_t s = 0; s < servers_.size(); ++s) {
      Server& server = servers_[s];
      ServerNodeOptions& o = server.options;
      o = H::AddingJob({H::Dense("w", kRanks * kBlocks), H::Table("t", kRanks)}, {kRanks, kSlots}, kRanks);
      o.store.apply_push = true;
      o.staleness = kUnbounded;
      o.store.self = ServerId(s);
      o.store.map = MakePartitionMap(o.store.tensors, o.store.geometry, static_cast<uint32_t>(servers_.size()));
      o.fault = fault_;
      if (cut != nullptr) {
        RestoredState& restored = o.restored.emplace();
        for (uint64_t clock : restart) restored.restart.push_back(Clock(clock));
      }
      server.h = std::make_unique<NodeHarness>(o, 0);
      if (cut != nullptr) {
        const absl::Status status = RestoreFrom(*cut, o, server.h->node.get());
        EXPECT_TRUE(status.ok()) << status;
      }
      server.h->node->OnOpen(ConnectionId(0), server.h->now);
      server.cut_at = Below(400);
      for (uint32_t r = 0; r < kRanks; ++r) server.legs.push_back({restart[r], restart[r]});
    }
  }

  // Until every rank has done its clocks or, where all `die`, some time after the cut.
  std::string Live(bool die, WholeCut* cut) {
    const uint64_t death = 400 + Below(200);
    for (uint64_t step = 0; step < 100000; ++step) {
      if (die && step == death) return TakeCut(cut);
      bool finished = true;
      for (Server& server : servers_) {
        for (const Leg& leg : server.legs) finished &= leg.clock >= kClocks;
        if (die && server.cut == nullptr && step >= server.cut_at) {
          server.cut = std::make_shared<KeptCut>();
          EXPECT_TRUE(server.h->node->BeginCut(Clock(0), server.cut).ok());
        }
        if (Below(60) == 0) server.h->node->PumpCut();
      }
      if (finished && !die) return {};
      if (std::string wrong = Act(); !wrong.empty()) return wrong;
    }
    return absl::StrCat("stalled\n", servers_[0].h->node->DebugState());
  }

  // One message of a random rank to a random server: of its clock there, again or for the first time, or a late one.
  std::string Act() {
    Server& server = servers_[Below(servers_.size())];
    const auto r = static_cast<uint32_t>(Below(kRanks));
    Leg& leg = server.legs[r];
    uint64_t clock = leg.clock;
    if (Below(8) == 0 && leg.oldest < clock) clock = leg.oldest + Below(clock - leg.oldest);
    uint64_t least = clock;
    for (const Server& other : servers_) least = std::min(least, other.legs[r].clock);
    if (clock >= kClocks || clock > least + kAhead) return {};
    std::vector<Request> messages = Push(server, r, clock);
    std::vector<Reply> replies = server.h->Do(std::move(messages[Below(messages.size())]));
    if (!server.h->failure.ok()) return std::string(server.h->failure.message());
    for (const Reply& reply : replies) {
      if (!reply.refusal.ok()) return std::string(reply.refusal.message());
      if (!reply.ack) continue;
      const PushAck& ack = *reply.ack;
      if (ack.outcome != Outcome::kApplied && ack.outcome != Outcome::kDuplicate) return ack.message;
      counted_again_ += ack.outcome == Outcome::kDuplicate && ack.complete && clock == leg.clock;
      if (ack.complete && clock == leg.clock) ++leg.clock;
    }
    return {};
  }

  template <typename F>
  static void ForEachBlock(const Server& server, F f) {
    const StoreOptions& store = server.options.store;
    for (uint32_t t = 0; t < store.tensors.size(); ++t) {
      for (uint32_t b = 0; b < store.geometry.blocks(store.tensors[t]); ++b) {
        const BlockId id{TensorId(t), b};
        if (store.map.server(id) == store.self) f(id);
      }
    }
  }

  // A message for each contribution, or an empty one.
  static std::vector<Request> Push(Server& server, uint32_t rank, uint64_t clock) {
    std::vector<float> row(kRanks, 0.0f);
    row[rank] = std::ldexp(1.0f, static_cast<int>(clock));
    std::vector<Request> out;
    ForEachBlock(server, [&](BlockId id) {
      if (id.tensor.value == 0) {
        out.push_back(server.h->PushOf(rank, clock, {id.index}, 0, Floats(row)));
        return;
      }
      std::vector<uint64_t> keys;
      std::vector<float> rows;
      for (uint64_t key = 0; key < kKeys; ++key) {
        if (server.options.store.geometry.slot(key) != id.index || !HasKey(rank, clock, key)) continue;
        keys.push_back(key);
        rows.insert(rows.end(), row.begin(), row.end());
      }
      if (keys.empty()) return;
      Request request = server.h->PushOf(rank, clock, {}, 0, Bytes(keys.data(), keys.size() * sizeof(uint64_t)));
      request.payload.Append(Floats(rows));
      request.push->sparse = {SparsePart{id, static_cast<uint32_t>(keys.size())}};
      out.push_back(std::move(request));
    });
    const auto announced = static_cast<uint32_t>(out.size());
    if (out.empty()) out.push_back(server.h->PushOf(rank, clock, {}, 0, Payload()));
    for (Request& request : out) request.push->contributions = announced;
    return out;
  }

  // What element `rank` holds after the clocks below `mark`: of key `key`, or of a dense block.
  static float After(uint32_t rank, uint64_t mark, const uint64_t* key) {
    double sum = 0;
    for (uint64_t c = 0; c < mark; ++c) {
      if (key == nullptr || HasKey(rank, c, *key)) sum += std::ldexp(1.0, static_cast<int>(c));
    }
    return static_cast<float>(sum);
  }
  // The block holds exactly the clocks below its marks.
  static std::string CheckImage(const BlockExport& image, const std::vector<uint64_t>& marks) {
    std::vector<std::byte> bytes(image.payload.size());
    image.payload.CopyTo(bytes.data());
    const bool sparse = image.id.tensor.value == 1;
    const size_t rows = sparse ? image.keys : 1;
    const size_t begin = sparse ? rows * sizeof(uint64_t) : 0;
    for (size_t i = 0; i < rows; ++i) {
      uint64_t key = 0;
      if (sparse) std::memcpy(&key, bytes.data() + i * sizeof(key), sizeof(key));
      for (uint32_t r = 0; r < kRanks; ++r) {
        float value;
        std::memcpy(&value, bytes.data() + begin + (i * kRanks + r) * sizeof(float), sizeof(float));
        const float want = After(r, marks[r], sparse ? &key : nullptr);
        if (value == want) continue;
        return absl::StrCat("tensor ", image.id.tensor.value, ", block ", image.id.index, ", key ", key, " holds ",
                            value, " of rank ", r, ", which is not ", want, ", the clocks below ", marks[r]);
      }
    }
    return {};
  }

  std::string TakeCut(WholeCut* cut) {
    cut->clear();
    for (Server& server : servers_) {
      while (server.h->node->PumpCut()) {
      }
      if (!server.cut->done()) return "a cut is not whole";
      for (const auto& [id, record] : server.cut->records()) {
        if (!cut->emplace(id, record).second) return "two servers imaged the same block";
        if (std::string wrong = CheckImage(record.image, record.marks); !wrong.empty()) {
          return absl::StrCat("in the cut, ", wrong);
        }
      }
    }
    return cut->size() == kBlocks + kSlots ? "" : "blocks are missing in the cut";
  }

  std::string CheckEnd() {
    for (Server& server : servers_) {
      std::string wrong;
      ForEachBlock(server, [&](BlockId id) {
        const BlockExport image = server.h->node->store().Export(id, true).value();
        const std::vector<uint64_t> all(kRanks, kClocks);
        if (wrong.empty()) wrong = CheckImage(image, all);
        if (wrong.empty() && server.h->node->Marks(id) != all) wrong = "a block's marks are not those of the end";
      });
      if (!wrong.empty()) return absl::StrCat("in the end, ", wrong);
    }
    return {};
  }

  const EngineFault fault_;
  const RandomStream random_;
  uint64_t draw_ = 0;
  std::vector<Server> servers_;
  uint64_t ahead_ = 0, counted_again_ = 0;
};

TEST(CutLedger, EveryContributionIsInOnceAcrossDeaths) {
  uint64_t ahead = 0, counted_again = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    CutLedger ledger(seed, EngineFault::kNone);
    ASSERT_EQ(ledger.Run(), "") << "seed " << seed;
    ahead += ledger.ahead();
    counted_again += ledger.counted_again();
  }
  EXPECT_GT(ahead, 1000u);
  EXPECT_GT(counted_again, 100u);
}

TEST(CutLedger, SeededBugsAreFound) {
  for (EngineFault fault : {EngineFault::kMarksNotInCut, EngineFault::kCutTorn}) {
    std::string found;
    for (uint64_t seed = 0; seed < 40 && found.empty(); ++seed) found = CutLedger(seed, fault).Run();
    const char* where = fault == EngineFault::kCutTorn ? "in the cut, " : "holds ";
    EXPECT_NE(found.find(where), std::string::npos) << static_cast<int>(fault) << ": " << found;
  }
}

}  // namespace
}  // namespace descent
