// A backup that joins while training goes on: its cut, its images, and what it gets after them.
#include "server/replica/primary_sync.h"

#include <algorithm>

#include "common/base/check.h"
#include "server/store/image_slices.h"

namespace descent {

namespace {
constexpr size_t kSliceBytes = size_t{1} << 20;
constexpr absl::Duration kRetryAfter = absl::Seconds(1);  // of a cut for which there was no memory
}  // namespace

void PrimaryNode::AdvanceSync() {
  if (sync_ == nullptr) return;
  if (sync_->stage == Sync::Stage::kWanted && now_ >= sync_->not_before) OrderCut();
  if (sync_->stage == Sync::Stage::kWaiting && inner_->stats().round >= sync_->clock) BeginImages();
  if (sync_->stage < Sync::Stage::kWaiting || sync_->stage == Sync::Stage::kLive) return;
  if (sync_->mail->lost) {
    DropSync();
    sync_ = std::make_unique<Sync>();
    sync_->stage = Sync::Stage::kWanted;
    sync_->not_before = now_ + kRetryAfter;
    return;
  }
  if (sync_->stage != Sync::Stage::kImages) return;
  for (const auto& [image, marks] : std::exchange(sync_->mail->images, {})) PassImage(image, marks);
  if (sync_->mail->done) FinishImages();
}

void PrimaryNode::OrderCut() {
  sync_->mail = std::make_shared<Sync::Mail>();
  if (index_.size() == 0) {
    sync_->mail->done = true;
    BeginImages();
    return;
  }
  if (options_.store.apply_push) {
    // Refused while another cut is in progress: then later.
    if (inner_->BeginCut(Clock(0), std::make_shared<SyncSink>(sync_->mail)).ok()) BeginImages();
    return;
  }
  // Of a clock that no push may have had yet.
  const uint64_t lead = std::min(options_.staleness, EngineOptions().max_lead) + 1;
  sync_->clock = inner_->stats().round + lead + 2;
  if (inner_->BeginCut(Clock(sync_->clock), std::make_shared<SyncSink>(sync_->mail)).ok()) {
    sync_->stage = Sync::Stage::kWaiting;
  }
}

void PrimaryNode::BeginImages() {
  sync_->stage = Sync::Stage::kImages;
  sync_->state = inner_->SaveState();
  Pass(StateToPass(""));
}

void PrimaryNode::PassImage(const BlockExport& image, const std::vector<uint64_t>& marks) {
  const TensorSpec& spec = options_.store.tensors[image.id.tensor.value];
  for (ImageSlice& slice : SliceImage(image, spec.sparse ? spec.dim() : 0, kSliceBytes)) {
    Request request;
    request.envelope = options_.envelope;
    ReplicaImage& to = request.replica.emplace().image.emplace();
    to.id = image.id;
    to.version = image.version;
    to.steps = image.steps;
    to.marks = marks;
    to.keys = slice.keys;
    to.state_slots = image.state_slots;
    to.more = slice.more;
    if (slice.first == 0) to.skipped = image.skipped;
    if (slice.first == 0) to.order = image.order;
    if (slice.first == 0) to.method = image.method;
    if (!image.ahead.empty()) {
      const auto begin = image.ahead.begin() + slice.first;
      to.ahead.assign(begin, begin + slice.keys);
    }
    request.payload = std::move(slice.payload);
    image_bytes_ += request.payload.size();
    Pass(std::move(request));
  }
}

void PrimaryNode::FinishImages() {
  const auto pass_kept = [this](std::vector<Request> kept) {
    for (Request& request : kept) {
      unconfirmed_bytes_ -= request.payload.size();
      Pass(std::move(request));
    }
  };
  pass_kept(std::exchange(sync_->before, {}));
  Pass(StateToPass(std::exchange(sync_->state, {})));
  pass_kept(std::exchange(sync_->after, {}));
  sync_->stage = Sync::Stage::kLive;
  sync_->live_from = last_;
}

void PrimaryNode::KeepForLater(Request request) {
  unconfirmed_bytes_ += request.payload.size();
  sync_->after.push_back(std::move(request));
}

bool PrimaryNode::CutInUse() const {
  return sync_ != nullptr && (sync_->stage == Sync::Stage::kWaiting ||
                              (sync_->stage == Sync::Stage::kImages && !sync_->mail->done && !sync_->mail->lost));
}

void PrimaryNode::DropSync() {
  if (sync_ == nullptr) return;
  const bool in_use = CutInUse();
  for (const auto* kept : {&sync_->before, &sync_->after}) {
    for (const Request& request : *kept) unconfirmed_bytes_ -= request.payload.size();
  }
  if (sync_->mail != nullptr) {
    sync_->mail->wanted = false;
    sync_->mail->images.clear();
  }
  sync_.reset();
  // The owner may have a cut at the same time; then the sync's goes on to nobody.
  const bool owners = std::any_of(owners_cuts_.begin(), owners_cuts_.end(), [](const auto& w) { return !w.expired(); });
  if (in_use && !owners) inner_->DropCut();
}

// --- The owner's cuts ------------------------------------------------------------------------------------------------

std::shared_ptr<CutSink> PrimaryNode::Wrap(std::shared_ptr<CutSink> sink) {
  if (sink == nullptr) return nullptr;
  auto wrapped = std::make_shared<OwnersSink>(std::move(sink));
  owners_cuts_.erase(
      std::remove_if(owners_cuts_.begin(), owners_cuts_.end(), [](const auto& w) { return w.expired(); }),
      owners_cuts_.end());
  owners_cuts_.push_back(wrapped);
  return wrapped;
}

std::shared_ptr<CutSink> PrimaryNode::BeginCut(Clock clock) { return Wrap(output_->BeginCut(clock)); }

absl::Status PrimaryNode::BeginCut(Clock at, std::shared_ptr<CutSink> sink) {
  const absl::Status status = inner_->BeginCut(at, Wrap(std::move(sink)));
  AdvanceSync();
  return status;
}

bool PrimaryNode::PumpCut() {
  const bool owners = std::any_of(owners_cuts_.begin(), owners_cuts_.end(), [](const auto& w) { return !w.expired(); });
  // The backup has enough to take in for now; OnConfirmed comes before the next.
  if (image_bytes_ >= kImageBytesUnderWay && !owners) return false;
  const bool more = inner_->PumpCut();
  AdvanceSync();
  return more;
}

void PrimaryNode::DropCut() {
  for (const auto& weak : std::exchange(owners_cuts_, {})) {
    if (auto sink = weak.lock()) sink->Drop();
  }
  if (CutInUse()) {
    inner_->ReleaseReads();
  } else {
    inner_->DropCut();
  }
}

}  // namespace descent
