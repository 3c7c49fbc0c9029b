// The primary of one server's blocks: a ServerNode around the one that holds them, which passes every push on to a
// backup and lets nothing out that depends on a push the backup lacks.
//
// States
//   alone       no backup: everything passes through.
//   replicated  each push, each fence and each clock's agreed scalars get the next sequence number of the view and is
//   sent to the backup before the
//               inner node takes it in; each reply of the inner node waits until the backup has confirmed all that was
//               sent before it. So what a worker has been told, and every parameter it has read, is on the backup.
//   syncing     a backup joins while training goes on. Once it has confirmed a greeting (one that can't be reached is
//   to
//               hold nobody up) it gets a cut of the inner node, the pushes that came after the
//               cut's moment and the engine's state (below). Replies do not wait until the last image is out; from then
//               on they do, and when the backup has confirmed all that was sent until then, this is `replicated`.
// What has not been confirmed is kept (payloads shared, not copied) and sent again, in order, when the link is up again
// or nothing has been confirmed for a while; the backup drops what it has.
//
// Why the backup's state is the primary's: a node is deterministic, and both see the same pushes, fences and scalars in
// the same order. What the inner node refuses, the backup refuses.
//
// Syncing. PUSH, and a server without blocks: the cut is of now, and the engine's state (ServerNode::SaveState) is of
// the same moment; pushes after it follow. ROUND: the cut is of a clock C that no rank can have pushed yet; pushes of
// clocks >= C that the inner node does not reject are kept from then on. At the cut the backup is made at clock C and
// takes them in: it then has what the primary has, and the engine's state adds who is fenced. Pushes after that follow.
//
// Memory. Replicated: unconfirmed pushes are those that workers have not been answered, so what their windows allow,
// and held replies are at most ServerNodeOptions::send_window per connection. Syncing: slots are imaged as the backup
// takes them (kImageBytesUnderWay) or as they are stepped on, and with more than max_unconfirmed_bytes kept after the
// cut's moment replies wait.
//
// Views are counted by the coordinator and only grow. A primary that has been replaced acknowledges nothing: its
// pushes are not confirmed, and only the coordinator's word (GoAlone) lets held replies out.
//
// Thread-safety: none; one thread owns a node and all that is said to it.
#ifndef DESCENT_SERVER_REPLICA_PRIMARY_NODE_H_
#define DESCENT_SERVER_REPLICA_PRIMARY_NODE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/wire/frame.h"
#include "server/node/block_index.h"
#include "server/node/request_check.h"
#include "server/node/server_node.h"

namespace descent {

// The way to one backup. Send is called on the node's thread, within the node's calls; it must not block nor call the
// node. What is sent while the link is down may be dropped; what arrives, arrives in order.
class BackupLink {
 public:
  virtual ~BackupLink() = default;
  virtual void Send(Request request) = 0;
};

// Makes the node that holds the blocks, or what stands in for it: ServerNode::Create, or a BackupNode.
using MakeNode =
    std::function<absl::StatusOr<std::unique_ptr<ServerNode>>(ServerNodeOptions options, ServerNode::Output* output)>;

// Seeded bugs, for tests alone.
enum class ReplicaFault : uint8_t {
  kNone = 0,
  kAckBeforeReplicate,  // replies do not wait for the backup
};

struct PrimaryOptions {
  uint64_t view = 0;  // that it begins with, alone
  uint64_t max_unconfirmed_bytes = uint64_t{256} << 20;
  ReplicaFault fault = ReplicaFault::kNone;
};

class PrimaryNode final : public ServerNode, private ServerNode::Output {
 public:
  using Output = ServerNode::Output;
  static constexpr size_t kImageBytesUnderWay = size_t{16} << 20;
  static constexpr absl::Duration kResendAfter = absl::Seconds(2);  // doubling while nothing is confirmed
  static constexpr absl::Duration kMostResendAfter = absl::Minutes(1);

  // `output` outlives the node. `make`: null for ServerNode::Create. Errors are those of `make`.
  static absl::StatusOr<std::unique_ptr<PrimaryNode>> Create(ServerNodeOptions options, PrimaryOptions primary,
                                                             Output* output, MakeNode make = nullptr);
  ~PrimaryNode() override;

  // --- The coordinator's words. Those of a view below view() change nothing.
  // A backup of `view` is behind `link`. `fresh`: it was made as this node was, and neither has had a push; where this
  // one has, the backup is sent images all the same, which it takes. A backup of before is forgotten, as by GoAlone. A
  // view may begin alone and get its backup later, but has one in all.
  void SetBackup(uint64_t view, std::shared_ptr<BackupLink> link, bool fresh);
  // There is no backup (any more): all held replies go out.
  void GoAlone(uint64_t view);

  // --- The link's words; those of another view are ignored
  // The backup holds all up to `sequence`.
  void OnConfirmed(uint64_t view, uint64_t sequence);
  // It is connected, for the first time or again.
  void OnLinkUp(uint64_t view);

  uint64_t view() const { return view_; }
  // Whether `link` is the one to the backup. It need not be there any more.
  bool Uses(const std::weak_ptr<const BackupLink>& link) const {
    return link_ != nullptr && !link.owner_before(link_) && !link_.owner_before(link);
  }
  // Promoted now, the backup would lose nothing that anybody was told, and change no bit of what workers go on to read:
  // it is replicated and, under ROUND, has made the rounds of which older versions may still be asked for.
  bool synced() const;
  // The sequence number of the first thing that the backup has not confirmed; 0: there is none.
  uint64_t unconfirmed() const { return confirmed_ < last_ ? confirmed_ + 1 : 0; }
  // Payload that is sent or to be sent, and not confirmed.
  uint64_t unconfirmed_bytes() const { return unconfirmed_bytes_; }
  size_t held_replies() const { return held_.size(); }

  // --- ServerNode
  void OnOpen(ConnectionId connection, absl::Time now, bool unary) override;
  void OnClose(ConnectionId connection, absl::Time now) override;
  void OnRequest(ConnectionId connection, Request request, absl::Time now) override;
  void OnSent(ConnectionId connection, absl::Time now) override;
  void OnTimer(absl::Time now) override;
  absl::Time next_timer() const override;
  // Reaches the backup in its place among the pushes.
  void Fence(Rank rank, Incarnation incarnation) override;
  // Likewise.
  absl::Status Agreed(const ScalarTotals& totals, absl::Time now) override;
  void Carry(Generation generation) override {
    options_.envelope.generation = generation;
    inner_->Carry(generation);
  }
  const ServerNodeStats& stats() const override { return inner_->stats(); }
  BlockStore& store() override { return inner_->store(); }
  std::vector<WaitingNotice> Waiting(absl::Time now) const override { return inner_->Waiting(now); }
  std::vector<uint64_t> Marks(BlockId id) const override { return inner_->Marks(id); }
  std::string DebugState() const override;
  // FAILED_PRECONDITION also while the cut that a backup is made of is in progress.
  absl::Status BeginCut(Clock at, std::shared_ptr<CutSink> sink) override;
  bool PumpCut() override;
  void DropCut() override;  // not that of a backup
  void ReleaseReads() override { inner_->ReleaseReads(); }
  absl::Status Install(const BlockExport& image, absl::Span<const uint64_t> marks) override;
  absl::Status FinishRestore() override { return inner_->FinishRestore(); }
  std::string SaveState() const override { return inner_->SaveState(); }
  absl::Status LoadState(absl::string_view state) override { return inner_->LoadState(state); }

 private:
  class SyncSink;
  class OwnersSink;
  struct Sync;
  struct HeldReply {
    ConnectionId to;
    uint64_t after = 0;  // goes out once this is confirmed
    Reply reply;
  };

  PrimaryNode(const ServerNodeOptions& options, const PrimaryOptions& primary, Output* output);

  // --- Output of the inner node
  void Send(ConnectionId to, Reply reply) override;
  void Fail(absl::Status cause) override { output_->Fail(std::move(cause)); }
  void Scalars(Clock clock, std::vector<BlockSquare> squares) override { output_->Scalars(clock, std::move(squares)); }
  void Norms(Clock clock, std::vector<BlockSquare> squares) override { output_->Norms(clock, std::move(squares)); }
  void Measured(Clock clock, std::vector<BlockScalars> parts) override { output_->Measured(clock, std::move(parts)); }
  std::shared_ptr<CutSink> BeginCut(Clock clock) override;

  // --- The stream to the backup
  // A push without what else its request asks for.
  Request PushToPass(const Request& request, size_t push_size) const;
  Request FenceToPass(Rank rank, Incarnation incarnation) const;
  Request ScalarsToPass(const ScalarTotals& totals) const;
  Request StateToPass(std::string state) const;
  void Pass(Request request);  // with the next sequence number
  // What `make` gives goes to the backup, after what it has been passed; if it is to have it.
  template <typename F>
  void PassInOrder(F&& make);
  void ResendAll();
  bool Gated() const;
  void ReleaseHeld();
  void Reset(uint64_t view);  // alone, with nothing held or kept

  // --- primary_sync.cc
  // After each event of the inner node.
  void AdvanceSync();
  void OrderCut();
  void BeginImages();
  void PassImage(const BlockExport& image, const std::vector<uint64_t>& marks);
  void FinishImages();
  void DropSync();
  // A push or a fence on its way to the inner node, while images are being made.
  void KeepForLater(Request request);
  bool CutInUse() const;  // by a sync
  std::shared_ptr<CutSink> Wrap(std::shared_ptr<CutSink> sink);

  ServerNodeOptions options_;
  const PrimaryOptions primary_;
  Output* const output_;
  const BlockIndex index_;
  RequestCheck check_;
  std::unique_ptr<ServerNode> inner_;

  uint64_t view_;
  uint64_t backup_view_ = 0;          // the last that had a backup
  std::shared_ptr<BackupLink> link_;  // null: alone
  uint64_t last_ = 0;                 // sequence numbers given
  uint64_t confirmed_ = 0;
  std::deque<Request> unconfirmed_;  // (confirmed_, last_]
  uint64_t unconfirmed_bytes_ = 0;   // of payload; with what a sync keeps
  std::deque<HeldReply> held_;       // `after` ascending
  std::unique_ptr<Sync> sync_;       // while syncing
  uint64_t image_bytes_ = 0;         // those of them that are images
  uint64_t whole_round_ = 0;         // ROUND: from this round on the backup has every version that may be asked for
  bool pushed_ = false;              // a push of this generation has come
  std::vector<Incarnation> fences_;  // per rank, of Fence
  absl::Time resend_ = absl::InfiniteFuture();
  absl::Duration resend_after_ = kResendAfter;
  uint64_t resend_confirmed_ = 0;                       // as it was when resend_ was set
  absl::Time now_ = absl::UnixEpoch();                  // of the last event that told
  std::vector<std::weak_ptr<OwnersSink>> owners_cuts_;  // of the owner, in progress or to come
};

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_PRIMARY_NODE_H_
