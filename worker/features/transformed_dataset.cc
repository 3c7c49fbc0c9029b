#include "worker/features/transformed_dataset.h"

#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "worker/features/feature_columns.h"
#include "worker/features/feature_transformation.h"

namespace descent {
namespace {

class TransformedDataset final : public Dataset {
 public:
  TransformedDataset(std::unique_ptr<Dataset> data, FeatureTransformation transformation)
      : data_(std::move(data)), transformation_(std::move(transformation)) {}

  uint64_t rows() const override { return data_->rows(); }
  uint64_t features() const override { return transformation_.features(); }
  bool sparse() const override { return transformation_.sparse(); }
  absl::Span<const DataFileInfo> files() const override { return data_->files(); }
  uint32_t shards() const override { return data_->shards(); }
  uint64_t shard_begin(uint32_t shard) const override { return data_->shard_begin(shard); }
  std::vector<std::string> Notes() const override {
    std::vector<std::string> notes = data_->Notes();
    if (std::string unknown = transformation_.UnknownCategories(); !unknown.empty()) {
      notes.push_back("warning: " + std::move(unknown));
    }
    return notes;
  }
  absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const override {
    DESCENT_RETURN_IF_ERROR(data_->Read(rows, batch));
    transformation_.Apply(batch);
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<Dataset> data_;
  const FeatureTransformation transformation_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> TransformDataset(const v1::Features& features, const v1::Dataset& format,
                                                          const v1::FittedFeatures& fitted,
                                                          std::unique_ptr<Dataset> data) {
  DESCENT_ASSIGN_OR_RETURN(FeatureColumns columns, FeatureColumns::Create(features, format, *data));
  DESCENT_ASSIGN_OR_RETURN(FeatureTransformation transformation,
                           FeatureTransformation::Create(features, std::move(columns), fitted));
  if (features.pca() > 0 && fitted.component_size() == 0) {
    return absl::InvalidArgumentError("features: principal components are wanted, but none were fitted");
  }
  return std::make_unique<TransformedDataset>(std::move(data), std::move(transformation));
}

}  // namespace descent
