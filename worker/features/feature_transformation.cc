#include "worker/features/feature_transformation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace descent {

FeatureTransformation::FeatureTransformation(const v1::Features& features, FeatureColumns columns,
                                             v1::FittedFeatures fitted)
    : norm_(features.row_norm()), columns_(std::move(columns)), fitted_(std::move(fitted)) {
  fill_.assign(fitted_.fill().begin(), fitted_.fill().end());
  shift_.assign(fitted_.shift().begin(), fitted_.shift().end());
  scale_.assign(fitted_.scale().begin(), fitted_.scale().end());
  if (shift_.empty()) shift_.assign(scale_.size(), 0);
  components_ = features.pca();
  if (features.hashed_size() > 0) indicators_begin_ = features.hash_buckets();  // so far their number
}

absl::StatusOr<FeatureTransformation> FeatureTransformation::Create(const v1::Features& features,
                                                                    FeatureColumns columns, v1::FittedFeatures fitted) {
  FeatureTransformation made(features, std::move(columns), std::move(fitted));
  DESCENT_RETURN_IF_ERROR(made.Check());
  made.Lay();
  const uint64_t components = made.components_ * made.features_;
  if (const auto found = static_cast<uint64_t>(made.fitted_.component_size()); found != 0 && found != components) {
    return absl::InvalidArgumentError(absl::StrCat("features: ", made.components_, " components of ", made.features_,
                                                   " features in ", found, " numbers"));
  }
  return made;
}

absl::Status FeatureTransformation::Check() const {
  const auto wrong = [](const auto&... text) {
    return absl::InvalidArgumentError(absl::StrCat("features: ", text...));
  };
  const uint64_t n = columns_.size();
  if (fitted_.columns() != n) {
    return wrong("the data have ", n, " columns, but what was fitted is of ", fitted_.columns());
  }
  for (const int size : {fitted_.scale_size(), fitted_.shift_size(), fitted_.fill_size()}) {
    if (size != 0 && static_cast<uint64_t>(size) != n) return wrong(size, " fitted numbers for ", n, " columns");
  }
  const bool moves_zeros = std::any_of(shift_.begin(), shift_.end(), [](double x) { return x != 0; });
  if (columns_.sparse() && (moves_zeros || fitted_.offset() != 0 || fitted_.fill_size() > 0)) {
    return wrong("what was fitted to dense training data changes zeros too, which these data leave out");
  }
  for (uint64_t c = 0; c < static_cast<uint64_t>(fitted_.name_size()) && c < columns_.kinds().size(); ++c) {
    const std::string& name = fitted_.name(static_cast<int>(c));
    if (columns_.named() && columns_.kinds()[c].name != name) {
      return wrong("column ", c, " of the data is '", columns_.kinds()[c].name, "', of the training data '", name, "'");
    }
  }
  for (const v1::Categories& categories : fitted_.one_hot()) {
    if (categories.column() >= columns_.kinds().size() ||
        columns_.kinds()[categories.column()].kind != DataColumn::Kind::kCategory) {
      return wrong("column ", categories.column(), " is of categories in what was fitted, not in the data");
    }
  }
  for (const uint64_t column : fitted_.indicated()) {
    if (column >= n) return wrong("column ", column, " has an indicator, but there are ", n, " columns");
  }
  return absl::OkStatus();
}

void FeatureTransformation::Lay() {
  const std::vector<DataColumn>& kinds = columns_.kinds();
  const uint64_t buckets = std::exchange(indicators_begin_, 0);
  features_ = columns_.size();
  same_layout_ = buckets == 0 && fitted_.one_hot_size() == 0 && fitted_.indicated_size() == 0;
  if (!same_layout_) {
    features_ = 0;
    begin_.resize(kinds.size());
    category_.resize(kinds.size());
    int next = 0;
    for (size_t c = 0; c < kinds.size(); ++c) {
      begin_[c] = features_;
      if (kinds[c].kind == DataColumn::Kind::kNumber) ++features_;
      if (next == fitted_.one_hot_size() || fitted_.one_hot(next).column() != c) continue;
      const auto& known = fitted_.one_hot(next++).category();
      for (const std::string& name : kinds[c].categories) {
        const auto found = std::lower_bound(known.begin(), known.end(), name);
        const bool there = found != known.end() && *found == name;
        category_[c].push_back(there ? static_cast<int64_t>(features_) + (found - known.begin()) : -1);
      }
      features_ += static_cast<uint64_t>(known.size());
    }
    buckets_begin_ = features_;
    indicators_begin_ = features_ + buckets;
    features_ = indicators_begin_ + static_cast<uint64_t>(fitted_.indicated_size());
  }
}

std::string FeatureTransformation::UnknownCategories() const {
  constexpr size_t kMost = 10;
  std::vector<std::string> unknown;
  size_t count = 0;
  for (size_t c = 0; c < category_.size(); ++c) {
    for (size_t k = 0; k < category_[c].size(); ++k) {
      if (category_[c][k] >= 0) continue;
      if (++count <= kMost) {
        unknown.push_back(absl::StrCat("'", columns_.kinds()[c].categories[k], "' of column '", columns_.Name(c), "'"));
      }
    }
  }
  if (count == 0) return "";
  return absl::StrCat("categories that the training data don't have, all zeros here: ", absl::StrJoin(unknown, ", "),
                      count > kMost ? absl::StrCat(" and ", count - kMost, " more") : "");
}

float FeatureTransformation::Number(uint64_t column, float x) const {
  double value = x;
  if (!fill_.empty() && std::isnan(x)) value = fill_[column];
  if (!scale_.empty()) value = (value - shift_[column]) * scale_[column] + fitted_.offset();
  return static_cast<float>(value);
}

void FeatureTransformation::Row(const float* from, float* to) const {
  std::fill_n(to, features_, 0.0f);
  const std::vector<DataColumn>& kinds = columns_.kinds();
  for (size_t c = 0; c < kinds.size(); ++c) {
    const float x = from[c];
    if (kinds[c].kind == DataColumn::Kind::kNumber) {
      to[begin_[c]] = Number(c, x);
    } else if (std::isnan(x)) {
      continue;
    } else if (kinds[c].kind == DataColumn::Kind::kHashed) {
      const auto bucket = static_cast<uint64_t>(std::fabs(x)) - 1;
      to[buckets_begin_ + bucket] += x < 0 ? -1.0f : 1.0f;
    } else if (const int64_t at = category_[c][static_cast<size_t>(x)]; at >= 0) {
      to[at] = 1.0f;
    }
  }
  for (int i = 0; i < fitted_.indicated_size(); ++i) {
    to[indicators_begin_ + static_cast<uint64_t>(i)] = std::isnan(from[fitted_.indicated(i)]) ? 1.0f : 0.0f;
  }
}

void FeatureTransformation::ApplyDense(Batch* batch) const {
  const uint64_t columns = columns_.size();
  if (same_layout_) {
    const double *shift = shift_.data(), *scale = scale_.data(), offset = fitted_.offset();
    for (size_t r = 0; r < batch->rows; ++r) {
      float* row = batch->dense.data() + r * columns;
      if (!fill_.empty()) {
        for (uint64_t c = 0; c < columns; ++c) row[c] = Number(c, row[c]);
      } else if (!scale_.empty()) {
        for (uint64_t c = 0; c < columns; ++c) row[c] = static_cast<float>((row[c] - shift[c]) * scale[c] + offset);
      }
    }
    return;
  }
  AlignedFloats wide;
  wide.Resize(batch->rows * features_);
  for (size_t r = 0; r < batch->rows; ++r) Row(batch->dense.data() + r * columns, wide.data() + r * features_);
  batch->dense = std::move(wide);
  batch->features = features_;
}

void FeatureTransformation::ApplySparse(Batch* batch) const {
  if (scale_.empty()) return;
  for (size_t e = 0; e < batch->value.size(); ++e) batch->value[e] = Number(batch->column[e], batch->value[e]);
}

void FeatureTransformation::NormRow(absl::Span<float> values) const {
  double norm = 0;
  for (const float x : values) {
    const double a = std::fabs(static_cast<double>(x));
    norm = norm_ == v1::ROW_MAX ? std::max(norm, a) : norm + (norm_ == v1::ROW_L2 ? a * a : a);
  }
  if (norm_ == v1::ROW_L2) norm = std::sqrt(norm);
  if (!(norm > 0)) return;
  for (float& x : values) x = static_cast<float>(x / norm);
}

void FeatureTransformation::ApplyBeforeComponents(Batch* batch) const {
  columns_.Prepare(batch);
  batch->sparse ? ApplySparse(batch) : ApplyDense(batch);
  if (norm_ == v1::NO_ROW_NORM) return;
  for (size_t r = 0; r < batch->rows; ++r) {
    if (batch->sparse) {
      NormRow(absl::MakeSpan(batch->value).subspan(batch->row_begin[r], batch->row_begin[r + 1] - batch->row_begin[r]));
    } else {
      NormRow(absl::MakeSpan(batch->dense.data() + r * batch->features, batch->features));
    }
  }
}

void FeatureTransformation::Apply(Batch* batch) const {
  ApplyBeforeComponents(batch);
  if (components_ > 0) Project(batch);
}

void FeatureTransformation::Project(Batch* batch) const {
  AlignedFloats projected;
  projected.Resize(batch->rows * components_);
  const double* centre = fitted_.centre().data();
  for (uint64_t k = 0; k < components_; ++k) {
    const double* component = fitted_.component().data() + k * features_;
    double at_zero = 0;
    for (uint64_t c = 0; c < features_; ++c) at_zero -= centre[c] * component[c];
    for (size_t r = 0; r < batch->rows; ++r) {
      double sum = batch->sparse ? at_zero : 0;
      if (batch->sparse) {
        for (uint32_t e = batch->row_begin[r]; e < batch->row_begin[r + 1]; ++e) {
          sum += batch->value[e] * component[batch->column[e]];
        }
      } else {
        const float* row = batch->dense.data() + r * features_;
        for (uint64_t c = 0; c < features_; ++c) sum += (row[c] - centre[c]) * component[c];
      }
      projected[r * components_ + k] = static_cast<float>(sum);
    }
  }
  batch->dense = std::move(projected);
  batch->features = components_;
  batch->sparse = false;
  batch->row_begin.clear();
  batch->column.clear();
  batch->value.clear();
}

}  // namespace descent
