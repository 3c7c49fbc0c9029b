// Local SGD: what a rank does in a clock of a job with local_training, and what it pushes for it. It begins with the
// parameters w that it has read, makes a step of plain SGD on its own copy for each of the clock's mini-batches, and
// pushes how far that went, so that the servers' mean of what comes is w less the mean of the copies, weighted by the
// examples that each has seen (McMahan et al. 2017, "Communication-efficient learning of deep networks from
// decentralized data", algorithm 1; Stich 2019, "Local SGD converges fast and communicates little", algorithm 1). The
// job's rule is then applied to that mean as to a gradient: sgd with rate 1 makes the mean of the copies the next
// parameters; momentum is block momentum (Chen and Huo 2016).
//
// With b_1 = w, and of mini-batch k the sum G_k of its examples' gradients and their number n_k, in float32:
//
//   d = G_k float(1 / n_k), + l2 b_k where the tensor is decayed
//   b_(k+1) = b_k - rate d
//
// and with N = n_1 + ... + n_K the contribution is float(N) (w - b_(K+1)), of weight N. A mini-batch without weight
// makes no step. What the model gives for a tensor that is a running statistic is no gradient: it is added up over the
// mini-batches, as over ranks.
//
// The batch of a clock has the rows of all its mini-batches, one behind the other; at the end of an epoch there are
// fewer. Mini-batch k = 0, 1, ... of clock c has the number c steps + k in the place of a clock, which is what a model
// draws its masks by. So the bits are a function of (batch, parameters, model) alone.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_LOOP_LOCAL_STEPS_H_
#define DESCENT_WORKER_LOOP_LOCAL_STEPS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/job.pb.h"
#include "worker/data/batch.h"
#include "worker/models/model.h"

namespace descent {

struct LocalStepsOptions {
  uint32_t steps = 1;       // mini-batches of a clock
  uint32_t batch_size = 1;  // rows of each, but for the last one of an epoch
  float rate = 0;
  float l2 = 0;
};

// Of a resolved job; none: a clock is one gradient.
std::optional<LocalStepsOptions> LocalStepsOf(const v1::JobSpec& job);

// INVALID_ARGUMENT names a tensor that no copy can be made of: a table, of which a worker has some rows alone.
absl::Status CheckLocalTensors(const std::vector<TensorSpec>& tensors);

class LocalSteps {
 public:
  explicit LocalSteps(const LocalStepsOptions& options) : options_(options) {}

  // As model->Gradient on a batch of some rows: contribution[t], of the shape of tensor t, is written; `parameters` are
  // read. The result is added up over the mini-batches, each on the copy that it changed. `unwanted`, unless null, is
  // asked between mini-batches; once it says so, what is returned does not matter.
  BatchResult Contribution(const Batch& batch, absl::Span<const float* const> parameters, Model<float>* model,
                           absl::Span<float* const> contribution, const std::function<bool()>& unwanted = nullptr);

 private:
  void Begin(const std::vector<TensorSpec>& tensors, absl::Span<const float* const> parameters,
             absl::Span<float* const> contribution);

  const LocalStepsOptions options_;
  Batch part_;
  std::vector<AlignedFloats> copy_;     // [tensor]
  std::vector<AlignedFloats> of_part_;  // [tensor] of statistics: what a mini-batch gave
  std::vector<const float*> copies_;    // as the model wants them
  std::vector<float*> gradient_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_LOCAL_STEPS_H_
