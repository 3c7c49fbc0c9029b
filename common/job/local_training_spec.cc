#include "common/job/local_training_spec.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "common/job/model_spec.h"
#include "google/protobuf/descriptor.h"

namespace descent {
namespace {

constexpr uint64_t kMostRows = uint64_t{1} << 24;  // of a clock, as of batch_size

// Why the servers' rule can't be applied to a mean of differences as to a gradient; null: it can.
const char* NotOfDifferences(const v1::Optimizer& optimizer) {
  switch (optimizer.rule_case()) {
    case v1::Optimizer::kFtrl:
      return "solves for a sum of gradients";
    case v1::Optimizer::kLars:
    case v1::Optimizer::kLamb:
      return "takes its rate from the norms of a gradient";
    case v1::Optimizer::kLbfgs:
    case v1::Optimizer::kNewtonCg:
      return "takes the gradient of all data";
    default:
      return nullptr;
  }
}

void CheckClock(const v1::JobSpec& job, JobErrors* errors) {
  const v1::LocalTraining& spec = job.local_training();
  errors->Range<uint64_t>("local_training.steps", spec.steps(), 1, kMostRows);
  if (spec.steps() <= kMostRows && job.batch_size() <= kMostRows && RowsPerClock(job) > kMostRows) {
    errors->Error("local_training.steps", spec.steps(), " steps with batch_size ", job.batch_size(), " take ",
                  RowsPerClock(job), " examples of a rank and clock; at most ", kMostRows);
  }
  errors->PositiveFloat("local_training.learning_rate", spec.learning_rate());
}

void CheckAveraging(const v1::JobSpec& job, JobErrors* errors) {
  const Consistency consistency = ConsistencyOf(job);
  if (consistency.apply_push || consistency.staleness > 0) {
    errors->Error("consistency.mode",
                  "local_training averages copies that all began with the same parameters, which SYNC gives");
  }
  if (consistency.reduce_sum) {
    errors->Error("consistency.reduce", "local_training averages copies, and a sum is no average: leave it out");
  }
}

void CheckRule(const v1::JobSpec& job, JobErrors* errors) {
  const v1::Optimizer& optimizer = job.optimizer();
  if (const char* why = NotOfDifferences(optimizer); why != nullptr) {
    const auto* rule = v1::Optimizer::descriptor()->FindFieldByNumber(optimizer.rule_case());
    errors->Error(absl::StrCat("optimizer.", rule->name()), why,
                  ", and what comes with local_training is how far copies went");
  }
  const v1::Proximal& step = optimizer.proximal();
  for (const auto& [name, value] :
       {std::pair{"l1", step.l1()}, std::pair{"l2", step.l2()}, std::pair{"group_lasso", step.group_lasso()}}) {
    if (value == 0) continue;
    errors->Error(
        absl::StrCat("optimizer.proximal.", name),
        "does not go with local_training, under which the rate that a penalty goes by is not how far a gradient goes; ",
        "bounds go with it");
  }
}

}  // namespace

uint64_t RowsPerClock(const v1::JobSpec& job) {
  return job.has_local_training() ? uint64_t{job.batch_size()} * job.local_training().steps() : job.batch_size();
}

void CheckLocalTraining(const v1::JobSpec& job, JobErrors* errors) {
  if (!job.has_local_training()) return;
  CheckClock(job, errors);
  if (job.model().kind_case() == v1::ModelSpec::KIND_NOT_SET) return;
  if (!ReadsData(job.model())) errors->Error("local_training", "the model reads no data, so it has no mini-batches");
  if (HasTable(job.model())) {
    errors->Error("local_training",
                  "a rank trains a copy of the whole model, and of a sparse_table a worker has some rows alone: set "
                  "features, and no sparse_table");
  }
  CheckAveraging(job, errors);
  CheckRule(job, errors);
}

}  // namespace descent
