// Pushes again, each when all blocks have stood where its gradient was computed from.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/replay.h"
#include "cli/replay_gradient.h"
#include "common/base/status_macros.h"
#include "common/wire/read_vector.h"

namespace descent {
namespace {

// A gradient that some blocks applied. Its parameters are copied from each block as that passes the version; where it
// has been computed they are let go of, and where all who applied it have done so it goes too.
struct Attempt {
  Rank rank;
  Clock clock;
  std::string read;         // as recorded; empty once it is taken apart
  uint64_t uses = 0;        // blocks that will apply it
  uint64_t reads_left = 0;  // blocks and slots
  std::shared_ptr<const Batch> batch;
  std::vector<SlotKeys> slots;
  std::vector<Payload> dense;                // per dense block
  std::vector<AlignedFloats> rows;           // per tensor
  std::unique_ptr<ReplayGradient> gradient;  // null: not yet, or no longer
  std::vector<uint32_t> waiters;             // blocks whose next step it is
  ReadVector origin;                         // where the store is told of it
};

class PushReplay {
 public:
  PushReplay(const ReplayInput& input, ReplayCounts* counts)
      : input_(input), tensors_(input.model->tensors()), counts_(counts) {}

  absl::Status Run() {
    DESCENT_RETURN_IF_ERROR(CollectAttempts());
    DESCENT_RETURN_IF_ERROR(PlanReads());
    for (uint32_t b = 0; b < blocks_.size(); ++b) work_.push_back(b);
    while (!work_.empty()) {
      const uint32_t b = work_.front();
      work_.pop_front();
      DESCENT_RETURN_IF_ERROR(Advance(b));
    }
    return CheckDone();
  }

 private:
  using Key = std::tuple<Rank, Clock, uint32_t>;
  struct Reading {
    uint64_t version = 0;
    uint64_t steps = 0;
    uint32_t attempt = 0;
    auto operator<=>(const Reading&) const = default;
  };
  struct Block {
    BlockId id;
    const BlockOrder* order = nullptr;
    uint32_t dense = 0;  // place among the dense blocks
    size_t next_entry = 0;
    uint64_t version = 0;
    std::vector<Reading> reads;  // ascending
    size_t next_read = 0;
  };

  const TensorSpec& spec(BlockId id) const { return tensors_[id.tensor.value]; }
  std::string Name(BlockId id) const { return BlockName(tensors_, id); }
  static std::string Of(const Attempt& a) {
    return absl::StrCat("rank ", a.rank.value, "'s gradient of clock ", a.clock.value);
  }
  static std::string Of(const BlockOrder::Entry& e) {
    return absl::StrCat("rank ", e.rank.value, "'s gradient of clock ", e.clock.value);
  }

  absl::Status CollectAttempts() {
    for (const auto& [id, recorded] : input_.blocks) {
      Block& block = blocks_.emplace_back();
      block.id = id;
      block.order = &recorded.order;
      if (!spec(id).sparse) block.dense = dense_++;
      for (const BlockOrder::Entry& entry : recorded.order.entries) {
        if (entry.restored) continue;
        const auto [it, fresh] = attempt_of_.try_emplace(Key(entry.rank, entry.clock, entry.digest), attempts_.size());
        if (fresh) {
          attempts_.emplace_back();
          attempts_.back().rank = entry.rank;
          attempts_.back().clock = entry.clock;
        }
        Attempt& attempt = attempts_[it->second];
        ++attempt.uses;
        if (!entry.read.has_value()) continue;
        if (!attempt.read.empty() && attempt.read != *entry.read) {
          return absl::DataLossError(
              absl::StrCat(Name(id), " tells of ", Of(entry), " another read vector than other blocks"));
        }
        attempt.read = *entry.read;
      }
    }
    return absl::OkStatus();
  }

  absl::Status PlanReads() {
    std::map<BlockId, uint32_t> slot_at;
    std::vector<uint32_t> dense_at(dense_);
    for (uint32_t b = 0; b < blocks_.size(); ++b) {
      if (spec(blocks_[b].id).sparse) {
        slot_at[blocks_[b].id] = b;
      } else {
        dense_at[blocks_[b].dense] = b;
      }
    }
    for (uint32_t a = 0; a < attempts_.size(); ++a) {
      Attempt& attempt = attempts_[a];
      if (attempt.read.empty()) {
        return absl::DataLossError(absl::StrCat("no block tells what ", Of(attempt), " was computed from"));
      }
      absl::StatusOr<ReadVector> read = DecodeRead(attempt.read, dense_);
      if (!read.ok()) return absl::DataLossError(absl::StrCat(Of(attempt), ": ", read.status().message()));
      if (read->dense.size() != dense_) {
        return absl::DataLossError(
            absl::StrCat(Of(attempt), ": read ", read->dense.size(), " dense blocks, the model has ", dense_));
      }
      for (uint32_t d = 0; d < dense_; ++d) {
        blocks_[dense_at[d]].reads.push_back({read->dense[d], 0, a});
      }
      for (const ReadVector::Slot& slot : read->slots) {
        const auto it = slot_at.find(slot.id);
        if (it == slot_at.end()) {
          return absl::DataLossError(absl::StrCat(Of(attempt), ": read slot ", slot.id.index, " of tensor ",
                                                  slot.id.tensor.value, ", which the model does not have"));
        }
        blocks_[it->second].reads.push_back({slot.version, slot.steps, a});
      }
      attempt.reads_left = dense_ + read->slots.size();
      if (input_.tells_reads) attempt.origin = *std::move(read);
      attempt.read.clear();
      attempt.read.shrink_to_fit();
    }
    for (Block& block : blocks_) std::sort(block.reads.begin(), block.reads.end());
    return absl::OkStatus();
  }

  // As far as it goes: until its next step is on a gradient that is not there yet.
  absl::Status Advance(uint32_t b) {
    Block& block = blocks_[b];
    while (true) {
      const bool more = block.next_entry < block.order->entries.size();
      const BlockOrder::Entry* entry = more ? &block.order->entries[block.next_entry] : nullptr;
      const bool restored = entry != nullptr && entry->restored;
      for (; block.next_read < block.reads.size(); ++block.next_read) {
        const Reading& reading = block.reads[block.next_read];
        if (reading.version != block.version || (restored && reading.steps > entry->steps)) break;
        DESCENT_RETURN_IF_ERROR(Serve(block, reading));
      }
      if (entry == nullptr) return absl::OkStatus();
      if (restored) {
        input_.store->SetSlotSteps(entry->steps);
        input_.store->Reinstall(block.id);
        ++block.next_entry;
        continue;
      }
      Attempt& attempt = attempts_[attempt_of_.at(Key(entry->rank, entry->clock, entry->digest))];
      if (attempt.gradient == nullptr) {
        attempt.waiters.push_back(b);
        return absl::OkStatus();
      }
      DESCENT_RETURN_IF_ERROR(Apply(block, *entry, attempt));
      ++counts_->steps;
      ++block.version;
      ++block.next_entry;
      if (--attempt.uses == 0) attempt.gradient.reset();
    }
  }

  absl::Status Apply(const Block& block, const BlockOrder::Entry& entry, const Attempt& attempt) {
    const ReplayGradient& gradient = *attempt.gradient;
    const bool sparse = spec(block.id).sparse;
    std::optional<uint64_t> read;
    if (input_.tells_reads) read = sparse ? attempt.origin.VersionOf(block.id) : attempt.origin.dense[block.dense];
    if (!sparse) {
      return input_.store->Apply(block.id, gradient.weight,
                                 DensePayload(input_.geometry, spec(block.id), block.id, gradient), read);
    }
    const SlotKeys* keys = gradient.Find(block.id.index);
    if (keys == nullptr) {
      return absl::DataLossError(absl::StrCat(Name(block.id), " has applied ", Of(entry), ", which has no key of it"));
    }
    input_.store->SetSlotSteps(entry.steps);
    return input_.store->ApplySparse(block.id, gradient.weight, keys->count,
                                     SlotPayload(spec(block.id), block.id, *keys, gradient), read);
  }

  absl::Status Serve(const Block& block, const Reading& reading) {
    Attempt& attempt = attempts_[reading.attempt];
    if (attempt.batch == nullptr) {
      DESCENT_ASSIGN_OR_RETURN(attempt.batch, input_.batches->Get(attempt.rank, attempt.clock));
      attempt.slots = SlotsOf(input_.geometry, attempt.batch->keys);
      attempt.dense.resize(dense_);
      attempt.rows.resize(tensors_.size());
      uint64_t slots = 0;
      for (size_t t = 0; t < tensors_.size(); ++t) {
        if (!tensors_[t].sparse) continue;
        attempt.rows[t].Resize(attempt.batch->keys.size() * tensors_[t].dim());
        slots += attempt.slots.size();
      }
      if (slots + dense_ != attempt.reads_left || attempt.batch->rows == 0) {
        return absl::DataLossError(absl::StrCat(Of(attempt), ": it read ", attempt.reads_left,
                                                " blocks and slots, but its batch needs ", slots + dense_,
                                                ": are these the data of the run?"));
      }
    }
    if (!spec(block.id).sparse) {
      DESCENT_ASSIGN_OR_RETURN(attempt.dense[block.dense], input_.store->Read(block.id, std::nullopt));
    } else {
      const auto keys = std::lower_bound(attempt.slots.begin(), attempt.slots.end(), block.id.index,
                                         [](const SlotKeys& k, uint32_t slot) { return k.slot < slot; });
      if (keys == attempt.slots.end() || keys->slot != block.id.index) {
        return absl::DataLossError(absl::StrCat(Of(attempt), " read ", Name(block.id),
                                                ", of which its batch has no key: are these the data of the run?"));
      }
      input_.store->SetSlotSteps(reading.steps);
      DESCENT_ASSIGN_OR_RETURN(
          const Payload rows,
          input_.store->ReadSparse(block.id, keys->count, KeysPayload(*attempt.batch, *keys), std::nullopt));
      rows.CopyTo(attempt.rows[block.id.tensor.value].data() + size_t{keys->first} * spec(block.id).dim());
    }
    if (--attempt.reads_left == 0) Compute(&attempt);
    return absl::OkStatus();
  }

  void Compute(Attempt* attempt) {
    parameters_.resize(tensors_.size());
    std::vector<float*> from(tensors_.size());
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (!tensors_[t].sparse) parameters_[t].Resize(tensors_[t].elements());
      from[t] = tensors_[t].sparse ? attempt->rows[t].data() : parameters_[t].data();
    }
    for (const Block& block : blocks_) {
      if (spec(block.id).sparse) continue;
      attempt->dense[block.dense].CopyTo(parameters_[block.id.tensor.value].data() +
                                         input_.geometry.block_begin(block.id.index));
    }
    attempt->gradient = ComputeGradient(input_.model, input_.local_steps, input_.geometry, input_.encoding,
                                        std::move(attempt->batch), from);
    ++counts_->gradients;
    attempt->dense.clear();
    attempt->rows.clear();
    attempt->slots.clear();
    work_.insert(work_.end(), attempt->waiters.begin(), attempt->waiters.end());
    attempt->waiters.clear();
  }

  absl::Status CheckDone() const {
    for (const Block& block : blocks_) {
      if (block.next_entry < block.order->entries.size()) {
        const BlockOrder::Entry& entry = block.order->entries[block.next_entry];
        const uint32_t a = attempt_of_.at(Key(entry.rank, entry.clock, entry.digest));
        std::string why;
        for (const Block& other : blocks_) {
          for (size_t i = other.next_read; i < other.reads.size() && why.empty(); ++i) {
            if (other.reads[i].attempt != a) continue;
            why = absl::StrCat(", which read version ", other.reads[i].version, " of ", Name(other.id),
                               ", which stands at ", other.version);
          }
        }
        return absl::DataLossError(absl::StrCat("the recorded order contradicts itself: after ", block.version, " of ",
                                                block.order->steps_made(), " steps ", Name(block.id), " waits for ",
                                                Of(entry), why));
      }
    }
    return absl::OkStatus();
  }

  const ReplayInput& input_;
  const std::vector<TensorSpec>& tensors_;
  ReplayCounts* const counts_;
  std::vector<Block> blocks_;
  uint32_t dense_ = 0;  // dense blocks
  std::map<Key, uint32_t> attempt_of_;
  std::deque<Attempt> attempts_;
  std::deque<uint32_t> work_;  // blocks that may go on
  std::vector<AlignedFloats> parameters_;
};

}  // namespace

absl::Status ReplayPushes(const ReplayInput& input, ReplayCounts* counts) { return PushReplay(input, counts).Run(); }

}  // namespace descent
