#include "server/store/dense_block.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/copy_bytes.h"
#include "common/base/status_macros.h"
#include "common/tensor/initial_value.h"
#include "server/store/float_runs.h"
#include "server/store/gradient_shape.h"
#include "server/store/kernels.h"

namespace descent {

DenseBlock::DenseBlock(const TensorContext* context, uint32_t index)
    : context_(context),
      index_(index),
      begin_(context->geometry.block_begin(index)),
      elements_(context->geometry.block_size(context->spec, index)),
      tree_(context->ranks),
      tree_before_(context->ranks) {}

absl::Status DenseBlock::Init(const float* start) {
  FloatBuffer first = context_->pool->Take(elements_);
  if (first == nullptr) return NoMemory(*context_, elements_);
  if (start != nullptr) {
    std::copy_n(start + begin_, elements_, first.get());
  } else {
    InitialDense(context_->seed, context_->id, context_->spec, begin_, absl::MakeSpan(first.get(), elements_));
  }
  versions_.push_back(std::move(first));
  if (context_->keeps_averages()) averages_.push_back(versions_.back());
  const int states = context_->state_slots();
  for (int s = 0; s < states; ++s) {
    FloatBuffer state = context_->pool->Take(elements_);
    if (state == nullptr) return NoMemory(*context_, elements_);
    const bool of_rule = s < context_->rule->state_slots();
    std::fill_n(state.get(), elements_, of_rule ? context_->rule->initial_state(s) : 0.0f);
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

absl::StatusOr<DenseBlock::Value*> DenseBlock::Total(double total_weight) {
  for (const ReductionTree::Fold& fold : tree_.Close()) {
    float* sum = cells_[fold.into].sum.get();
    cells_[fold.into].finite = AddFinite(elements_, cells_[fold.from].sum.get(), sum, sum);
    cells_[fold.from] = Value();
  }
  const std::optional<ReductionTree::Cell> root = tree_.root();
  if (!root.has_value() || !(total_weight > 0) || !context_->moves()) return nullptr;
  Value& value = cells_[*root];
  if (value.sum != nullptr && !value.finite) {
    Payload sum;
    sum.Append(value.sum.get(), elements_ * sizeof(float), nullptr);
    return absl::FailedPreconditionError(
        absl::StrCat("the sum of all ranks: ", CheckFinite(*context_, begin_, sum).message()));
  }
  return &value;
}

absl::StatusOr<BlockScalars> DenseBlock::Measure(double total_weight) {
  BlockScalars out;
  out.id = {context_->id, index_};
  float scale = 1;
  DESCENT_RETURN_IF_ERROR(context_->Scale(total_weight, &scale));
  DESCENT_ASSIGN_OR_RETURN(const Value* value, Total(total_weight));
  if (value == nullptr || context_->statistic) return out;
  if (context_->method != nullptr) {
    DESCENT_RETURN_IF_ERROR(MeasureMethod(*value, scale, &out));
    return out;
  }
  const float* w = versions_.back().get();
  if (context_->trust.of != Trust::Of::kNothing) {
    SquareSum squares;
    squares.Add(0, elements_, w, 1);
    out.parameter_square = squares.sum();
  }
  Payload gradient = value->received;
  if (value->sum != nullptr) gradient.Append(value->sum.get(), elements_ * sizeof(float), nullptr);
  const descent::Step step = context_->StepOf(Clock(version_), 1);
  const bool directed = context_->trust.of == Trust::Of::kDirection;
  SquareSum squares;
  std::array<float, 1024> shaped;
  ForEachRun(gradient, [&](const float* run, size_t at, size_t n) {
    if (context_->clip_value == 0 && !directed) return squares.Add(at, n, run, scale);
    for (size_t done = 0; done < n; done += shaped.size()) {
      const size_t count = std::min(shaped.size(), n - done);
      ShapeGradient({scale, context_->clip_value, 1}, count,
                    reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(run) + done * sizeof(float)),
                    shaped.data());
      if (directed) {
        const float* state[UpdateRule::kMaxStateSlots] = {};
        for (size_t s = 0; s < state_.size(); ++s) state[s] = state_[s].get() + at + done;
        context_->rule->Direction(step, count, w + at + done, shaped.data(), state, shaped.data());
      }
      squares.Add(at + done, count, shaped.data(), 1);
    }
  });
  out.square = squares.sum();
  return out;
}

absl::Status DenseBlock::Commit(double total_weight, double* square) {
  if (context_->statistic) square = nullptr;  // no gradient
  float scale = 1;
  DESCENT_RETURN_IF_ERROR(context_->Scale(total_weight, &scale));
  DESCENT_ASSIGN_OR_RETURN(Value * value, Total(total_weight));
  if (value == nullptr) {
    if (context_->method == nullptr) DESCENT_RETURN_IF_ERROR(Reserve());
    Publish(versions_.back());
  } else if (context_->method != nullptr) {
    if (value->sum == nullptr) {
      DESCENT_ASSIGN_OR_RETURN(value->sum, Copied(value->received));
    }
    DESCENT_RETURN_IF_ERROR(StepOfMethod(std::move(value->sum), scale, square));
  } else if (value->sum != nullptr) {
    DESCENT_RETURN_IF_ERROR(StepIn(std::move(value->sum), scale, square, std::nullopt));
  } else {
    DESCENT_RETURN_IF_ERROR(Step(value->received, scale, square, std::nullopt));
  }
  tree_.Clear();
  for (Value& cell : cells_) cell = Value();
  return absl::OkStatus();
}

absl::Status DenseBlock::Apply(double weight, const Payload& values, std::optional<uint64_t> read) {
  float scale = 1;
  DESCENT_RETURN_IF_ERROR(context_->Scale(weight, &scale));
  DESCENT_RETURN_IF_ERROR(CheckSize(values));
  DESCENT_RETURN_IF_ERROR(CheckFinite(*context_, begin_, values));
  if (weight > 0 && context_->moves()) return Step(values, scale, nullptr, read);
  DESCENT_RETURN_IF_ERROR(Reserve());
  Publish(versions_.back());
  return absl::OkStatus();
}

absl::StatusOr<FloatBuffer> DenseBlock::Copied(const Payload& values) const {
  FloatBuffer copy = context_->pool->Take(elements_);
  if (copy == nullptr) return NoMemory(*context_, elements_);
  values.CopyTo(copy.get());
  return copy;
}

absl::Status DenseBlock::StepIn(FloatBuffer gradient, float scale, double* square, std::optional<uint64_t> read) {
  DESCENT_RETURN_IF_ERROR(Reserve());
  float* g = gradient.get();
  if (square != nullptr) {
    SquareSum squares;
    squares.Add(0, elements_, g, scale);
    *square += squares.sum();
  }
  const float factor = context_->agreed.gradient;
  bool clipped = factor < 1;
  const uint64_t staleness = StalenessOf(read);
  if (context_->compensation > 0) {
    const size_t back = std::min<uint64_t>(staleness, versions_.size() - 1);
    const float* was = versions_[versions_.size() - 1 - back].get();
    if (context_->keeps_mean_square()) {
      MoveMeanSquare(context_->mean_square_decay, scale, elements_, g, state_.back().get());
      CompensateDelay(context_->compensation, scale, elements_, versions_.back().get(), was, state_.back().get(), g);
    } else {
      CompensateDelay(context_->compensation, scale, elements_, versions_.back().get(), was, g);
    }
    scale = 1;
  }
  if (context_->shapes()) {
    clipped |= ShapeGradient({scale, context_->clip_value, factor}, elements_, g, g);
    if (context_->noise != nullptr) {
      const float deviation = context_->noise(Clock(version_));
      AddNoise(context_->seed, context_->id, version_, begin_, deviation, elements_, g);
    }
  }
  const descent::Step step = context_->StepOf(Clock(version_), context_->shapes() ? 1.0f : scale * factor, staleness);
  context_->rule->Apply(step, elements_, versions_.back().get(), g, state_pointers(), g);
  context_->Count(clipped);
  Finish(step, std::move(gradient));
  return absl::OkStatus();
}

absl::Status DenseBlock::Step(const Payload& gradient, float scale, double* square, std::optional<uint64_t> read) {
  if (context_->shapes()) {
    DESCENT_ASSIGN_OR_RETURN(FloatBuffer copy, Copied(gradient));
    return StepIn(std::move(copy), scale, square, read);
  }
  FloatBuffer next = context_->pool->Take(elements_);
  if (next == nullptr) return NoMemory(*context_, elements_);
  DESCENT_RETURN_IF_ERROR(Reserve());
  const float factor = context_->agreed.gradient;
  const descent::Step step = context_->StepOf(Clock(version_), scale * factor, StalenessOf(read));
  const float* w = versions_.back().get();
  SquareSum squares;
  ForEachRun(gradient, [&](const float* run, size_t at, size_t n) {
    if (square != nullptr) squares.Add(at, n, run, scale);
    float* state[UpdateRule::kMaxStateSlots] = {};
    for (size_t s = 0; s < state_pointers_.size(); ++s) state[s] = state_pointers_[s] + at;
    context_->rule->Apply(step, n, w + at, next.get() + at, state, run);
  });
  if (square != nullptr) *square += squares.sum();
  context_->Count(factor < 1);
  Finish(step, std::move(next));
  return absl::OkStatus();
}

FullGradientMethod::Block DenseBlock::MethodBlock(const float* gradient) const {
  return {elements_, context_->spec.decay,  versions_.back().get(), averages_.back().get(),
          gradient,  state_pointers_.data()};
}

void DenseBlock::ObjectiveGradient(float scale, const float* sum, float* out) const {
  const float l2 = context_->l2;
  const float* w = versions_.back().get();
  for (size_t i = 0; i < elements_; ++i) out[i] = sum[i] * scale + l2 * w[i];
}

absl::Status DenseBlock::MeasureMethod(const Value& value, float scale, BlockScalars* out) const {
  FloatBuffer gradient;
  if (value.sum != nullptr) {
    gradient = context_->pool->Take(elements_);
    if (gradient == nullptr) return NoMemory(*context_, elements_);
    ObjectiveGradient(scale, value.sum.get(), gradient.get());
  } else {
    DESCENT_ASSIGN_OR_RETURN(gradient, Copied(value.received));
    ObjectiveGradient(scale, gradient.get(), gradient.get());
  }
  out->products.assign(context_->method->products(), 0);
  context_->method->Measure(MethodBlock(gradient.get()), absl::MakeSpan(out->products));
  return absl::OkStatus();
}

absl::Status DenseBlock::StepOfMethod(FloatBuffer gradient, float scale, double* square) {
  ObjectiveGradient(scale, gradient.get(), gradient.get());
  FloatBuffer next = context_->pool->Take(elements_);
  if (next == nullptr) return NoMemory(*context_, elements_);
  DESCENT_RETURN_IF_ERROR(OwnState());
  const FullGradientMethod& method = *context_->method;
  const FullGradientMethod::Block block = MethodBlock(gradient.get());
  if (square != nullptr) *square += method.SquaredGradient(block);
  method.Step(block, next.get());
  context_->Count(false);
  averages_.push_back(method.taken() ? versions_.back() : averages_.back());
  while (averages_.size() > size_t{context_->history} + 1) averages_.pop_front();
  PublishVersion(std::move(next));
  return absl::OkStatus();
}

void DenseBlock::Finish(const descent::Step& step, FloatBuffer next) {
  if (context_->group > 0) {
    ShrinkGroups(context_->rule->GroupThreshold(step), context_->group, elements_, next.get());
  }
  Publish(std::move(next));
}

void DenseBlock::Publish(FloatBuffer next) {
  const size_t kept = size_t{context_->history} + 1;
  if (!averages_.empty()) {
    const float weight = context_->method != nullptr ? 0 : context_->average_weight(Clock(version_));
    if (context_->method != nullptr) {
      averages_.push_back(averages_.back());
    } else if (weight == 1) {
      averages_.push_back(next);
    } else {
      MoveAverage(weight, elements_, next.get(), averages_.back().get(), next_average_.get());
      averages_.push_back(std::move(next_average_));
    }
    while (averages_.size() > kept) averages_.pop_front();
  }
  PublishVersion(std::move(next));
}

void DenseBlock::PublishVersion(FloatBuffer next) {
  const size_t kept = size_t{context_->history} + 1;
  versions_.push_back(std::move(next));
  while (versions_.size() > kept) versions_.pop_front();
  ++version_;
}

absl::StatusOr<Payload> DenseBlock::Read(std::optional<uint64_t> version, bool averaged) const {
  const uint64_t wanted = version.value_or(version_);
  const uint64_t oldest = version_ + 1 - versions_.size();
  if (wanted > version_ || wanted < oldest) {
    return absl::OutOfRangeError(absl::StrCat("tensor '", context_->spec.name, "', block ", index_, ": version ",
                                              wanted, " was asked for, versions ", oldest, " to ", version_,
                                              " are there"));
  }
  const FloatBuffer& buffer = (averaged && !averages_.empty() ? averages_ : versions_)[wanted - oldest];
  Payload payload;
  payload.Append(buffer.get(), elements_ * sizeof(float), buffer);
  return payload;
}

absl::Status DenseBlock::Reserve() {
  if (!averages_.empty() && next_average_ == nullptr) {
    next_average_ = context_->pool->Take(elements_);
    if (next_average_ == nullptr) return NoMemory(*context_, elements_);
  }
  return OwnState();
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
  if (!averages_.empty()) payload.Append(averages_.back().get(), elements_ * sizeof(float), averages_.back());
  state_shared_ = true;
  return payload;
}

absl::Status DenseBlock::Install(uint64_t version, uint32_t state_slots, const Payload& image) {
  const size_t bytes = (1 + state_vectors()) * elements_ * sizeof(float);
  if (state_slots != state_vectors() || image.size() != bytes) {
    return absl::InvalidArgumentError(absl::StrCat("image of tensor '", context_->spec.name, "', block ", index_,
                                                   ": expected ", elements_, " values and ", state_vectors(),
                                                   " state vectors in ", bytes, " bytes, got ", state_slots,
                                                   " state vectors, ", image.size(), " bytes"));
  }
  DESCENT_CHECK(versions_.size() == 1 && !state_shared_ && version_ == 0);
  PayloadReader reader(image);
  reader.CopyTo(versions_.back().get(), elements_ * sizeof(float));
  for (const FloatBuffer& state : state_) reader.CopyTo(state.get(), elements_ * sizeof(float));
  if (!averages_.empty()) {
    DESCENT_RETURN_IF_ERROR(Reserve());
    reader.CopyTo(next_average_.get(), elements_ * sizeof(float));
    averages_.assign(1, std::move(next_average_));
  }
  version_ = version;
  return absl::OkStatus();
}

uint64_t DenseBlock::held_bytes() const { return tree_.held() * elements_ * sizeof(float); }

}  // namespace descent
