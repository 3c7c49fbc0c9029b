#include "worker/loop/worker_data.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/model_spec.h"
#include "worker/data/batch_plan.h"
#include "worker/data/prefetcher.h"
#include "worker/features/feature_columns.h"
#include "worker/features/label_pass.h"
#include "worker/features/transformed_dataset.h"
#include "worker/metrics/metric_observer.h"

namespace descent {
namespace {

SamplingKind SamplingOf(v1::Sampling sampling) {
  switch (sampling) {
    case v1::WITH_REPLACEMENT:
      return SamplingKind::kWithReplacement;
    case v1::SEQUENTIAL:
      return SamplingKind::kSequential;
    default:
      return SamplingKind::kWithoutReplacement;
  }
}

class PrefetchedSource final : public BatchSource {
 public:
  PrefetchedSource(const Dataset* data, std::unique_ptr<BatchPlan> plan, size_t depth)
      : prefetcher_(data, std::move(plan), depth) {}
  void Request(Rank rank, Clock clock) override { prefetcher_.Request(rank, clock); }
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    return prefetcher_.Get(rank, clock);
  }
  void Forget(Rank rank) override { prefetcher_.Forget(rank); }

 private:
  Prefetcher prefetcher_;
};

// N / (classes x N_k); 1 for a class that no example has. A pass over the data.
absl::StatusOr<std::vector<double>> BalancedWeights(const Dataset& data, uint32_t classes) {
  constexpr uint64_t kStep = 8192;
  std::vector<uint64_t> count(classes), rows;
  Batch batch;
  for (uint64_t begin = 0; begin < data.rows(); begin += kStep) {
    rows.clear();
    for (uint64_t r = begin; r < std::min(begin + kStep, data.rows()); ++r) rows.push_back(r);
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &batch));
    for (const float label : batch.label) ++count[static_cast<size_t>(label)];
  }
  std::vector<double> weights(classes, 1);
  for (uint32_t k = 0; k < classes; ++k) {
    if (count[k] > 0) {
      weights[k] = static_cast<double>(data.rows()) / (static_cast<double>(classes) * static_cast<double>(count[k]));
    }
  }
  return weights;
}

// Fits the job's features to the training data, and has all data transformed as they are read.
absl::Status ApplyFeatures(const v1::DataSpec& spec, const StatisticsExchange& exchange, WorkerData* data) {
  DESCENT_ASSIGN_OR_RETURN(const FeatureColumns columns,
                           FeatureColumns::Create(spec.features(), spec.train(), *data->train));
  DESCENT_ASSIGN_OR_RETURN(v1::FittedFeatures fitted, FitFeatures(spec.features(), *data->train, columns, exchange));
  DESCENT_ASSIGN_OR_RETURN(data->train,
                           TransformDataset(spec.features(), spec.train(), fitted, std::move(data->train)));
  if (data->validation != nullptr) {
    absl::StatusOr<std::unique_ptr<Dataset>> validation =
        TransformDataset(spec.features(), spec.validation(), fitted, std::move(data->validation));
    if (!validation.ok()) {
      return absl::Status(validation.status().code(),
                          absl::StrCat("the validation data: ", validation.status().message()));
    }
    data->validation = *std::move(validation);
  }
  data->features = std::make_unique<v1::FittedFeatures>(std::move(fitted));
  return absl::OkStatus();
}

// Has the coordinator compare the labels of ranks' shares.
absl::Status CompareShares(const ModelNeeds& needs, const BatchPlanOptions& options, const StatisticsExchange& exchange,
                           const Dataset& data) {
  const std::unique_ptr<BatchPlan> plan = BatchPlan::Create(options);
  StatisticsPass pass;
  pass.number = kLabelPass;
  pass.units = options.ranks;
  pass.labels = true;
  pass.data = DataFingerprint(data);
  const uint32_t classes = needs.labels == LabelKind::kBinary ? 2 : needs.classes;
  pass.compute = [&](uint32_t rank) { return LabelStatistics(data, plan.get(), Rank(rank), classes); };
  return exchange(pass).status();
}

}  // namespace

std::string CacheDirOf(const v1::JobSpec& job, const std::string& wanted, const std::string& user_cache) {
  if (!wanted.empty()) return wanted;
  return job.data().cache_dir().empty() ? user_cache : job.data().cache_dir();
}

void WorkerData::Describe(v1::RegisterWorkerRequest* request) const {
  for (const TensorSpec& spec : model->tensors()) *request->add_tensors() = ToMessage(spec);
  for (const Dataset* data : {train.get(), validation.get()}) {
    if (data == nullptr) continue;
    for (const DataFileInfo& file : data->files()) {
      v1::DataFile* out = request->add_files();
      out->set_name(file.name);
      out->set_bytes(file.bytes);
      out->set_rows(file.rows);
      out->set_crc32c(file.crc32c);
    }
  }
  if (features != nullptr) *request->mutable_features() = *features;
  request->set_train_rows(train != nullptr ? train->rows() : 0);
  request->set_validation_rows(validation != nullptr ? validation->rows() : 0);
}

absl::StatusOr<WorkerData> OpenWorkerData(const v1::JobSpec& job, const std::string& root, const std::string& cache_dir,
                                          const CustomModels& custom, const StatisticsExchange& exchange) {
  DESCENT_ASSIGN_OR_RETURN(const ModelNeeds needs, NeedsOf(job.model()));
  WorkerData out;
  ModelInput input;
  if (job.model().has_custom()) {
    input.options = {job.model().custom().options().begin(), job.model().custom().options().end()};
  }
  input.seed = job.seed();
  input.frozen = {job.frozen().begin(), job.frozen().end()};
  if (!needs.data) {
    DESCENT_ASSIGN_OR_RETURN(out.model, MakeModel<float>(job.model(), input, custom));
    out.batches = std::make_unique<NoDataSource>();
    return out;
  }
  DatasetOptions options;
  options.root = root.empty() ? job.data().root() : root;
  options.cache_dir = cache_dir;
  options.cache_bytes = job.data().cache_bytes();
  options.shard_rows = job.data().shard_rows();
  options.labels = needs.labels;
  options.classes = needs.classes;
  options.keys = needs.keys;
  options.geometry = GeometryOf(job);
  options.csv = CsvColumnsOf(job.data().features());
  DESCENT_ASSIGN_OR_RETURN(out.train, Dataset::Open(job.data().train(), options));
  if (job.data().has_validation()) {
    DESCENT_ASSIGN_OR_RETURN(out.validation, Dataset::Open(job.data().validation(), options));
    if (out.validation->features() != out.train->features() || out.validation->sparse() != out.train->sparse()) {
      return absl::InvalidArgumentError(absl::StrCat("the validation data have ", out.validation->features(),
                                                     " features, the training data ", out.train->features()));
    }
  }
  if (job.data().has_features()) {
    DESCENT_RETURN_IF_ERROR(ApplyFeatures(job.data(), exchange ? exchange : StatisticsAlone, &out));
  }
  input.features = out.train->features();
  input.sparse = out.train->sparse();
  if (job.class_weights().balanced()) {
    DESCENT_ASSIGN_OR_RETURN(input.class_weights, BalancedWeights(*out.train, ClassesOf(job.model())));
  } else {
    input.class_weights = {job.class_weights().weight().begin(), job.class_weights().weight().end()};
  }
  DESCENT_ASSIGN_OR_RETURN(out.model, MakeModel<float>(job.model(), input, custom));
  if (WantsMetrics(job.evaluation()) && !out.model->classifier() && out.model->outputs() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("evaluation.metrics: are of one number, the model predicts ", out.model->outputs()));
  }
  if (const absl::Status fit = CheckMetrics(job.evaluation(), PredictionOf(*out.model)); !fit.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("evaluation: ", fit.message()));
  }

  BatchPlanOptions plan;
  plan.seed = job.seed();
  plan.sampling = SamplingOf(job.data().sampling());
  plan.ranks = job.ranks();
  plan.batch_size = job.batch_size();
  plan.window_shards = job.data().window_shards();
  plan.rotate = ConsistencyOf(job).backup_ranks > 0;
  for (uint32_t s = 0; s <= out.train->shards(); ++s) plan.shard_begin.push_back(out.train->shard_begin(s));
  if (job.data().features().compare_shares() && exchange) {
    DESCENT_RETURN_IF_ERROR(CompareShares(needs, plan, exchange, *out.train));
  }
  std::unique_ptr<BatchPlan> batches = BatchPlan::Create(std::move(plan));
  // Whole shares are large: one that is ready, beside the one in use.
  const size_t depth = TakesFullGradient(job.optimizer()) ? 1 : 16;
  out.batches = std::make_unique<PrefetchedSource>(out.train.get(), std::move(batches), depth);
  return out;
}

}  // namespace descent
