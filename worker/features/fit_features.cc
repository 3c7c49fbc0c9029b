#include "worker/features/fit_features.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/features/feature_statistics.h"
#include "common/features/quantile_sketch.h"
#include "worker/features/feature_transformation.h"
#include "worker/features/principal_components.h"

namespace descent {
namespace {

constexpr uint64_t kBlock = 1024;                      // rows read at a time; decides bits
constexpr uint64_t kMessageBytes = uint64_t{3} << 20;  // of the 4 MiB that receivers accept
constexpr uint64_t kColumnBytes = 56;                  // of a message: five numbers and a column's index
constexpr uint64_t kSketchBytes = 3 * 4 * QuantileSketch::kCapacity + 256;

bool WantsQuantiles(const v1::Features& features) {
  return features.has_robust() || (features.has_missing() && features.missing().fill() == v1::FILL_MEDIAN);
}

// Sums over blocks of rows: moments of columns [first, first + size).
class DenseMoments {
 public:
  DenseMoments(const FeatureColumns& columns, uint64_t first, uint64_t size, std::vector<Moments>* moments)
      : first_(first), size_(size), moments_(*moments), number_(size), sum_(size), count_(size), scatter_(size) {
    for (uint64_t j = 0; j < size; ++j) number_[j] = columns.number(first + j);
  }

  // The mean first, then distances from it: of equal values the scatter is exactly 0.
  void Add(const Batch& batch) {
    std::fill(sum_.begin(), sum_.end(), 0.0);
    std::fill(count_.begin(), count_.end(), 0);
    std::fill(scatter_.begin(), scatter_.end(), 0.0);
    least_.assign(size_, INFINITY);
    greatest_.assign(size_, -INFINITY);
    for (size_t r = 0; r < batch.rows; ++r) {
      const float* x = Row(batch, r);
      for (uint64_t j = 0; j < size_; ++j) {
        const bool there = !std::isnan(x[j]);
        sum_[j] += there ? static_cast<double>(x[j]) : 0.0;
        count_[j] += there;
        least_[j] = x[j] < least_[j] ? x[j] : least_[j];
        greatest_[j] = x[j] > greatest_[j] ? x[j] : greatest_[j];
      }
    }
    for (uint64_t j = 0; j < size_; ++j) sum_[j] = count_[j] > 0 ? sum_[j] / static_cast<double>(count_[j]) : 0;
    for (size_t r = 0; r < batch.rows; ++r) {
      const float* x = Row(batch, r);
      for (uint64_t j = 0; j < size_; ++j) {
        const double apart = std::isnan(x[j]) ? 0.0 : static_cast<double>(x[j]) - sum_[j];
        scatter_[j] += apart * apart;
      }
    }
    for (uint64_t j = 0; j < size_; ++j) {
      if (number_[j] && count_[j] > 0) moments_[j].Merge({count_[j], sum_[j], scatter_[j], least_[j], greatest_[j]});
    }
  }

 private:
  const float* Row(const Batch& batch, size_t r) const { return batch.dense.data() + r * batch.features + first_; }

  const uint64_t first_, size_;
  std::vector<Moments>& moments_;
  std::vector<char> number_;
  std::vector<double> sum_;
  std::vector<uint64_t> count_;
  std::vector<double> scatter_;
  std::vector<float> least_, greatest_;
};

// What the transformation does to one column.
struct Scaling {
  double shift = 0;
  double scale = 1;
  bool constant = false;
};

Scaling ScalingOf(const v1::Features& features, bool sparse, const Moments& moments, const QuantileSketch* sketch,
                  uint64_t zeros) {
  Scaling scaling;
  // Passed on as it is, whatever the offset.
  const Scaling none = {features.min_max().low(), 1, true};
  if (moments.Constant()) return none;
  switch (features.scaling_case()) {
    case v1::Features::kStandardize:
      scaling.shift = sparse ? 0 : moments.mean;
      scaling.scale = 1 / moments.Deviation();
      break;
    case v1::Features::kMinMax:
      scaling.shift = moments.least;
      scaling.scale = (features.min_max().high() - features.min_max().low()) / (moments.greatest - moments.least);
      break;
    case v1::Features::kMaxAbs:
      scaling.scale = 1 / std::max(std::fabs(moments.least), std::fabs(moments.greatest));
      break;
    case v1::Features::kRobust: {
      const double spread =
          sketch->Quantile(features.robust().upper(), zeros) - sketch->Quantile(features.robust().lower(), zeros);
      const double greatest = std::max(std::fabs(moments.least), std::fabs(moments.greatest));
      if (!(spread > 0x1p-20 * greatest)) return none;
      scaling.shift = sparse ? 0 : sketch->Quantile(0.5, zeros);
      scaling.scale = 1 / spread;
      break;
    }
    case v1::Features::SCALING_NOT_SET:
      break;
  }
  return scaling;
}

absl::StatusOr<double> FillOf(const v1::MissingValues& missing, bool logged, const Moments& moments,
                              const QuantileSketch* sketch) {
  switch (missing.fill()) {
    case v1::FILL_MEDIAN:
      return moments.count > 0 ? sketch->Quantile(0.5) : 0;
    case v1::FILL_CONSTANT: {
      const auto constant = static_cast<float>(missing.constant());
      return logged ? SignedLog(constant) : constant;
    }
    default:
      return moments.mean;
  }
}

class Fitter {
 public:
  Fitter(const v1::Features& features, const FeatureColumns& columns)
      : features_(features), columns_(columns), scales_(features.scaling_case() != v1::Features::SCALING_NOT_SET) {}

  bool WantsStatistics() const { return scales_ || features_.has_missing(); }

  void Begin() {
    fitted_.set_columns(columns_.size());
    for (const DataColumn& column : columns_.kinds()) fitted_.add_name(column.name);
    fitted_.set_first_column(columns_.first());
    for (uint64_t c = 0; c < columns_.kinds().size(); ++c) {
      const DataColumn& column = columns_.kinds()[c];
      if (column.kind != DataColumn::Kind::kCategory) continue;
      v1::Categories* categories = fitted_.add_one_hot();
      categories->set_column(c);
      std::vector<std::string> sorted = column.categories;
      std::sort(sorted.begin(), sorted.end());
      for (std::string& category : sorted) categories->add_category(std::move(category));
    }
    if (scales_ && features_.has_min_max()) fitted_.set_offset(features_.min_max().low());
  }

  absl::Status CheckSize() const {
    const uint64_t per_column = (features_.has_missing() ? 1 : 0) + (scales_ ? 1 : 0) + (scales_ && !columns_.sparse());
    return CheckBytes(columns_.size() * per_column * sizeof(double));
  }

  absl::Status Take(const v1::FeatureStatistics& total, uint64_t first, uint64_t last) {
    int next = 0;
    for (uint64_t c = first; c < last; ++c) {
      Moments moments;
      QuantileSketch sketch(0);
      int at = static_cast<int>(c - first);
      if (columns_.sparse()) {
        const bool there = next < total.column_size() && total.column(next) == c;
        at = there ? next++ : -1;
      }
      if (at >= 0) {
        if (at >= total.count_size()) return absl::InternalError("statistics of too few columns");
        moments = MomentsAt(total, at);
        if (total.sketch_size() > 0) {
          DESCENT_ASSIGN_OR_RETURN(sketch, QuantileSketch::FromMessage(total.sketch(at)));
        }
      }
      DESCENT_RETURN_IF_ERROR(TakeColumn(c, total.rows(), moments, sketch));
    }
    return absl::OkStatus();
  }

  absl::Status AddComponents(const Dataset& data, const StatisticsExchange& exchange, StatisticsPass pass) {
    DESCENT_ASSIGN_OR_RETURN(const FeatureTransformation before,
                             FeatureTransformation::Create(features_, columns_, fitted_));
    if (before.features_before_components() > kMostCovariance ||
        before.features_before_components() < features_.pca()) {
      return absl::InvalidArgumentError(
          absl::StrCat("features.pca: ", features_.pca(), " components of ", before.features_before_components(),
                       " features; expected no more than these, and at most ", kMostCovariance, " features"));
    }
    const uint64_t numbers = (uint64_t{features_.pca()} + 1) * before.features_before_components();
    DESCENT_RETURN_IF_ERROR(CheckBytes(fitted_.ByteSizeLong() + numbers * sizeof(double)));
    pass.number = kComponentPass;
    pass.compute = [&](uint32_t shard) { return ProductStatistics(data, before, shard); };
    DESCENT_ASSIGN_OR_RETURN(const v1::FeatureStatistics total, exchange(pass));
    return TakeComponents(total, features_.pca(), &fitted_);
  }

  absl::StatusOr<v1::FittedFeatures> Finish() {
    DESCENT_RETURN_IF_ERROR(CheckBytes(fitted_.ByteSizeLong()));
    return std::move(fitted_);
  }

 private:
  absl::Status CheckBytes(uint64_t bytes) const {
    if (bytes <= kMessageBytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("features: what is fitted to ", columns_.size(), " columns takes ",
                                                     bytes, " bytes; at most ", kMessageBytes,
                                                     " go into a worker's registration"));
  }

  absl::Status TakeColumn(uint64_t c, uint64_t rows, const Moments& moments, const QuantileSketch& sketch) {
    const bool sparse = columns_.sparse();
    const uint64_t absent = rows - moments.count;  // of dense data: missing; of sparse data: zeros
    if (features_.has_missing()) {
      DESCENT_ASSIGN_OR_RETURN(const double fill, FillOf(features_.missing(), columns_.logged(c), moments, &sketch));
      fitted_.add_fill(columns_.number(c) ? fill : 0);
      if (features_.missing().indicator() && columns_.number(c) && absent > 0) fitted_.add_indicated(c);
    }
    if (!scales_) return absl::OkStatus();
    Scaling scaling = {features_.min_max().low(), 1, false};
    if (columns_.scaled(c)) {
      scaling =
          ScalingOf(features_, sparse, sparse ? moments.WithZeros(absent) : moments, &sketch, sparse ? absent : 0);
    }
    if (!sparse) fitted_.add_shift(scaling.shift);
    fitted_.add_scale(scaling.scale);
    if (scaling.constant) fitted_.add_constant(c);
    return absl::OkStatus();
  }

  const v1::Features& features_;
  const FeatureColumns& columns_;
  const bool scales_;
  v1::FittedFeatures fitted_;
};

}  // namespace

absl::StatusOr<v1::FeatureStatistics> StatisticsAlone(const StatisticsPass& pass) {
  v1::FeatureStatistics total;
  for (uint32_t unit = 0; unit < pass.units; ++unit) {
    DESCENT_ASSIGN_OR_RETURN(v1::FeatureStatistics statistics, pass.compute(unit));
    if (unit == 0) {
      total = std::move(statistics);
    } else {
      DESCENT_RETURN_IF_ERROR(MergeStatistics(statistics, &total));
    }
  }
  return total;
}

uint64_t DataFingerprint(const Dataset& data) {
  uint64_t print = HashKey(data.rows() ^ HashKey(data.shards()));
  for (const DataFileInfo& file : data.files()) {
    print = HashKey(print ^ file.bytes);
    print = HashKey(print ^ file.rows);
    print = HashKey(print ^ file.crc32c);
  }
  return print;
}

absl::StatusOr<v1::FeatureStatistics> ShardStatistics(const Dataset& data, const FeatureColumns& columns,
                                                      uint32_t shard, uint64_t first, uint64_t last, bool sketches) {
  const uint64_t size = last - first;
  std::vector<Moments> moments(size);
  std::vector<QuantileSketch> sketch;
  for (uint64_t j = 0; sketches && j < size; ++j) sketch.emplace_back(HashKey(shard ^ HashKey(first + j)));
  DenseMoments dense(columns, first, data.sparse() ? 0 : size, &moments);
  Batch batch;
  std::vector<uint64_t> rows;
  const uint64_t end = data.shard_begin(shard + 1);
  for (uint64_t begin = data.shard_begin(shard); begin < end; begin += rows.size()) {
    rows.resize(std::min(kBlock, end - begin));
    std::iota(rows.begin(), rows.end(), begin);
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &batch));
    columns.Prepare(&batch);
    if (data.sparse()) {
      for (size_t e = 0; e < batch.value.size(); ++e) {
        if (batch.column[e] < first || batch.column[e] >= last) continue;
        moments[batch.column[e] - first].Add(batch.value[e]);
        if (sketches) sketch[batch.column[e] - first].Add(batch.value[e]);
      }
      continue;
    }
    dense.Add(batch);
    for (uint64_t j = 0; sketches && j < size; ++j) {
      if (!columns.number(first + j)) continue;
      for (size_t r = 0; r < batch.rows; ++r) {
        const float x = batch.dense[r * batch.features + first + j];
        if (!std::isnan(x)) sketch[j].Add(x);
      }
    }
  }
  v1::FeatureStatistics statistics;
  statistics.set_rows(end - data.shard_begin(shard));
  statistics.set_columns(columns.size());
  for (uint64_t j = 0; j < size; ++j) {
    if (data.sparse() && moments[j].count == 0) continue;
    if (data.sparse()) statistics.add_column(first + j);
    AppendMoments(moments[j], &statistics);
    if (sketches) *statistics.add_sketch() = sketch[j].ToMessage();
  }
  return statistics;
}

absl::StatusOr<v1::FittedFeatures> FitFeatures(const v1::Features& features, const Dataset& data,
                                               const FeatureColumns& columns, const StatisticsExchange& exchange) {
  Fitter fitter(features, columns);
  DESCENT_RETURN_IF_ERROR(fitter.CheckSize());  // before passes over all data
  fitter.Begin();
  const bool sketches = WantsQuantiles(features);
  const uint64_t step = kMessageBytes / (kColumnBytes + (sketches ? kSketchBytes : 0));
  StatisticsPass pass;
  pass.units = data.shards();
  pass.data = DataFingerprint(data);
  for (uint64_t first = 0; fitter.WantsStatistics() && first < columns.size(); first += step, ++pass.number) {
    const uint64_t last = std::min(first + step, columns.size());
    pass.compute = [&, first, last](uint32_t shard) {
      return ShardStatistics(data, columns, shard, first, last, sketches);
    };
    DESCENT_ASSIGN_OR_RETURN(const v1::FeatureStatistics total, exchange(pass));
    DESCENT_RETURN_IF_ERROR(fitter.Take(total, first, last));
  }
  if (features.pca() > 0) DESCENT_RETURN_IF_ERROR(fitter.AddComponents(data, exchange, pass));
  return fitter.Finish();
}

}  // namespace descent
