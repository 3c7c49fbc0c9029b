#include "server/store/dense_block.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/copy_bytes.h"
#include "common/tensor/initial_value.h"
#include "server/store/float_runs.h"
#include "server/store/kernels.h"

namespace descent {

DenseBlock::DenseBlock(const TensorContext* context, uint32_t index)
    : context_(context),
      index_(index),
      begin_(context->geometry.block_begin(index)),
      elements_(context->geometry.block_size(context->spec, index)),
      tree_(context->ranks),
      tree_before_(context->ranks) {}

absl::Status DenseBlock::Init() {
  FloatBuffer first = context_->pool->Take(elements_);
  if (first == nullptr) return NoMemory(*context_, elements_);
  InitialDense(context_->seed, context_->id, context_->spec.initializer, begin_,
               absl::MakeSpan(first.get(), elements_));
  versions_.push_back(std::move(first));
  const int states = context_->trainable ? context_->rule->state_slots() : 0;
  for (int s = 0; s < states; ++s) {
    FloatBuffer state = context_->pool->Take(elements_);
    if (state == nullptr) return NoMemory(*context_, elements_);
    std::fill_n(state.get(), elements_, context_->rule->initial_state(s));
    state_pointers_.push_back(state.get());
    state_.push_back(std::move(state));
  }
  return absl::OkStatus();
}

absl::Status DenseBlock::CheckSize(const Payload& values) const {
  if (values.size() != elements_ * sizeof(float)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", context_->spec.name, "', block ", index_, ": expected ",
                                                   elements_, " values in ", elements_ * sizeof(float), " bytes, got ",
                                                   values.size(), " bytes"));
  }
  return absl::OkStatus();
}

bool DenseBlock::Gather(const Payload& values, const float* held, float* out) {
  bool finite = true;
  ForEachRun(values, [&](const float* run, size_t at, size_t n) {
    finite &= held == nullptr ? CopyFinite(n, run, out + at) : AddFinite(n, run, held + at, out + at);
  });
  return finite;
}

absl::Status DenseBlock::Hold(Rank first, uint32_t span, const Payload& values) {
  if (absl::Status status = CheckSize(values); !status.ok()) return status;
  if (tree_.Whole(first, span)) {
    if (absl::Status status = CheckFinite(*context_, begin_, values); !status.ok()) return status;
    const ReductionTree::Arrival arrival = tree_.Insert(first, span);
    for (ReductionTree::Cell cell : arrival.replaced) cells_[cell] = Value();
    if (arrival.cell >= cells_.size()) cells_.resize(arrival.cell + 1);
    cells_[arrival.cell].received = values;
    return absl::OkStatus();
  }
  FloatBuffer fresh = context_->pool->Take(elements_);
  if (fresh == nullptr) return NoMemory(*context_, elements_);
  tree_before_ = tree_;
  const ReductionTree::Arrival arrival = tree_.Insert(first, span);
  if (arrival.covered) return CheckFinite(*context_, begin_, values);
  // Into a buffer of its own: what is held must stay as it is if the values turn out to be bad.
  const float* held = arrival.folds.empty() ? nullptr : cells_[arrival.folds[0]].sum.get();
  bool finite = Gather(values, held, fresh.get());
  if (held == nullptr) *context_->copied_bytes += values.size();
  if (!finite) {
    // Finite values may still have a sum that is not, which Commit tells.
    if (absl::Status status = CheckFinite(*context_, begin_, values); !status.ok()) {
      tree_ = tree_before_;
      return status;
    }
  }
  for (ReductionTree::Cell cell : arrival.replaced) cells_[cell] = Value();
  if (arrival.cell >= cells_.size()) cells_.resize(arrival.cell + 1);
  for (size_t i = 1; i < arrival.folds.size(); ++i) {
    finite = AddFinite(elements_, cells_[arrival.folds[i]].sum.get(), fresh.get(), fresh.get());
    cells_[arrival.folds[i]] = Value();
  }
  cells_[arrival.cell] = {std::move(fresh), finite, {}};
  return absl::OkStatus();
}

absl::Status DenseBlock::Commit(double total_weight, double* square) {
  float scale = 1;
  if (absl::Status status = context_->Scale(total_weight, &scale); !status.ok()) return status;
  for (const ReductionTree::Fold& fold : tree_.Close()) {
    float* sum = cells_[fold.into].sum.get();
    cells_[fold.into].finite = AddFinite(elements_, cells_[fold.from].sum.get(), sum, sum);
    cells_[fold.from] = Value();
  }
  const std::optional<ReductionTree::Cell> root = tree_.root();
  if (root.has_value() && total_weight > 0 && context_->trainable) {
    Value& value = cells_[*root];
    if (value.sum == nullptr) {
      if (absl::Status status = Step(value.received, scale, square); !status.ok()) return status;
    } else {
      if (!value.finite) {
        Payload sum;
        sum.Append(value.sum.get(), elements_ * sizeof(float), nullptr);
        return absl::FailedPreconditionError(
            absl::StrCat("the sum of all ranks: ", CheckFinite(*context_, begin_, sum).message()));
      }
      if (absl::Status status = OwnState(); !status.ok()) return status;
      float* g = value.sum.get();
      if (square != nullptr) {
        SquareSum squares;
        squares.Add(0, elements_, g, scale);
        *square += squares.sum();
      }
      const descent::Step step{version_ + 1, context_->rate(Clock(version_)), scale, context_->l2};
      context_->rule->Apply(step, elements_, versions_.back().get(), g, state_pointers(), g);
      Publish(std::move(value.sum));
    }
  } else {
    Publish(versions_.back());
  }
  tree_.Clear();
  for (Value& value : cells_) value = Value();
  return absl::OkStatus();
}

absl::Status DenseBlock::Apply(double weight, const Payload& values) {
  float scale = 1;
  if (absl::Status status = context_->Scale(weight, &scale); !status.ok()) return status;
  if (absl::Status status = CheckSize(values); !status.ok()) return status;
  if (absl::Status status = CheckFinite(*context_, begin_, values); !status.ok()) return status;
  if (weight == 0 || !context_->trainable) {
    Publish(versions_.back());
    return absl::OkStatus();
  }
  return Step(values, scale, nullptr);
}

absl::Status DenseBlock::Step(const Payload& gradient, float scale, double* square) {
  FloatBuffer next = context_->pool->Take(elements_);
  if (next == nullptr) return NoMemory(*context_, elements_);
  if (absl::Status status = OwnState(); !status.ok()) return status;
  const descent::Step step{version_ + 1, context_->rate(Clock(version_)), scale, context_->l2};
  const float* w = versions_.back().get();
  SquareSum squares;
  ForEachRun(gradient, [&](const float* run, size_t at, size_t n) {
    if (square != nullptr) squares.Add(at, n, run, scale);
    float* state[UpdateRule::kMaxStateSlots] = {};
    for (size_t s = 0; s < state_pointers_.size(); ++s) state[s] = state_pointers_[s] + at;
    context_->rule->Apply(step, n, w + at, next.get() + at, state, run);
  });
  if (square != nullptr) *square += squares.sum();
  Publish(std::move(next));
  return absl::OkStatus();
}

void DenseBlock::Publish(FloatBuffer next) {
  versions_.push_back(std::move(next));
  while (versions_.size() > size_t{context_->history} + 1) versions_.pop_front();
  ++version_;
}

absl::StatusOr<Payload> DenseBlock::Read(std::optional<uint64_t> version) const {
  const uint64_t wanted = version.value_or(version_);
  const uint64_t oldest = version_ + 1 - versions_.size();
  if (wanted > version_ || wanted < oldest) {
    return absl::OutOfRangeError(absl::StrCat("tensor '", context_->spec.name, "', block ", index_, ": version ",
                                              wanted, " was asked for, versions ", oldest, " to ", version_,
                                              " are there"));
  }
  const FloatBuffer& buffer = versions_[wanted - oldest];
  Payload payload;
  payload.Append(buffer.get(), elements_ * sizeof(float), buffer);
  return payload;
}

absl::Status DenseBlock::OwnState() {
  if (!state_shared_) return absl::OkStatus();
  std::vector<FloatBuffer> own;
  for (const FloatBuffer& state : state_) {
    own.push_back(context_->pool->Take(elements_));
    if (own.back() == nullptr) return NoMemory(*context_, elements_);
    CopyBytes(own.back().get(), state.get(), elements_ * sizeof(float));
  }
  state_ = std::move(own);
  for (size_t s = 0; s < state_.size(); ++s) state_pointers_[s] = state_[s].get();
  state_shared_ = false;
  return absl::OkStatus();
}

Payload DenseBlock::Image(bool with_state) {
  Payload payload;
  payload.Append(versions_.back().get(), elements_ * sizeof(float), versions_.back());
  if (!with_state) return payload;
  for (const FloatBuffer& state : state_) payload.Append(state.get(), elements_ * sizeof(float), state);
  state_shared_ = true;
  return payload;
}

absl::Status DenseBlock::Install(uint64_t version, uint32_t state_slots, const Payload& image) {
  const size_t bytes = (1 + state_.size()) * elements_ * sizeof(float);
  if (state_slots != state_.size() || image.size() != bytes) {
    return absl::InvalidArgumentError(absl::StrCat("image of tensor '", context_->spec.name, "', block ", index_,
                                                   ": expected ", elements_, " values and ", state_.size(),
                                                   " state vectors in ", bytes, " bytes, got ", state_slots,
                                                   " state vectors, ", image.size(), " bytes"));
  }
  DESCENT_CHECK(versions_.size() == 1 && !state_shared_ && version_ == 0);
  PayloadReader reader(image);
  reader.CopyTo(versions_.back().get(), elements_ * sizeof(float));
  for (const FloatBuffer& state : state_) reader.CopyTo(state.get(), elements_ * sizeof(float));
  version_ = version;
  return absl::OkStatus();
}

uint64_t DenseBlock::held_bytes() const { return tree_.held() * elements_ * sizeof(float); }

}  // namespace descent
