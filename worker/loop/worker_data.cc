#include "worker/loop/worker_data.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/local_training_spec.h"
#include "common/job/model_spec.h"
#include "worker/data/batch_plan.h"
#include "worker/data/prefetcher.h"
#include "worker/data/resampling.h"
#include "worker/data/row_classes.h"
#include "worker/data/smote.h"
#include "worker/features/feature_columns.h"
#include "worker/features/label_pass.h"
#include "worker/features/transformed_dataset.h"
#include "worker/loop/local_steps.h"
#include "worker/metrics/metric_observer.h"

namespace descent {
namespace {

SamplingKind SamplingOf(v1::Sampling sampling) {
  switch (sampling) {
    case v1::WITH_REPLACEMENT:
      return SamplingKind::kWithReplacement;
    case v1::SEQUENTIAL:
      return SamplingKind::kSequential;
    case v1::CLASS_BALANCED:
      return SamplingKind::kClassBalanced;
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

// N / (classes x N_k); 1 for a class that no example has.
std::vector<double> BalancedWeights(const RowClasses& classes) {
  std::vector<double> weights;
  for (const uint64_t rows : classes.rows) {
    weights.push_back(rows == 0 ? 1
                                : static_cast<double>(classes.of_row.size()) /
                                      (static_cast<double>(classes.rows.size()) * static_cast<double>(rows)));
  }
  return weights;
}

// Whether anything of a job is by the class of each training row.
bool WantsClasses(const v1::JobSpec& job) {
  return job.class_weights().balanced() || job.data().has_resampling() || job.data().sampling() == v1::CLASS_BALANCED;
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

absl::Status PlanBatches(const v1::JobSpec& job, const ModelNeeds& needs, std::shared_ptr<const RowClasses> classes,
                         const StatisticsExchange& exchange, WorkerData* out) {
  BatchPlanOptions plan;
  plan.seed = job.seed();
  plan.sampling = SamplingOf(job.data().sampling());
  plan.ranks = job.ranks();
  plan.batch_size = static_cast<uint32_t>(RowsPerClock(job));
  plan.window_shards = job.data().window_shards();
  plan.rotate = ConsistencyOf(job).backup_ranks > 0;
  for (uint32_t s = 0; s <= out->train->shards(); ++s) plan.shard_begin.push_back(out->train->shard_begin(s));
  if (plan.sampling == SamplingKind::kClassBalanced) plan.classes = classes;
  if (job.data().features().compare_shares() && exchange) {
    DESCENT_RETURN_IF_ERROR(CompareShares(needs, plan, exchange, *out->train));  // of the data as they are
  }
  const Dataset* rows = out->train.get();
  if (job.data().has_resampling()) {
    const v1::Resampling& spec = job.data().resampling();
    const auto kind = spec.kind() == v1::UNDERSAMPLE ? Resampling::Kind::kUnder : Resampling::Kind::kOver;
    plan.resampling = std::make_shared<Resampling>(kind, spec.ratio(), job.seed(), classes);
    plan.synthetic = spec.kind() == v1::SMOTE;
    if (plan.synthetic) {
      out->made = std::make_unique<SmoteRows>(rows, std::move(classes), job.seed(), spec.neighbours());
      rows = out->made.get();
    }
  }
  std::unique_ptr<BatchPlan> batches = BatchPlan::Create(std::move(plan));
  out->epoch_rows = batches->epoch_rows();
  // Whole shares are large: one that is ready, beside the one in use. So may be what local steps take.
  size_t depth = TakesFullGradient(job.optimizer()) ? 1 : 16;
  if (job.has_local_training()) depth = std::max<size_t>(2, depth / job.local_training().steps());
  out->batches = std::make_unique<PrefetchedSource>(rows, std::move(batches), depth);
  return absl::OkStatus();
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
  request->set_epoch_rows(epoch_rows);
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
    out.input = input;
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
    options.csv.most_categories = kMostCategories;  // others than training has are all zeros
    DESCENT_ASSIGN_OR_RETURN(out.validation, Dataset::Open(job.data().validation(), options));
    if (out.validation->features() != out.train->features() || out.validation->sparse() != out.train->sparse()) {
      return absl::InvalidArgumentError(absl::StrCat("the validation data have ", out.validation->features(),
                                                     " features, the training data ", out.train->features()));
    }
  }
  std::shared_ptr<const RowClasses> classes;
  if (WantsClasses(job)) {  // before features, which may make rows wide, and of which no label is part
    DESCENT_ASSIGN_OR_RETURN(RowClasses read, ReadClasses(*out.train, ClassesOf(job.model())));
    classes = std::make_shared<const RowClasses>(std::move(read));
  }
  if (job.data().has_features()) {
    DESCENT_RETURN_IF_ERROR(ApplyFeatures(job.data(), exchange ? exchange : StatisticsAlone, &out));
  }
  input.features = out.train->features();
  input.sparse = out.train->sparse();
  if (job.class_weights().balanced()) {
    input.class_weights = BalancedWeights(*classes);
  } else {
    input.class_weights = {job.class_weights().weight().begin(), job.class_weights().weight().end()};
  }
  DESCENT_ASSIGN_OR_RETURN(out.model, MakeModel<float>(job.model(), input, custom));
  out.input = input;
  if (WantsMetrics(job.evaluation()) && !out.model->classifier() && out.model->outputs() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("evaluation.metrics: are of one number, the model predicts ", out.model->outputs()));
  }
  if (const absl::Status fit = CheckMetrics(job.evaluation(), PredictionOf(*out.model)); !fit.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("evaluation: ", fit.message()));
  }
  if (job.has_local_training()) DESCENT_RETURN_IF_ERROR(CheckLocalTensors(out.model->tensors()));
  DESCENT_RETURN_IF_ERROR(PlanBatches(job, needs, std::move(classes), exchange, &out));
  return out;
}

}  // namespace descent
