// What primaries are told of their backups: line by line, and in random lives of a table of replicas with the nodes
// that obey it.
#include "server/replica/backup_orders.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/philox.h"
#include "server/coordinator/replica_table.h"
#include "server/node/node_harness.h"
#include "server/replica/primary_node.h"

namespace descent {
namespace {

using Kind = BackupOrders::Kind;

v1::Seat Primary(uint64_t view, bool await_backup, const std::string& address) {
  v1::Seat seat;
  seat.set_primary(true);
  seat.set_view(view);
  seat.set_await_backup(await_backup);
  seat.set_backup_address(address);
  return seat;
}

struct DeafLink final : BackupLink {
  void Send(Request) override {}
};

struct NoOutput final : ServerNode::Output {
  void Send(ConnectionId, Reply) override {}
  void Fail(absl::Status) override {}
  void Scalars(Clock, std::vector<BlockSquare>) override {}
};

std::unique_ptr<PrimaryNode> MakePrimary(uint64_t view, ServerNode::Output* output) {
  static const ServerNodeOptions options = NodeHarness::AddingJob({NodeHarness::Dense("w", 4)}, {4, 4}, 1);
  PrimaryOptions primary;
  primary.view = view;
  return std::move(PrimaryNode::Create(options, primary, output).value());
}

TEST(BackupOrders, FollowTheViewsOfTheSeat) {
  BackupOrders orders;
  orders.Begin(0);
  const auto take = [&](const v1::Seat& want) {
    const BackupOrders::Order order = orders.Take(want);
    return std::pair(order.kind, order.view);
  };
  const std::pair<Kind, uint64_t> nothing(Kind::kNothing, 0);
  EXPECT_EQ(take(Primary(3, true, "")), nothing) << "its backup has not said where it listens";
  EXPECT_EQ(take(Primary(3, true, "b:1")), std::pair(Kind::kBackup, uint64_t{3}));
  EXPECT_TRUE(orders.linked());
  EXPECT_EQ(take(Primary(3, true, "b:1")), nothing);
  EXPECT_EQ(take(Primary(5, true, "")), std::pair(Kind::kAlone, uint64_t{3})) << "nobody waits for the one before";
  EXPECT_EQ(take(Primary(5, true, "")), nothing);
  EXPECT_EQ(take(Primary(5, true, "c:1")), std::pair(Kind::kBackup, uint64_t{5}));
  EXPECT_EQ(take(Primary(6, false, "")), std::pair(Kind::kAlone, uint64_t{6}));
  EXPECT_EQ(take(Primary(6, false, "")), nothing);
  EXPECT_FALSE(orders.linked());
  // Promoted: it is told of its new view.
  orders.Begin(7);
  EXPECT_EQ(take(Primary(8, false, "")), std::pair(Kind::kAlone, uint64_t{8}));
}

// Why the orders of a view must be what they are.
TEST(BackupOrders, ANodeThatHasLetGoOfABackupDoesNotTakeItBackInThatView) {
  NoOutput output;
  const std::unique_ptr<PrimaryNode> node = MakePrimary(0, &output);
  auto link = std::make_shared<DeafLink>();
  node->GoAlone(1);
  node->SetBackup(1, link, false);
  EXPECT_TRUE(node->Uses(link)) << "a view may begin alone";
  node->GoAlone(1);
  node->SetBackup(1, link, false);
  EXPECT_FALSE(node->Uses(link)) << "what was answered meanwhile the backup lacks";
  node->SetBackup(2, link, false);
  EXPECT_TRUE(node->Uses(link));
}

// Processes that obey a coordinator's table, and its successors', as server/process/seat.h does.
class Lives {
 public:
  explicit Lives(uint64_t seed) : dice_(seed, Purpose::kTest, 0, 0) {
    for (uint32_t k = 0; k < kServers; ++k) members_.emplace(++last_member_, Seats());
    Begin();
  }
  void Run(int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFailure(); ++step) Step();
  }

  int backups = 0, alone = 0, promotions = 0, adoptions = 0;

 private:
  static constexpr uint32_t kServers = 3;

  struct Seat {
    bool primary = true;
    uint64_t told = 0;  // view
    BackupOrders orders;
    std::unique_ptr<PrimaryNode> node;
    std::shared_ptr<DeafLink> link;
    std::string address;
  };
  struct Seats {
    uint64_t generation = 0;
    std::map<uint32_t, Seat> of;  // by server
  };

  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(dice_.Below(drawn_++, n)); }
  MemberId Anybody() {
    auto it = members_.begin();
    std::advance(it, Below(static_cast<uint32_t>(members_.size())));
    return MemberId(it->first);
  }

  // A generation that goes on with nothing that anybody holds; where too few live, with new processes.
  void Begin() {
    while (members_.size() < kServers) members_.emplace(++last_member_, Seats());
    std::vector<MemberId> home;
    for (const auto& [id, seats] : members_) {
      if (home.size() < kServers) home.push_back(MemberId(id));
    }
    ++generation_;
    table_.Begin(home, std::vector<std::string>(kServers, "home"));
  }

  void Step() {
    switch (Below(16)) {
      case 0: {
        if (members_.size() <= 2) break;
        const MemberId dead = Anybody();
        members_.erase(dead.value);
        const ReplicaTable::Loss loss = table_.Lost(dead);
        promotions += static_cast<int>(loss.promoted.size());
        if (!loss.lost.empty()) {
          table_.Halt();
          Begin();
        }
        break;
      }
      case 1:
        if (members_.size() >= kServers + 2) break;
        members_.emplace(++last_member_, Seats());
        table_.Joined(MemberId(last_member_));
        break;
      case 2:
        table_.GiveUpBackup(ServerId(Below(kServers)));
        break;
      case 3:
        table_.Join(ServerId(Below(kServers)), Anybody());
        break;
      case 4:
        if (Below(4) == 0) AnotherCoordinator();
        break;
      case 5:
      case 6:
        MakeLasting();
        break;
      default:
        Beat(Anybody());
    }
  }

  void MakeLasting() {
    lasting_ = table_.Lasting();
    lasting_.set_generation(generation_);
    lasting_change_ = table_.changes();
  }

  void AnotherCoordinator() {
    std::vector<ReplicaTable::Held> held;
    std::vector<MemberId> there;
    for (const auto& [id, seats] : members_) {
      there.push_back(MemberId(id));
      for (const auto& [server, seat] : seats.of)
        held.push_back({MemberId(id), Report(server, seat), seats.generation});
    }
    table_ = ReplicaTable();
    lasting_change_ = 0;
    if (lasting_.view_size() > 0 && there.size() >= 2 && table_.Adopt(lasting_, held, there)) {
      ++generation_;
      ++adoptions;
    } else {
      Begin();
    }
  }

  v1::SeatReport Report(uint32_t server, const Seat& seat) {
    v1::SeatReport report;
    report.set_server(server);
    report.set_primary(seat.primary);
    report.set_view(seat.told);
    report.set_address(seat.address);
    report.set_ready(true);
    report.set_synced(seat.primary && seat.orders.linked() && seat.orders.view() == seat.told && Below(2) == 0);
    report.set_whole(!seat.primary);
    return report;
  }

  // Hears what lasts, does it, and says so; or is not heard.
  void Beat(MemberId id) {
    if (table_.changes() != lasting_change_) return;
    Seats& seats = members_.at(id.value);
    std::map<uint32_t, v1::Seat> wanted;
    for (v1::Seat& want : table_.SeatsOf(id)) wanted[want.server()] = std::move(want);
    const bool begins = seats.generation != generation_;
    std::erase_if(seats.of, [&](const auto& s) {
      const auto want = wanted.find(s.first);
      return want == wanted.end() || (begins && !want->second.carried());
    });
    seats.generation = generation_;
    for (const auto& [server, want] : wanted) {
      Obey(&seats.of[server], want, absl::StrCat("m", id.value, ":", server));
      if (Below(3) > 0) table_.Report(id, Report(server, seats.of.at(server)));
    }
  }

  void Obey(Seat* seat, const v1::Seat& want, std::string address) {
    if (seat->node == nullptr || (!want.primary() && want.view() != seat->told)) {
      const uint64_t view = want.primary() ? 0 : want.view();
      seat->node = MakePrimary(view, &output_);
      seat->link.reset();
      seat->orders.Begin(view);
      seat->address = std::move(address);
    }
    seat->primary = want.primary();
    const uint64_t before = std::exchange(seat->told, want.view());
    if (!want.primary()) return;
    EXPECT_GE(want.view(), before) << "views only grow";
    const BackupOrders::Order order = seat->orders.Take(want);
    if (order.kind == Kind::kAlone) {
      ++alone;
      seat->node->GoAlone(order.view);
    } else if (order.kind == Kind::kBackup) {
      ++backups;
      seat->link = std::make_shared<DeafLink>();
      seat->node->SetBackup(order.view, seat->link, want.fresh());
    }
    const bool linked = want.await_backup() && !want.backup_address().empty();
    const bool has = seat->link != nullptr && seat->node->Uses(seat->link);
    EXPECT_EQ(has, linked) << "server " << want.server() << ", view " << want.view();
    if (linked) {
      EXPECT_EQ(seat->node->view(), want.view());
    }
  }

  const RandomStream dice_;
  uint64_t drawn_ = 0;
  NoOutput output_;  // outlives the nodes
  std::map<uint64_t, Seats> members_;
  uint64_t last_member_ = 0, generation_ = 0;
  ReplicaTable table_;
  v1::ReplicaViews lasting_;
  uint64_t lasting_change_ = 0;
};

TEST(BackupOrders, NoPrimaryIsLeftAloneThatWasToldOfABackup) {
  int backups = 0, alone = 0, promotions = 0, adoptions = 0;
  for (uint64_t seed = 1; seed <= 60 && !HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Lives lives(seed);
    lives.Run(2000);
    backups += lives.backups;
    alone += lives.alone;
    promotions += lives.promotions;
    adoptions += lives.adoptions;
  }
  EXPECT_GT(backups, 1000);
  EXPECT_GT(alone, 1000);
  EXPECT_GT(promotions, 100);
  EXPECT_GT(adoptions, 100);
}

}  // namespace
}  // namespace descent
