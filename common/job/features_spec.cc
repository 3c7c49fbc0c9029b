#include "common/job/features_spec.h"

#include <set>
#include <string>

#include "common/job/model_spec.h"

namespace descent {
namespace {

using Names = google::protobuf::RepeatedPtrField<std::string>;

void CheckNames(const std::string& path, const Names& names, JobErrors* errors) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (name.empty()) errors->Error(path, "an empty name");
    if (!seen.insert(name).second) errors->Error(path, "`", name, "` twice");
  }
}

// What needs the columns of a CSV file.
void CheckCsv(const v1::Features& features, JobErrors* errors) {
  const std::string why = "only for data.train.csv";
  if (features.has_missing()) errors->Error("data.features.missing", why);
  if (features.one_hot_size() > 0) errors->Error("data.features.one_hot", why);
  if (features.hashed_size() > 0) errors->Error("data.features.hashed", why);
}

void CheckTable(const v1::Features& features, JobErrors* errors) {
  const std::string why =
      ": the model's weights are a table, whose columns are any 64-bit keys: no statistics of them are kept";
  switch (features.scaling_case()) {
    case v1::Features::kStandardize:
      errors->Error("data.features.standardize", "not here", why);
      break;
    case v1::Features::kMinMax:
      errors->Error("data.features.min_max", "not here", why);
      break;
    case v1::Features::kMaxAbs:
      errors->Error("data.features.max_abs", "not here", why);
      break;
    case v1::Features::kRobust:
      errors->Error("data.features.robust", "not here", why);
      break;
    case v1::Features::SCALING_NOT_SET:
      break;
  }
  if (features.hash_buckets() > 0) {
    errors->Error("data.features.hash_buckets", "the model's weights are a table, which is hashed by itself");
  }
  if (features.pca() > 0) errors->Error("data.features.pca", "not here", why);
  if (features.log_size() > 0 && (features.log_size() > 1 || features.log(0) != "*")) {
    errors->Error("data.features.log", "the model's weights are a table: `*`, for all columns, is all it can be");
  }
}

void CheckScaling(const v1::Features& features, bool sparse, JobErrors* errors) {
  if (features.has_min_max()) {
    const v1::MinMax& range = features.min_max();
    if (range.low() >= range.high()) {
      errors->Error("data.features.min_max", "low ", range.low(), " is not below high ", range.high());
    }
    if (sparse) {
      errors->Error("data.features.min_max",
                    "the data are sparse, and this would make something else of their zeros; max_abs keeps them");
    }
  }
  if (features.has_robust()) {
    const v1::Robust& robust = features.robust();
    if (robust.lower() < 0 || robust.lower() >= robust.upper() || robust.upper() > 1) {
      errors->Error("data.features.robust", "quantiles ", robust.lower(), " and ", robust.upper(),
                    ": expected 0 <= lower < upper <= 1");
    }
  }
  if (features.unscaled_size() > 0 && features.scaling_case() == v1::Features::SCALING_NOT_SET) {
    errors->Error("data.features.unscaled", "there is no scaling");
  }
}

}  // namespace

void ResolveFeatures(v1::Features* features) {
  if (features->one_hot_size() > 0 && features->max_categories() == 0) features->set_max_categories(1000);
  if (features->hashed_size() > 0 && features->hash_buckets() == 0) features->set_hash_buckets(1024);
  if (features->has_min_max()) {
    v1::MinMax* range = features->mutable_min_max();
    if (!range->has_low()) range->set_low(0);
    if (!range->has_high()) range->set_high(1);
  }
  if (features->has_robust()) {
    v1::Robust* robust = features->mutable_robust();
    if (!robust->has_lower()) robust->set_lower(0.25);
    if (!robust->has_upper()) robust->set_upper(0.75);
  }
}

void CheckFeatures(const v1::JobSpec& job, JobErrors* errors) {
  const v1::Features& features = job.data().features();
  if (!ReadsData(job.model())) {
    errors->Error("data.features", "the model reads no data");
    return;
  }
  const bool csv = job.data().train().has_csv(), sparse = job.data().train().has_libsvm();
  if (!csv) CheckCsv(features, errors);
  if (HasTable(job.model())) CheckTable(features, errors);
  CheckScaling(features, sparse, errors);
  CheckNames("data.features.one_hot", features.one_hot(), errors);
  CheckNames("data.features.hashed", features.hashed(), errors);
  CheckNames("data.features.log", features.log(), errors);
  CheckNames("data.features.unscaled", features.unscaled(), errors);
  for (const std::string& name : features.one_hot()) {
    for (const std::string& other : features.hashed()) {
      if (name == other) errors->Error("data.features.hashed", "`", name, "` is in one_hot too");
    }
  }
  if (features.one_hot_size() > 0) {
    errors->Range<uint64_t>("data.features.max_categories", features.max_categories(), 1, 1 << 20);
  }
  if (features.hash_buckets() > 0) {
    errors->Range<uint64_t>("data.features.hash_buckets", features.hash_buckets(), 1, 1 << 20);
    if (!sparse && features.hashed_size() == 0) {
      errors->Error("data.features.hash_buckets",
                    "neither are the data sparse nor does data.features.hashed name columns");
    }
  }
  const v1::MissingValues& missing = features.missing();
  if (missing.constant() != 0 && missing.fill() != v1::FILL_CONSTANT) {
    errors->Error("data.features.missing.constant", "only with fill: FILL_CONSTANT");
  }
  if (features.pca() > 0) errors->Range<uint64_t>("data.features.pca", features.pca(), 1, 880);
}

}  // namespace descent
