// The backup of one server's blocks: a ServerNode that is fed by its primary (primary_node.h) and answers nobody else
// until it is promoted.
//
// It takes requests with `replica` of its view, in sequence: the next one is carried out, one that it has had is
// confirmed again, and one that leaves a gap is refused (OUT_OF_RANGE), for the primary to send again what is missing.
// Replies carry `replicated`: all up to that number is held. What the inner node answers to a push goes nowhere; the
// scalars, cuts and failures that it would report are the primary's to report.
//
// It is made `fresh`, as its primary was (from the beginning of the run, or from the same cut by Install and
// FinishRestore), or empty, to be filled by the primary's images. A fresh one to which images come all the same is made
// anew of them.
//
// After Promote everything passes through to the inner node and back, and requests with `replica` are refused with
// ABORTED "promoted": a primary that was cut off is confirmed nothing any more, so it acknowledges nothing. To
// replicate in its turn, a promoted node is wrapped in a PrimaryNode. Wrap it from the start (PrimaryNode::Create with
// a `make` that calls BackupNode::Create): alone, a PrimaryNode passes everything through, so one installed node plays
// both parts.
//
// Before that: pushes and reads of others are refused with UNAVAILABLE "not the primary". Fence changes nothing: fences
// come through the primary, in their place among the pushes. Whoever calls Fence does so again after a promotion, since
// the primary may not have passed on the last.
//
// Thread-safety: none; one thread owns a node.
#ifndef DESCENT_SERVER_REPLICA_BACKUP_NODE_H_
#define DESCENT_SERVER_REPLICA_BACKUP_NODE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "server/node/server_node.h"
#include "server/replica/primary_node.h"

namespace descent {

class BackupNode final : public ServerNode, private ServerNode::Output {
 public:
  using Output = ServerNode::Output;

  // `output` outlives the node. `make`: null for ServerNode::Create; its node holds the blocks. Not fresh:
  // `options.restored` is ignored.
  static absl::StatusOr<std::unique_ptr<BackupNode>> Create(ServerNodeOptions options, uint64_t view, bool fresh,
                                                            Output* output, MakeNode make = nullptr);

  // The coordinator's word. Again: nothing. FAILED_PRECONDITION: it does not hold its primary's state (yet), or has
  // failed to take it in; nothing has changed.
  absl::Status Promote();
  bool promoted() const { return promoted_; }
  // It holds a whole state: fresh, or all images have come.
  bool whole() const { return whole_; }
  uint64_t view() const { return view_; }
  uint64_t sequence() const { return last_; }  // all up to it is held

  // --- ServerNode
  void OnOpen(ConnectionId connection, absl::Time now, bool unary) override;
  void OnClose(ConnectionId connection, absl::Time now) override;
  void OnRequest(ConnectionId connection, Request request, absl::Time now) override;
  void OnSent(ConnectionId connection, absl::Time now) override;
  void OnTimer(absl::Time now) override;
  absl::Time next_timer() const override;
  void Fence(Rank rank, Incarnation incarnation) override;
  absl::Status Agreed(const ScalarTotals& totals, absl::Time now) override;
  void Carry(Generation generation) override {
    options_.envelope.generation = generation;
    inner_->Carry(generation);
  }
  const ServerNodeStats& stats() const override { return inner_->stats(); }
  BlockStore& store() override { return inner_->store(); }
  std::vector<WaitingNotice> Waiting(absl::Time now) const override;
  std::vector<uint64_t> Marks(BlockId id) const override { return inner_->Marks(id); }
  std::string DebugState() const override;
  absl::Status BeginCut(Clock at, std::shared_ptr<CutSink> sink) override;  // FAILED_PRECONDITION before Promote
  bool PumpCut() override { return inner_->PumpCut(); }
  void DropCut() override { inner_->DropCut(); }
  void ReleaseReads() override { inner_->ReleaseReads(); }
  absl::Status Install(const BlockExport& image, absl::Span<const uint64_t> marks) override;
  absl::Status FinishRestore() override { return inner_->FinishRestore(); }
  std::string SaveState() const override { return inner_->SaveState(); }
  absl::Status LoadState(absl::string_view state) override { return inner_->LoadState(state); }

 private:
  enum class Sent : uint8_t { kInner, kOwn, kConfirmation };
  struct Peer {
    bool unary = false;
    std::deque<Sent> under_way;  // replies that have not left
    bool confirming = false;     // one of them is a confirmation
    bool more = false;           // and there is more to confirm
    uint64_t request = 0;        // the last to be confirmed
  };

  BackupNode(const ServerNodeOptions& options, uint64_t view, bool fresh, Output* output, MakeNode make);

  // --- Output of the inner node
  void Send(ConnectionId to, Reply reply) override;
  void Fail(absl::Status cause) override;
  void Scalars(Clock clock, std::vector<BlockSquare> squares) override;
  void Norms(Clock clock, std::vector<BlockSquare> squares) override;
  void Measured(Clock clock, std::vector<BlockScalars> parts) override;
  std::shared_ptr<CutSink> BeginCut(Clock clock) override;

  void OnReplica(ConnectionId connection, Peer* peer, Request request, absl::Time now);
  absl::Status CarryOut(Request request, absl::Time now);
  absl::Status TakeImage(Request request);
  absl::Status TakeState(const std::string& state);
  absl::Status TakePush(Request request, absl::Time now);
  // No further images come.
  absl::Status EndImages();
  void Confirm(ConnectionId connection, Peer* peer);
  void Refuse(ConnectionId connection, Peer* peer, const Request& request, absl::Status why);
  Reply NewReply(uint64_t id) const;
  absl::Status Broken() const;

  ServerNodeOptions options_;
  const uint64_t view_;
  Output* const output_;
  const MakeNode make_;
  std::unique_ptr<ServerNode> inner_;
  std::map<ConnectionId, Peer> peers_;
  uint64_t last_ = 0;
  bool whole_ = false;
  bool promoted_ = false;
  bool imaging_ = false;    // images are coming in
  bool untouched_ = false;  // the inner node waits for images and has had none
  bool fed_ = false;        // the inner node has the primary's connection
  uint32_t swallowed_ = 0;  // replies of the inner node to the primary's pushes
  // The last that the inner node has measured, told once it is promoted: the primary may have died before it told them,
  // and others may still wait for those of clocks that have been agreed here.
  std::deque<std::pair<Clock, std::vector<BlockScalars>>> measured_;
  absl::Status broken_;   // it could not take in what came
  absl::Status failure_;  // the inner node's, kept until promotion
  absl::Time now_ = absl::UnixEpoch();
};

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_BACKUP_NODE_H_
