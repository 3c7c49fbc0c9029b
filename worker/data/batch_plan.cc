#include "worker/data/batch_plan.h"

#include <algorithm>
#include <list>
#include <numeric>
#include <utility>

#include "common/base/check.h"
#include "common/random/philox.h"

namespace descent {
namespace {

// Fisher and Yates, downwards. Draw i of the stream decides where element i goes; a window of many shards is larger
// than a cache, so the places are drawn, and fetched, ahead of the swaps.
template <typename T>
void Shuffle(const RandomStream& random, std::vector<T>* items) {
  constexpr uint64_t kAhead = 64;
  uint64_t with[kAhead];
  T* const data = items->data();
  for (uint64_t left = items->size(); left > 1;) {
    const uint64_t n = std::min(kAhead, left - 1);
    for (uint64_t k = 0; k < n; ++k) {
      with[k] = random.Below(left - 1 - k, left - k);
      __builtin_prefetch(data + with[k], 1);
    }
    for (uint64_t k = 0; k < n; ++k) std::swap(data[left - 1 - k], data[with[k]]);
    left -= n;
  }
}

class BatchPlanImpl final : public BatchPlan {
 public:
  explicit BatchPlanImpl(BatchPlanOptions options) : options_(std::move(options)) {
    DESCENT_CHECK(options_.ranks > 0);
    DESCENT_CHECK(options_.batch_size > 0);
    DESCENT_CHECK(!options_.shard_begin.empty());
    DESCENT_CHECK(options_.shard_begin[0] == 0);
    DESCENT_CHECK(std::is_sorted(options_.shard_begin.begin(), options_.shard_begin.end()));
    options_.window_shards = std::max(options_.window_shards, uint32_t{1});
    rows_ = options_.shard_begin.back();
    DESCENT_CHECK(options_.resampling == nullptr || options_.sampling == SamplingKind::kWithoutReplacement);
    epoch_rows_ = options_.resampling != nullptr ? options_.resampling->epoch_rows() : rows_;
    if (options_.sampling == SamplingKind::kClassBalanced) GroupByClass();
    const uint64_t longest = (epoch_rows_ + options_.ranks - 1) / options_.ranks;
    clocks_per_epoch_ = (longest + options_.batch_size - 1) / options_.batch_size;
    most_windows_ = std::clamp<size_t>(options_.ranks + 1, 2, 64);
  }

  uint64_t clocks_per_epoch() const override { return clocks_per_epoch_; }
  uint64_t epoch_rows() const override { return epoch_rows_; }

  void Rows(Rank rank, Clock clock, std::vector<uint64_t>* rows) override {
    DESCENT_CHECK(rank.value < options_.ranks);
    if (clocks_per_epoch_ == 0) return;
    const uint64_t epoch = clock.value / clocks_per_epoch_;
    const uint64_t step = clock.value % clocks_per_epoch_;
    const uint64_t share = epoch_rows_ / options_.ranks;
    const uint64_t longer = epoch_rows_ % options_.ranks;  // the first ranks have one row more
    const bool rotate = options_.rotate && options_.sampling == SamplingKind::kSequential;
    const uint64_t place = (rank.value + (rotate ? epoch : 0)) % options_.ranks;
    const uint64_t share_begin = place * share + std::min<uint64_t>(place, longer);
    const uint64_t share_end = share_begin + share + (place < longer ? 1 : 0);
    const uint64_t begin = std::min(share_begin + step * options_.batch_size, share_end);
    const uint64_t end = std::min(begin + options_.batch_size, share_end);
    switch (options_.sampling) {
      case SamplingKind::kSequential:
        for (uint64_t row = begin; row < end; ++row) rows->push_back(row);
        break;
      case SamplingKind::kWithReplacement: {
        const RandomStream random(options_.seed, Purpose::kSampling, clock.value, rank.value);
        for (uint64_t i = 0; i < end - begin; ++i) rows->push_back(random.Below(i, rows_));
        break;
      }
      case SamplingKind::kClassBalanced: {
        const RandomStream random(options_.seed, Purpose::kSampling, clock.value, rank.value);
        for (uint64_t i = 0; i < end - begin; ++i) {
          const std::vector<uint64_t>& rows_of = by_class_[random.Below(2 * i, by_class_.size())];
          rows->push_back(rows_of[random.Below(2 * i + 1, rows_of.size())]);
        }
        break;
      }
      case SamplingKind::kWithoutReplacement:
        AppendShuffled(epoch, begin, end, rows);
        break;
    }
  }

 private:
  struct Epoch {
    uint64_t number;
    std::vector<uint32_t> shards;        // in this epoch's order
    std::vector<uint64_t> window_begin;  // positions; windows + 1
    std::vector<bool> extra;             // of a resampled epoch
  };
  struct Window {
    uint64_t epoch;
    uint64_t index;
    std::vector<uint64_t> rows;
  };

  void GroupByClass() {
    DESCENT_CHECK(options_.classes != nullptr && options_.classes->of_row.size() == rows_);
    by_class_.resize(options_.classes->rows.size());
    for (uint64_t row = 0; row < rows_; ++row) by_class_[options_.classes->of_row[row]].push_back(row);
    std::erase_if(by_class_, [](const std::vector<uint64_t>& rows) { return rows.empty(); });
  }

  // How often a row comes in an epoch.
  uint64_t Copies(const Epoch& epoch, uint64_t row) const {
    return options_.resampling->copies(row) + (epoch.extra[row] ? 1 : 0);
  }

  uint64_t RowsOfShard(const Epoch& epoch, uint32_t shard) const {
    const uint64_t begin = options_.shard_begin[shard], end = options_.shard_begin[shard + 1];
    if (options_.resampling == nullptr) return end - begin;
    uint64_t rows = 0;
    for (uint64_t row = begin; row < end; ++row) rows += Copies(epoch, row);
    return rows;
  }

  void AppendShard(const Epoch& epoch, uint32_t shard, std::vector<uint64_t>* rows) const {
    for (uint64_t row = options_.shard_begin[shard]; row < options_.shard_begin[shard + 1]; ++row) {
      const uint64_t copies = options_.resampling == nullptr ? 1 : Copies(epoch, row);
      for (uint64_t copy = 0; copy < copies; ++copy) {
        // The first is the row itself, the others are draws that no other epoch makes.
        const uint64_t draw =
            options_.synthetic && copy > 0 ? epoch.number * options_.resampling->most_copies() + copy : 0;
        rows->push_back(row + rows_ * draw);
      }
    }
  }

  // Ranks may be an epoch apart, so more than one order is kept; most recently used first.
  const Epoch& EpochOf(uint64_t number) {
    for (auto it = epochs_.begin(); it != epochs_.end(); ++it) {
      if (it->number != number) continue;
      epochs_.splice(epochs_.begin(), epochs_, it);
      return epochs_.front();
    }
    Epoch epoch;
    epoch.number = number;
    epoch.shards.resize(options_.shard_begin.size() - 1);
    std::iota(epoch.shards.begin(), epoch.shards.end(), 0);
    Shuffle(RandomStream(options_.seed, Purpose::kShardOrder, number, 0), &epoch.shards);
    if (options_.resampling != nullptr) epoch.extra = options_.resampling->Extra(number);
    uint64_t position = 0;
    for (size_t i = 0; i < epoch.shards.size(); ++i) {
      if (i % options_.window_shards == 0) epoch.window_begin.push_back(position);
      position += RowsOfShard(epoch, epoch.shards[i]);
    }
    epoch.window_begin.push_back(position);
    epochs_.push_front(std::move(epoch));
    if (epochs_.size() > kMostEpochs) epochs_.pop_back();
    return epochs_.front();
  }

  const std::vector<uint64_t>& WindowOf(const Epoch& epoch, uint64_t index) {
    for (auto it = windows_.begin(); it != windows_.end(); ++it) {
      if (it->epoch != epoch.number || it->index != index) continue;
      windows_.splice(windows_.begin(), windows_, it);
      return windows_.front().rows;
    }
    Window window;
    if (windows_.size() >= most_windows_) {
      window = std::move(windows_.back());  // keeps its memory
      windows_.pop_back();
    }
    window.epoch = epoch.number;
    window.index = index;
    window.rows.clear();
    window.rows.reserve(epoch.window_begin[index + 1] - epoch.window_begin[index]);
    const size_t first = index * options_.window_shards;
    const size_t last = std::min(first + options_.window_shards, epoch.shards.size());
    for (size_t i = first; i < last; ++i) AppendShard(epoch, epoch.shards[i], &window.rows);
    Shuffle(RandomStream(options_.seed, Purpose::kRowOrder, epoch.number, static_cast<uint32_t>(index)), &window.rows);
    windows_.push_front(std::move(window));
    return windows_.front().rows;
  }

  void AppendShuffled(uint64_t number, uint64_t begin, uint64_t end, std::vector<uint64_t>* rows) {
    if (begin == end) return;
    const Epoch& epoch = EpochOf(number);
    auto at = static_cast<uint64_t>(std::upper_bound(epoch.window_begin.begin(), epoch.window_begin.end(), begin) -
                                    epoch.window_begin.begin() - 1);
    while (begin < end) {
      const uint64_t window_begin = epoch.window_begin[at];
      const uint64_t stop = std::min(end, epoch.window_begin[at + 1]);
      const std::vector<uint64_t>& window = WindowOf(epoch, at);
      for (; begin < stop; ++begin) rows->push_back(window[begin - window_begin]);
      ++at;
    }
  }

  static constexpr size_t kMostEpochs = 4;
  BatchPlanOptions options_;
  uint64_t rows_ = 0, epoch_rows_ = 0;
  std::vector<std::vector<uint64_t>> by_class_;  // of kClassBalanced: the rows of each class that has any
  uint64_t clocks_per_epoch_ = 0;
  size_t most_windows_ = 0;
  std::list<Epoch> epochs_;
  std::list<Window> windows_;
};

}  // namespace

std::unique_ptr<BatchPlan> BatchPlan::Create(BatchPlanOptions options) {
  return std::make_unique<BatchPlanImpl>(std::move(options));
}

}  // namespace descent
