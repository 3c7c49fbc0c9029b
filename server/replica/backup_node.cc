#include "server/replica/backup_node.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "server/node/request_check.h"

namespace descent {

namespace {

// What the inner node takes the primary for; no transport counts so far.
constexpr ConnectionId kPrimary(kUnbounded);
constexpr uint64_t kMostMeasured = 62;  // clocks, beside the newest two

absl::StatusOr<std::unique_ptr<ServerNode>> MakeReal(ServerNodeOptions options, ServerNode::Output* output) {
  return ServerNode::Create(std::move(options), output);
}

ServerNodeOptions Empty(ServerNodeOptions options) {
  options.restored = RestoredState{};
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackupNode>> BackupNode::Create(ServerNodeOptions options, uint64_t view, bool fresh,
                                                               Output* output, MakeNode make) {
  std::unique_ptr<BackupNode> node(
      new BackupNode(options, view, fresh, output, make == nullptr ? MakeReal : std::move(make)));
  DESCENT_ASSIGN_OR_RETURN(node->inner_,
                           node->make_(fresh ? std::move(options) : Empty(std::move(options)), node.get()));
  return node;
}

BackupNode::BackupNode(const ServerNodeOptions& options, uint64_t view, bool fresh, Output* output, MakeNode make)
    : options_(options),
      view_(view),
      output_(output),
      make_(std::move(make)),
      whole_(fresh),
      imaging_(!fresh),
      untouched_(!fresh) {}

absl::Status BackupNode::Promote() {
  if (promoted_) return absl::OkStatus();
  if (!broken_.ok()) return Broken();
  if (!whole_) {
    return absl::FailedPreconditionError(
        absl::StrCat("this backup of view ", view_, " does not have all of its primary's state yet"));
  }
  promoted_ = true;
  if (fed_) inner_->OnClose(kPrimary, now_);
  for (const auto& [connection, peer] : peers_) inner_->OnOpen(connection, now_, peer.unary);
  for (auto& [clock, parts] : std::exchange(measured_, {})) output_->Measured(clock, std::move(parts));
  if (!failure_.ok()) output_->Fail(std::move(failure_));
  return absl::OkStatus();
}

// --- Connections -----------------------------------------------------------------------------------------------------

void BackupNode::OnOpen(ConnectionId connection, absl::Time now, bool unary) {
  now_ = now;
  peers_[connection].unary = unary;
  if (promoted_) inner_->OnOpen(connection, now, unary);
}

void BackupNode::OnClose(ConnectionId connection, absl::Time now) {
  now_ = now;
  if (peers_.erase(connection) > 0 && promoted_) inner_->OnClose(connection, now);
}

void BackupNode::OnSent(ConnectionId connection, absl::Time now) {
  now_ = now;
  const auto it = peers_.find(connection);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  DESCENT_CHECK(!peer.under_way.empty());
  const Sent sent = peer.under_way.front();
  peer.under_way.pop_front();
  if (sent == Sent::kInner) {
    inner_->OnSent(connection, now);
  } else if (sent == Sent::kConfirmation) {
    peer.confirming = false;
    if (peer.more && !promoted_) Confirm(connection, &peer);
  }
}

void BackupNode::Send(ConnectionId to, Reply reply) {
  if (to == kPrimary) {
    ++swallowed_;
    return;
  }
  const auto it = peers_.find(to);
  if (it == peers_.end()) return;
  it->second.under_way.push_back(Sent::kInner);
  output_->Send(to, std::move(reply));
}

void BackupNode::Fail(absl::Status cause) {
  if (promoted_) {
    output_->Fail(std::move(cause));
  } else if (failure_.ok()) {
    failure_ = std::move(cause);
  }
}

void BackupNode::Scalars(Clock clock, std::vector<BlockSquare> squares) {
  if (promoted_) output_->Scalars(clock, std::move(squares));
}

void BackupNode::Norms(Clock clock, std::vector<BlockSquare> squares) {
  if (promoted_) output_->Norms(clock, std::move(squares));
}

void BackupNode::Measured(Clock clock, std::vector<BlockScalars> parts) {
  if (promoted_) return output_->Measured(clock, std::move(parts));
  measured_.emplace_back(clock, std::move(parts));
  // Nobody is further behind another server than this.
  if (measured_.size() > std::min(options_.staleness, kMostMeasured) + 2) measured_.pop_front();
}

std::shared_ptr<CutSink> BackupNode::BeginCut(Clock clock) { return promoted_ ? output_->BeginCut(clock) : nullptr; }

// --- What the primary sends ------------------------------------------------------------------------------------------

void BackupNode::OnRequest(ConnectionId connection, Request request, absl::Time now) {
  now_ = now;
  const auto it = peers_.find(connection);
  if (it == peers_.end()) return;  // closed meanwhile
  if (request.replica) {
    OnReplica(connection, &it->second, std::move(request), now);
  } else if (promoted_) {
    inner_->OnRequest(connection, std::move(request), now);
  } else {
    Refuse(connection, &it->second, request,
           absl::UnavailableError(absl::StrCat("not the primary of server ", options_.store.self.value,
                                               ": this is its backup of view ", view_)));
  }
}

void BackupNode::OnReplica(ConnectionId connection, Peer* peer, Request request, absl::Time now) {
  Outcome outcome;
  const ReplicaFrame& replica = *request.replica;
  absl::Status status = RequestCheck::CheckEnvelope(options_.envelope, request.envelope, &outcome);
  if (status.ok() && promoted_) {
    status = absl::AbortedError(absl::StrCat("promoted: the backup of view ", view_, " is primary now"));
  } else if (status.ok() && replica.view != view_) {
    status = absl::FailedPreconditionError(
        absl::StrCat("view mismatch: this backup is of view ", view_, ", the primary's request of ", replica.view));
  } else if (status.ok() && replica.sequence > last_ + 1) {
    status = absl::OutOfRangeError(
        absl::StrCat("request ", replica.sequence, " of the primary came, ", last_ + 1, " is missing"));
  }
  if (status.ok() && !broken_.ok()) status = Broken();
  if (status.ok()) {
    peer->request = request.id;
    if (replica.sequence == last_ + 1) {
      const uint64_t sequence = replica.sequence;
      broken_ = CarryOut(std::move(request), now);
      if (broken_.ok()) last_ = sequence;
    }
    if (broken_.ok()) return Confirm(connection, peer);
    request.id = peer->request;
    status = Broken();
  }
  Refuse(connection, peer, request, std::move(status));
}

absl::Status BackupNode::CarryOut(Request request, absl::Time now) {
  ReplicaFrame& replica = *request.replica;
  if (replica.image) return TakeImage(std::move(request));
  if (replica.engine) return TakeState(*replica.engine);
  if (replica.fence) {
    DESCENT_RETURN_IF_ERROR(EndImages());
    inner_->Fence(replica.fence->rank, replica.fence->incarnation);
    return absl::OkStatus();
  }
  if (replica.scalars) {
    DESCENT_RETURN_IF_ERROR(EndImages());
    return inner_->Agreed(*replica.scalars, now);
  }
  return TakePush(std::move(request), now);
}

absl::Status BackupNode::TakeImage(Request request) {
  if (!imaging_) return absl::FailedPreconditionError("an image came where none was to come");
  untouched_ = false;
  ReplicaImage& from = *request.replica->image;
  BlockExport image;
  image.id = from.id;
  image.version = from.version;
  image.steps = from.steps;
  image.keys = from.keys;
  image.state_slots = from.state_slots;
  image.skipped = std::move(from.skipped);
  image.order = std::move(from.order);
  image.method = std::move(from.method);
  image.ahead = std::move(from.ahead);
  image.payload = std::move(request.payload);
  return inner_->Install(image, from.marks);
}

absl::Status BackupNode::TakeState(const std::string& state) {
  if (!state.empty()) {
    DESCENT_RETURN_IF_ERROR(EndImages());
    DESCENT_RETURN_IF_ERROR(inner_->LoadState(state));
    whole_ = true;
    return absl::OkStatus();
  }
  whole_ = false;
  imaging_ = true;
  if (untouched_) return absl::OkStatus();
  untouched_ = true;
  fed_ = false;
  measured_.clear();
  failure_ = absl::OkStatus();
  inner_.reset();  // first: there may be no memory for two
  absl::StatusOr<std::unique_ptr<ServerNode>> made = make_(Empty(options_), this);
  const absl::Status status = made.status();
  if (!status.ok()) {
    // One without blocks, so that there is one to ask.
    ServerNodeOptions none = Empty(options_);
    none.store.tensors.clear();
    none.store.map.placement.clear();
    made = make_(std::move(none), this);
    DESCENT_CHECK(made.ok());
  }
  inner_ = *std::move(made);
  return status;
}

absl::Status BackupNode::EndImages() {
  if (!imaging_) return absl::OkStatus();
  imaging_ = untouched_ = false;
  return inner_->FinishRestore();
}

absl::Status BackupNode::TakePush(Request request, absl::Time now) {
  if (!request.push) return absl::InvalidArgumentError("a primary's request carries nothing");
  DESCENT_RETURN_IF_ERROR(EndImages());
  if (!fed_) inner_->OnOpen(kPrimary, now);
  fed_ = true;
  request.replica.reset();
  request.pull.reset();
  request.expected_of.clear();
  inner_->OnRequest(kPrimary, std::move(request), now);
  for (; swallowed_ > 0; --swallowed_) inner_->OnSent(kPrimary, now);
  return absl::OkStatus();
}

Reply BackupNode::NewReply(uint64_t id) const {
  Reply reply;
  reply.envelope = options_.envelope;
  reply.id = id;
  return reply;
}

void BackupNode::Confirm(ConnectionId connection, Peer* peer) {
  // One at a time: what comes meanwhile is confirmed together.
  peer->more = peer->confirming;
  if (peer->confirming) return;
  peer->confirming = true;
  peer->under_way.push_back(Sent::kConfirmation);
  Reply reply = NewReply(peer->request);
  reply.replicated = last_;
  output_->Send(connection, std::move(reply));
}

void BackupNode::Refuse(ConnectionId connection, Peer* peer, const Request& request, absl::Status why) {
  peer->under_way.push_back(Sent::kOwn);
  Reply reply = NewReply(request.id);
  reply.refusal = std::move(why);
  output_->Send(connection, std::move(reply));
}

absl::Status BackupNode::Broken() const {
  return absl::Status(broken_.code(), absl::StrCat("the backup of view ", view_,
                                                   " could not take in what its primary sent: ", broken_.message()));
}

// --- What passes through ---------------------------------------------------------------------------------------------

void BackupNode::OnTimer(absl::Time now) {
  now_ = now;
  inner_->OnTimer(now);
}
absl::Time BackupNode::next_timer() const { return inner_->next_timer(); }

void BackupNode::Fence(Rank rank, Incarnation incarnation) {
  if (promoted_) inner_->Fence(rank, incarnation);
}

absl::Status BackupNode::Agreed(const ScalarTotals& totals, absl::Time now) {
  return promoted_ ? inner_->Agreed(totals, now) : absl::OkStatus();
}

std::vector<WaitingNotice> BackupNode::Waiting(absl::Time now) const {
  return promoted_ ? inner_->Waiting(now) : std::vector<WaitingNotice>();
}

std::string BackupNode::DebugState() const {
  return absl::StrCat(promoted_ ? "promoted"
                      : whole_  ? "backup"
                                : "backup, not whole yet",
                      ", view ", view_, ", has ", last_, "\n", inner_->DebugState());
}

absl::Status BackupNode::BeginCut(Clock at, std::shared_ptr<CutSink> sink) {
  if (promoted_) return inner_->BeginCut(at, std::move(sink));
  return absl::FailedPreconditionError("cuts are of the primary; this is its backup");
}

absl::Status BackupNode::Install(const BlockExport& image, absl::Span<const uint64_t> marks) {
  return inner_->Install(image, marks);
}

}  // namespace descent
