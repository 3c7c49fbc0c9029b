#include "worker/features/principal_components.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/features/feature_statistics.h"

namespace descent {
namespace {

constexpr uint64_t kBlock = 1024;

// Calls `take` with each row of the shard, as doubles.
template <typename Take>
absl::Status ForEachRow(const Dataset& data, const FeatureTransformation& transformation, uint32_t shard, Take take) {
  const uint64_t end = data.shard_begin(shard + 1);
  Batch batch;
  std::vector<uint64_t> rows;
  std::vector<double> row;
  for (uint64_t begin = data.shard_begin(shard); begin < end; begin += rows.size()) {
    rows.resize(std::min(kBlock, end - begin));
    std::iota(rows.begin(), rows.end(), begin);
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &batch));
    transformation.ApplyBeforeComponents(&batch);
    for (size_t r = 0; r < batch.rows; ++r) {
      if (batch.sparse) {
        row.assign(batch.features, 0);
        for (uint32_t e = batch.row_begin[r]; e < batch.row_begin[r + 1]; ++e) row[batch.column[e]] = batch.value[e];
      } else {
        const float* from = batch.dense.data() + r * batch.features;
        row.assign(from, from + batch.features);
      }
      take(&row);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::FeatureStatistics> ProductStatistics(const Dataset& data,
                                                        const FeatureTransformation& transformation, uint32_t shard) {
  std::vector<double> mean;
  uint64_t count = 0;
  DESCENT_RETURN_IF_ERROR(ForEachRow(data, transformation, shard, [&](std::vector<double>* row) {
    mean.resize(row->size());
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += (*row)[i];
    ++count;
  }));
  for (double& m : mean) m /= static_cast<double>(count);
  const size_t n = mean.size();
  std::vector<double> product(n * (n + 1) / 2);
  DESCENT_RETURN_IF_ERROR(ForEachRow(data, transformation, shard, [&](std::vector<double>* row) {
    double* x = row->data();
    for (size_t i = 0; i < n; ++i) x[i] -= mean[i];
    double* to = product.data();
    for (size_t i = 0; i < n; to += n - i, ++i) {
      const double xi = x[i];
      for (size_t j = i; j < n; ++j) to[j - i] += xi * x[j];
    }
  }));
  v1::FeatureStatistics statistics;
  statistics.set_rows(count);
  statistics.set_columns(n);
  size_t diagonal = 0;
  for (size_t i = 0; i < n; diagonal += n - i, ++i)
    AppendMoments({count, mean[i], product[diagonal], 0, 0}, &statistics);
  statistics.mutable_product()->Add(product.begin(), product.end());
  return statistics;
}

absl::Status TakeComponents(const v1::FeatureStatistics& total, uint32_t components, v1::FittedFeatures* fitted) {
  const int n = total.mean_size();
  if (total.product_size() != n * (n + 1) / 2 || total.rows() == 0) {
    return absl::InternalError(absl::StrCat("covariance of ", n, " features in ", total.product_size(), " numbers"));
  }
  Eigen::MatrixXd covariance(n, n);
  int at = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = i; j < n; ++j) {
      covariance(i, j) = covariance(j, i) = total.product(at++) / static_cast<double>(total.rows());
    }
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solved(covariance);
  if (solved.info() != Eigen::Success) return absl::InternalError("features.pca: no eigenvectors were found");
  for (const double mean : total.mean()) fitted->add_centre(mean);
  for (uint32_t k = 0; k < components; ++k) {
    const Eigen::VectorXd vector = solved.eigenvectors().col(n - 1 - static_cast<int>(k));  // ascending eigenvalues
    Eigen::Index greatest = 0;
    vector.cwiseAbs().maxCoeff(&greatest);
    const double sign = vector(greatest) < 0 ? -1 : 1;
    for (int i = 0; i < n; ++i) fitted->add_component(sign * vector(i));
  }
  return absl::OkStatus();
}

}  // namespace descent
