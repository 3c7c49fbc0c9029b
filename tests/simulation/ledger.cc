#include "tests/simulation/ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace descent::simulation {

Ledger::Ledger(const Job& job) : job_(job) {
  keys_.resize(job.ranks);
  batches_.resize(job.ranks);
  counted_.resize(job.ranks);
  pushed_.resize(job.ranks);
  for (uint32_t r = 0; r < job.ranks; ++r) {
    batches_[r].push_back(0);
    counted_[r].emplace_back(kKeys);
    for (uint64_t c = 0; c < job.clocks; ++c) {
      batches_[r].push_back(batches_[r].back() + job.has_batch(Rank(r), c));
      keys_[r].push_back(job.keys(Rank(r), c));
      counted_[r].push_back(counted_[r].back());
      for (uint64_t key : keys_[r].back()) ++counted_[r].back()[key];
    }
  }
}

void Ledger::Pushed(Rank rank, uint64_t clock) { pushed_[rank.value] = std::max(pushed_[rank.value], clock + 1); }

float Ledger::CountOf(uint64_t key, const std::vector<uint64_t>& clocks) const {
  uint32_t count = 0;
  for (uint32_t r = 0; r < job_.ranks; ++r) count += counted_[r][clocks[r]][key];
  return static_cast<float>(count);
}

std::string Ledger::CheckPull(Rank rank, uint64_t clock, absl::Span<const float> ledger,
                              absl::Span<const uint64_t> keys, absl::Span<const float> rows) {
  ++pulls_;
  uint64_t least = job_.staleness >= clock ? 0 : clock - job_.staleness;
  if (!job_.apply_push) least = std::max(least, floor_);
  // Rounds are read at one version, clock - s; pushes may show more than the bound asks, but nothing that was not made.
  const std::vector<uint64_t> low(job_.ranks, least);
  std::vector<uint64_t> high = low;
  if (job_.apply_push) {
    for (uint32_t r = 0; r < job_.ranks; ++r) high[r] = std::max(least, pushed_[r]);
  }
  if (job_.backup_ranks > 0) {
    const std::vector<uint64_t> none(job_.ranks);
    std::string wrong = CheckRows(keys, rows, low);
    for (size_t b = 0; b < kLedgerBlocks && wrong.empty(); ++b) {
      wrong = CheckTaken(ledger.subspan(b * kBlockElements, kBlockElements), clock, none);
    }
    return wrong.empty() ? "" : absl::StrCat("rank ", rank.value, " at clock ", clock, " read: ", wrong);
  }
  for (size_t e = 0; e < ledger.size(); ++e) {
    const size_t q = e % kBlockElements;
    const float from = q < job_.ranks ? batches_[q][low[q]] : 0, to = q < job_.ranks ? batches_[q][high[q]] : 0;
    // Written so that a NaN fails too.
    if (!(ledger[e] >= from && ledger[e] <= to && ledger[e] == static_cast<float>(static_cast<int>(ledger[e])))) {
      return absl::StrCat("rank ", rank.value, " at clock ", clock, " read ", ledger[e], " pushes of rank ", q,
                          " in block ", e / kBlockElements, ", not ", from, " to ", to);
    }
    if (q < job_.ranks && !job_.empty_batches && clock > static_cast<uint64_t>(ledger[e])) {
      largest_lead_ = std::max(largest_lead_, clock - static_cast<uint64_t>(ledger[e]));
    }
  }
  for (size_t k = 0; k < keys.size(); ++k) {
    const float from = CountOf(keys[k], low), to = CountOf(keys[k], high);
    for (uint32_t d = 0; d < kDim; ++d) {
      const float value = rows[k * kDim + d];
      if (!(value >= from && value <= to)) {
        return absl::StrCat("rank ", rank.value, " at clock ", clock, " read ", value, " pushes of key ", keys[k],
                            ", not ", from, " to ", to);
      }
    }
  }
  return "";
}

void Ledger::GoOnWith(const Ledger& before) {
  for (uint32_t r = 0; r < job_.ranks; ++r) pushed_[r] = std::max(pushed_[r], before.pushed_[r]);
  floor_ = before.floor_;
}

std::string Ledger::CheckTaken(absl::Span<const float> block, uint64_t clock,
                               const std::vector<uint64_t>& least) const {
  uint64_t sum = 0;
  for (size_t q = 0; q < block.size(); ++q) {
    const auto low = static_cast<float>(q < job_.ranks ? std::max(least[q], job_.full_rounds(clock)) : 0);
    const auto high = static_cast<float>(q < job_.ranks ? clock : 0);
    if (!(block[q] >= low && block[q] <= high && block[q] == static_cast<float>(static_cast<int>(block[q])))) {
      return absl::StrCat("it holds ", block[q], " pushes of rank ", q, ", not ", low, " to ", high);
    }
    sum += static_cast<uint64_t>(block[q]);
  }
  if (sum == job_.taken(clock)) return "";
  return absl::StrCat("at clock ", clock, " it holds ", sum, " pushes, not ", job_.taken(clock));
}

std::string Ledger::CheckDense(absl::Span<const float> block, const std::vector<uint64_t>& clocks,
                               const std::vector<uint64_t>& least) const {
  if (job_.backup_ranks > 0) return CheckTaken(block, clocks[0], least);
  for (size_t q = 0; q < block.size(); ++q) {
    const float expected = q < job_.ranks ? batches_[q][clocks[q]] : 0;
    if (!(block[q] == expected)) {
      return absl::StrCat("it holds ", block[q], " pushes of rank ", q, ", not ", expected);
    }
  }
  return "";
}

std::string Ledger::CheckRows(absl::Span<const uint64_t> keys, absl::Span<const float> rows,
                              const std::vector<uint64_t>& clocks) const {
  for (size_t k = 0; k < rows.size(); ++k) {
    const float expected = CountOf(keys[k / kDim], clocks);
    if (job_.backup_ranks > 0 ? !(rows[k] >= 0 && rows[k] <= expected) : !(rows[k] == expected)) {
      return absl::StrCat("key ", keys[k / kDim], " holds ", rows[k], " pushes, not ", expected);
    }
  }
  return "";
}

std::string Ledger::CheckEnd(absl::Span<const float> ledger, absl::Span<const float> counts) const {
  if (job_.backup_ranks > 0) return "";  // block by block: CheckDense
  for (size_t e = 0; e < ledger.size(); ++e) {
    const size_t q = e % kBlockElements;
    const float expected = q < job_.ranks ? batches_[q][job_.clocks] : 0;
    if (!(ledger[e] == expected)) {
      return absl::StrCat("in the end block ", e / kBlockElements, " holds ", ledger[e], " pushes of rank ", q,
                          ", not ", expected);
    }
  }
  const std::vector<uint64_t> all(job_.ranks, job_.clocks);
  for (size_t k = 0; k < counts.size(); ++k) {
    const float expected = CountOf(k / kDim, all);
    if (!(counts[k] == expected)) {
      return absl::StrCat("in the end key ", k / kDim, " holds ", counts[k], " pushes, not ", expected);
    }
  }
  return "";
}

}  // namespace descent::simulation
