// For tests: ranks that push to and read from one server whose primary passes everything on to a backup over a link
// that delays, loses and breaks; primaries die, backups go and join, all in an order drawn from a seed.
//
// What is checked on the way: what was acknowledged as complete is in the marks of a promoted backup; a version that
// was read never has other bits again, and is never taken back; the node that is left has the bits of one that was
// given the same pushes in the same order by nobody's disturbance.
#ifndef DESCENT_SERVER_REPLICA_REPLICA_WORLD_H_
#define DESCENT_SERVER_REPLICA_REPLICA_WORLD_H_

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/philox.h"
#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"
#include "server/replica/backup_node.h"
#include "server/replica/primary_node.h"

namespace descent::replica_world {

using H = NodeHarness;

inline constexpr uint32_t kRanks = 3;
inline constexpr uint64_t kKeys = 24;
inline constexpr uint32_t kDim = 2;

struct Case {
  bool adam = true;
  bool push = false;
  uint64_t staleness = 0;
  bool dense = true, sparse = true;
  uint64_t clocks = 14;
  ReplicaFault fault = ReplicaFault::kNone;
};

inline ServerNodeOptions Options(const Case& c) {
  std::vector<TensorSpec> tensors;
  if (c.dense) tensors.push_back(H::Dense("w", 20));
  if (c.sparse) tensors.push_back(H::Table("emb", kDim));
  for (TensorSpec& spec : tensors) spec.initializer = {Initializer::Kind::kUniform, 0.5};
  ServerNodeOptions o = H::AddingJob(std::move(tensors), {8, 4}, kRanks);
  v1::Optimizer rule;
  c.adam ? void(rule.mutable_adam()) : void(rule.mutable_adagrad());
  o.store.rule = std::move(UpdateRule::Make(rule).value());
  o.store.rate = [](Clock at) { return 0.1f / static_cast<float>(at.value + 1); };
  o.store.reduce_sum = false;
  o.store.l2 = 0.01f;
  o.store.apply_push = c.push;
  o.staleness = c.staleness;
  o.cut_every = c.push ? 0 : 5;
  o.max_held_pulls = 100000;  // reads beside pushes pile up while a link is down
  return o;
}

// A server process: backup at first or from the beginning primary.
struct Process final : ServerNode::Output {
  void Send(ConnectionId to, Reply reply) override { out.emplace_back(to, std::move(reply)); }
  void Fail(absl::Status cause) override { problem = cause.ToString(); }
  void Scalars(Clock, std::vector<BlockSquare>) override {}
  std::shared_ptr<CutSink> BeginCut(Clock) override { return std::make_shared<KeptCut>(); }

  std::unique_ptr<PrimaryNode> node;
  BackupNode* backup = nullptr;
  std::deque<std::pair<ConnectionId, Reply>> out;
  std::string problem;
};

struct Counts {
  int kills = 0, joins = 0, losses = 0, dropped_links = 0, fences = 0, unacknowledged = 0, held = 0;
  uint64_t acknowledged = 0;  // contributions, as complete
};

class World {
 public:
  World(const Case& c, uint64_t seed) : case_(c), options_(Options(c)), random_(seed, Purpose::kTest, 7, 0) {
    primary_ = NewPrimary();
    for (uint32_t r = 0; r < kRanks; ++r) {
      workers_.emplace_back();
      primary_->node->OnOpen(ConnectionId(1 + r), now_, false);
      Begin(r);
    }
    Join(/*fresh=*/Below(2) == 0);
  }

  // "": everything holds.
  std::string Run() {
    for (int step = 0; problem_.empty() && !AllDone(); ++step) {
      if (step > 200000) {
        Problem(absl::StrCat("no end: ", primary_->node->DebugState()));
        break;
      }
      Step();
    }
    for (int i = 0; problem_.empty() && i < 20000 && !Quiet(); ++i) {
      if (!up_) LinkUp();
      if (i % 1000 == 999) Tick();
      DeliverToBackup();
      DeliverToPrimary();
      primary_->node->PumpCut();
    }
    if (problem_.empty()) Compare(*primary_->node, "the primary in the end");
    if (problem_.empty() && link_ != nullptr && primary_->node->synced()) Compare(*backup_->node, "its backup");
    return problem_;
  }
  const Counts& counts() const { return counts_; }

 private:
  struct Worker {
    uint64_t clock = 0;
    uint64_t incarnation = 1;
    bool reading = true;
    bool asked = false;
    uint64_t read = 0;  // the request
    std::vector<Request> unsent;
    std::vector<Request> late;  // copies that may come at any time
  };
  struct Link final : BackupLink {
    explicit Link(World* w, uint64_t v) : world(w), view(v) {}
    void Send(Request request) override {
      passed = request.push ? request.replica->sequence : passed;
      if (world->link_.get() == this && world->up_) to_backup.push_back(std::move(request));
    }
    World* const world;
    const uint64_t view;
    uint64_t passed = 0;  // the newest push
    std::deque<Request> to_backup;
    std::deque<Reply> to_primary;
  };
  struct Logged {
    Request push;
    std::vector<std::pair<Rank, Incarnation>> fences;  // raised before it
    uint64_t sequence = 0;                             // within the view in force; 0: before that
  };

  uint64_t Below(uint64_t n) { return random_.Below(draw_++, n); }
  void Problem(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
  }
  bool AllDone() const {
    return std::all_of(workers_.begin(), workers_.end(), [&](const Worker& w) { return w.clock == case_.clocks; });
  }
  bool Quiet() const {
    return link_ == nullptr || (primary_->node->unconfirmed_bytes() == 0 && link_->to_backup.empty() &&
                                link_->to_primary.empty() && backup_->out.empty());
  }

  // --- Processes
  std::unique_ptr<Process> NewPrimary() {
    auto p = std::make_unique<Process>();
    p->node = std::move(PrimaryNode::Create(options_, {.fault = case_.fault}, p.get()).value());
    return p;
  }
  std::unique_ptr<Process> NewBackup(uint64_t view, bool fresh) {
    auto p = std::make_unique<Process>();
    const MakeNode make = [&](ServerNodeOptions o,
                              ServerNode::Output* out) -> absl::StatusOr<std::unique_ptr<ServerNode>> {
      auto made = BackupNode::Create(std::move(o), view, fresh, out);
      if (made.ok()) p->backup = made->get();
      return made;
    };
    p->node = std::move(PrimaryNode::Create(options_, {.fault = case_.fault}, p.get(), make).value());
    return p;
  }
  void Join(bool fresh) {
    ++counts_.joins;
    backup_ = NewBackup(++view_, fresh);
    up_ = false;
    link_ = std::make_shared<Link>(this, view_);
    for (Logged& l : log_) l.sequence = 0;
    primary_->node->SetBackup(view_, link_, fresh);
    if (Below(4) != 0) LinkUp();
  }
  void BackupDies() {
    link_.reset();
    backup_.reset();
    primary_->node->GoAlone(++view_);
  }
  void PrimaryDies() {
    ++counts_.kills;
    if (const absl::Status s = backup_->backup->Promote(); !s.ok()) return Problem(s.ToString());
    if (up_) backup_->node->OnClose(ConnectionId(connection_), now_);
    const uint64_t has = backup_->backup->sequence();
    const size_t before = log_.size();
    log_.erase(std::remove_if(log_.begin(), log_.end(), [&](const Logged& l) { return l.sequence > has; }), log_.end());
    counts_.unacknowledged += static_cast<int>(before - log_.size());
    primary_ = std::move(backup_);
    primary_->out.clear();
    primary_->node->GoAlone(++view_);
    link_.reset();
    for (uint32_t r = 0; r < kRanks; ++r) {
      // Fences that the old primary may have kept to itself.
      primary_->node->Fence(Rank(r), {Generation(3), workers_[r].incarnation});
      late_fences_.emplace_back(Rank(r), Incarnation{Generation(3), workers_[r].incarnation});
      primary_->node->OnOpen(ConnectionId(1 + r), now_, false);
      for (const auto& [id, seen] : seen_) {
        if (workers_[r].clock > primary_->node->Marks(id)[r]) {
          Problem(absl::StrCat("rank ", r, " was told that clock ", workers_[r].clock - 1, " is complete, the mark is ",
                               primary_->node->Marks(id)[r]));
        }
        if (seen > primary_->node->store().version(id)) Problem("a version that was read is gone");
      }
      Begin(r);
    }
  }

  // --- The link
  void LinkUp() {
    up_ = true;
    backup_->node->OnOpen(ConnectionId(connection_ = ++last_connection_), now_, false);
    primary_->node->OnLinkUp(view_);
  }
  void LinkDown() {
    ++counts_.dropped_links;
    up_ = false;
    link_->to_backup.clear();
    link_->to_primary.clear();
    backup_->out.clear();
    backup_->node->OnClose(ConnectionId(connection_), now_);
  }
  void DeliverToBackup() {
    if (link_ == nullptr || link_->to_backup.empty()) return;
    Request request = std::move(link_->to_backup.front());
    link_->to_backup.pop_front();
    backup_->node->OnRequest(ConnectionId(connection_), std::move(request), now_);
  }
  void DeliverToPrimary() {
    if (link_ == nullptr) return;
    if (!backup_->out.empty()) {
      link_->to_primary.push_back(std::move(backup_->out.front().second));
      backup_->out.pop_front();
      backup_->node->OnSent(ConnectionId(connection_), now_);
    } else if (!link_->to_primary.empty()) {
      const Reply reply = std::move(link_->to_primary.front());
      link_->to_primary.pop_front();
      if (!reply.refusal.ok() && reply.refusal.code() != absl::StatusCode::kOutOfRange) {
        Problem(reply.refusal.ToString());
      }
      if (reply.refusal.ok()) primary_->node->OnConfirmed(view_, reply.replicated);
    }
  }
  void Tick() {
    now_ += absl::Minutes(2);
    if (primary_->node->next_timer() <= now_) primary_->node->OnTimer(now_);
  }

  // --- Ranks
  void Begin(uint32_t r) {
    Worker& w = workers_[r];
    w.asked = false;
    if (w.clock < case_.clocks) w.unsent = Pushes(r, w.clock, w.incarnation);
  }
  template <typename F>
  void ForEachBlock(F f) const {
    const StoreOptions& store = options_.store;
    for (uint32_t t = 0; t < store.tensors.size(); ++t) {
      for (uint32_t b = 0; b < store.geometry.blocks(store.tensors[t]); ++b) f(BlockId{TensorId(t), b});
    }
  }
  std::vector<uint64_t> KeysOf(uint32_t slot) const {
    std::vector<uint64_t> keys;
    for (uint64_t key = 0; key < kKeys; ++key) {
      if (options_.store.geometry.slot(key) == slot) keys.push_back(key);
    }
    return keys;
  }
  Request NewRequest() {
    Request request;
    request.envelope = options_.envelope;
    request.id = ++last_id_;
    return request;
  }
  std::vector<Request> Pushes(uint32_t r, uint64_t c, uint64_t incarnation) {
    const bool empty = c % 7 == 4 && r == 1;
    const RandomStream random((r * 1000 + c) * 100 + incarnation, Purpose::kTest, 2, 0);
    // Which keys a rank has at a clock does not change with who computes it.
    const RandomStream which(r * 1000 + c, Purpose::kTest, 3, 0);
    std::vector<Request> out;
    ForEachBlock([&](BlockId id) {
      if (empty) return;
      const TensorSpec& spec = options_.store.tensors[id.tensor.value];
      Request request = NewRequest();
      request.push.emplace();
      std::vector<float> values;
      const auto draw = [&](uint64_t at) { values.push_back(static_cast<float>(random.Normal(at))); };
      if (spec.sparse) {
        std::vector<uint64_t> keys;
        for (uint64_t key : KeysOf(id.index)) {
          if (which.Below(key, 3) == 0) keys.push_back(key);
        }
        if (keys.empty()) return;
        for (uint64_t key : keys) {
          for (uint32_t d = 0; d < kDim; ++d) draw(1000 + key * kDim + d);
        }
        request.push->sparse = {SparsePart{id, static_cast<uint32_t>(keys.size())}};
        request.payload = Bytes(keys.data(), keys.size() * sizeof(uint64_t));
      } else {
        for (size_t i = 0; i < options_.store.geometry.block_size(spec, id.index); ++i) draw(id.index * 100 + i);
        request.push->dense = {DensePart{id}};
      }
      request.payload.Append(Floats(values));
      out.push_back(std::move(request));
    });
    const auto announced = static_cast<uint32_t>(out.size());
    if (out.empty()) {
      out.push_back(NewRequest());
      out.back().push.emplace();
    }
    for (Request& request : out) {
      request.push->rank = Rank(r);
      request.push->incarnation = {Generation(3), incarnation};
      request.push->clock = Clock(c);
      request.push->weight = {empty ? 0.0 : 2.0 + r};
      request.push->contributions = announced;
    }
    return out;
  }
  void SendPush(uint32_t r, Request request) {
    Logged logged{request, std::exchange(late_fences_, {}), 0};
    const uint64_t before = link_ == nullptr ? 0 : link_->passed;
    // Some pushes carry a read and a question along, which the backup must not see.
    if (Below(8) == 0) {
      request.pull = PullFrame{Rank(r), Clock(0), true, {}, {}, true};
      request.expected_of = {Rank(r)};
    }
    primary_->node->OnRequest(ConnectionId(1 + r), std::move(request), now_);
    if (link_ != nullptr && link_->passed != before) logged.sequence = link_->passed;
    log_.push_back(std::move(logged));
  }
  void Act(uint32_t r) {
    Worker& w = workers_[r];
    if (!w.late.empty() && Below(6) == 0) {
      SendPush(r, w.late[Below(w.late.size())]);
      return;
    }
    if (w.clock == case_.clocks) return;
    if (w.reading) {
      if (w.asked) return;
      w.asked = true;
      Request request = NewRequest();
      w.read = request.id;
      request.pull = PullFrame{Rank(r), Clock(w.clock), true, {}, {}, false};
      ForEachBlock([&](BlockId id) {
        if (!options_.store.tensors[id.tensor.value].sparse) return;
        const std::vector<uint64_t> keys = KeysOf(id.index);
        request.pull->sparse.push_back({id, static_cast<uint32_t>(keys.size())});
        request.payload.Append(Bytes(keys.data(), keys.size() * sizeof(uint64_t)));
      });
      primary_->node->OnRequest(ConnectionId(1 + r), std::move(request), now_);
    } else if (!w.unsent.empty()) {
      std::swap(w.unsent[Below(w.unsent.size())], w.unsent.back());
      Request request = std::move(w.unsent.back());
      w.unsent.pop_back();
      if (Below(5) == 0) w.late.push_back(request);
      SendPush(r, std::move(request));
    }
  }
  void NewHolder(uint32_t r) {
    ++counts_.fences;
    Worker& w = workers_[r];
    const Incarnation next{Generation(3), ++w.incarnation};
    // Some holders come before the coordinator's word.
    if (Below(2) == 0) {
      primary_->node->Fence(Rank(r), next);
      late_fences_.emplace_back(Rank(r), next);
    }
    Begin(r);
  }
  void OnReply(uint32_t r, const Reply& reply) {
    Worker& w = workers_[r];
    if (!reply.refusal.ok()) return Problem(reply.refusal.ToString());
    if (reply.ack && reply.ack->outcome == Outcome::kRefused) return Problem(reply.ack->message);
    // What was too early comes again.
    if (reply.ack && reply.ack->outcome == Outcome::kTooEarly && !w.reading) Begin(r);
    if (reply.pull_done && w.reading && w.asked && reply.id == w.read) {
      CheckRead(w, reply);
      w.reading = false;
    }
    if (!reply.dense.empty() || !reply.sparse.empty()) Remember(reply);
    if (reply.ack && reply.ack->complete && reply.ack->clock.value == w.clock) {
      counts_.acknowledged += reply.ack->admitted;
      ++w.clock;
      w.reading = true;
      Begin(r);
    }
  }
  void CheckRead(const Worker& w, const Reply& reply) {
    if (case_.push || case_.staleness == kUnbounded) return;
    const uint64_t version = w.clock - std::min(w.clock, case_.staleness);
    if (reply.done_below.value != version) {
      Problem(absl::StrCat("a read for clock ", w.clock, " is of version ", reply.done_below.value));
    }
  }
  // A version has the same bits for ever.
  void Remember(const Reply& reply) {
    PayloadReader reader(reply.payload);
    const auto look = [&](BlockId id, uint64_t version, size_t bytes) {
      std::string now(bytes, '\0');
      reader.CopyTo(now.data(), bytes);
      seen_[id] = std::max(seen_[id], version);
      if (case_.push && options_.store.tensors[id.tensor.value].sparse) return;  // rows decay without a version
      const auto [it, first] = reads_.emplace(std::pair(id, version), now);
      if (!first && it->second != now) {
        Problem(absl::StrCat("version ", version, " of block ", id.tensor.value, "/", id.index, " has changed"));
      }
    };
    for (const DensePart& part : reply.dense) {
      look(part.id, part.version,
           4 * options_.store.geometry.block_size(options_.store.tensors[part.id.tensor.value], part.id.index));
    }
    for (const SparsePart& part : reply.sparse) look(part.id, part.version, size_t{4} * part.keys * kDim);
  }

  void Step() {
    const uint64_t what = Below(1000);
    if (what < 400) {
      Act(static_cast<uint32_t>(Below(kRanks)));
    } else if (what < 600) {
      if (primary_->out.empty()) return;
      auto [to, reply] = std::move(primary_->out.front());
      primary_->out.pop_front();
      primary_->node->OnSent(to, now_);
      OnReply(static_cast<uint32_t>(to.value) - 1, reply);
    } else if (what < 790) {
      counts_.held += primary_->node->held_replies() > 0;
      DeliverToBackup();
    } else if (what < 970) {
      DeliverToPrimary();
    } else if (what < 980) {
      primary_->node->PumpCut();
    } else if (what < 984) {
      if (link_ == nullptr) return;
      up_ ? LinkDown() : LinkUp();
    } else if (what < 986) {
      if (link_ == nullptr || link_->to_backup.empty()) return;
      ++counts_.losses;
      link_->to_backup.pop_front();
    } else if (what < 989) {
      if (!up_ && link_ != nullptr) LinkUp();
      Tick();
    } else if (what < 991) {
      NewHolder(static_cast<uint32_t>(Below(kRanks)));
    } else if (what < 992) {
      if (Below(2) == 0) {
        primary_->node->DropCut();
      } else {
        primary_->node->BeginCut(Clock(primary_->node->stats().round + 1), std::make_shared<KeptCut>()).IgnoreError();
      }
    } else if (what < 996) {
      if (link_ != nullptr && primary_->node->synced()) PrimaryDies();
    } else if (what < 999) {
      if (link_ == nullptr) Join(/*fresh=*/Below(3) == 0);
    } else {
      if (link_ != nullptr && Below(3) == 0) BackupDies();
    }
    for (const Process* p : {primary_.get(), backup_.get()}) {
      if (p != nullptr && !p->problem.empty()) Problem(p->problem);
    }
  }

  // --- The reference
  void Compare(ServerNode& node, const std::string& who) {
    H reference(options_);
    for (const Logged& logged : log_) {
      for (const auto& [rank, incarnation] : logged.fences) reference.node->Fence(rank, incarnation);
      reference.Do(logged.push);
    }
    ForEachBlock([&](BlockId id) {
      if (node.Marks(id) != reference.node->Marks(id)) Problem(absl::StrCat(who, " has other marks"));
      const BlockExport want = reference.node->store().Export(id, true).value();
      const BlockExport got = node.store().Export(id, true).value();
      const auto bytes = [](const Payload& payload) {
        std::string out(payload.size(), '\0');
        payload.CopyTo(out.data());
        return out;
      };
      if (want.version != got.version || want.steps != got.steps || bytes(want.payload) != bytes(got.payload)) {
        Problem(absl::StrCat(who, " has other bits in block ", id.tensor.value, "/", id.index, ", version ",
                             got.version, " for ", want.version, ", steps ", got.steps, " for ", want.steps));
      }
    });
  }

  const Case case_;
  const ServerNodeOptions options_;
  const RandomStream random_;
  uint64_t draw_ = 0;
  absl::Time now_ = absl::UnixEpoch();
  std::unique_ptr<Process> primary_, backup_;
  std::shared_ptr<Link> link_;
  bool up_ = false;
  uint64_t view_ = 0, last_id_ = 0, connection_ = 0, last_connection_ = 100;
  std::vector<Worker> workers_;
  std::vector<Logged> log_;
  std::vector<std::pair<Rank, Incarnation>> late_fences_;
  std::map<std::pair<BlockId, uint64_t>, std::string> reads_;
  std::map<BlockId, uint64_t> seen_;  // newest version read
  std::string problem_;
  Counts counts_;
};

}  // namespace descent::replica_world

#endif  // DESCENT_SERVER_REPLICA_REPLICA_WORLD_H_
