#include "worker/loop/share_evaluator.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "common/base/status_macros.h"
#include "worker/loop/held_parameters.h"

namespace descent {
namespace {

void Add(const BatchResult& part, BatchResult* total) {
  total->loss += part.loss;
  total->weight += part.weight;
  total->correct += part.correct;
}

}  // namespace

ShareEvaluator::ShareEvaluator(Model<float>* model, const std::vector<TensorSpec>* tensors, uint32_t ranks,
                               uint32_t batch, Reads reads)
    : model_(model),
      tensors_(*tensors),
      ranks_(ranks),
      batch_(batch),
      reads_(std::move(reads)),
      has_tables_(HasTables(*tensors)) {
  for (Reading& reading : readings_) reading.rows.resize(tensors_.size());
}

absl::StatusOr<BatchResult> ShareEvaluator::Evaluate(const Dataset& data, Rank rank, Clock read,
                                                     const std::vector<const float*>& dense, MetricObserver* metrics) {
  const auto first_of = [&](uint64_t r) { return data.rows() / ranks_ * r + data.rows() % ranks_ * r / ranks_; };
  uint64_t at = first_of(rank.value);
  const uint64_t end = first_of(uint64_t{rank.value} + 1);
  const auto fetch = [&](Reading* reading) -> absl::Status {
    std::vector<uint64_t> rows(std::min<uint64_t>(end - at, batch_));
    std::iota(rows.begin(), rows.end(), at);
    at += rows.size();
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &reading->batch));
    if (!has_tables_) return absl::OkStatus();
    PullSpec pull;
    pull.rank = rank;
    pull.clock = read;
    WantRows(tensors_, reading->batch.keys, &reading->rows, &pull);
    reading->ticket = reads_.pull(pull);
    return absl::OkStatus();
  };
  BatchResult total;
  // One batch is read and its rows are asked for while those of the one before are on their way.
  Reading *now = &readings_[0], *ahead = &readings_[1];
  const bool any = at < end;
  if (any) DESCENT_RETURN_IF_ERROR(fetch(now));
  for (bool more = any; more; std::swap(now, ahead)) {
    more = at < end;
    if (more) DESCENT_RETURN_IF_ERROR(fetch(ahead));
    std::vector<const float*> parameters = dense;
    if (has_tables_) {
      DESCENT_RETURN_IF_ERROR(reads_.await(now->ticket));
      for (size_t i = 0; i < tensors_.size(); ++i) {
        if (tensors_[i].sparse) parameters[i] = now->rows[i].data();
      }
    }
    Add(model_->Evaluate(now->batch, parameters), &total);
    if (metrics != nullptr) {
      model_->Predict(now->batch, parameters, &predicted_);
      metrics->Add(now->batch.label, predicted_);
    }
    DESCENT_RETURN_IF_ERROR(reads_.still_wanted());
  }
  return total;
}

double Regularizer(const std::vector<TensorSpec>& tensors, const Penalty& penalty,
                   const std::vector<const float*>& dense) {
  double square = 0, absolute = 0, groups = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].decay || (penalty.l1 == 0 && penalty.l2 == 0 && penalty.group == 0)) continue;
    if (tensors[i].sparse) return std::numeric_limits<double>::quiet_NaN();
    const float* values = dense[i];
    const uint64_t row = tensors[i].row_elements();
    for (uint64_t begin = 0; begin < tensors[i].elements(); begin += row) {
      double of_row = 0;
      for (uint64_t k = begin; k < begin + row; ++k) {
        of_row += static_cast<double>(values[k]) * values[k];
        absolute += std::fabs(values[k]);
      }
      square += of_row;
      groups += std::sqrt(of_row);
    }
  }
  return penalty.l1 * absolute + 0.5 * penalty.l2 * square + penalty.group * groups;
}

}  // namespace descent
