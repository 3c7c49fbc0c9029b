#include "server/store/block_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "server/store/buffer_pool.h"
#include "server/store/dense_block.h"
#include "server/store/tensor_context.h"

namespace descent {
namespace {

// Free buffers kept beyond what versions and contributions take: those of replies to reads of rows.
constexpr uint64_t kReplyBytes = uint64_t{32} << 20;

class Store final : public BlockStore {
 public:
  explicit Store(const StoreOptions& options) : pool_(KeepBytes(options)) {}

  absl::Status Init(StoreOptions options) {
    DESCENT_CHECK(options.ranks > 0 && options.rule != nullptr && options.rate != nullptr);
    DESCENT_CHECK(options.map.placement.size() == options.tensors.size());
    contexts_.resize(options.tensors.size());
    dense_.resize(options.tensors.size());
    for (uint32_t t = 0; t < options.tensors.size(); ++t) {
      const TensorSpec& spec = options.tensors[t];
      TensorContext& context = contexts_[t];
      context.id = TensorId(t);
      context.spec = spec;
      context.geometry = options.geometry;
      context.seed = options.seed;
      context.ranks = options.ranks;
      context.rule = options.rule;
      context.rate = options.rate;
      context.trainable = spec.role == TensorRole::kTrainable;
      context.l2 = spec.decay ? options.l2 : 0;
      context.catch_up = spec.sparse && context.trainable && context.l2 != 0 && !options.l2_touched_rows_only;
      context.reduce_sum = options.reduce_sum;
      context.apply_push = options.apply_push;
      context.history = options.history;
      context.pool = &pool_;
      const std::vector<ServerId>& placement = options.map.placement[t];
      if (spec.sparse) {
        return absl::UnimplementedError(absl::StrCat("tensor '", spec.name, "': sparse tables"));
      }
      dense_[t].resize(placement.size());
      for (uint32_t b = 0; b < placement.size(); ++b) {
        if (placement[b] != options.self) continue;
        dense_[t][b] = std::make_unique<DenseBlock>(&context, b);
        if (absl::Status status = dense_[t][b]->Init(); !status.ok()) return status;
        dense_ids_.push_back({TensorId(t), b});
        dense_bytes_ += dense_[t][b]->elements() * sizeof(float);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Hold(BlockId id, Rank first, uint32_t span, const Payload& values) override {
    return dense(id).Hold(first, span, values);
  }
  absl::Status HoldSparse(BlockId id, Rank first, uint32_t span, uint32_t keys, const Payload& payload) override {
    return absl::UnimplementedError("sparse tables");
  }
  absl::Status Commit(BlockId id, double total_weight, double* square) override {
    return dense(id).Commit(total_weight, square);
  }
  std::vector<BlockId> HeldSlots() const override { return {}; }
  void AdvanceSlots(uint64_t round) override {}

  absl::Status Apply(BlockId id, double weight, const Payload& values) override {
    return dense(id).Apply(weight, values);
  }
  absl::Status ApplySparse(BlockId id, double weight, uint32_t keys, const Payload& payload) override {
    return absl::UnimplementedError("sparse tables");
  }
  void AdvanceSlotsByPush() override {}

  uint64_t version(BlockId id) const override { return dense(id).version(); }
  absl::StatusOr<Payload> Read(BlockId id, std::optional<uint64_t> version) const override {
    return dense(id).Read(version);
  }
  absl::StatusOr<Payload> ReadSparse(BlockId id, uint32_t count, const Payload& keys,
                                     std::optional<uint64_t> version) override {
    return absl::UnimplementedError("sparse tables");
  }
  absl::StatusOr<BlockExport> Export(BlockId id, bool with_state) override {
    const DenseBlock& block = dense(id);
    absl::StatusOr<Payload> image = block.Image(with_state);
    if (!image.ok()) return image.status();
    BlockExport out;
    out.id = id;
    out.version = out.steps = block.version();
    out.state_slots = static_cast<uint32_t>(image->size() / sizeof(float) / block.elements() - 1);
    out.payload = *std::move(image);
    return out;
  }

  absl::Span<const BlockId> dense_blocks() const override { return dense_ids_; }
  uint64_t parameter_bytes() const override { return dense_bytes_; }
  uint64_t held_bytes() const override {
    uint64_t bytes = 0;
    for (BlockId id : dense_ids_) bytes += dense(id).held_bytes();
    return bytes;
  }
  uint64_t total_bytes() const override { return pool_.allocated_bytes(); }

 private:
  static uint64_t KeepBytes(const StoreOptions& options) {
    const StoreBudget budget = PlanStore(options);
    return budget.versions + budget.contributions + kReplyBytes;
  }
  DenseBlock& dense(BlockId id) const {
    DESCENT_CHECK(id.tensor.value < dense_.size() && id.index < dense_[id.tensor.value].size());
    DenseBlock* block = dense_[id.tensor.value][id.index].get();
    DESCENT_CHECK(block != nullptr);
    return *block;
  }

  BufferPool pool_;
  std::vector<TensorContext> contexts_;
  std::vector<std::vector<std::unique_ptr<DenseBlock>>> dense_;  // [tensor][block], null where another server has it
  std::vector<BlockId> dense_ids_;
  uint64_t dense_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockStore>> BlockStore::Create(StoreOptions options) {
  auto store = std::make_unique<Store>(options);
  if (absl::Status status = store->Init(std::move(options)); !status.ok()) return status;
  return std::unique_ptr<BlockStore>(std::move(store));
}

StoreBudget PlanStore(const StoreOptions& options) {
  StoreBudget budget;
  uint64_t largest = 0;
  for (uint32_t t = 0; t < options.tensors.size(); ++t) {
    const TensorSpec& spec = options.tensors[t];
    if (spec.sparse) continue;
    const std::vector<ServerId>& placement = options.map.placement[t];
    for (uint32_t b = 0; b < placement.size(); ++b) {
      if (placement[b] != options.self) continue;
      const uint64_t bytes = uint64_t{options.geometry.block_size(spec, b)} * sizeof(float);
      budget.parameters += bytes;
      if (spec.role == TensorRole::kTrainable) budget.state += bytes * options.rule->state_slots();
      largest = std::max(largest, bytes);
    }
  }
  // Beside the newest version, and one that is being written.
  budget.versions = budget.parameters * options.history + largest;
  // Under ROUND one of a block's contributions becomes its next version; under PUSH none is held.
  if (!options.apply_push) budget.contributions = budget.parameters * ((uint64_t{options.ranks} + 1) / 2);
  return budget;
}

}  // namespace descent
