#include "server/coordinator/metric_merge.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace descent {

std::optional<MetricRecord> EvaluationMerge::Add(const v1::EvaluationPart& part, std::vector<std::string>* dropped) {
  if (part.rank() >= ranks_) return std::nullopt;
  if (last_.has_value() && part.clock() <= *last_) return std::nullopt;
  auto& ranks = pending_[part.clock()];
  ranks.emplace(part.rank(), part);
  const auto drop = [&](std::map<uint64_t, std::map<uint32_t, v1::EvaluationPart>>::iterator it) {
    std::vector<uint32_t> missing;
    for (uint32_t r = 0; r < ranks_ && missing.size() < 8; ++r) {
      if (!it->second.contains(r)) missing.push_back(r);
    }
    dropped->push_back(absl::StrCat("the evaluation at clock ", it->first, " stays incomplete: ranks ",
                                    absl::StrJoin(missing, ", "), " did not report"));
    return pending_.erase(it);
  };
  if (ranks.size() < ranks_) {
    if (pending_.size() > kMaxPending) drop(pending_.begin());
    return std::nullopt;
  }
  while (pending_.begin()->first < part.clock()) drop(pending_.begin());
  last_ = part.clock();

  MetricRecord record;
  record.kind = MetricRecord::Kind::kEvaluation;
  record.clock = part.clock();
  double loss = 0, weight = 0, correct = 0, regularizer = 0, train_loss = 0, train_weight = 0;
  bool classification = false;
  for (const auto& [rank, p] : pending_.begin()->second) {
    loss += p.loss();
    weight += p.weight();
    correct += p.correct();
    regularizer += p.regularizer();
    train_loss += p.train_loss();
    train_weight += p.train_weight();
    record.fuzzy |= p.fuzzy();
    classification |= p.classification();
  }
  record.weight = static_cast<uint64_t>(weight);
  record.loss = weight > 0 ? loss / weight : 0;
  if (classification && weight > 0) record.accuracy = correct / weight;
  if (train_weight > 0) {
    record.train_loss = train_loss / train_weight;
    if (std::isfinite(regularizer)) record.objective = *record.train_loss + regularizer;
  }
  pending_.erase(pending_.begin());
  return record;
}

void TrainingMerge::Add(const v1::TrainingPart& part) {
  if (part.rank() >= below_.size() || part.clocks() == 0 || part.first() > kUnbounded - part.clocks()) return;
  uint64_t& below = below_[part.rank()];
  if (part.first() < below) return;
  below = part.first() + part.clocks();
  // Workers cut their parts at window ends; one that reaches over counts where it ends.
  Sum& sum = windows_[(below - 1) / every_][part.rank()];
  sum.loss += part.loss();
  sum.weight += part.weight();
  sum.end = below;
  if (windows_.size() > kMaxPending) windows_.erase(windows_.begin());
}

std::optional<MetricRecord> TrainingMerge::Next() {
  if (windows_.empty()) return std::nullopt;
  const auto& [window, sums] = *windows_.begin();
  const uint64_t end = (window + 1) * every_;
  for (size_t r = 0; r < below_.size(); ++r) {
    if (!done_[r] && below_[r] < end) return std::nullopt;
  }
  MetricRecord record;
  record.kind = MetricRecord::Kind::kTraining;
  double loss = 0, weight = 0;
  for (const auto& [rank, sum] : sums) {
    loss += sum.loss;
    weight += sum.weight;
    record.clock = std::max(record.clock, sum.end);
  }
  record.loss = weight > 0 ? loss / weight : 0;
  record.weight = static_cast<uint64_t>(weight);
  windows_.erase(windows_.begin());
  return record;
}

namespace {

// One that holds nothing has nothing to say.
size_t ServersWithBlocks(const PartitionMap& map) {
  std::set<ServerId> servers;
  for (const std::vector<ServerId>& placement : map.placement) servers.insert(placement.begin(), placement.end());
  return servers.size();
}

// The parts that a server has told of its blocks, appended to *parts.
absl::Status ReadParts(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map,
                       std::vector<BlockScalars>* parts) {
  for (const v1::TensorPartials& tensor : partials.tensor()) {
    if (tensor.tensor() >= map.placement.size()) {
      return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent scalars of tensor ", tensor.tensor(),
                                                     "; there are ", map.placement.size()));
    }
    const bool parameters = tensor.parameter_square_size() > 0;
    if (tensor.block_size() != tensor.square_size() ||
        (parameters && tensor.block_size() != tensor.parameter_square_size())) {
      return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent ", tensor.square_size(),
                                                     " scalars for ", tensor.block_size(), " blocks of tensor ",
                                                     tensor.tensor()));
    }
    const std::vector<ServerId>& placement = map.placement[tensor.tensor()];
    for (int i = 0; i < tensor.block_size(); ++i) {
      const uint32_t block = tensor.block(i);
      if (block >= placement.size() || placement[block] != from) {
        return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent a scalar of block ", block,
                                                       " of tensor ", tensor.tensor(), ", which it does not hold"));
      }
      const double parameter_square = parameters ? tensor.parameter_square(i) : 0;
      for (const double square : {tensor.square(i), parameter_square}) {
        if (square >= 0) continue;
        return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent the squared norm ", square,
                                                       " of block ", block, " of tensor ", tensor.tensor(),
                                                       "; expected a number of at least 0"));
      }
      parts->push_back({BlockId{TensorId(tensor.tensor()), block}, tensor.square(i), parameter_square});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ScalarMerge::Add(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map) {
  const uint64_t clock = partials.clock();
  if (agreed_.contains(clock)) return absl::OkStatus();
  if (agreed_.size() == kMaxKept && clock < agreed_.begin()->first) return absl::OkStatus();
  if (const auto it = pending_.find(clock); it != pending_.end() && it->second.from.contains(from)) {
    return absl::OkStatus();
  }
  std::vector<BlockScalars> parts;
  DESCENT_RETURN_IF_ERROR(ReadParts(from, partials, map, &parts));
  Pending& pending = pending_[clock];
  pending.from.insert(from);
  pending.parts.insert(pending.parts.end(), parts.begin(), parts.end());
  if (pending.from.size() < ServersWithBlocks(map)) {
    if (pending_.size() > kMaxKept) pending_.erase(pending_.begin());
    return absl::OkStatus();
  }
  std::sort(pending.parts.begin(), pending.parts.end(),
            [](const BlockScalars& a, const BlockScalars& b) { return a.id < b.id; });
  agreed_[clock] = AddInBlockOrder(Clock(clock), map.placement.size(), pending.parts);
  pending_.erase(clock);
  if (agreed_.size() > kMaxKept) agreed_.erase(agreed_.begin());
  return absl::OkStatus();
}

const ScalarTotals* ScalarMerge::Totals(uint64_t clock) const {
  const auto it = agreed_.find(clock);
  return it == agreed_.end() ? nullptr : &it->second;
}

std::optional<double> ScalarMerge::SquareWithin(uint64_t first, uint64_t end) const {
  auto it = agreed_.lower_bound(end);
  if (it == agreed_.begin()) return std::nullopt;
  --it;
  if (it->first < first) return std::nullopt;
  return SumOfSquares(it->second);
}

}  // namespace descent
