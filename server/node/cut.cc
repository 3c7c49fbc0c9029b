#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/node/node_impl.h"

namespace descent {

namespace {
constexpr size_t kPumpBytes = size_t{256} << 10;
constexpr size_t kMostDemanded = 2;            // a checkpoint, and what a joining backup is made of
constexpr size_t kSlotCost = size_t{1} << 10;  // of an image beside its rows, so that empty slots are bounded too
}  // namespace

absl::Status NodeImpl::BeginCut(Clock at, std::shared_ptr<CutSink> sink) {
  if (cut_ != nullptr && (options_.store.apply_push || at.value <= engine_.round())) {
    return absl::FailedPreconditionError(absl::StrCat("another cut, at clock ", cut_->clock.value, ", is in progress"));
  }
  std::vector<std::shared_ptr<CutSink>> sinks = {std::move(sink)};
  if (options_.store.apply_push) {
    StartCut(Clock(engine_.round()), std::move(sinks));
    return absl::OkStatus();
  }
  const uint64_t round = engine_.round();
  if (at.value < round || (at.value == round && engine_.blocks_ahead() > 0)) {
    return absl::OutOfRangeError(absl::StrCat("a cut at clock ", at.value, " is too late: the round is ", round,
                                              at.value == round ? ", and some blocks have made its step" : ""));
  }
  if (at.value == round) {
    StartCut(at, std::move(sinks));
  } else {
    if (demanded_.size() == kMostDemanded) {
      return absl::FailedPreconditionError(absl::StrCat("cuts at clocks ", demanded_[0].first.value, " and ",
                                                        demanded_[1].first.value, " are to come already"));
    }
    demanded_.emplace_back(at, std::move(sinks.front()));
  }
  return absl::OkStatus();
}

void NodeImpl::WatchRound() {
  const uint64_t round = engine_.round();
  stats_.round = round;
  if (round == round_seen_) return;
  round_seen_ = round;
  if (options_.store.apply_push) return;
  std::vector<std::shared_ptr<CutSink>> sinks;
  for (auto& [at, sink] : demanded_) {
    if (at.value == round) sinks.push_back(std::move(sink));
  }
  std::erase_if(demanded_, [](const auto& demanded) { return demanded.second == nullptr; });
  if (options_.cut_every > 0 && round % options_.cut_every == 0) {
    if (std::shared_ptr<CutSink> sink = output_->BeginCut(Clock(round))) sinks.push_back(std::move(sink));
  }
  if (sinks.empty()) return;
  while (PumpCut()) {  // what the owner had no time for
  }
  StartCut(Clock(round), std::move(sinks));
}

void NodeImpl::StartCut(Clock clock, std::vector<std::shared_ptr<CutSink>> sinks) {
  DESCENT_CHECK(cut_ == nullptr);
  cut_ = std::make_unique<Cut>();
  cut_->clock = clock;
  cut_->sinks = std::move(sinks);
  cut_->lacks.assign(index_.slots(), 1);
  cut_->left = index_.slots();
  if (options_.store.apply_push) {
    // A slot's turn may come when its marks have moved on.
    cut_->marks.reserve(size_t{index_.slots()} * options_.store.ranks);
    for (uint32_t block = index_.dense(); block < index_.size(); ++block) {
      for (uint32_t r = 0; r < options_.store.ranks; ++r) cut_->marks.push_back(engine_.mark(block, Rank(r)));
    }
  }
  // With one server alone there is nobody whose part could be later.
  if (order_ != nullptr && options_.store.apply_push && options_.store.map.servers > 1) {
    for (const auto& sink : cut_->sinks) hold_reads_ |= sink->of_all_servers();
  }
  store_->PinSlots();
  for (uint32_t block = 0; block < index_.dense(); ++block) {
    absl::StatusOr<BlockExport> image = store_->Export(index_.id(block), true);
    if (!image.ok()) return GiveUpCut();
    DESCENT_CHECK(options_.store.apply_push || image->version == clock.value);
    if (order_ != nullptr) image->order = order_->Image(block, image->version);
    Deliver(*std::move(image), CutMarks(block));
  }
  if (cut_->left == 0) FinishCut();
}

std::vector<uint64_t> NodeImpl::CutMarks(uint32_t block) const {
  const uint32_t ranks = options_.store.ranks;
  // What ranks that are ahead have sent for later rounds is not in the cut.
  if (!options_.store.apply_push) return std::vector<uint64_t>(ranks, cut_->clock.value);
  std::vector<uint64_t> marks(ranks);
  for (uint32_t r = 0; r < ranks; ++r) {
    marks[r] =
        block < index_.dense() ? engine_.mark(block, Rank(r)) : cut_->marks[size_t{block - index_.dense()} * ranks + r];
  }
  return marks;
}

void NodeImpl::Deliver(BlockExport image, std::vector<uint64_t> marks) {
  for (size_t i = 1; i < cut_->sinks.size(); ++i) cut_->sinks[i]->Add(image, marks);
  cut_->sinks[0]->Add(std::move(image), std::move(marks));
}

size_t NodeImpl::ImageSlot(uint32_t block) {
  if (cut_ == nullptr || block < index_.dense() || cut_->lacks[block - index_.dense()] == 0) return 0;
  const BlockId id = index_.id(block);
  absl::StatusOr<BlockExport> image = store_->ExportPinned(id);
  if (image.ok() && options_.fault == EngineFault::kCutTorn) {
    image = store_->Export(id, true);
    if (!options_.store.apply_push && image.ok()) image->version = image->steps = cut_->clock.value;
  }
  if (!image.ok()) {
    GiveUpCut();
    return 0;
  }
  // No step has been made since the cut's moment, so the log is of that moment too.
  if (order_ != nullptr) image->order = order_->Image(block, image->version);
  const size_t bytes = image->payload.size();
  Deliver(*std::move(image), CutMarks(block));
  cut_->lacks[block - index_.dense()] = 0;
  if (--cut_->left == 0) FinishCut();
  return bytes;
}

void NodeImpl::BeforeSlotStep(uint32_t block) {
  if (cut_ != nullptr && options_.fault != EngineFault::kCutTorn) ImageSlot(block);
}

void NodeImpl::AfterSlotStep(uint32_t block) {
  if (cut_ != nullptr && options_.fault == EngineFault::kCutTorn) ImageSlot(block);
}

bool NodeImpl::PumpCut() {
  for (size_t bytes = 0; cut_ != nullptr && bytes < kPumpBytes;) {
    while (cut_->lacks[cut_->next] == 0) ++cut_->next;  // one is left
    bytes += kSlotCost + ImageSlot(index_.dense() + cut_->next);
  }
  return cut_ != nullptr;
}

void NodeImpl::FinishCut() {
  const std::vector<std::shared_ptr<CutSink>> sinks = std::move(cut_->sinks);
  cut_.reset();
  for (const auto& sink : sinks) sink->Done();
}

void NodeImpl::DropCut() {
  demanded_.clear();
  if (cut_ != nullptr) GiveUpCut();
  ReleaseReads();
}

void NodeImpl::ReleaseReads() {
  if (!std::exchange(hold_reads_, false)) return;
  std::vector<ConnectionId> held;
  for (const auto& [id, connection] : connections_) {
    if (!connection->line.empty()) held.push_back(id);
  }
  std::sort(held.begin(), held.end());  // the map's order is nobody's
  for (ConnectionId id : held) MarkDirty(Find(id));
  Flush();
}

void NodeImpl::GiveUpCut() {
  store_->UnpinSlots();
  cut_.reset();
}

}  // namespace descent
