// Every default; those of rules and rates come from the files beside this. The comments of job.proto and
// docs/job-file.md state the same numbers.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/job/evaluation_spec.h"
#include "common/job/features_spec.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/learning_rate_spec.h"
#include "common/job/model_spec.h"
#include "common/job/optimizer_spec.h"
#include "common/job/resampling_spec.h"
#include "common/job/step_spec.h"
#include "common/job/stopping_spec.h"

namespace descent {
namespace {

void ResolveDataset(v1::Dataset* dataset) {
  if (dataset->has_idx() && dataset->idx().scale() == 0) dataset->mutable_idx()->set_scale(1.0 / 255);
  if (dataset->has_csv() && dataset->csv().delimiter().empty()) dataset->mutable_csv()->set_delimiter(",");
}

void ResolveData(const std::string& job_dir, v1::DataSpec* data) {
  if (data->root().empty()) {
    data->set_root(job_dir);
  } else if (!absl::StartsWith(data->root(), "/") && !job_dir.empty()) {
    data->set_root(absl::StrCat(job_dir, absl::EndsWith(job_dir, "/") ? "" : "/", data->root()));
  }
  if (data->has_train()) ResolveDataset(data->mutable_train());
  if (data->has_validation()) ResolveDataset(data->mutable_validation());
  if (data->cache_bytes() == 0) data->set_cache_bytes(uint64_t{8} << 30);
  if (data->shard_rows() == 0) data->set_shard_rows(65536);
  if (data->window_shards() == 0) data->set_window_shards(4);
  if (data->has_features()) ResolveFeatures(data->mutable_features());
  ResolveResampling(data);
}

void ResolveCluster(uint32_t servers, uint32_t workers, v1::Cluster* cluster) {
  if (servers != 0) cluster->set_servers(servers);
  if (workers != 0) cluster->set_workers(workers);
  if (cluster->servers() == 0) cluster->set_servers(1);
  if (cluster->workers() == 0) cluster->set_workers(1);
  if (cluster->lease_seconds() == 0) cluster->set_lease_seconds(10);
  if (cluster->start_timeout_seconds() == 0) cluster->set_start_timeout_seconds(600);
  if (cluster->stall_timeout_seconds() == 0) cluster->set_stall_timeout_seconds(600);
}

}  // namespace

absl::Status ResolveJob(uint32_t servers, uint32_t workers, const std::string& job_dir, v1::JobSpec* job) {
  ResolveCluster(servers, workers, job->mutable_cluster());
  constexpr uint32_t kMost = 65536;  // of ranks, and of servers and workers in a cluster
  if (job->cluster().servers() > kMost || job->cluster().workers() > kMost) {
    return absl::InvalidArgumentError(absl::StrCat("a cluster of ", job->cluster().servers(), " servers and ",
                                                   job->cluster().workers(), " workers; at most ", kMost, " of each"));
  }
  if (job->name().empty()) job->set_name("job");
  if (job->ranks() == 0) job->set_ranks(std::min(kMost, std::max<uint32_t>(8, 4 * job->cluster().workers())));
  ResolveFullGradient(job);
  if (job->batch_size() == 0) job->set_batch_size(32);
  // A model without data has no epochs: its length must be said, in rounds (ValidateJob asks for it).
  if (job->length_case() == v1::JobSpec::LENGTH_NOT_SET && ReadsData(job->model())) job->set_epochs(1);
  if (job->has_data()) ResolveData(job_dir, job->mutable_data());
  if (job->has_model()) ResolveModel(job->mutable_model());
  job->mutable_consistency()->set_mode(job->consistency().mode());  // SYNC, unless said
  ResolveOptimizer(job->mutable_optimizer());
  if (job->has_learning_rate()) ResolveLearningRate(job->mutable_learning_rate());
  ResolveSteps(job);

  v1::Evaluation* evaluation = job->mutable_evaluation();
  if (evaluation->every_case() == v1::Evaluation::EVERY_NOT_SET &&
      (job->data().has_validation() || evaluation->objective())) {
    evaluation->set_every_epochs(1);
  }
  if (evaluation->batch_size() == 0) evaluation->set_batch_size(1024);
  ResolveEvaluationMetrics(evaluation);
  ResolveStopping(job);
  const bool cuts = job->checkpoint().every_rounds() != 0 || job->checkpoint().every_seconds() > 0;
  if (cuts && job->checkpoint().keep() == 0) job->mutable_checkpoint()->set_keep(3);
  if (job->metrics().every_rounds() == 0) job->mutable_metrics()->set_every_rounds(50);
  if (job->block_elements() == 0) job->set_block_elements(65536);
  if (job->slots() == 0) job->set_slots(1024);
  return absl::OkStatus();
}

}  // namespace descent
