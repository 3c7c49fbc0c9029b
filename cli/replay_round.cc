// Rounds again: of each clock the gradients of the ranks that took part, folded and applied by the store.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/replay.h"
#include "cli/replay_gradient.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

class RoundReplay {
 public:
  RoundReplay(const ReplayInput& input, ReplayCounts* counts)
      : input_(input), tensors_(input.model->tensors()), counts_(counts) {
    for (const auto& [id, recorded] : input.blocks) blocks_.push_back({id, &recorded, 0, {}});
  }

  absl::Status Run() {
    if (blocks_.empty()) return absl::OkStatus();
    const uint64_t end = blocks_[0].recorded->version;
    const std::vector<Clock>& restored = blocks_[0].recorded->order.restored;
    for (const Block& block : blocks_) {
      if (block.recorded->version != end || block.recorded->order.restored != restored) {
        return absl::DataLossError(
            absl::StrCat("the recorded order contradicts itself: ", BlockName(tensors_, block.id),
                         " has other rounds or restores than ", BlockName(tensors_, blocks_[0].id)));
      }
    }
    uint64_t oldest = 0;  // version that could be read
    size_t next = 0;
    for (uint64_t clock = 0; clock < end; ++clock) {
      for (; next < restored.size() && restored[next].value <= clock; ++next) oldest = restored[next].value;
      const uint64_t version =
          std::max(oldest, clock - std::min(clock, StalenessAt(input_.changes, input_.staleness, clock)));
      DESCENT_RETURN_IF_ERROR(OneRound(Clock(clock), version));
    }
    return absl::OkStatus();
  }

 private:
  struct Block {
    BlockId id;
    const RecordedBlock* recorded;
    size_t next_round;
    std::vector<bool> missing;  // of the round in hand, per rank; empty: nobody
  };

  absl::Status OneRound(Clock clock, uint64_t version) {
    for (Block& block : blocks_) {
      block.missing.clear();
      const std::vector<BlockOrder::Round>& rounds = block.recorded->order.rounds;
      if (block.next_round == rounds.size() || rounds[block.next_round].clock != clock) continue;
      block.missing.resize(input_.ranks);
      for (Rank rank : rounds[block.next_round++].missing) block.missing[rank.value] = true;
    }
    const auto takes_part = [](const Block& block, uint32_t rank) {
      return block.missing.empty() || !block.missing[rank];
    };
    std::vector<double> weight(input_.ranks, 0);
    for (uint32_t rank = 0; rank < input_.ranks; ++rank) {
      if (std::none_of(blocks_.begin(), blocks_.end(), [&](const Block& b) { return takes_part(b, rank); })) continue;
      DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<const Batch> batch, input_.batches->Get(Rank(rank), clock));
      if (batch->rows == 0) continue;
      DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<ReplayGradient> gradient, Gradient(std::move(batch), version));
      weight[rank] = gradient->weight;
      for (const Block& block : blocks_) {
        if (takes_part(block, rank)) DESCENT_RETURN_IF_ERROR(Hold(block.id, Rank(rank), *gradient));
      }
    }
    return Commit(clock, [&](const Block& block) {
      double total = 0;  // in the order of the ranks
      for (uint32_t rank = 0; rank < input_.ranks; ++rank) total += takes_part(block, rank) ? weight[rank] : 0;
      return total;
    });
  }

  template <typename F>
  absl::Status Commit(Clock clock, F&& total_of) {
    bool tables = false;
    double slots_total = 0;
    const std::vector<BlockId> held = input_.store->HeldSlots();
    if (input_.store->measures()) DESCENT_RETURN_IF_ERROR(Agree(clock, held, total_of));
    for (const Block& block : blocks_) {
      const bool sparse = tensors_[block.id.tensor.value].sparse;
      const double total = total_of(block);
      tables |= sparse;
      if (sparse) slots_total = std::max(slots_total, total);
      if (sparse && !std::binary_search(held.begin(), held.end(), block.id)) continue;
      DESCENT_RETURN_IF_ERROR(input_.store->Commit(block.id, total, nullptr));
      ++counts_->steps;
    }
    if (tables) {
      if (slots_total == 0) input_.store->SkipStep(clock);
      input_.store->AdvanceSlots(clock.value + 1);
    }
    return absl::OkStatus();
  }

  template <typename F>
  absl::Status Agree(Clock clock, const std::vector<BlockId>& held, F&& total_of) {
    std::vector<BlockScalars> parts;
    for (const Block& block : blocks_) {
      if (tensors_[block.id.tensor.value].sparse && !std::binary_search(held.begin(), held.end(), block.id)) continue;
      DESCENT_ASSIGN_OR_RETURN(parts.emplace_back(), input_.store->Measure(block.id, total_of(block)));
    }
    input_.store->Agree(AddInBlockOrder(clock, tensors_.size(), parts));
    return absl::OkStatus();
  }

  absl::Status Hold(BlockId id, Rank rank, const ReplayGradient& gradient) {
    const TensorSpec& spec = tensors_[id.tensor.value];
    if (!spec.sparse) return input_.store->Hold(id, rank, 1, Copy(DensePayload(input_.geometry, spec, id, gradient)));
    const SlotKeys* keys = gradient.Find(id.index);
    if (keys == nullptr) return absl::OkStatus();
    return input_.store->HoldSparse(id, rank, 1, keys->count, SlotPayload(spec, id, *keys, gradient));
  }

  // A store may hold on to the payload of a round until it is committed.
  static Payload Copy(const Payload& payload) {
    std::shared_ptr<std::byte[]> bytes(new std::byte[payload.size()]);
    payload.CopyTo(bytes.get());
    Payload out;
    out.Append(bytes.get(), payload.size(), bytes);
    return out;
  }

  absl::StatusOr<std::unique_ptr<ReplayGradient>> Gradient(std::shared_ptr<const Batch> batch, uint64_t version) {
    parameters_.resize(tensors_.size());
    std::vector<float*> from(tensors_.size());
    for (size_t t = 0; t < tensors_.size(); ++t) {
      parameters_[t].Resize(tensors_[t].sparse ? batch->keys.size() * tensors_[t].dim() : tensors_[t].elements());
      from[t] = parameters_[t].data();
    }
    for (const Block& block : blocks_) {
      const BlockId id = block.id;
      if (tensors_[id.tensor.value].sparse) continue;
      DESCENT_ASSIGN_OR_RETURN(const Payload values, input_.store->Read(id, version));
      values.CopyTo(parameters_[id.tensor.value].data() + input_.geometry.block_begin(id.index));
    }
    const std::vector<SlotKeys> slots = SlotsOf(input_.geometry, batch->keys);
    for (uint32_t t = 0; t < tensors_.size(); ++t) {
      if (!tensors_[t].sparse) continue;
      for (const SlotKeys& slot : slots) {
        DESCENT_ASSIGN_OR_RETURN(
            const Payload rows,
            input_.store->ReadSparse(BlockId{TensorId(t), slot.slot}, slot.count, KeysPayload(*batch, slot), version));
        rows.CopyTo(parameters_[t].data() + size_t{slot.first} * tensors_[t].dim());
      }
    }
    ++counts_->gradients;
    return ComputeGradient(input_.model, input_.local_steps, input_.geometry, input_.encoding, std::move(batch), from);
  }

  const ReplayInput& input_;
  const std::vector<TensorSpec>& tensors_;
  ReplayCounts* const counts_;
  std::vector<Block> blocks_;
  std::vector<AlignedFloats> parameters_;
};

}  // namespace

absl::Status ReplayRounds(const ReplayInput& input, ReplayCounts* counts) { return RoundReplay(input, counts).Run(); }

}  // namespace descent
