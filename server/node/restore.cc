#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "server/core/state_bytes.h"
#include "server/node/node_impl.h"

namespace descent {

absl::Status NodeImpl::Install(const BlockExport& image, absl::Span<const uint64_t> marks) {
  if (restoring_ == nullptr) {
    return absl::FailedPreconditionError("an image came to a server that is not being restored");
  }
  const uint32_t t = image.id.tensor.value;
  const bool sparse = t < options_.store.tensors.size() && options_.store.tensors[t].sparse;
  DESCENT_ASSIGN_OR_RETURN(const uint32_t block, index_.Find(image.id, sparse));
  const auto refuse = [&](auto... why) {
    return absl::InvalidArgumentError(absl::StrCat("image of ", index_.Name(image.id), ": expected ", why...));
  };
  const uint32_t ranks = options_.store.ranks;
  std::vector<Clock>& restart = options_.restored->restart;
  if (marks.size() != ranks) return refuse("marks of ", ranks, " ranks, got ", marks.size());
  if (restart.empty()) {
    restart.assign(ranks, Clock(options_.store.apply_push ? 0 : marks[0]));
  }
  for (uint32_t r = 0; r < ranks; ++r) {
    // Under PUSH a block may be ahead; one that is behind would miss what nobody makes again.
    const bool good = options_.store.apply_push ? marks[r] >= restart[r].value : marks[r] == restart[r].value;
    if (!good) {
      return refuse(options_.store.apply_push ? "clock at least " : "clock ", restart[r].value, " of rank ", r,
                    ", got ", marks[r]);
    }
  }
  if (!options_.store.apply_push && image.version != restart[0].value) {
    return refuse("version ", restart[0].value, ", got ", image.version);
  }
  uint64_t* const kept = restoring_->marks.data() + size_t{block} * ranks;
  if (restoring_->came[block]) {
    if (!sparse) return refuse("it once, got another");
    if (!std::equal(marks.begin(), marks.end(), kept)) {
      return refuse("the marks of its first rows, ", absl::StrJoin(absl::MakeConstSpan(kept, ranks), ","), ", got ",
                    absl::StrJoin(marks, ","));
    }
  }
  if (order_ != nullptr && !restoring_->came[block]) {
    const absl::Status order = order_->Install(block, image.order, image.version, image.steps, restoring_->running);
    if (!order.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("image of ", index_.Name(image.id), ": ", order.message()));
    }
  }
  DESCENT_RETURN_IF_ERROR(store_->Install(image));
  std::copy(marks.begin(), marks.end(), kept);
  restoring_->came[block] = true;
  return absl::OkStatus();
}

absl::Status NodeImpl::FinishRestore() {
  if (restoring_ == nullptr) return absl::FailedPreconditionError("this server is not being restored");
  for (uint32_t block = 0; block < index_.size(); ++block) {
    if (restoring_->came[block]) continue;
    return absl::FailedPreconditionError(absl::StrCat("the cut has no image of ", index_.Name(index_.id(block))));
  }
  const uint32_t ranks = options_.store.ranks;
  std::vector<uint64_t> clock(ranks);
  const std::vector<Clock>& restart = options_.restored->restart;
  for (uint32_t r = 0; r < restart.size(); ++r) clock[r] = restart[r].value;
  if (!options_.store.apply_push || options_.fault == EngineFault::kMarksNotInCut) {
    engine_.Restore(clock);
  } else {
    const std::vector<uint64_t>& marks = restoring_->marks;
    for (uint32_t r = 0; r < ranks && index_.size() > 0; ++r) {
      clock[r] = marks[r];
      for (uint32_t block = 1; block < index_.size(); ++block) {
        clock[r] = std::min(clock[r], marks[size_t{block} * ranks + r]);
      }
    }
    engine_.Restore(clock);
    for (uint32_t block = 0; block < index_.size(); ++block) {
      for (uint32_t r = 0; r < ranks; ++r) {
        const uint64_t mark = marks[size_t{block} * ranks + r];
        if (mark > clock[r]) engine_.RestoreMark(block, Rank(r), mark);
      }
    }
  }
  restoring_.reset();
  stats_.round = round_seen_ = engine_.round();
  return absl::OkStatus();
}

std::string NodeImpl::SaveState() const {
  StateWriter out;
  out.PutBytes(engine_.SaveState());
  out.PutAll(push_weight_);
  return out.Take();
}

absl::Status NodeImpl::LoadState(absl::string_view state) {
  if (restoring_ != nullptr) return absl::FailedPreconditionError("a state came before all images had");
  StateReader in(state);
  const absl::string_view engine = in.GetBytes();
  std::vector<double> weights = in.GetAll<double>(push_weight_.size());
  if (!in.at_end()) {
    return absl::InvalidArgumentError(absl::StrCat("a server's state: expected an engine's and ", push_weight_.size(),
                                                   " weights, got ", state.size(), " bytes that are not"));
  }
  DESCENT_RETURN_IF_ERROR(engine_.LoadState(engine));
  push_weight_ = std::move(weights);
  stats_.round = round_seen_ = engine_.round();
  return absl::OkStatus();
}

}  // namespace descent
