#include "tests/simulation/reference.h"

#include <map>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/tensor/initial_value.h"

namespace descent::simulation {
namespace {

using Sum = std::optional<std::vector<float>>;  // none: no contribution

// Along the fixed binary tree: ranks [first, first + span), a child without a contribution is skipped.
Sum Fold(const std::vector<Sum>& of_rank, size_t first, size_t span) {
  if (first >= of_rank.size()) return std::nullopt;
  if (span == 1) return of_rank[first];
  Sum left = Fold(of_rank, first, span / 2), right = Fold(of_rank, first + span / 2, span / 2);
  if (!left.has_value()) return right;
  if (!right.has_value()) return left;
  for (size_t i = 0; i < left->size(); ++i) (*left)[i] += (*right)[i];
  return left;
}

void Step(const std::vector<Sum>& of_rank, float scale, absl::Span<float> parameters) {
  const Sum sum = Fold(of_rank, 0, 8);
  if (!sum.has_value()) return;
  for (size_t i = 0; i < parameters.size(); ++i) parameters[i] -= (*sum)[i] * scale;  // the rate is 1
}

}  // namespace

uint64_t ReferenceHash(const Job& job) {
  const std::vector<TensorSpec> specs = job.tensors();
  std::vector<float> ledger(specs[kLedger].elements()), values(specs[kValues].elements());
  InitialDense(job.number, TensorId(kValues), specs[kValues], 0, absl::MakeSpan(values));
  std::map<uint64_t, std::vector<float>> counts;
  for (uint64_t key = 0; job.sparse && key < kKeys; ++key) counts[key].resize(kDim);
  std::vector<std::vector<float>> version = {values};

  for (uint64_t clock = 0; clock < job.clocks; ++clock) {
    const std::vector<float>& read = version[job.staleness >= clock ? 0 : clock - job.staleness];
    double weight = 0;
    std::vector<Sum> of_ledger(job.ranks), of_values(job.ranks);
    std::map<uint64_t, std::vector<Sum>> of_key;
    for (uint32_t r = 0; r < job.ranks; ++r) {
      const Rank rank(r);
      if (!job.has_batch(rank, clock)) continue;
      weight += 1;
      of_ledger[r].emplace(ledger.size());
      for (size_t e = r; e < ledger.size(); e += kBlockElements) (*of_ledger[r])[e] = job.gradient(1);
      of_values[r].emplace(values.size());
      for (uint32_t e = 0; e < values.size(); ++e) {
        (*of_values[r])[e] = job.gradient(job.noise(rank, clock, e) - read[e] * 0x1p-6f);
      }
      for (uint64_t key : job.keys(rank, clock)) {
        std::vector<Sum>& sums = of_key[key];
        sums.resize(job.ranks);
        sums[r] = std::vector<float>(kDim, job.gradient(1));
      }
    }
    if (weight > 0) {
      const float scale = job.reduce_sum ? 1.0f : static_cast<float>(1 / weight);
      Step(of_ledger, scale, absl::MakeSpan(ledger));
      Step(of_values, scale, absl::MakeSpan(values));
      for (auto& [key, sums] : of_key) Step(sums, scale, absl::MakeSpan(counts[key]));
    }
    version.push_back(values);
  }

  uint64_t hash = HashFloats(0, ledger);
  hash = HashFloats(hash, values);
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    for (const auto& [key, row] : counts) {
      if (job.geometry().slot(key) == slot) hash = HashFloats(hash, row);
    }
  }
  return hash;
}

std::string References::Check(uint64_t job, uint64_t parameters_hash) {
  const auto [it, first] = hashes_.try_emplace(job, 0);
  if (first) it->second = ReferenceHash(MakeJob(job));
  if (it->second == parameters_hash) return "";
  return absl::StrCat("job ", job, " ended in other bits than those of a sequential program");
}

}  // namespace descent::simulation
