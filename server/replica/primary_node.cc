#include "server/replica/primary_node.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "server/replica/primary_sync.h"

namespace descent {

absl::StatusOr<std::unique_ptr<PrimaryNode>> PrimaryNode::Create(ServerNodeOptions options, PrimaryOptions primary,
                                                                 Output* output, MakeNode make) {
  std::unique_ptr<PrimaryNode> node(new PrimaryNode(options, primary, output));
  if (make == nullptr) {
    DESCENT_ASSIGN_OR_RETURN(node->inner_, ServerNode::Create(std::move(options), node.get()));
  } else {
    DESCENT_ASSIGN_OR_RETURN(node->inner_, make(std::move(options), node.get()));
  }
  return node;
}

PrimaryNode::PrimaryNode(const ServerNodeOptions& options, const PrimaryOptions& primary, Output* output)
    : options_(options),
      primary_(primary),
      output_(output),
      index_(options_.store.tensors, options_.store.geometry, options_.store.map, options_.store.self,
             options_.encoding),
      check_(&index_, options_.store.ranks),
      view_(primary.view),
      fences_(options_.store.ranks) {}

PrimaryNode::~PrimaryNode() = default;

// --- The coordinator's words -----------------------------------------------------------------------------------------

void PrimaryNode::SetBackup(uint64_t view, std::shared_ptr<BackupLink> link, bool fresh) {
  if (view < view_ || view <= backup_view_) return;
  DESCENT_CHECK(link != nullptr);
  Reset(view);
  backup_view_ = view;
  link_ = std::move(link);
  if (fresh && !pushed_ && inner_->stats().pushes == 0) {
    for (uint32_t r = 0; r < fences_.size(); ++r) {
      if (fences_[r] != Incarnation{}) Pass(FenceToPass(Rank(r), fences_[r]));
    }
    return;
  }
  sync_ = std::make_unique<Sync>();
  Pass(StateToPass(""));  // the greeting: what it may hold of before is of no use
}

void PrimaryNode::GoAlone(uint64_t view) {
  if (view >= view_) Reset(view);
}

void PrimaryNode::Reset(uint64_t view) {
  view_ = view;
  DropSync();
  link_.reset();
  unconfirmed_.clear();
  unconfirmed_bytes_ = image_bytes_ = last_ = confirmed_ = whole_round_ = 0;
  resend_ = absl::InfiniteFuture();
  ReleaseHeld();
}

bool PrimaryNode::synced() const {
  return link_ != nullptr && sync_ == nullptr && inner_->stats().round >= whole_round_;
}

// --- The stream to the backup ----------------------------------------------------------------------------------------

Request PrimaryNode::PushToPass(const Request& request, size_t push_size) const {
  Request out;
  out.envelope = request.envelope;
  out.push = request.push;
  out.replica.emplace();
  out.payload = push_size == request.payload.size() ? request.payload : request.payload.Sub(0, push_size);
  return out;
}

Request PrimaryNode::FenceToPass(Rank rank, Incarnation incarnation) const {
  Request out;
  out.envelope = options_.envelope;
  out.replica.emplace().fence = ReplicaFence{rank, incarnation};
  return out;
}

Request PrimaryNode::ScalarsToPass(const ScalarTotals& totals) const {
  Request out;
  out.envelope = options_.envelope;
  out.replica.emplace().scalars = totals;
  return out;
}

Request PrimaryNode::StateToPass(std::string state) const {
  Request out;
  out.envelope = options_.envelope;
  out.replica.emplace().engine = std::move(state);
  return out;
}

void PrimaryNode::Pass(Request request) {
  request.id = request.replica->sequence = ++last_;
  request.replica->view = view_;
  unconfirmed_bytes_ += request.payload.size();
  if (resend_ == absl::InfiniteFuture()) {
    resend_after_ = kResendAfter;
    resend_ = now_ + resend_after_;
    resend_confirmed_ = confirmed_;
  }
  unconfirmed_.push_back(request);
  link_->Send(std::move(request));
}

template <typename F>
void PrimaryNode::PassInOrder(F&& make) {
  if (link_ == nullptr) return;
  if (sync_ == nullptr || sync_->stage == Sync::Stage::kLive) {
    Pass(make());
  } else if (sync_->stage == Sync::Stage::kImages) {
    KeepForLater(make());
  }
}

void PrimaryNode::ResendAll() {
  for (const Request& request : unconfirmed_) link_->Send(request);
}

void PrimaryNode::OnConfirmed(uint64_t view, uint64_t sequence) {
  if (view != view_ || link_ == nullptr || sequence <= confirmed_ || sequence > last_) return;
  for (; confirmed_ < sequence; ++confirmed_) {
    const Request& request = unconfirmed_.front();
    unconfirmed_bytes_ -= request.payload.size();
    if (request.replica->image) image_bytes_ -= request.payload.size();
    unconfirmed_.pop_front();
  }
  if (unconfirmed_.empty()) resend_ = absl::InfiniteFuture();
  if (sync_ != nullptr && sync_->stage == Sync::Stage::kGreeting) {
    sync_->stage = Sync::Stage::kWanted;
    AdvanceSync();
  }
  if (sync_ != nullptr && sync_->stage == Sync::Stage::kLive && confirmed_ >= sync_->live_from) {
    // A slot's undo records begin with the cut: versions that are older can't be asked for any more from this round on.
    if (!options_.store.apply_push && options_.staleness != kUnbounded) {
      whole_round_ = sync_->clock + HistoryFor(options_);
    }
    sync_.reset();
  }
  ReleaseHeld();
}

void PrimaryNode::OnLinkUp(uint64_t view) {
  if (view == view_ && link_ != nullptr) ResendAll();
}

// --- Replies ---------------------------------------------------------------------------------------------------------

bool PrimaryNode::Gated() const {
  if (link_ == nullptr || primary_.fault == ReplicaFault::kAckBeforeReplicate) return false;
  if (sync_ == nullptr || sync_->stage == Sync::Stage::kLive) return true;
  return sync_->stage == Sync::Stage::kImages && unconfirmed_bytes_ > primary_.max_unconfirmed_bytes;
}

void PrimaryNode::Send(ConnectionId to, Reply reply) {
  const uint64_t after = Gated() ? last_ : held_.empty() ? 0 : held_.back().after;
  if (held_.empty() && confirmed_ >= after) return output_->Send(to, std::move(reply));
  held_.push_back({to, after, std::move(reply)});
}

void PrimaryNode::ReleaseHeld() {
  while (!held_.empty() && (link_ == nullptr || held_.front().after <= confirmed_)) {
    HeldReply held = std::move(held_.front());
    held_.pop_front();
    output_->Send(held.to, std::move(held.reply));
  }
}

// --- ServerNode ------------------------------------------------------------------------------------------------------

void PrimaryNode::OnOpen(ConnectionId connection, absl::Time now, bool unary) {
  now_ = now;
  inner_->OnOpen(connection, now, unary);
}

void PrimaryNode::OnClose(ConnectionId connection, absl::Time now) {
  now_ = now;
  held_.erase(std::remove_if(held_.begin(), held_.end(), [&](const HeldReply& h) { return h.to == connection; }),
              held_.end());
  inner_->OnClose(connection, now);
}

void PrimaryNode::OnRequest(ConnectionId connection, Request request, absl::Time now) {
  now_ = now;
  std::optional<Request> early;  // ROUND: for a clock that is not in the cut to come
  if (request.push && !request.replica) {
    Outcome outcome;
    // What is malformed, or of a generation that is over, changes nothing here, nor would it there.
    const bool ours = RequestCheck::CheckEnvelope(options_.envelope, request.envelope, &outcome).ok();
    pushed_ |= ours;
    if (link_ != nullptr && ours && check_.Check(request).ok()) {
      const size_t size = check_.checked().push_size;
      if (sync_ == nullptr || sync_->stage == Sync::Stage::kLive) {
        Pass(PushToPass(request, size));
      } else if (sync_->stage == Sync::Stage::kImages) {
        KeepForLater(PushToPass(request, size));
      } else if (sync_->stage == Sync::Stage::kWaiting && request.push->clock.value >= sync_->clock) {
        early = PushToPass(request, size);
      }
    }
  }
  const auto rejected = [this] {
    const ServerNodeStats& stats = inner_->stats();
    return stats.fenced + stats.too_early + stats.stale;
  };
  const uint64_t before = rejected();
  inner_->OnRequest(connection, std::move(request), now);
  // A backup that begins at the cut's clock might take in what was too early here.
  if (early && rejected() == before) {
    unconfirmed_bytes_ += early->payload.size();
    sync_->before.push_back(*std::move(early));
  }
  AdvanceSync();
}

void PrimaryNode::OnSent(ConnectionId connection, absl::Time now) {
  now_ = now;
  inner_->OnSent(connection, now);
}

void PrimaryNode::OnTimer(absl::Time now) {
  now_ = now;
  if (inner_->next_timer() <= now) inner_->OnTimer(now);
  AdvanceSync();
  if (resend_ > now) return;
  if (confirmed_ > resend_confirmed_) {
    resend_after_ = kResendAfter;
  } else {
    ResendAll();
    resend_after_ = std::min(2 * resend_after_, kMostResendAfter);
  }
  resend_ = now + resend_after_;
  resend_confirmed_ = confirmed_;
}

absl::Time PrimaryNode::next_timer() const {
  absl::Time next = std::min(inner_->next_timer(), resend_);
  if (sync_ != nullptr && sync_->stage == Sync::Stage::kWanted && sync_->not_before > now_) {
    next = std::min(next, sync_->not_before);
  }
  return next;
}

void PrimaryNode::Fence(Rank rank, Incarnation incarnation) {
  if (rank.value >= fences_.size()) return;
  fences_[rank.value] = std::max(fences_[rank.value], incarnation);
  PassInOrder([&] { return FenceToPass(rank, incarnation); });
  inner_->Fence(rank, incarnation);
}

absl::Status PrimaryNode::Agreed(const ScalarTotals& totals, absl::Time now) {
  now_ = now;
  // The backup is told before this node steps, and so only of what it can take.
  DESCENT_RETURN_IF_ERROR(CheckTotals(totals, options_.store.tensors.size(), options_.store.rule->products()));
  PassInOrder([&] { return ScalarsToPass(totals); });
  const absl::Status status = inner_->Agreed(totals, now);
  AdvanceSync();
  return status;
}

std::string PrimaryNode::DebugState() const {
  std::string out = absl::StrCat("primary, view ", view_, ", ",
                                 link_ == nullptr ? "alone"
                                 : sync_          ? "syncing"
                                                  : "replicated");
  if (link_ != nullptr) {
    absl::StrAppend(&out, ", sent ", last_, ", confirmed ", confirmed_, ", ", unconfirmed_bytes_, " bytes kept, ",
                    held_.size(), " replies held");
  }
  return absl::StrCat(out, "\n", inner_->DebugState());
}

absl::Status PrimaryNode::Install(const BlockExport& image, absl::Span<const uint64_t> marks) {
  return inner_->Install(image, marks);
}

}  // namespace descent
