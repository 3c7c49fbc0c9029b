// From the features of the data to those that the model sees: what is not fitted (feature_columns.h), then missing
// values, categories and scaling with what was fitted to the training data, then rows' norms, then principal
// components. docs/training.md has the equations.
//
// The order of dense features: columns in their order, of which a number is one feature and a one-hot column one for
// each category of the training data; then the buckets that hashed columns share; then the indicators of missing
// values. Another category than those is all zeros. Sparse features keep their columns. Every product and sum is in
// double, rounded to float32 at the end.
//
// Immutable, thread-safe.
#ifndef DESCENT_WORKER_FEATURES_FEATURE_TRANSFORMATION_H_
#define DESCENT_WORKER_FEATURES_FEATURE_TRANSFORMATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "descent/v1/features.pb.h"
#include "descent/v1/job.pb.h"
#include "worker/data/batch.h"
#include "worker/features/feature_columns.h"

namespace descent {

class FeatureTransformation {
 public:
  // `columns` are those of the data that it is to be applied to. INVALID_ARGUMENT: it was fitted to data with others.
  static absl::StatusOr<FeatureTransformation> Create(const v1::Features& features, FeatureColumns columns,
                                                      v1::FittedFeatures fitted);

  uint64_t features() const { return components_ > 0 ? components_ : features_; }
  uint64_t features_before_components() const { return features_; }
  bool sparse() const { return columns_.sparse() && components_ == 0; }
  void Apply(Batch* batch) const;
  // All but the principal components.
  void ApplyBeforeComponents(Batch* batch) const;

  // Categories of these data that the training data don't have, named; "" where there are none.
  std::string UnknownCategories() const;

 private:
  FeatureTransformation(const v1::Features& features, FeatureColumns columns, v1::FittedFeatures fitted);
  absl::Status Check() const;
  void Lay();
  float Number(uint64_t column, float x) const;
  void Row(const float* from, float* to) const;
  void ApplyDense(Batch* batch) const;
  void ApplySparse(Batch* batch) const;
  void NormRow(absl::Span<float> values) const;
  void Project(Batch* batch) const;

  v1::RowNorm norm_;
  FeatureColumns columns_;
  v1::FittedFeatures fitted_;
  std::vector<double> fill_, shift_, scale_;    // per column; empty: no such step
  bool same_layout_ = true;                     // a feature for each column, in their order
  std::vector<uint64_t> begin_;                 // of CSV, per column: its first feature
  std::vector<std::vector<int64_t>> category_;  // per column: the feature of each category of the data, or -1
  uint64_t buckets_begin_ = 0, indicators_begin_ = 0;
  uint64_t features_ = 0, components_ = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_FEATURE_TRANSFORMATION_H_
