#include "server/store/missed_steps.h"

#include <algorithm>

#include "server/store/gradient_shape.h"

namespace descent {
namespace {
constexpr uint64_t kKept = 65536;  // steps, 1.3 MB
constexpr uint64_t kChunk = 4096;
}  // namespace

void MissedSteps::Skip(uint64_t clock) {
  if (skipped_.empty() || skipped_.back() < clock) skipped_.push_back(clock);
}

uint64_t MissedSteps::SkippedBelow(uint64_t clock) const {
  return static_cast<uint64_t>(std::lower_bound(skipped_.begin(), skipped_.end(), clock) - skipped_.begin());
}

std::vector<uint64_t> MissedSteps::SkippedUntil(uint64_t end) const {
  return {skipped_.begin(), skipped_.begin() + static_cast<ptrdiff_t>(SkippedBelow(end))};
}

void MissedSteps::Append(uint64_t begin, uint64_t end, std::vector<StepFactors>* out) const {
  auto skip = std::lower_bound(skipped_.begin(), skipped_.end(), begin);
  for (uint64_t clock = begin; clock < end; ++clock) {
    if (skip != skipped_.end() && *skip == clock) {
      ++skip;
      continue;
    }
    // The scale multiplies a gradient of zero: any will do.
    out->push_back(context_->rule->Prepare(context_->StepOf(Clock(clock), 1.0f)));
  }
}

void MissedSteps::Extend(uint64_t to) {
  if (to <= kept_end_) return;
  if (to - kept_begin_ > 2 * kKept) {
    const uint64_t begin = to - kKept;
    if (begin >= kept_end_) {
      kept_.clear();
      kept_end_ = begin;
    } else {
      const auto drop = static_cast<ptrdiff_t>(begin - kept_begin_ - (SkippedBelow(begin) - SkippedBelow(kept_begin_)));
      kept_.erase(kept_.begin(), kept_.begin() + drop);
    }
    kept_begin_ = begin;
  }
  Append(kept_end_, to, &kept_);
  kept_end_ = to;
}

void MissedSteps::Replay(const std::vector<StepFactors>& steps, uint64_t begin, uint64_t end, size_t count,
                         float* const* rows, const uint64_t* last) {
  const uint64_t skipped_before = SkippedBelow(begin);
  const auto position = [&](uint64_t clock) {
    return static_cast<uint32_t>(clock - begin - (skipped_.empty() ? 0 : SkippedBelow(clock) - skipped_before));
  };
  const uint32_t all = position(end);
  first_.resize(count);
  for (size_t i = 0; i < count; ++i) first_[i] = last[i] >= end ? all : position(std::max(last[i], begin));
  if (context_->group == 0) {
    context_->rule->Replay(absl::MakeConstSpan(steps.data(), all), context_->spec.dim(), count, rows, first_.data());
    return;
  }
  // The threshold of a group is of all its elements, so that a row takes one step at a time.
  const size_t dim = context_->spec.dim();
  const uint32_t none = 0;
  for (size_t i = 0; i < count; ++i) {
    for (uint32_t k = first_[i]; k < all; ++k) {
      context_->rule->Replay(absl::MakeConstSpan(&steps[k], 1), dim, 1, rows + i, &none);
      ShrinkGroups(context_->rule->GroupThreshold(steps[k]), dim, dim, rows[i]);
    }
  }
}

void MissedSteps::CatchUp(uint64_t to, size_t count, float* const* rows, const uint64_t* last) {
  Extend(to);
  uint64_t from = to;
  for (size_t i = 0; i < count; ++i) from = std::min(from, last[i]);
  const uint64_t before_kept = std::min(to, kept_begin_);
  while (from < before_kept) {
    const uint64_t end = std::min(before_kept, from + kChunk);
    scratch_.clear();
    Append(from, end, &scratch_);
    Replay(scratch_, from, end, count, rows, last);
    from = end;
  }
  if (from < to) Replay(kept_, kept_begin_, to, count, rows, last);
}

}  // namespace descent
