#include "server/store/block_store.h"

#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "server/store/buffer_pool.h"
#include "server/store/dense_block.h"
#include "server/store/slab_arena.h"
#include "server/store/sparse_slot.h"
#include "server/store/tensor_context.h"

namespace descent {
namespace {

// Free buffers kept beyond what versions and contributions take: those of replies to reads of rows.
constexpr uint64_t kReplyBytes = uint64_t{32} << 20;

// A part of the rule, which lives as long as the whole.
std::shared_ptr<const UpdateRule> Sharing(const std::shared_ptr<const UpdateRule>& whole, const UpdateRule& part) {
  return {whole, &part};
}

class Store final : public BlockStore {
 public:
  explicit Store(const StoreOptions& options) : pool_(KeepBytes(options)) {}

  absl::Status Init(StoreOptions options) {
    DESCENT_CHECK(options.ranks > 0 && options.rule != nullptr && options.rate != nullptr);
    DESCENT_CHECK(options.map.placement.size() == options.tensors.size());
    history_ = options.history;
    clip_ = options.clip;
    measures_ = clip_.norm > 0 || clip_.global_norm > 0 || options.rule->trust().of != Trust::Of::kNothing;
    method_ = options.rule->NewMethod();
    measures_ |= method_ != nullptr;
    contexts_.resize(options.tensors.size());
    dense_.resize(options.tensors.size());
    slots_.resize(options.tensors.size());
    tables_.resize(options.tensors.size());
    for (uint32_t t = 0; t < options.tensors.size(); ++t) {
      const TensorSpec& spec = options.tensors[t];
      TensorContext& context = contexts_[t];
      context.id = TensorId(t);
      if (const char* what = spec.sparse ? NotOfTables(options) : nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            "table '", spec.name, "': ", what, " is of every element, and rows that no batch named are not there"));
      }
      context.spec = spec;
      context.geometry = options.geometry;
      context.seed = options.seed;
      context.ranks = options.ranks;
      context.rate = options.rate;
      context.counts = &counts_;
      if (spec.role == TensorRole::kStatistic) {
        DESCENT_RETURN_IF_ERROR(SetStatistic(options, &context));
      } else {
        SetSteps(options, &context);
      }
      DESCENT_RETURN_IF_ERROR(SetGroup(&context));
      context.catch_up = spec.sparse && context.trainable && (context.l2 != 0 || context.rule->proximal()) &&
                         !options.l2_touched_rows_only;
      context.apply_push = options.apply_push;
      context.history = options.history;
      context.pool = &pool_;
      context.copied_bytes = &copied_bytes_;
      const std::vector<ServerId>& placement = options.map.placement[t];
      std::optional<TensorValues> start;
      if (options.start != nullptr && std::count(placement.begin(), placement.end(), options.self) > 0) {
        DESCENT_ASSIGN_OR_RETURN(start, options.start(spec));
      }
      if (spec.sparse) {
        tables_[t] = std::make_unique<SparseTable>(&context, &arena_);
        slots_[t].resize(placement.size());
        for (uint32_t slot = 0; slot < placement.size(); ++slot) {
          if (placement[slot] == options.self) slots_[t][slot] = std::make_unique<SparseSlot>(tables_[t].get(), slot);
        }
        if (start.has_value()) DESCENT_RETURN_IF_ERROR(StartTable(t, *start));
        continue;
      }
      if (start.has_value()) DESCENT_CHECK(start->values.size() == spec.elements());
      dense_[t].resize(placement.size());
      for (uint32_t b = 0; b < placement.size(); ++b) {
        if (placement[b] != options.self) continue;
        dense_[t][b] = std::make_unique<DenseBlock>(&context, b);
        const float* values = start.has_value() ? start->values.data() : nullptr;
        if (absl::Status status = dense_[t][b]->Init(values); !status.ok()) return status;
        dense_ids_.push_back({TensorId(t), b});
        dense_bytes_ += dense_[t][b]->elements() * sizeof(float);
      }
    }
    return CheckProducts(options);
  }

  absl::Status Hold(BlockId id, Rank first, uint32_t span, const Payload& values) override {
    DenseBlock& block = dense(id);
    const uint64_t before = block.held_bytes();
    const absl::Status status = block.Hold(first, span, values);
    held_bytes_ += block.held_bytes() - before;
    return status;
  }
  absl::Status HoldSparse(BlockId id, Rank first, uint32_t span, uint32_t keys, const Payload& payload) override {
    SparseSlot& slot = sparse(id);
    const uint64_t before = slot.held_bytes();
    const absl::Status status = slot.Hold(first, span, keys, payload);
    held_bytes_ += slot.held_bytes() - before;
    if (status.ok()) held_slots_.insert(id);
    return status;
  }
  absl::Status Commit(BlockId id, double total_weight, double* square) override {
    if (!is_sparse(id)) {
      DenseBlock& block = dense(id);
      const Clock clock(block.version());
      held_bytes_ -= block.held_bytes();
      const absl::Status status = block.Commit(total_weight, square);
      held_bytes_ += block.held_bytes();
      if (status.ok() && total_weight == 0) SkipStep(clock);
      return status;
    }
    SparseSlot& slot = sparse(id);
    const uint64_t version = slot.version();
    held_bytes_ -= slot.held_bytes();
    const absl::Status status = slot.Commit(total_weight, square);
    held_bytes_ += slot.held_bytes();
    if (!status.ok()) return status;
    held_slots_.erase(id);
    if (total_weight == 0) SkipStep(Clock(version));
    if (history_ > 0) stepped_.emplace_back(version, id);
    return status;
  }
  bool measures() const override { return measures_; }
  absl::StatusOr<BlockScalars> Measure(BlockId id, double total_weight) override {
    const auto measure = [&](auto& block) {
      held_bytes_ -= block.held_bytes();
      absl::StatusOr<BlockScalars> scalars = block.Measure(total_weight);
      held_bytes_ += block.held_bytes();
      return scalars;
    };
    return is_sparse(id) ? measure(sparse(id)) : measure(dense(id));
  }
  void Agree(const ScalarTotals& totals) override {
    DESCENT_CHECK(totals.square.size() == contexts_.size() && totals.parameter_square.size() == contexts_.size());
    std::vector<Trust> trust;
    std::vector<float> l2;
    for (const TensorContext& context : contexts_) {
      trust.push_back(context.trust);
      l2.push_back(context.l2);
    }
    const std::vector<TensorStep> steps = TensorSteps(clip_, totals, trust, l2);
    for (size_t t = 0; t < steps.size(); ++t) {
      if (!contexts_[t].statistic) contexts_[t].agreed = steps[t];
    }
    if (method_ != nullptr) method_->Decide(totals.products);
  }
  std::vector<BlockId> HeldSlots() const override { return {held_slots_.begin(), held_slots_.end()}; }
  void AdvanceSlots(uint64_t round) override {
    for (const auto& table : tables_) {
      if (table != nullptr) table->steps = round;
    }
    const uint64_t oldest = round - std::min<uint64_t>(round, history_);
    for (; !stepped_.empty() && stepped_.front().first < oldest; stepped_.pop_front()) {
      sparse(stepped_.front().second).Forget(oldest);
    }
  }
  void SkipStep(Clock clock) override {
    for (const auto& table : tables_) {
      if (table != nullptr && table->context->catch_up) table->missed.Skip(clock.value);
    }
  }

  absl::Status Apply(BlockId id, double weight, const Payload& values, std::optional<uint64_t> read) override {
    return dense(id).Apply(weight, values, read);
  }
  absl::Status ApplySparse(BlockId id, double weight, uint32_t keys, const Payload& payload,
                           std::optional<uint64_t> read) override {
    return sparse(id).Apply(weight, keys, payload, read);
  }
  void AdvanceSlotsByPush() override {
    for (const auto& table : tables_) {
      if (table != nullptr) ++table->steps;
    }
  }

  void SetSlotSteps(uint64_t steps) override {
    for (const auto& table : tables_) {
      if (table != nullptr) table->steps = steps;
    }
  }
  void Reinstall(BlockId id) override { sparse(id).Reinstall(); }

  uint64_t steps(BlockId id) const override { return sparse(id).now(); }
  uint64_t version(BlockId id) const override { return is_sparse(id) ? sparse(id).version() : dense(id).version(); }
  absl::StatusOr<Payload> Read(BlockId id, std::optional<uint64_t> version) const override {
    return dense(id).Read(version, false);
  }
  absl::StatusOr<Payload> ReadAverage(BlockId id, std::optional<uint64_t> version) const override {
    return dense(id).Read(version, true);
  }
  absl::StatusOr<Payload> ReadSparse(BlockId id, uint32_t count, const Payload& keys,
                                     std::optional<uint64_t> version) override {
    return sparse(id).Read(count, keys, version);
  }
  absl::StatusOr<BlockExport> Export(BlockId id, bool with_state) override {
    if (is_sparse(id)) return ExportSlot(id, with_state, sparse(id).now());
    BlockExport out;
    out.id = id;
    out.version = out.steps = version(id);
    out.state_slots = StateSlots(id, with_state);
    out.payload = dense(id).Image(with_state);
    if (with_state && method_ != nullptr) out.method = method_->Save();
    return out;
  }

  void PinSlots() override {
    ForEachSlot([](const SparseTable&, SparseSlot& slot) { slot.Pin(); });
  }
  absl::StatusOr<BlockExport> ExportPinned(BlockId id) override {
    SparseSlot& slot = sparse(id);
    DESCENT_CHECK(slot.pinned());
    absl::StatusOr<BlockExport> image = ExportSlot(id, true, slot.pin());
    slot.Unpin();
    return image;
  }
  void UnpinSlots() override {
    ForEachSlot([](const SparseTable&, SparseSlot& slot) { slot.Unpin(); });
  }
  absl::Status Install(const BlockExport& image) override {
    if (is_sparse(image.id)) return sparse(image.id).Install(image);
    if (method_ != nullptr) DESCENT_RETURN_IF_ERROR(method_->Load(image.method));
    return dense(image.id).Install(image.version, image.state_slots, image.payload);
  }

  StepCounts counts() const override { return counts_; }

  absl::Span<const BlockId> dense_blocks() const override { return dense_ids_; }
  uint64_t parameter_bytes() const override {
    uint64_t bytes = dense_bytes_;
    ForEachSlot([&](const SparseTable& table, SparseSlot& slot) { bytes += slot.rows() * table.dim * sizeof(float); });
    return bytes;
  }
  uint64_t held_bytes() const override { return held_bytes_; }
  uint64_t total_bytes() const override {
    uint64_t bytes = pool_.allocated_bytes() + arena_.allocated_bytes();
    for (const auto& table : tables_) {
      if (table != nullptr) bytes += table->scratch_bytes();
    }
    ForEachSlot([&](const SparseTable&, const SparseSlot& slot) { bytes += sizeof(slot) + slot.other_bytes(); });
    return bytes;
  }
  uint64_t copied_bytes() const override { return copied_bytes_; }

 private:
  // Of the rows that a table begins with, those of this server's slots.
  absl::Status StartTable(uint32_t table, const TensorValues& start) {
    const TensorContext& context = contexts_[table];
    DESCENT_CHECK(start.values.size() == start.keys.size() * context.spec.dim());
    std::vector<std::vector<std::pair<uint64_t, const float*>>> rows(slots_[table].size());
    for (size_t i = 0; i < start.keys.size(); ++i) {
      const uint32_t slot = context.geometry.slot(start.keys[i]);
      if (slots_[table][slot] == nullptr) continue;
      rows[slot].emplace_back(start.keys[i], start.values.data() + i * context.spec.dim());
    }
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      if (rows[slot].empty()) continue;
      std::sort(rows[slot].begin(), rows[slot].end());
      DESCENT_RETURN_IF_ERROR(slots_[table][slot]->Start(rows[slot]));
    }
    return absl::OkStatus();
  }

  // What a step of the tensor is made of: the job's rule, and what surrounds it.
  void SetSteps(const StoreOptions& options, TensorContext* context) const {
    const TensorSpec& spec = context->spec;
    context->rule = spec.decay ? options.rule : Sharing(options.rule, options.rule->unpenalized());
    context->trainable = spec.role == TensorRole::kTrainable;
    context->l2 = spec.decay ? options.l2 : 0;
    context->trust = spec.decay ? options.rule->trust() : Trust{};
    context->staleness_aware_rate = options.staleness_aware_rate;
    context->compensation = options.compensation;
    context->mean_square_decay = options.mean_square_decay;
    context->clip_value = options.clip.value;
    context->momentum = options.momentum;
    context->noise = options.noise;
    if (context->trainable && !spec.sparse) context->average_weight = options.average_weight;
    context->method = method_.get();
    context->reduce_sum = options.reduce_sum;
  }
  // A statistic has a rule of its own, of the mean of what came, and nothing surrounds it.
  absl::Status SetStatistic(const StoreOptions& options, TensorContext* context) const {
    const TensorSpec& spec = context->spec;
    DESCENT_CHECK(!spec.sparse);  // ValidateSpecs
    if (method_ != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", spec.name, "': a running statistic is of mini-batches, and the optimizer takes the ",
                       "gradient of all data"));
    }
    context->rule = UpdateRule::RunningMean(options.statistic_decay);
    context->trainable = false;
    context->statistic = true;
    return absl::OkStatus();
  }
  static const char* NotOfTables(const StoreOptions& options) {
    if (options.noise != nullptr) return "gradient_noise";
    if (options.compensation > 0) return "delay_compensation";
    if (options.average_weight != nullptr) return "averaging";
    if (options.rule->products() > 0) return "a method that takes the gradient of all data";
    return options.rule->trust().of != Trust::Of::kNothing ? "a rule with norms of parameters" : nullptr;
  }
  // The groups of a group lasso: rows of a table, and of a dense tensor what one index of its first dimension has.
  static absl::Status SetGroup(TensorContext* context) {
    const TensorSpec& spec = context->spec;
    if (!context->trainable || context->rule->GroupThreshold(Step{1, 1, 1, 0}) == 0) return absl::OkStatus();
    context->group = spec.row_elements();
    if (spec.sparse || context->geometry.blocks(spec) <= 1) return absl::OkStatus();
    const uint64_t block = context->geometry.block_size(spec, 0);
    if (block % context->group == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", spec.name, "': optimizer.proximal.group_lasso needs each row of ", context->group,
                     " parameters in one block, but block_elements is ", block, ": set it to a multiple, such as ",
                     std::max<uint64_t>(1, block / context->group) * context->group));
  }
  // They go to the coordinator in one message.
  absl::Status CheckProducts(const StoreOptions& options) const {
    constexpr uint64_t kMostBytes = uint64_t{7} << 19;  // 3.5 MiB
    const uint64_t bytes = dense_ids_.size() * options.rule->products() * sizeof(double);
    if (bytes <= kMostBytes) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("optimizer: ", dense_ids_.size(), " blocks of a server with ", options.rule->products(),
                     " products each are more than goes into a message: set block_elements to at least ",
                     options.geometry.block_elements * (bytes / kMostBytes + 1)));
  }
  static uint64_t KeepBytes(const StoreOptions& options) {
    const StoreBudget budget = PlanStore(options);
    return budget.versions + budget.contributions + budget.cut + kReplyBytes;
  }
  bool is_sparse(BlockId id) const {
    DESCENT_CHECK(id.tensor.value < contexts_.size());
    return contexts_[id.tensor.value].spec.sparse;
  }
  SparseSlot& sparse(BlockId id) const {
    DESCENT_CHECK(id.tensor.value < slots_.size() && id.index < slots_[id.tensor.value].size());
    SparseSlot* slot = slots_[id.tensor.value][id.index].get();
    DESCENT_CHECK(slot != nullptr);
    return *slot;
  }
  uint32_t StateSlots(BlockId id, bool with_state) const {
    const TensorContext& context = contexts_[id.tensor.value];
    if (!with_state || !context.trainable) return 0;
    return static_cast<uint32_t>(context.state_slots()) + (context.keeps_averages() ? 1 : 0);
  }
  absl::StatusOr<BlockExport> ExportSlot(BlockId id, bool with_state, uint64_t steps) {
    SparseSlot& slot = sparse(id);
    const SparseTable& table = *tables_[id.tensor.value];
    BlockExport out;
    out.id = id;
    out.version = table.context->apply_push ? slot.version() : steps;
    out.steps = steps;
    out.keys = static_cast<uint32_t>(slot.rows());
    out.state_slots = StateSlots(id, with_state);
    if (table.context->catch_up && !table.starts_at_zero) out.skipped = table.missed.SkippedUntil(steps);
    absl::StatusOr<Payload> image = slot.Image(with_state, steps);
    if (!image.ok()) return image.status();
    out.payload = *std::move(image);
    if (with_state) out.ahead = slot.Ahead(steps);
    return out;
  }
  template <typename F>
  void ForEachSlot(F&& f) const {
    for (size_t t = 0; t < slots_.size(); ++t) {
      for (const auto& slot : slots_[t]) {
        if (slot != nullptr) f(*tables_[t], *slot);
      }
    }
  }
  DenseBlock& dense(BlockId id) const {
    DESCENT_CHECK(id.tensor.value < dense_.size() && id.index < dense_[id.tensor.value].size());
    DenseBlock* block = dense_[id.tensor.value][id.index].get();
    DESCENT_CHECK(block != nullptr);
    return *block;
  }

  BufferPool pool_;
  SlabArena arena_;
  uint64_t copied_bytes_ = 0;
  std::vector<TensorContext> contexts_;
  std::vector<std::unique_ptr<SparseTable>> tables_;             // [tensor], null where dense
  std::vector<std::vector<std::unique_ptr<SparseSlot>>> slots_;  // [tensor][slot], null where another server has it
  std::vector<std::vector<std::unique_ptr<DenseBlock>>> dense_;  // [tensor][block], null where another server has it
  std::vector<BlockId> dense_ids_;
  ClipBounds clip_;
  std::unique_ptr<FullGradientMethod> method_;  // null: steps are the rule's
  bool measures_ = false;
  StepCounts counts_;
  uint64_t dense_bytes_ = 0;
  uint64_t held_bytes_ = 0;
  uint32_t history_ = 0;
  std::set<BlockId> held_slots_;
  std::deque<std::pair<uint64_t, BlockId>> stepped_;  // slots with undo records, by version
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockStore>> BlockStore::Create(StoreOptions options) {
  auto store = std::make_unique<Store>(options);
  if (absl::Status status = store->Init(std::move(options)); !status.ok()) return status;
  return std::unique_ptr<BlockStore>(std::move(store));
}

StoreBudget PlanStore(const StoreOptions& options) {
  StoreBudget budget;
  uint64_t largest = 0, averages = 0;
  const bool method = options.rule->products() > 0;
  const int mean_squares = options.compensation > 0 && options.mean_square_decay > 0 ? 1 : 0;
  for (uint32_t t = 0; t < options.tensors.size(); ++t) {
    const TensorSpec& spec = options.tensors[t];
    if (spec.sparse) continue;
    const std::vector<ServerId>& placement = options.map.placement[t];
    for (uint32_t b = 0; b < placement.size(); ++b) {
      if (placement[b] != options.self) continue;
      const uint64_t bytes = uint64_t{options.geometry.block_size(spec, b)} * sizeof(float);
      budget.parameters += bytes;
      if (spec.role == TensorRole::kTrainable) budget.state += bytes * (options.rule->state_slots() + mean_squares);
      if (spec.role == TensorRole::kTrainable && (method || options.average_weight != nullptr)) averages += bytes;
      largest = std::max(largest, bytes);
    }
  }
  // Beside the newest version, and one that is being written.
  budget.versions = budget.parameters * options.history + largest;
  if (averages > 0) budget.versions += averages * (1 + options.history) + largest;
  // The only contribution of a round is copied before it is changed.
  if (options.clip.value > 0 || options.noise != nullptr || options.compensation > 0 || method)
    budget.versions += largest;
  // Under ROUND one of a block's contributions becomes its next version; under PUSH none is held.
  if (!options.apply_push) budget.contributions = budget.parameters * ((uint64_t{options.ranks} + 1) / 2);
  if (options.cuts) budget.cut = budget.parameters + budget.state + averages;
  if (options.recorded_pushes > 0) {
    // An entry in each block's log takes about 8 bytes; a read vector, which stands on a server once, about 4 for each
    // slot of the model and little for its dense blocks, whose versions are mostly equal.
    constexpr uint64_t kEntryBytes = 8, kReadBytes = 64, kSlotReadBytes = 4;
    uint64_t mine = 0, slots = 0;
    for (uint32_t t = 0; t < options.tensors.size(); ++t) {
      const std::vector<ServerId>& placement = options.map.placement[t];
      mine += static_cast<uint64_t>(std::count(placement.begin(), placement.end(), options.self));
      if (options.tensors[t].sparse) slots += placement.size();
    }
    if (mine > 0) {
      // The logs grow by doubling, and a cut has a copy of them.
      budget.order = 3 * options.recorded_pushes * (kEntryBytes * mine + kReadBytes + kSlotReadBytes * slots);
    }
  }
  return budget;
}

}  // namespace descent
