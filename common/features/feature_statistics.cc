#include "common/features/feature_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/features/quantile_sketch.h"

namespace descent {

void Moments::Add(double x) {
  ++count;
  const double from_mean = x - mean;
  mean += from_mean / static_cast<double>(count);
  scatter += from_mean * (x - mean);
  least = count == 1 ? x : std::min(least, x);
  greatest = count == 1 ? x : std::max(greatest, x);
}

void Moments::Merge(const Moments& other) {
  if (other.count == 0) return;
  if (count == 0) {
    *this = other;
    return;
  }
  const auto n = static_cast<double>(count), m = static_cast<double>(other.count);
  const double apart = other.mean - mean;
  mean += apart * (m / (n + m));
  scatter += other.scatter + apart * apart * (n * (m / (n + m)));
  count += other.count;
  least = std::min(least, other.least);
  greatest = std::max(greatest, other.greatest);
}

Moments Moments::WithZeros(uint64_t zeros) const {
  Moments all;
  all.count = zeros;
  all.Merge(*this);
  return all;
}

double Moments::Deviation() const { return count == 0 ? 0 : std::sqrt(scatter / static_cast<double>(count)); }

bool Moments::Constant() const {
  return Deviation() <= 0x1p-20 * std::max(std::fabs(least), std::fabs(greatest)) || least == greatest;
}

Moments MomentsAt(const v1::FeatureStatistics& statistics, int at) {
  return {statistics.count(at), statistics.mean(at), statistics.scatter(at), statistics.least(at),
          statistics.greatest(at)};
}

void AppendMoments(const Moments& moments, v1::FeatureStatistics* statistics) {
  statistics->add_count(moments.count);
  statistics->add_mean(moments.mean);
  statistics->add_scatter(moments.scatter);
  statistics->add_least(moments.least);
  statistics->add_greatest(moments.greatest);
}

namespace {

void AppendColumn(const v1::FeatureStatistics& from, int at, v1::FeatureStatistics* to) {
  to->add_column(from.column(at));
  AppendMoments(MomentsAt(from, at), to);
  if (from.sketch_size() > 0) *to->add_sketch() = from.sketch(at);
}

absl::StatusOr<v1::QuantileSketch> MergedSketch(const v1::QuantileSketch& a, const v1::QuantileSketch& b) {
  DESCENT_ASSIGN_OR_RETURN(QuantileSketch merged, QuantileSketch::FromMessage(a));
  DESCENT_ASSIGN_OR_RETURN(const QuantileSketch other, QuantileSketch::FromMessage(b));
  merged.Merge(other);
  return merged.ToMessage();
}

absl::Status MergeColumn(const v1::FeatureStatistics& from, int at, int to, v1::FeatureStatistics* into) {
  Moments moments = MomentsAt(*into, to);
  moments.Merge(MomentsAt(from, at));
  into->set_count(to, moments.count);
  into->set_mean(to, moments.mean);
  into->set_scatter(to, moments.scatter);
  into->set_least(to, moments.least);
  into->set_greatest(to, moments.greatest);
  if (from.sketch_size() == 0) return absl::OkStatus();
  DESCENT_ASSIGN_OR_RETURN(*into->mutable_sketch(to), MergedSketch(into->sketch(to), from.sketch(at)));
  return absl::OkStatus();
}

// As scatters are merged; before the means are.
void MergeProducts(const v1::FeatureStatistics& from, v1::FeatureStatistics* into) {
  if (from.product_size() == 0) return;
  const int columns = from.mean_size();
  const auto n = static_cast<double>(into->rows()), m = static_cast<double>(from.rows());
  const double weight = n + m > 0 ? n * (m / (n + m)) : 0;
  int at = 0;
  for (int i = 0; i < columns; ++i) {
    const double apart = (from.mean(i) - into->mean(i)) * weight;
    for (int j = i; j < columns; ++j, ++at) {
      into->set_product(at, into->product(at) + (from.product(at) + apart * (from.mean(j) - into->mean(j))));
    }
  }
}

// Columns of either, ascending.
absl::Status MergeSparse(const v1::FeatureStatistics& from, v1::FeatureStatistics* into) {
  v1::FeatureStatistics all;
  all.set_columns(into->columns());
  int a = 0, b = 0;
  while (a < into->column_size() || b < from.column_size()) {
    const bool first = b == from.column_size() || (a < into->column_size() && into->column(a) <= from.column(b));
    const bool second = a == into->column_size() || (b < from.column_size() && from.column(b) <= into->column(a));
    AppendColumn(first ? *into : from, first ? a : b, &all);
    if (first && second) DESCENT_RETURN_IF_ERROR(MergeColumn(from, b, all.column_size() - 1, &all));
    a += first;
    b += second;
  }
  all.set_rows(into->rows() + from.rows());
  *into = std::move(all);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStatistics(const v1::FeatureStatistics& statistics) {
  const int columns = statistics.count_size();
  const auto wrong = [](const auto&... text) {
    return absl::InvalidArgumentError(absl::StrCat("statistics ", text...));
  };
  if (statistics.mean_size() != columns || statistics.scatter_size() != columns || statistics.least_size() != columns ||
      statistics.greatest_size() != columns) {
    return wrong("of ", columns, " columns have ", statistics.mean_size(), " means, ", statistics.scatter_size(),
                 " scatters, ", statistics.least_size(), " least and ", statistics.greatest_size(), " greatest values");
  }
  if (statistics.sketch_size() != 0 && statistics.sketch_size() != columns) {
    return wrong("of ", columns, " columns have ", statistics.sketch_size(), " sketches");
  }
  const int64_t triangle = int64_t{columns} * (columns + 1) / 2;
  if (statistics.product_size() != 0 && (statistics.product_size() != triangle || statistics.column_size() != 0)) {
    return wrong("of ", columns, " columns have ", statistics.product_size(), " products");
  }
  if (statistics.column_size() != 0 && statistics.column_size() != columns) {
    return wrong("of ", columns, " columns name ", statistics.column_size());
  }
  for (int i = 1; i < statistics.column_size(); ++i) {
    if (statistics.column(i) <= statistics.column(i - 1)) {
      return wrong("name column ", statistics.column(i), " after ", statistics.column(i - 1));
    }
  }
  if (statistics.column_size() > 0 && statistics.column(columns - 1) >= statistics.columns()) {
    return wrong("of ", statistics.columns(), " columns name column ", statistics.column(columns - 1));
  }
  for (const v1::QuantileSketch& sketch : statistics.sketch()) {
    DESCENT_RETURN_IF_ERROR(QuantileSketch::FromMessage(sketch).status());
  }
  return absl::OkStatus();
}

absl::Status MergeStatistics(const v1::FeatureStatistics& from, v1::FeatureStatistics* into) {
  const bool sparse = from.column_size() > 0 || into->column_size() > 0;
  if (from.columns() != into->columns() || from.product_size() != into->product_size() ||
      (!sparse && from.count_size() != into->count_size()) ||
      (from.count_size() > 0 && into->count_size() > 0 && (from.sketch_size() > 0) != (into->sketch_size() > 0))) {
    return absl::InvalidArgumentError(absl::StrCat("statistics of ", from.columns(), " columns (", from.count_size(),
                                                   " in them) were to be merged into those of ", into->columns(), " (",
                                                   into->count_size(), " in them)"));
  }
  if (sparse) return MergeSparse(from, into);
  MergeProducts(from, into);
  for (int c = 0; c < from.count_size(); ++c) DESCENT_RETURN_IF_ERROR(MergeColumn(from, c, c, into));
  into->set_rows(into->rows() + from.rows());
  return absl::OkStatus();
}

}  // namespace descent
