#include "server/coordinator/metric_merge.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/metrics/metric_names.h"

namespace descent {

std::optional<MetricRecord> EvaluationMerge::Add(const v1::EvaluationPart& part, std::vector<std::string>* trouble) {
  if (part.rank() >= ranks_) return std::nullopt;
  if (last_.has_value() && part.clock() <= *last_) return std::nullopt;
  Pending& pending = pending_[part.clock()];
  if (WantsMetrics(evaluation_) && !pending.ranks.contains(part.rank())) {
    absl::Status fits = CheckMetricState(evaluation_, part.metrics());
    if (fits.ok() && !pending.ranks.empty()) fits = CheckMerge(evaluation_, part.metrics(), pending.metrics);
    if (!fits.ok()) {
      trouble->push_back(absl::StrCat("rank ", part.rank(), "'s part of the evaluation at clock ", part.clock(),
                                      " is left out: ", fits.message()));
      if (pending.ranks.empty()) pending_.erase(part.clock());
      return std::nullopt;
    }
    MergeCounts(part.metrics(), &pending.metrics);
  }
  const auto [stored, added] = pending.ranks.emplace(part.rank(), part);
  if (added) DropCounts(stored->second.mutable_metrics());

  const auto drop_first = [&] {
    const auto it = pending_.begin();
    std::vector<uint32_t> missing;
    for (uint32_t r = 0; r < ranks_ && missing.size() < 8; ++r) {
      if (!it->second.ranks.contains(r)) missing.push_back(r);
    }
    trouble->push_back(absl::StrCat("the evaluation at clock ", it->first, " stays incomplete: ranks ",
                                    absl::StrJoin(missing, ", "), " did not report"));
    pending_.erase(it);
  };
  if (pending.ranks.size() < ranks_) {
    const size_t most = std::clamp<size_t>(kMaxPendingBytes / (pending.metrics.SpaceUsedLong() + 1), 1, kMaxPending);
    if (pending_.size() > most) drop_first();
    return std::nullopt;
  }
  while (pending_.begin()->first < part.clock()) drop_first();
  last_ = part.clock();
  MetricRecord record = Merge(std::move(pending_.begin()->second));
  record.clock = part.clock();
  pending_.erase(pending_.begin());
  return record;
}

MetricRecord EvaluationMerge::Merge(Pending pending) const {
  MetricRecord record;
  record.kind = MetricRecord::Kind::kEvaluation;
  double loss = 0, weight = 0, correct = 0, regularizer = 0, train_loss = 0, train_weight = 0;
  bool classification = false;
  for (const auto& [rank, p] : pending.ranks) {
    loss += p.loss();
    weight += p.weight();
    correct += p.correct();
    regularizer += p.regularizer();
    train_loss += p.train_loss();
    train_weight += p.train_weight();
    record.fuzzy |= p.fuzzy();
    classification |= p.classification();
    MergeSums(p.metrics(), &pending.metrics);
    const double examples = p.weight() > 0 ? p.weight() : p.train_weight();
    const double mean = (p.weight() > 0 ? p.loss() : p.train_loss()) / examples;
    // A NaN is greater than any number.
    if (examples > 0 &&
        (!record.worst_rank.has_value() || (!std::isnan(record.worst_loss) && !(mean <= record.worst_loss)))) {
      record.worst_rank = rank;
      record.worst_loss = mean;
    }
  }
  record.weight = static_cast<uint64_t>(weight);
  record.loss = weight > 0 ? loss / weight : 0;
  if (classification && weight > 0) record.accuracy = correct / weight;
  if (train_weight > 0) {
    record.train_loss = train_loss / train_weight;
    if (std::isfinite(regularizer)) record.objective = *record.train_loss + regularizer;
  }
  record.metrics = Finish(evaluation_, std::move(pending.metrics));
  if (const double* accuracy = record.metrics.Find("accuracy"); accuracy != nullptr) record.accuracy = *accuracy;
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
std::set<ServerId> ServersWithBlocks(const PartitionMap& map) {
  std::set<ServerId> servers;
  for (const std::vector<ServerId>& placement : map.placement) servers.insert(placement.begin(), placement.end());
  return servers;
}

// The parts that a server has told of its blocks, appended to *parts.
absl::Status ReadParts(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map,
                       std::vector<BlockScalars>* parts) {
  std::set<BlockId> told;
  for (const v1::TensorPartials& tensor : partials.tensor()) {
    if (tensor.tensor() >= map.placement.size()) {
      return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent scalars of tensor ", tensor.tensor(),
                                                     "; there are ", map.placement.size()));
    }
    const int blocks = tensor.block_size(), parameters = tensor.parameter_square_size(),
              steps = tensor.step_square_size();
    if (tensor.square_size() != blocks || (parameters != 0 && parameters != blocks) ||
        (steps != 0 && steps != blocks)) {
      return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent ", tensor.square_size(), ", ",
                                                     parameters, " and ", steps, " scalars for ", blocks,
                                                     " blocks of tensor ", tensor.tensor()));
    }
    if (blocks > 0 ? tensor.product_size() % blocks != 0 : tensor.product_size() != 0) {
      return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent ", tensor.product_size(),
                                                     " products for ", blocks, " blocks of tensor ", tensor.tensor()));
    }
    const std::vector<ServerId>& placement = map.placement[tensor.tensor()];
    for (int i = 0; i < tensor.block_size(); ++i) {
      const uint32_t block = tensor.block(i);
      if (block >= placement.size() || placement[block] != from) {
        return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent a scalar of block ", block,
                                                       " of tensor ", tensor.tensor(), ", which it does not hold"));
      }
      BlockScalars scalars{BlockId{TensorId(tensor.tensor()), block},
                           tensor.square(i),
                           parameters == 0 ? 0 : tensor.parameter_square(i),
                           steps == 0 ? 0 : tensor.step_square(i),
                           {}};
      const int products = tensor.product_size() / blocks;
      scalars.products.assign(tensor.product().begin() + i * products, tensor.product().begin() + (i + 1) * products);
      if (!told.insert(scalars.id).second) {
        return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent two scalars of block ", block,
                                                       " of tensor ", tensor.tensor(), "; expected one"));
      }
      for (const double square : {scalars.square, scalars.parameter_square, scalars.step_square}) {
        // An infinite norm is a record like others, but no step can be made with it (CheckTotals).
        if (square >= 0 && (std::isfinite(square) || !partials.before_step())) continue;
        return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent the squared norm ", square,
                                                       " of block ", block, " of tensor ", tensor.tensor(),
                                                       "; expected a finite number of at least 0"));
      }
      for (const double product : scalars.products) {
        if (std::isfinite(product)) continue;
        return absl::InvalidArgumentError(absl::StrCat("server ", from.value, " sent the product ", product,
                                                       " of block ", block, " of tensor ", tensor.tensor(),
                                                       "; expected a finite number"));
      }
      parts->push_back(std::move(scalars));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ScalarMerge::Add(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map) {
  const absl::Status taken = Take(from, partials, map);
  if (taken.ok()) {
    refused_.erase(from);
  } else {
    refused_[from] = std::string(taken.message());
  }
  return taken;
}

std::string ScalarMerge::refusal(ServerId from) const {
  const auto refused = refused_.find(from);
  return refused == refused_.end() ? "" : refused->second;
}

absl::Status ScalarMerge::Take(ServerId from, const v1::ScalarPartials& partials, const PartitionMap& map) {
  const uint64_t clock = partials.clock();
  if (agreed_.contains(clock)) return absl::OkStatus();
  if (agreed_.size() == most_ && clock < agreed_.begin()->first) return absl::OkStatus();
  std::vector<BlockScalars> parts;
  DESCENT_RETURN_IF_ERROR(ReadParts(from, partials, map, &parts));
  Pending& pending = pending_[clock];
  if (!pending.from.insert(from).second) return absl::OkStatus();
  pending.parts.insert(pending.parts.end(), parts.begin(), parts.end());
  if (pending.from.size() < ServersWithBlocks(map).size()) {
    if (pending_.size() > most_) pending_.erase(pending_.begin());
    return absl::OkStatus();
  }
  std::sort(pending.parts.begin(), pending.parts.end(),
            [](const BlockScalars& a, const BlockScalars& b) { return a.id < b.id; });
  agreed_[clock] = AddInBlockOrder(Clock(clock), map.placement.size(), pending.parts);
  pending_.erase(clock);
  if (agreed_.size() > most_) agreed_.erase(agreed_.begin());
  return absl::OkStatus();
}

const ScalarTotals* ScalarMerge::Totals(uint64_t clock) const {
  const auto it = agreed_.find(clock);
  return it == agreed_.end() ? nullptr : &it->second;
}

const ScalarTotals* ScalarMerge::Within(uint64_t first, uint64_t end) const {
  auto it = agreed_.lower_bound(end);
  if (it == agreed_.begin()) return nullptr;
  --it;
  return it->first < first ? nullptr : &it->second;
}

std::optional<double> ScalarMerge::Last() const {
  if (agreed_.empty()) return std::nullopt;
  return SumOfSquares(agreed_.rbegin()->second);
}

std::optional<ScalarMerge::Awaited> ScalarMerge::awaited(const PartitionMap& map) const {
  // Older ones are told again, by some, when a generation goes on with what servers hold.
  if (pending_.empty() || (!agreed_.empty() && agreed_.rbegin()->first > pending_.rbegin()->first)) return std::nullopt;
  const auto& [clock, pending] = *pending_.rbegin();
  Awaited out{clock, {}};
  for (ServerId server : ServersWithBlocks(map)) {
    if (!pending.from.contains(server)) out.servers.push_back(server);
  }
  return out;
}

}  // namespace descent
