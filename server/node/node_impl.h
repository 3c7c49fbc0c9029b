// ServerNode's implementation. Pushes (push.cc): checked, decided by the engine, carried out on the store. Reads
// (pull.cc): held until the engine releases them, then answered lazily, a reply at a time while the connection's send
// window is open, so that what waits costs references and not bytes. Cuts: cut.cc, restore.cc.
#ifndef DESCENT_SERVER_NODE_NODE_IMPL_H_
#define DESCENT_SERVER_NODE_NODE_IMPL_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/wire/read_vector.h"
#include "server/core/engine.h"
#include "server/node/block_index.h"
#include "server/node/order_log.h"
#include "server/node/request_check.h"
#include "server/node/server_node.h"

namespace descent {

class NodeImpl final : public ServerNode {
 public:
  NodeImpl(ServerNodeOptions options, std::unique_ptr<BlockStore> store, Output* output);

  void OnOpen(ConnectionId connection, absl::Time now, bool unary) override;
  void OnClose(ConnectionId connection, absl::Time now) override;
  void OnRequest(ConnectionId connection, Request request, absl::Time now) override;
  void OnSent(ConnectionId connection, absl::Time now) override;
  void OnTimer(absl::Time now) override;
  absl::Time next_timer() const override { return engine_.next_timer(); }
  void Fence(Rank rank, Incarnation incarnation) override;
  absl::Status Agreed(const ScalarTotals& totals, absl::Time now) override;
  void Carry(Generation generation) override { options_.envelope.generation = generation; }
  const ServerNodeStats& stats() const override { return stats_; }
  BlockStore& store() override { return *store_; }
  std::vector<WaitingNotice> Waiting(absl::Time now) const override;
  std::vector<uint64_t> Marks(BlockId id) const override;
  absl::Status BeginCut(Clock at, std::shared_ptr<CutSink> sink) override;
  bool PumpCut() override;
  void DropCut() override;
  void ReleaseReads() override;
  absl::Status Install(const BlockExport& image, absl::Span<const uint64_t> marks) override;
  absl::Status FinishRestore() override;
  std::string SaveState() const override;
  absl::Status LoadState(absl::string_view state) override;
  std::string DebugState() const override { return engine_.DebugState(); }

 private:
  struct Pull {
    bool open = false;
    ConnectionId connection;
    uint64_t id = 0;
    Rank rank;
    Clock clock;
    bool ungated = false;
    bool averaged = false;
    std::optional<uint64_t> version;  // nullopt: the newest
    bool all_dense = false;
    std::vector<uint32_t> dense;   // as listed
    std::vector<uint32_t> sorted;  // the same, ascending
    std::vector<SparsePart> sparse;
    Payload keys;
    std::vector<uint32_t> ready;  // dense blocks to send, in this order
    size_t next_ready = 0;
    size_t next_sparse = 0;
    size_t key_offset = 0;
    bool released = false;  // all of it may be sent
    bool queued = false;    // in its connection's line
    bool own_keys = false;  // keys are a copy that pins no read buffer
  };
  struct Connection {
    ConnectionId id;
    bool unary = false;
    bool dirty = false;
    uint32_t in_flight = 0;
    uint32_t pulls = 0;
    std::deque<Reply> control;  // acks, refusals, notices
    std::deque<uint32_t> line;  // pulls with something to send
  };
  struct Cut {  // in progress
    Clock clock;
    std::vector<std::shared_ptr<CutSink>> sinks;
    std::vector<uint8_t> lacks;   // per slot: not imaged yet
    uint32_t left = 0;            // how many
    uint32_t next = 0;            // slots before it are imaged
    std::vector<uint64_t> marks;  // PUSH: [slot][rank], of its moment
  };
  struct Restoring {
    std::vector<uint64_t> marks;  // [block or slot][rank]
    std::vector<uint8_t> came;
    bool running = false;  // images of a primary, not of a cut
  };
  enum class RpcKind : uint8_t { kNone, kQuestion, kPull, kPush };
  struct LastRpc {  // that came from a rank
    RpcKind kind = RpcKind::kNone;
    Clock clock;
    absl::Time at;
  };
  // A contribution to a round that has not come yet, in memory of its own.
  struct Later {
    uint32_t block = 0;
    Clock clock;
    Rank rank;
    uint32_t span = 1;
    uint32_t keys = 0;
    double weight = 0;  // PUSH
    Payload payload;
  };

  void NoteRpc(const Request& request, absl::Time now);
  std::string LastRpcText(const Culprit& culprit, absl::Time now) const;

  // --- push.cc
  void HandlePush(Connection* c, const Request& request, absl::Time now);
  // A part as the store takes it; numbers of a block or rows as they go out.
  Payload FromWire(const Payload& part, uint32_t keys) const;
  Payload ToWire(const Payload& floats) const;
  // Folds or applies one part. False: refused, *why says so, *fail: and the job can't go on.
  bool TakeIn(const Admit& admit, const PushFrame& push, const Payload& part, std::string* why, bool* fail);
  absl::Status StorePart(uint32_t block, Rank rank, uint32_t span, Clock clock, uint32_t keys, const Payload& payload,
                         double weight);
  // Where pushes say what they were computed from: of this one, into read_. Empty: it is well.
  std::string TakeRead(const PushFrame& push);
  // The version of a block in read_.
  std::optional<uint64_t> ReadVersion(uint32_t block) const;
  void Commit(const CommitBlock& commit);
  void Reduce(uint32_t block, Clock clock);
  void ReduceHeldSlots(Clock clock);
  // False: the store refused, and the job can't go on.
  bool Measure(BlockId id, Clock clock);
  void CommitAllSlots(Clock clock, absl::Time now);
  void Feed(std::vector<Later>* later, uint64_t clock);
  void ApplyDeferred();
  double TotalWeight(Clock clock);
  // With backup ranks: who had no part in the round.
  std::vector<Rank> LeftOut(Clock clock) const;
  void Fail(absl::Status cause);
  bool WantsScalars(Clock clock) const {
    return (options_.scalars_every > 0 && clock.value % options_.scalars_every == 0) ||
           (options_.scalars_before > 0 && (clock.value + 1) % options_.scalars_before == 0);
  }
  bool WantsNorms(Clock clock) const { return options_.norms_of_all || WantsScalars(clock); }
  // Steps the engine and carries out all that follows.
  void Run(const Event& event, absl::Time now);

  // --- cut.cc
  // After each step of the engine that may advance the round: before anything of the next round is carried out.
  void WatchRound();
  void StartCut(Clock clock, std::vector<std::shared_ptr<CutSink>> sinks);
  void BeforeSlotStep(uint32_t block);
  void AfterSlotStep(uint32_t block);
  // If the cut lacks it. Bytes of the image.
  size_t ImageSlot(uint32_t block);
  std::vector<uint64_t> CutMarks(uint32_t block) const;
  void Deliver(BlockExport image, std::vector<uint64_t> marks);
  void FinishCut();
  void GiveUpCut();

  // --- pull.cc
  // The ticket; nullopt: refused.
  std::optional<uint32_t> HandlePull(Connection* c, const Request& request, absl::Time now);
  void OnReleaseBlock(const ReleaseBlock& release);
  void OnRelease(uint32_t ticket);
  void OnTellWaiting(const TellWaiting& waiting, absl::Time now);
  void Enqueue(uint32_t ticket);
  void EndPull(uint32_t ticket);
  void MarkDirty(Connection* c);
  void Control(Connection* c, Reply reply);
  void Flush();
  void Pump(Connection* c);
  // Adds what is ready of a pull, up to a message's worth. True: the pull is over.
  bool Fill(Pull* pull, Reply* reply);
  void KeepKeys(uint32_t ticket);
  Reply NewReply(uint64_t id) const;
  Connection* Find(ConnectionId id);

  ServerNodeOptions options_;
  std::unique_ptr<BlockStore> store_;
  Output* const output_;
  const BlockIndex index_;
  RequestCheck check_;
  Engine engine_;
  ServerNodeStats stats_;
  bool failed_ = false;

  std::vector<Action> verdicts_;                 // scratch: the engine's answer to a push
  std::vector<Action> actions_;                  // scratch: what Run works off
  std::vector<std::vector<Later>> later_dense_;  // [dense block]
  std::vector<Later> later_slots_;
  std::vector<std::pair<uint64_t, double>> totals_;  // [clock % size]: (clock + 1, total weight)
  std::vector<double> push_weight_;                  // PUSH: weight of each rank's clock in progress
  std::vector<LastRpc> last_rpc_;                    // [rank]
  std::vector<BlockSquare> squares_[2];              // [clock % 2][dense block], where scalars are asked for
  ReadVector read_;                                  // of the push under way
  std::vector<uint32_t> place_;                      // [dense block] among those of the model
  std::vector<BlockScalars> measured_;               // of the round in progress
  std::vector<Later> deferred_;                      // seeded bug kAckBeforeApply

  std::unique_ptr<Cut> cut_;
  std::vector<std::pair<Clock, std::shared_ptr<CutSink>>> demanded_;  // cuts to come: kMostDemanded
  uint64_t round_seen_ = 0;
  std::unique_ptr<OrderLog> order_;       // null: not recorded
  uint64_t dense_of_model_ = 0;           // where it is: blocks of all servers
  bool hold_reads_ = false;               // until the cut is whole on every server
  std::unique_ptr<Restoring> restoring_;  // until FinishRestore

  absl::flat_hash_map<ConnectionId, std::unique_ptr<Connection>> connections_;  // iterated by DropCut alone
  std::vector<std::unique_ptr<Pull>> pulls_;                                    // by ticket
  std::vector<uint32_t> free_tickets_;
  std::vector<ConnectionId> dirty_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_NODE_IMPL_H_
