#include "worker/features/feature_columns.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "worker/models/internal/elementwise.h"

namespace descent {
namespace {

// As SplitMix64 finishes (Steele, Lea and Flood, 2014).
uint64_t Mixed(uint64_t index) {
  uint64_t z = index + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

CsvColumns CsvColumnsOf(const v1::Features& features) {
  CsvColumns columns;
  columns.categories.assign(features.one_hot().begin(), features.one_hot().end());
  columns.most_categories = features.max_categories();
  columns.hashed.assign(features.hashed().begin(), features.hashed().end());
  columns.buckets = features.hash_buckets();
  columns.missing = features.has_missing();
  columns.markers.assign(features.missing().marker().begin(), features.missing().marker().end());
  return columns;
}

float SignedLog(float x) {
  const double a = std::fabs(static_cast<double>(x));
  const double log = a <= 1 ? internal::LogOnePlus(a) : internal::Log(1 + a);
  return static_cast<float>(std::copysign(log, static_cast<double>(x)));
}

absl::StatusOr<FeatureColumns> FeatureColumns::Create(const v1::Features& features, const v1::Dataset& format,
                                                      const Dataset& data) {
  FeatureColumns columns;
  columns.sparse_ = data.sparse();
  columns.size_ = data.features();
  columns.kinds_.assign(data.columns().begin(), data.columns().end());
  columns.named_ = format.csv().header();
  columns.first_ = format.has_libsvm() && !format.libsvm().zero_based() ? 1 : 0;
  if (data.sparse() && features.hash_buckets() > 0) {
    columns.buckets_ = features.hash_buckets();
    columns.size_ = columns.buckets_;
    columns.first_ = 0;
  }
  columns.log_all_ = features.log_size() == 1 && features.log(0) == "*";
  if (!columns.log_all_) {
    DESCENT_RETURN_IF_ERROR(columns.Mark("features.log", features.log(), &columns.logged_));
  }
  DESCENT_RETURN_IF_ERROR(columns.Mark("features.unscaled", features.unscaled(), &columns.unscaled_));
  return columns;
}

absl::Status FeatureColumns::Mark(const char* field, const google::protobuf::RepeatedPtrField<std::string>& names,
                                  std::vector<bool>* marks) const {
  if (!names.empty()) marks->resize(size_);
  for (const std::string& name : names) {
    DESCENT_ASSIGN_OR_RETURN(const uint64_t column, Find(field, name));
    if (!number(column)) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": column '", name, "' is of categories, not of numbers"));
    }
    (*marks)[column] = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> FeatureColumns::Find(const char* field, const std::string& name) const {
  if (!kinds_.empty()) {
    const auto found = std::find_if(kinds_.begin(), kinds_.end(), [&](const DataColumn& c) { return c.name == name; });
    if (found != kinds_.end()) return static_cast<uint64_t>(found - kinds_.begin());
    return absl::InvalidArgumentError(absl::StrCat(field, ": the data have no feature column '", name, "'"));
  }
  uint64_t number;
  if (!absl::SimpleAtoi(name, &number) || number < first_ || number - first_ >= size_) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": '", name, "' is no column: the data have ", first_, " to ", size_ + first_ - 1));
  }
  return number - first_;
}

std::string FeatureColumns::Name(uint64_t column) const {
  return kinds_.empty() ? absl::StrCat(column + first_) : kinds_[column].name;
}

void FeatureColumns::Hash(Batch* batch) const {
  std::vector<std::pair<uint32_t, float>> row;
  uint32_t begin = 0, written = 0;
  for (size_t r = 0; r < batch->rows; ++r) {
    const uint32_t end = batch->row_begin[r + 1];
    row.clear();
    for (uint32_t e = begin; e < end; ++e) {
      const uint64_t hash = Mixed(batch->column[e]);
      row.emplace_back(static_cast<uint32_t>((hash >> 1) % buckets_),
                       (hash & 1) != 0 ? -batch->value[e] : batch->value[e]);
    }
    // Stable: entries of one bucket are added in the order of their columns.
    std::stable_sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const uint32_t first = written;
    for (const auto& [bucket, value] : row) {
      if (written > first && batch->column[written - 1] == bucket) {
        batch->value[written - 1] += value;
        continue;
      }
      batch->column[written] = bucket;
      batch->value[written++] = value;
    }
    begin = end;
    batch->row_begin[r + 1] = written;
  }
  batch->column.resize(written);
  batch->value.resize(written);
  batch->features = buckets_;
}

void FeatureColumns::Prepare(Batch* batch) const {
  if (buckets_ > 0) Hash(batch);
  if (!log_all_ && logged_.empty()) return;
  if (batch->sparse) {
    for (size_t e = 0; e < batch->value.size(); ++e) {
      if (log_all_ || logged(batch->column[e])) batch->value[e] = SignedLog(batch->value[e]);
    }
    return;
  }
  for (uint64_t c = 0; c < batch->features; ++c) {
    if (!logged(c) || !number(c)) continue;
    for (size_t r = 0; r < batch->rows; ++r) {
      float& x = batch->dense[r * batch->features + c];
      x = SignedLog(x);
    }
  }
}

}  // namespace descent
