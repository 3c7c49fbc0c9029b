#include "worker/data/smote.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/random/philox.h"

namespace descent {
namespace {

constexpr size_t kChunk = 512;  // rows that are compared with at a time

// Sums in lanes whose order the features' numbers fix, so that the bits do not depend on where a row lies.
double DenseDistance(const float* a, const float* b, size_t n) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const float d = a[i + l] - b[i + l];
      lanes[l] += d * d;
    }
  }
  double sum = 0;
  for (const float lane : lanes) sum += static_cast<double>(lane);
  for (; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}

// Calls f(column, value in row a, value in row b) for every column that either row has, ascending.
template <typename F>
void MergeRows(const Batch& batch, size_t a, size_t b, const F& f) {
  uint32_t i = batch.row_begin[a], j = batch.row_begin[b];
  const uint32_t i_end = batch.row_begin[a + 1], j_end = batch.row_begin[b + 1];
  while (i < i_end || j < j_end) {
    const bool of_a = i < i_end && (j == j_end || batch.column[i] <= batch.column[j]);
    const bool of_b = j < j_end && (i == i_end || batch.column[j] <= batch.column[i]);
    const uint32_t column = of_a ? batch.column[i] : batch.column[j];
    f(column, of_a ? batch.value[i] : 0.0f, of_b ? batch.value[j] : 0.0f);
    i += of_a;
    j += of_b;
  }
}

double Distance(const Batch& batch, size_t a, size_t b) {
  if (!batch.sparse) {
    return DenseDistance(batch.dense.data() + a * batch.features, batch.dense.data() + b * batch.features,
                         batch.features);
  }
  double sum = 0;
  MergeRows(batch, a, b, [&sum](uint32_t, float x, float y) {
    const double d = static_cast<double>(x) - static_cast<double>(y);
    sum += d * d;
  });
  return sum;
}

// Example `at` moves the share `share` of the way to the row at `to`.
struct Move {
  size_t at, to;
  float share;
};

float Between(float x, float y, float share) { return x + share * (y - x); }

// Carries out the moves, which are ascending in `at`, and drops the rows from `rows` on.
void MoveAndDrop(const std::vector<Move>& moves, size_t rows, Batch* batch) {
  if (!batch->sparse) {
    for (const Move& move : moves) {
      float* x = batch->dense.data() + move.at * batch->features;
      const float* y = batch->dense.data() + move.to * batch->features;
      for (uint64_t i = 0; i < batch->features; ++i) x[i] = Between(x[i], y[i], move.share);
    }
    batch->dense.Resize(rows * batch->features);
  } else {
    std::vector<uint32_t> row_begin = {0}, column;
    std::vector<float> value;
    size_t next = 0;
    for (size_t row = 0; row < rows; ++row) {
      if (next < moves.size() && moves[next].at == row) {
        const Move& move = moves[next++];
        MergeRows(*batch, row, move.to, [&](uint32_t at, float x, float y) {
          column.push_back(at);
          value.push_back(Between(x, y, move.share));
        });
      } else {
        const auto begin = static_cast<ptrdiff_t>(batch->row_begin[row]);
        const auto end = static_cast<ptrdiff_t>(batch->row_begin[row + 1]);
        column.insert(column.end(), batch->column.begin() + begin, batch->column.begin() + end);
        value.insert(value.end(), batch->value.begin() + begin, batch->value.begin() + end);
      }
      row_begin.push_back(static_cast<uint32_t>(column.size()));
    }
    batch->row_begin.swap(row_begin);
    batch->column.swap(column);
    batch->value.swap(value);
  }
  batch->rows = rows;
  batch->label.resize(rows);
  if (!batch->weight.empty()) batch->weight.resize(rows);
}

}  // namespace

SmoteRows::SmoteRows(const Dataset* data, std::shared_ptr<const RowClasses> classes, uint64_t seed, uint32_t neighbours)
    : data_(data), classes_(std::move(classes)), seed_(seed), k_(neighbours) {
  DESCENT_CHECK(k_ > 0);
  DESCENT_CHECK(classes_->of_row.size() == data_->rows());
}

absl::Status SmoteRows::Read(absl::Span<const uint64_t> rows, Batch* batch) const {
  const uint64_t n = std::max<uint64_t>(1, data_->rows());
  std::vector<uint64_t> all(rows.begin(), rows.end()), made;
  for (uint64_t& row : all) {
    if (row < n) continue;
    row %= n;
    made.push_back(row);
  }
  if (made.empty()) return data_->Read(rows, batch);
  DESCENT_RETURN_IF_ERROR(Find(made));
  std::vector<Move> moves;
  std::vector<uint64_t> nearest;
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t row = rows[i] % n, draw = rows[i] / n;
    if (draw == 0) continue;
    DESCENT_RETURN_IF_ERROR(Neighbours(row, &nearest));
    if (nearest.empty()) continue;
    const RandomStream random(seed_, Purpose::kSmote, row, 0);
    moves.push_back({i, all.size(), random.Uniform(2 * draw + 1)});
    all.push_back(nearest[random.Below(2 * draw, nearest.size())]);
  }
  DESCENT_RETURN_IF_ERROR(data_->Read(all, batch));
  MoveAndDrop(moves, rows.size(), batch);
  return absl::OkStatus();
}

absl::Status SmoteRows::Neighbours(uint64_t row, std::vector<uint64_t>* nearest) const {
  DESCENT_RETURN_IF_ERROR(Find({row}));
  uint32_t shard = 0;
  while (row >= data_->shard_begin(shard + 1)) ++shard;
  nearest->clear();
  MutexLock lock(&mu_);
  for (const uint32_t place : nearest_[row]) nearest->push_back(data_->shard_begin(shard) + place);
  return absl::OkStatus();
}

absl::Status SmoteRows::Find(absl::Span<const uint64_t> rows) const {
  std::map<std::pair<uint32_t, uint32_t>, std::set<uint64_t>> unknown;  // by shard and class
  {
    MutexLock lock(&mu_);
    for (const uint64_t row : rows) {
      if (nearest_.contains(row)) continue;
      uint32_t shard = 0;
      while (row >= data_->shard_begin(shard + 1)) ++shard;
      unknown[{shard, classes_->of_row[row]}].insert(row);
    }
  }
  for (const auto& [where, queries] : unknown) {
    DESCENT_RETURN_IF_ERROR(Search(where.first, {queries.begin(), queries.end()}));
  }
  return absl::OkStatus();
}

absl::Status SmoteRows::Search(uint32_t shard, const std::vector<uint64_t>& queries) const {
  const uint64_t begin = data_->shard_begin(shard), end = data_->shard_begin(shard + 1);
  const uint32_t of_class = classes_->of_row[queries[0]];
  std::vector<uint64_t> others;
  for (uint64_t row = begin; row < end; ++row) {
    if (classes_->of_row[row] == of_class) others.push_back(row);
  }
  std::vector<std::vector<std::pair<double, uint64_t>>> best(queries.size());
  std::vector<uint64_t> rows;
  Batch batch;
  for (size_t at = 0; at < others.size(); at += kChunk) {
    const size_t count = std::min(kChunk, others.size() - at);
    rows = queries;
    rows.insert(rows.end(), others.begin() + static_cast<ptrdiff_t>(at),
                others.begin() + static_cast<ptrdiff_t>(at + count));
    DESCENT_RETURN_IF_ERROR(data_->Read(rows, &batch));
    for (size_t q = 0; q < queries.size(); ++q) {
      auto& list = best[q];
      for (size_t c = 0; c < count; ++c) {
        if (others[at + c] == queries[q]) continue;
        const std::pair<double, uint64_t> candidate(Distance(batch, q, queries.size() + c), others[at + c]);
        if (list.size() == k_ && !(candidate < list.back())) continue;
        list.insert(std::upper_bound(list.begin(), list.end(), candidate), candidate);
        if (list.size() > k_) list.pop_back();
      }
    }
  }
  MutexLock lock(&mu_);
  for (size_t q = 0; q < queries.size(); ++q) {
    std::vector<uint32_t>& places = nearest_[queries[q]];
    places.clear();
    for (const auto& [distance, row] : best[q]) places.push_back(static_cast<uint32_t>(row - begin));
  }
  return absl::OkStatus();
}

}  // namespace descent
