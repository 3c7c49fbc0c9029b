// Evaluates the model on one rank's share of a data set: contiguous rows, of sizes that differ by at most one.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_LOOP_SHARE_EVALUATOR_H_
#define DESCENT_WORKER_LOOP_SHARE_EVALUATOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/job/optimizer_spec.h"
#include "common/tensor/tensor_spec.h"
#include "worker/client/parameter_client.h"
#include "worker/data/batch.h"
#include "worker/data/dataset.h"
#include "worker/metrics/metric_observer.h"
#include "worker/models/model.h"

namespace descent {

class ShareEvaluator {
 public:
  // How rows of tables are read meanwhile.
  struct Reads {
    std::function<Ticket(const PullSpec&)> pull;
    std::function<absl::Status(Ticket)> await;
    std::function<absl::Status()> still_wanted;  // asked between batches; an error gives the evaluation up
  };
  // The pointers outlive it. `batch`: rows read at a time.
  ShareEvaluator(Model<float>* model, const std::vector<TensorSpec>* tensors, uint32_t ranks, uint32_t batch,
                 Reads reads);

  // Sums over the share of `rank`, on `dense` (per tensor) and on rows of tables as of `read`. What was asked for may
  // still arrive after an error, until the connection is gone: keep the evaluator until then. `metrics`, unless null,
  // is shown what is predicted of each example.
  absl::StatusOr<BatchResult> Evaluate(const Dataset& data, Rank rank, Clock read,
                                       const std::vector<const float*>& dense, MetricObserver* metrics = nullptr);

 private:
  struct Reading {  // a batch, and the rows of tables that it needs
    Batch batch;
    std::vector<AlignedFloats> rows;
    Ticket ticket = 0;
  };

  Model<float>* const model_;
  const std::vector<TensorSpec>& tensors_;
  const uint32_t ranks_, batch_;
  const Reads reads_;
  const bool has_tables_;
  Reading readings_[2];
  std::vector<float> predicted_;
};

// What the job adds to the mean loss, over tensors that decay; NaN where tables are among them: no worker sees all
// rows.
double Regularizer(const std::vector<TensorSpec>& tensors, const Penalty& penalty,
                   const std::vector<const float*>& dense);

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_SHARE_EVALUATOR_H_
