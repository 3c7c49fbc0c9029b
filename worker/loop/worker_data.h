// What a worker trains on: the job's data sets opened on this host, the model made for them, and the batches of every
// (rank, clock).
#ifndef DESCENT_WORKER_LOOP_WORKER_DATA_H_
#define DESCENT_WORKER_LOOP_WORKER_DATA_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "descent/v1/coordinator.pb.h"
#include "descent/v1/features.pb.h"
#include "descent/v1/job.pb.h"
#include "worker/data/dataset.h"
#include "worker/features/fit_features.h"
#include "worker/loop/trainer.h"
#include "worker/models/model_factory.h"

namespace descent {

struct WorkerData {
  std::unique_ptr<Dataset> train;                // null: the model needs no data
  std::unique_ptr<Dataset> validation;           // null: the job has none
  std::unique_ptr<v1::FittedFeatures> features;  // null: the job asks for nothing of its features
  std::unique_ptr<Dataset> made;                 // `train` with the examples that SMOTE makes; null: it makes none
  ModelInput input;                              // what the model was made of, beside the job's spec
  std::unique_ptr<Model<float>> model;
  std::unique_ptr<BatchSource> batches;
  uint64_t epoch_rows = 0;  // examples that an epoch takes: the training data's, or as they are resampled

  // Tensors, data files and row counts, as registration wants them.
  void Describe(v1::RegisterWorkerRequest* request) const;
};

// Where this host keeps the job's data shards: `wanted`, or else as the job says, or else in `user_cache`
// (user_cache.h).
std::string CacheDirOf(const v1::JobSpec& job, const std::string& wanted, const std::string& user_cache);

// `root`: where this host has the data, in the place of the job's data.root; empty: as the job says.
// Errors as Dataset::Open and MakeModel.
// `exchange`: how statistics of the training data are got where the job's features need them; null: computed here, and
// ranks' shares are not compared.
absl::StatusOr<WorkerData> OpenWorkerData(const v1::JobSpec& job, const std::string& root, const std::string& cache_dir,
                                          const CustomModels& custom, const StatisticsExchange& exchange = nullptr);

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_WORKER_DATA_H_
