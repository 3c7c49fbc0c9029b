// One server without its network: the consistency engine and the block store behind the messages of the parameter
// service. No threads, no I/O, no clock: a transport feeds it, the simulator runs thousands of it.
//
// Thread-safety: none; one thread owns a node.
#ifndef DESCENT_SERVER_NODE_SERVER_NODE_H_
#define DESCENT_SERVER_NODE_SERVER_NODE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/tensor/global_scalars.h"
#include "common/wire/frame.h"
#include "common/wire/half.h"
#include "server/core/engine.h"
#include "server/node/cut_sink.h"
#include "server/store/block_store.h"

namespace descent {

struct RestoredState {
  std::vector<Clock> restart;  // per rank: the clock it goes on with; ROUND: all the cut's clock; empty: as images say
};

struct ServerNodeOptions {
  Envelope envelope;                           // every request must carry the same
  WireEncoding encoding = WireEncoding::kF32;  // of pushed gradients and of parameters that are read
  StoreOptions store;                          // history is raised to what the staleness bound needs
  uint64_t staleness = 0;  // kUnbounded: no bound; the largest, where it changes (server/core/engine.h)
  std::vector<StalenessChange> changes = {};
  // PUSH: each push with a weight says what it was computed from, and the store is told which version that was.
  bool tells_reads = false;
  uint32_t backup_ranks = 0;    // SYNC: a round closes without so many ranks (server/core/engine.h)
  uint64_t full_every = 0;      // but not those divisible by this; 0: all
  uint64_t scalars_every = 0;   // ROUND: report the global scalars of clocks divisible by this; 0: never
  uint64_t scalars_before = 0;  // and of the clocks before those divisible by this
  bool norms_of_all = false;    // ROUND: report the squared norms of the gradients of every other clock, too
  absl::Duration waiting_notice = absl::Seconds(2);  // a held pull is told for whom, this often
  uint32_t send_window = 4;      // replies handed to Output::Send and not yet reported by OnSent, per connection
  uint32_t max_held_pulls = 64;  // per connection; one more is refused
  uint64_t cut_every = 0;        // ROUND: a cut at every clock divisible by this, but not where the run begins; 0: none
  // The order in which blocks take in what makes them is kept, goes into every cut, and is expected of the cut that the
  // node goes on from (order_log.h). PUSH: every push with a weight says what it was computed from; and while a cut is
  // under way, until DropCut, reads wait: what is computed from a state after the cut must not get into another
  // server's part of it.
  bool record_order = false;
  std::optional<RestoredState> restored;   // the node goes on from a cut
  EngineFault fault = EngineFault::kNone;  // for tests alone
};

// Versions that the store must keep before the newest. A rank reads version c - s. On this server it may have completed
// up to c + s clocks (its lease moved because another server lagged; a new holder starts from the least), and its
// blocks be one version further.
uint32_t HistoryFor(const ServerNodeOptions& options);

struct ServerNodeStats {
  uint64_t pushes = 0, contributions = 0, pulls = 0;
  uint64_t duplicates = 0, fenced = 0, too_early = 0, too_late = 0, stale = 0, refused = 0, held = 0,
           waiting_notices = 0;
  uint64_t payload_bytes_in = 0, payload_bytes_out = 0;
  uint64_t payload_bytes_copied = 0;  // for rounds to come; the store counts its own (BlockStore::copied_bytes)
  uint64_t held_pulls = 0;            // now
  uint64_t round = 0;                 // every rank has completed the clocks below
  uint64_t largest_lead = 0;          // most that a rank's clock was ahead of the slowest when its pull was answered
};

struct BlockSquare {
  BlockId id;
  double square = 0;  // of the mean gradient
  double step = 0;    // of what the round changed in the parameters; of dense blocks
};

class ServerNode {
 public:
  // What the node asks of its surroundings. Called only from within the On* calls, never re-entered.
  class Output {
   public:
    virtual ~Output() = default;
    virtual void Send(ConnectionId to, Reply reply) = 0;
    // The job can't go on (a non-finite gradient, ...). The text names who and what.
    virtual void Fail(absl::Status cause) = 0;
    // Per block of this server, in (tensor, block) order: squared norms of the round of `clock`.
    virtual void Scalars(Clock clock, std::vector<BlockSquare> squares) = 0;
    // The same of clocks that Scalars is not asked for, with norms_of_all; no `step`.
    virtual void Norms(Clock /*clock*/, std::vector<BlockSquare> /*squares*/) {}
    // ROUND, where a step needs sums over whole tensors first (BlockStore::measures): this server's parts of `clock`,
    // in (tensor, block) order. Steps wait for ServerNode::Agreed.
    virtual void Measured(Clock /*clock*/, std::vector<BlockScalars> /*parts*/) {}
    // The round has come to `clock`, divisible by cut_every: who takes the cut? null: nobody, this time.
    virtual std::shared_ptr<CutSink> BeginCut(Clock /*clock*/) { return nullptr; }
  };

  static absl::StatusOr<std::unique_ptr<ServerNode>> Create(ServerNodeOptions options, Output* output);
  // On a store made elsewhere, of the same StoreOptions.
  static absl::StatusOr<std::unique_ptr<ServerNode>> Create(ServerNodeOptions options,
                                                            std::unique_ptr<BlockStore> store, Output* output);
  virtual ~ServerNode() = default;

  // `unary`: every push on it is answered, also one that does not complete its clock.
  virtual void OnOpen(ConnectionId connection, absl::Time now, bool unary = false) = 0;
  virtual void OnClose(ConnectionId connection, absl::Time now) = 0;  // its held pulls are forgotten
  virtual void OnRequest(ConnectionId connection, Request request, absl::Time now) = 0;
  virtual void OnSent(ConnectionId connection, absl::Time now) = 0;  // one reply has left
  virtual void OnTimer(absl::Time now) = 0;
  virtual absl::Time next_timer() const = 0;  // InfiniteFuture: none

  // The coordinator's word that older incarnations of a rank are void. A push by a newer one says the same.
  virtual void Fence(Rank rank, Incarnation incarnation) = 0;

  // What the parts of all servers add up to (AddInBlockOrder). Those of a clock that does not wait for them are void.
  // INVALID_ARGUMENT: they are of another model, or no sums of squares; nothing has changed.
  virtual absl::Status Agreed(const ScalarTotals& /*totals*/, absl::Time /*now*/) { return absl::OkStatus(); }

  // A generation begins that goes on with what this node holds: requests must carry it. Every connection has been
  // closed.
  virtual void Carry(Generation generation) = 0;

  virtual const ServerNodeStats& stats() const = 0;
  virtual BlockStore& store() = 0;
  // Who is waited for by held pulls: rank and since when.
  virtual std::vector<WaitingNotice> Waiting(absl::Time now) const = 0;
  // mark[rank] of a block: the next clock it expects of each rank.
  virtual std::vector<uint64_t> Marks(BlockId id) const = 0;
  virtual std::string DebugState() const = 0;

  // --- Cuts (cut_sink.h); a node without a store has none
  // A cut on demand. ROUND: when the round comes to `at`; at once if that is where it stands. PUSH: at once.
  // OUT_OF_RANGE, naming the round: it is past `at`, or some blocks are. FAILED_PRECONDITION: another cut is in
  // progress. A cut of cut_every that is due completes one that is in progress first.
  virtual absl::Status BeginCut(Clock /*at*/, std::shared_ptr<CutSink> /*sink*/) { return NoCuts(); }
  // Images a few of the slots that the cut in progress still lacks: about 256 KiB of rows, one slot at least. True:
  // some are left. The owner calls it between events.
  virtual bool PumpCut() { return false; }
  // The cut in progress, or waiting for its clock, is wanted no more: its sink is let go of.
  virtual void DropCut() {}
  // Reads that waited for the end of a cut of all servers (CutSink::of_all_servers) wait no more. DropCut does this
  // too.
  virtual void ReleaseReads() {}

  // --- Restoring: a node made with `restored` takes an image of each of its blocks and slots (of a slot perhaps
  // several, each with further rows), then FinishRestore, all before the first OnOpen. The cut may be of other servers
  // than these: what counts is the block. After an error the node is to be thrown away.
  //
  // ROUND: with the same pushes a restored run has the bits of one that never stopped, but for reads of versions older
  // than the cut (staleness > 0), which get the cut's. PUSH: no contribution is lost or applied twice; of rows whose
  // table catches up, those that had steps of incomplete pushes count as many steps as their table.
  //
  // INVALID_ARGUMENT: names block, what was expected and what came. FAILED_PRECONDITION: not being restored.
  virtual absl::Status Install(const BlockExport& /*image*/, absl::Span<const uint64_t> /*marks*/) { return NoCuts(); }
  // FAILED_PRECONDITION names a block of this server that did not come.
  virtual absl::Status FinishRestore() { return NoCuts(); }

  // --- State of everything but the blocks: with a cut of the same moment (PUSH), or a cut of ROUND and what was pushed
  // for its clock and later ones, another node of the same options goes on exactly as this one. Between calls. For the
  // same build alone.
  virtual std::string SaveState() const { return {}; }
  // After FinishRestore. INVALID_ARGUMENT says what is wrong with it. FAILED_PRECONDITION: not now.
  virtual absl::Status LoadState(absl::string_view /*state*/) { return NoCuts(); }

 private:
  static absl::Status NoCuts() { return absl::UnimplementedError("this node keeps nothing that could be cut"); }
};

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_SERVER_NODE_H_
