#include "server/store/sparse_slot.h"

#include <algorithm>
#include <cmath>
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
namespace {

constexpr size_t kGroup = 64;         // rows stepped together
constexpr size_t kPrefetchAhead = 8;  // keys between a prefetch and its use
// Rows of a batch are fetched while its keys are still being looked up, if they then stay in the L2 cache.
constexpr size_t kFetchedRowBytes = size_t{256} << 10;

// The parameters of a row; the usual lengths without a call of the library.
inline void CopyRow(size_t dim, const float* from, float* to) {
  if (dim == 1) {
    *to = *from;
  } else if (dim == 8) {
    std::memcpy(to, from, 8 * sizeof(float));
  } else {
    std::memcpy(to, from, dim * sizeof(float));
  }
}

bool StartsAtZero(const Initializer& initializer) {
  return initializer.kind == Initializer::Kind::kZero || static_cast<float>(initializer.scale) == 0;
}

}  // namespace

SparseTable::SparseTable(const TensorContext* the_context, SlabArena* the_arena)
    : context(the_context),
      arena(the_arena),
      dim(context->spec.dim()),
      states(context->trainable ? context->rule->state_slots() : 0),
      stride(dim * (1 + states) + (context->catch_up ? sizeof(uint64_t) / sizeof(float) : 0)),
      starts_at_zero(StartsAtZero(context->spec.initializer)),
      missed(context) {}

uint64_t SparseTable::scratch_bytes() const {
  return bytes.capacity() + value_bytes.capacity() + buckets.capacity() * sizeof(uint32_t) +
         rows.capacity() * sizeof(RowTable::Row) + copies.capacity() * sizeof(float) +
         pointers.capacity() * sizeof(float*) + last.capacity() * sizeof(uint64_t) + shaped.capacity() * sizeof(float) +
         missed.bytes();
}

SparseSlot::SparseSlot(SparseTable* table, uint32_t index)
    : table_(table), index_(index), rows_(table->arena, table->stride), tree_(table->context->ranks) {}

uint64_t SparseSlot::version() const {
  return table_->context->apply_push ? version_ : std::max(version_, table_->steps);
}

uint64_t SparseSlot::LastOf(const float* row) const {
  uint64_t last;
  std::memcpy(&last, row + table_->dim * (1 + table_->states), sizeof(last));
  return last;
}

void SparseSlot::SetLast(float* row, uint64_t last) const {
  std::memcpy(row + table_->dim * (1 + table_->states), &last, sizeof(last));
}

void SparseSlot::InitialRowTo(uint64_t key, float* row) const {
  const TensorContext& context = *table_->context;
  const size_t dim = table_->dim;
  InitialRow(context.seed, context.id, context.spec.initializer, key, absl::MakeSpan(row, dim));
  for (size_t s = 0; s < table_->states; ++s) {
    std::fill_n(row + (1 + s) * dim, dim, context.rule->initial_state(static_cast<int>(s)));
  }
  // A row of zeros rests: the steps it missed leave it as it is.
  if (context.catch_up) SetLast(row, table_->starts_at_zero ? now() : 0);
}

// --- What comes in ---------------------------------------------------------------------------------------------------

absl::Status SparseSlot::Parse(uint32_t count, const Payload& payload, bool with_values, Batch* batch) {
  const uint64_t key_bytes = uint64_t{count} * sizeof(uint64_t);
  const uint64_t value_bytes = with_values ? uint64_t{count} * table_->dim * sizeof(float) : 0;
  if (payload.size() != key_bytes + value_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("table '", table_->context->spec.name, "', slot ", index_, ": expected ", key_bytes + value_bytes,
                     " bytes for ", count, " keys", with_values ? absl::StrCat(" and rows of ", table_->dim) : "",
                     ", got ", payload.size()));
  }
  batch->count = count;
  batch->keys = Flat(payload, 0, key_bytes, &table_->bytes);
  if (with_values) {
    batch->values = reinterpret_cast<const float*>(Flat(payload, key_bytes, value_bytes, &table_->value_bytes));
  }
  if (absl::Status status = CheckKeys(*batch); !status.ok()) return status;
  return with_values ? CheckValues(*batch) : absl::OkStatus();
}

absl::Status SparseSlot::CheckKeys(const Batch& batch) {
  std::vector<uint32_t>& buckets = table_->buckets;
  buckets.resize(batch.count);
  const uint64_t mask = table_->context->geometry.slots - 1;
  uint64_t wrong = 0;
  uint64_t previous = 0;
  for (size_t i = 0; i < batch.count; ++i) {
    const uint64_t key = batch.key(i);
    const uint64_t hash = HashKey(key);
    buckets[i] = RowTable::Bucket(hash);
    wrong |= (hash & mask) ^ index_;
    wrong |= static_cast<uint64_t>(i > 0 && key <= previous);
    previous = key;
  }
  if (wrong == 0) return absl::OkStatus();
  for (size_t i = 0; i < batch.count; ++i) {
    const uint64_t key = batch.key(i);
    if ((HashKey(key) & mask) != index_) {
      return absl::InvalidArgumentError(absl::StrCat("table '", table_->context->spec.name, "', slot ", index_,
                                                     ": key ", key, " is of slot ", HashKey(key) & mask));
    }
    if (i > 0 && key <= batch.key(i - 1)) {
      return absl::InvalidArgumentError(absl::StrCat("table '", table_->context->spec.name, "', slot ", index_,
                                                     ": keys must be unique and ascending, but ", key, " follows ",
                                                     batch.key(i - 1)));
    }
  }
  DESCENT_CHECK(false);
  return absl::OkStatus();
}

absl::Status SparseSlot::CheckValues(const Batch& batch) const {
  const size_t n = batch.count * table_->dim;
  if (AllFinite(n, batch.values)) return absl::OkStatus();
  const UnalignedFloat* values = batch.values;
  for (size_t i = 0; i < n; ++i) {
    const float value = values[i];
    if (std::isfinite(value)) continue;
    return absl::InvalidArgumentError(absl::StrCat("table '", table_->context->spec.name, "', key ",
                                                   batch.key(i / table_->dim), ", column ", i % table_->dim,
                                                   ": expected a finite number, got ", value));
  }
  return absl::OkStatus();
}

absl::Status SparseSlot::Hold(Rank first, uint32_t span, uint32_t keys, const Payload& payload) {
  Batch batch;
  if (absl::Status status = Parse(keys, payload, true, &batch); !status.ok()) return status;
  const TensorContext& context = *table_->context;
  const size_t floats = size_t{keys} * table_->dim;
  SparseSum sum;
  sum.keys.resize(keys);
  if (keys > 0) CopyBytes(sum.keys.data(), batch.keys, keys * sizeof(uint64_t));
  sum.values = context.pool->Take(floats);
  if (sum.values == nullptr) return NoMemory(context, floats);
  if (floats > 0) CopyBytes(sum.values.get(), batch.values, floats * sizeof(float));
  *context.copied_bytes += payload.size();
  const ReductionTree::Arrival arrival = tree_.Insert(first, span);
  if (arrival.covered) return absl::OkStatus();
  for (ReductionTree::Cell cell : arrival.replaced) cells_[cell] = SparseSum();
  for (ReductionTree::Cell cell : arrival.folds) {
    sum = AddSparse(sum, cells_[cell], table_->dim, context.pool);
    DESCENT_CHECK(sum.values != nullptr);
    cells_[cell] = SparseSum();
  }
  if (arrival.cell >= cells_.size()) cells_.resize(arrival.cell + 1);
  cells_[arrival.cell] = std::move(sum);
  held_bytes_ = CountHeld();
  return absl::OkStatus();
}

uint64_t SparseSlot::CountHeld() const {
  uint64_t bytes = 0;
  for (const SparseSum& sum : cells_) bytes += sum.bytes(table_->dim);
  return bytes;
}

// --- Steps -----------------------------------------------------------------------------------------------------------

absl::StatusOr<SparseSum*> SparseSlot::Total(double total_weight) {
  for (const ReductionTree::Fold& fold : tree_.Close()) {
    cells_[fold.into] = AddSparse(cells_[fold.into], cells_[fold.from], table_->dim, table_->context->pool);
    DESCENT_CHECK(cells_[fold.into].values != nullptr);
    cells_[fold.from] = SparseSum();
  }
  held_bytes_ = CountHeld();
  const std::optional<ReductionTree::Cell> root = tree_.root();
  if (!root.has_value() || !(total_weight > 0) || !table_->context->trainable || cells_[*root].keys.empty()) {
    return nullptr;
  }
  SparseSum& sum = cells_[*root];
  if (absl::Status status = CheckValues(BatchOf(sum)); !status.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("the sum of all ranks: ", status.message()));
  }
  return &sum;
}

absl::StatusOr<BlockScalars> SparseSlot::Measure(double total_weight) {
  const TensorContext& context = *table_->context;
  BlockScalars out;
  out.id = {context.id, index_};
  float scale = 1;
  DESCENT_RETURN_IF_ERROR(context.Scale(total_weight, &scale));
  DESCENT_ASSIGN_OR_RETURN(const SparseSum* sum, Total(total_weight));
  if (sum == nullptr) return out;
  const size_t n = sum->keys.size() * table_->dim;
  const float* values = sum->values.get();
  if (context.clip_value > 0) {
    table_->shaped.resize(n);
    ShapeGradient({scale, context.clip_value, 1}, n, values, table_->shaped.data());
    values = table_->shaped.data();
    scale = 1;
  }
  SquareSum squares;
  squares.Add(0, n, values, scale);
  out.square = squares.sum();
  return out;
}

absl::Status SparseSlot::Commit(double total_weight, double* square) {
  const TensorContext& context = *table_->context;
  float scale = 1;
  DESCENT_RETURN_IF_ERROR(context.Scale(total_weight, &scale));
  DESCENT_ASSIGN_OR_RETURN(SparseSum * sum, Total(total_weight));
  const uint64_t now = version();
  if (sum != nullptr) {
    const Batch batch = BatchOf(*sum);
    DESCENT_RETURN_IF_ERROR(CheckKeys(batch));
    Undo undo;
    if (context.history > 0) {
      undo.version = now;
      undo.rows = context.pool->Take(sum->keys.size() * table_->stride);
      if (undo.rows == nullptr) return NoMemory(context, sum->keys.size() * table_->stride);
    }
    DESCENT_RETURN_IF_ERROR(Step(batch, scale, now, context.history > 0 ? &undo : nullptr));
    if (square != nullptr) {
      SquareSum squares;
      squares.Add(0, sum->keys.size() * table_->dim, sum->values.get(), scale);
      *square += squares.sum();
    }
    if (context.history > 0) {
      undo.keys = std::move(sum->keys);
      undo_.push_back(std::move(undo));
    }
  } else if (total_weight == 0 && context.catch_up) {
    table_->missed.Skip(now);
  }
  version_ = now + 1;
  if (version_ > context.history) Forget(version_ - context.history);
  tree_.Clear();
  cells_.clear();
  held_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status SparseSlot::Apply(double weight, uint32_t keys, const Payload& payload, std::optional<uint64_t> read) {
  const TensorContext& context = *table_->context;
  float scale = 1;
  if (absl::Status status = context.Scale(weight, &scale); !status.ok()) return status;
  Batch batch;
  if (absl::Status status = Parse(keys, payload, true, &batch); !status.ok()) return status;
  const uint64_t staleness = version_ - std::min(version_, read.value_or(version_));
  if (weight > 0 && context.trainable) {
    if (absl::Status status = Step(batch, scale, table_->steps, nullptr, staleness); !status.ok()) return status;
  }
  ++version_;
  return absl::OkStatus();
}

absl::Status SparseSlot::FindOrMakeRows(const Batch& batch, bool fetch_rows) {
  const std::vector<uint32_t>& buckets = table_->buckets;
  std::vector<RowTable::Row>& rows = table_->rows;
  rows.resize(batch.count);
  for (size_t i = 0; i < std::min<size_t>(kPrefetchAhead, batch.count); ++i) rows_.Prefetch(buckets[i]);
  for (size_t i = 0; i < batch.count; ++i) {
    if (i + kPrefetchAhead < batch.count) rows_.Prefetch(buckets[i + kPrefetchAhead]);
    const uint64_t key = batch.key(i);
    RowTable::Row row = rows_.Find(buckets[i], key);
    if (row == RowTable::kAbsent) {
      row = rows_.Insert(buckets[i], key);
      if (row == RowTable::kAbsent) return NoMemory(*table_->context, table_->stride);
      InitialRowTo(key, rows_.row(row));
    }
    rows[i] = row;
    if (fetch_rows) rows_.PrefetchRow(row);
  }
  return absl::OkStatus();
}

absl::Status SparseSlot::Step(const Batch& unshaped, float scale, uint64_t now, Undo* undo, uint64_t staleness) {
  const TensorContext& context = *table_->context;
  Batch batch = unshaped;
  const float factor = context.agreed.gradient;
  bool clipped = factor < 1;
  if (context.shapes()) {
    const size_t n = batch.count * table_->dim;
    table_->shaped.resize(n);
    clipped |= ShapeGradient({scale, context.clip_value, factor}, n, batch.values, table_->shaped.data());
    batch.values = table_->shaped.data();
    scale = 1;
  } else {
    scale *= factor;
  }
  // Made first: a new row with its initial values reads as an absent one, so this can fail and change nothing.
  const bool fetched = batch.count * table_->stride * sizeof(float) <= kFetchedRowBytes;
  if (absl::Status status = FindOrMakeRows(batch, fetched); !status.ok()) return status;
  const std::vector<RowTable::Row>& rows = table_->rows;
  const size_t stride = table_->stride;
  table_->pointers.resize(kGroup);
  float** const pointers = table_->pointers.data();
  const size_t head = fetched ? 0 : std::min<size_t>(kGroup, batch.count);
  for (size_t i = 0; i < head; ++i) rows_.PrefetchRow(rows[i]);
  for (size_t begin = 0; begin < batch.count; begin += kGroup) {
    const size_t count = std::min<size_t>(kGroup, batch.count - begin);
    const size_t ahead = fetched ? 0 : std::min<size_t>(begin + 2 * kGroup, batch.count);
    for (size_t i = begin + kGroup; i < ahead; ++i) rows_.PrefetchRow(rows[i]);
    for (size_t i = 0; i < count; ++i) pointers[i] = rows_.row(rows[begin + i]);
    if (undo != nullptr) {
      float* out = undo->rows.get() + begin * stride;
      for (size_t i = 0; i < count; ++i) std::memcpy(out + i * stride, pointers[i], stride * sizeof(float));
    }
    const auto* values = reinterpret_cast<const std::byte*>(batch.values) + begin * table_->dim * sizeof(float);
    StepGroup(count, reinterpret_cast<const float*>(values), scale, now, staleness);
  }
  context.Count(clipped);
  return absl::OkStatus();
}

void SparseSlot::StepGroup(size_t count, const float* values, float scale, uint64_t now, uint64_t staleness) {
  const TensorContext& context = *table_->context;
  const size_t dim = table_->dim;
  float** const pointers = table_->pointers.data();
  if (!context.catch_up) {
    const descent::Step step = context.StepOf(Clock(now), scale, staleness);
    context.rule->ApplyRows(step, dim, count, pointers, values);
    ShrinkRows(step, count, pointers);
    return;
  }
  std::vector<uint64_t>& last = table_->last;
  last.resize(count);
  for (size_t i = 0; i < count; ++i) last[i] = LastOf(pointers[i]);
  table_->missed.CatchUp(now, count, pointers, last.data());
  // Under PUSH a row may be ahead of its table by pushes that are not complete; rows of one count step together.
  for (size_t begin = 0; begin < count;) {
    const uint64_t clock = std::max(now, last[begin]);
    size_t end = begin + 1;
    while (end < count && std::max(now, last[end]) == clock) ++end;
    const descent::Step step = context.StepOf(Clock(clock), scale, staleness);
    const auto* g = reinterpret_cast<const std::byte*>(values) + begin * dim * sizeof(float);
    context.rule->ApplyRows(step, dim, end - begin, pointers + begin, reinterpret_cast<const float*>(g));
    ShrinkRows(step, end - begin, pointers + begin);
    for (size_t i = begin; i < end; ++i) SetLast(pointers[i], clock + 1);
    begin = end;
  }
}

void SparseSlot::ShrinkRows(const descent::Step& step, size_t count, float* const* rows) const {
  if (table_->context->group == 0) return;
  const float threshold = table_->context->rule->GroupThreshold(step);
  for (size_t i = 0; i < count; ++i) ShrinkGroups(threshold, table_->dim, table_->dim, rows[i]);
}

void SparseSlot::Forget(uint64_t oldest) {
  while (!undo_.empty() && undo_.front().version < oldest) undo_.pop_front();
}

// --- What goes out ---------------------------------------------------------------------------------------------------

void SparseSlot::CopyRows(const Batch& batch, uint64_t version) {
  const size_t stride = table_->stride;
  std::vector<float>& copies = table_->copies;
  copies.resize(batch.count * stride);
  const auto at = [&](size_t i) { return copies.data() + i * stride; };
  for (size_t i = 0; i < batch.count; ++i) {
    const RowTable::Row row = table_->rows[i];
    if (row == RowTable::kAbsent) {
      InitialRowTo(batch.key(i), at(i));
    } else {
      std::memcpy(at(i), rows_.row(row), stride * sizeof(float));
    }
  }
  // From the newest back to the step that followed the version asked for.
  for (auto undo = undo_.rbegin(); undo != undo_.rend() && undo->version >= version; ++undo) {
    size_t j = 0;
    for (size_t i = 0; i < batch.count && j < undo->keys.size(); ++i) {
      const uint64_t key = batch.key(i);
      while (j < undo->keys.size() && undo->keys[j] < key) ++j;
      if (j < undo->keys.size() && undo->keys[j] == key) {
        std::memcpy(at(i), undo->rows.get() + j * stride, stride * sizeof(float));
      }
    }
  }
  if (!table_->context->catch_up) return;
  table_->pointers.resize(std::max<size_t>(kGroup, batch.count));
  table_->last.resize(batch.count);
  for (size_t i = 0; i < batch.count; ++i) {
    table_->pointers[i] = at(i);
    table_->last[i] = LastOf(at(i));
  }
  table_->missed.CatchUp(version, batch.count, table_->pointers.data(), table_->last.data());
}

void SparseSlot::CatchUpRead(size_t count, uint64_t to) {
  to = std::min(to, pin_);
  table_->pointers.clear();
  table_->last.clear();
  for (size_t i = 0; i < count; ++i) {
    if (table_->rows[i] == RowTable::kAbsent) continue;
    float* row = rows_.row(table_->rows[i]);
    const uint64_t last = LastOf(row);
    if (last >= to) continue;
    table_->pointers.push_back(row);
    table_->last.push_back(last);
  }
  table_->missed.CatchUp(to, table_->pointers.size(), table_->pointers.data(), table_->last.data());
  for (float* row : table_->pointers) SetLast(row, to);
}

absl::StatusOr<Payload> SparseSlot::Read(uint32_t count, const Payload& keys, std::optional<uint64_t> wanted) {
  const TensorContext& context = *table_->context;
  const uint64_t newest = version();
  if (wanted.has_value() && !context.apply_push && (*wanted > newest || newest - *wanted > context.history)) {
    return absl::OutOfRangeError(absl::StrCat(
        "table '", context.spec.name, "', slot ", index_, ": version ", *wanted, " was asked for, versions ",
        newest - std::min<uint64_t>(newest, context.history), " to ", newest, " are there"));
  }
  Batch batch;
  if (absl::Status status = Parse(count, keys, false, &batch); !status.ok()) return status;
  const size_t dim = table_->dim;
  FloatBuffer out = context.pool->Take(count * dim);
  if (out == nullptr) return NoMemory(context, count * dim);
  const std::vector<uint32_t>& buckets = table_->buckets;
  std::vector<RowTable::Row>& rows = table_->rows;
  rows.resize(count);
  for (size_t i = 0; i < std::min<size_t>(kPrefetchAhead, count); ++i) rows_.Prefetch(buckets[i]);
  for (size_t i = 0; i < count; ++i) {
    if (i + kPrefetchAhead < count) rows_.Prefetch(buckets[i + kPrefetchAhead]);
    rows[i] = rows_.Find(buckets[i], batch.key(i));
    if (rows[i] != RowTable::kAbsent) rows_.PrefetchRow(rows[i]);
  }
  const uint64_t version = context.apply_push ? table_->steps : wanted.value_or(newest);
  if (!context.catch_up && (context.apply_push || version == newest)) {
    for (size_t i = 0; i < count; ++i) {
      float* to = out.get() + i * dim;
      if (rows[i] == RowTable::kAbsent) {
        InitialRow(context.seed, context.id, context.spec.initializer, batch.key(i), absl::MakeSpan(to, dim));
      } else {
        CopyRow(dim, rows_.row(rows[i]), to);
      }
    }
  } else {
    if (context.catch_up) {
      CatchUpRead(count, context.apply_push ? version : newest - std::min<uint64_t>(newest, context.history));
    }
    CopyRows(batch, version);
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(out.get() + i * dim, table_->copies.data() + i * table_->stride, dim * sizeof(float));
    }
  }
  Payload payload;
  payload.Append(out.get(), count * dim * sizeof(float), out);
  *context.copied_bytes += payload.size();
  return payload;
}

uint64_t SparseSlot::other_bytes() const {
  uint64_t bytes = 0;
  for (const Undo& undo : undo_) bytes += undo.keys.capacity() * sizeof(uint64_t);
  for (const SparseSum& sum : cells_) bytes += sum.keys.capacity() * sizeof(uint64_t);
  return bytes;
}

}  // namespace descent
