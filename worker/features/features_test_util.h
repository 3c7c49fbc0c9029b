// What tests of features share: jobs as text, and data sets in memory.
#ifndef DESCENT_WORKER_FEATURES_FEATURES_TEST_UTIL_H_
#define DESCENT_WORKER_FEATURES_FEATURES_TEST_UTIL_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/job/features_spec.h"
#include "descent/v1/job.pb.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "worker/data/data_test_util.h"
#include "worker/features/feature_columns.h"
#include "worker/features/fit_features.h"
#include "worker/features/transformed_dataset.h"

namespace descent {

class FeaturesTest : public DataTest {
 protected:
  static v1::Features Features(const std::string& text) {
    v1::Features features;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &features)) << text;
    ResolveFeatures(&features);
    return features;
  }
  static v1::Dataset Format(const std::string& text) {
    v1::Dataset format;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &format)) << text;
    return format;
  }
  std::unique_ptr<Dataset> Raw(const v1::Features& features, const std::string& format) {
    options_.csv = CsvColumnsOf(features);
    auto data = Dataset::Open(Format(format), options_);
    EXPECT_TRUE(data.ok()) << data.status();
    return *std::move(data);
  }
  absl::StatusOr<v1::FittedFeatures> Fit(const v1::Features& features, const std::string& format) {
    const std::unique_ptr<Dataset> data = Raw(features, format);
    DESCENT_ASSIGN_OR_RETURN(const FeatureColumns columns, FeatureColumns::Create(features, Format(format), *data));
    return FitFeatures(features, *data, columns, StatisticsAlone);
  }
  // What a model sees of `format` after a fit to `train`.
  std::string Transformed(const v1::Features& features, const std::string& train, const std::string& format) {
    const auto fitted = Fit(features, train);
    if (!fitted.ok()) return std::string(fitted.status().message());
    auto data = TransformDataset(features, Format(format), *fitted, Raw(features, format));
    if (!data.ok()) return std::string(data.status().message());
    const Batch batch = ReadAll(**data);
    EXPECT_EQ(batch.features, (*data)->features());
    EXPECT_EQ(batch.sparse, (*data)->sparse());
    return Text(batch);
  }
  std::string Transformed(const std::string& features, const std::string& format) {
    return Transformed(Features(features), format, format);
  }
};

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_FEATURES_TEST_UTIL_H_
