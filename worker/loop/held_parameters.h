// The parameters that a worker computes on: all dense tensors, and of tables the rows that the batches in hand need.
//
// Thread-safety: none. What Want has put into a pull is written to until that pull is answered or the connection gone.
#ifndef DESCENT_WORKER_LOOP_HELD_PARAMETERS_H_
#define DESCENT_WORKER_LOOP_HELD_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/tensor/tensor_spec.h"
#include "worker/client/parameter_client.h"
#include "worker/data/batch.h"
#include "worker/loop/gradient_sum.h"

namespace descent {

// Whether some tensor is a table.
bool HasTables(const std::vector<TensorSpec>& tensors);
// Asks for the rows of `keys` of every table; rows[tensor] is where they will be.
void WantRows(const std::vector<TensorSpec>& tensors, const std::vector<uint64_t>& keys,
              std::vector<AlignedFloats>* rows, PullSpec* pull);

class HeldParameters {
 public:
  // `tensors` outlives it. `versions`: those of what is read are kept, for ReadOf.
  HeldParameters(const std::vector<TensorSpec>* tensors, const Geometry& geometry, bool versions);

  // Asks for all dense tensors, and for the rows of the keys of `lists` (those of the batches to be computed).
  void Want(const std::vector<const std::vector<uint64_t>*>& lists, PullSpec* pull);

  // Per tensor; null for tables.
  std::vector<const float*> Dense() const { return {dense_.dense.begin(), dense_.dense.end()}; }
  // Per tensor; of tables the rows of `keys`, a subset of those asked for in the same order. Valid until the next call.
  std::vector<const float*> ForKeys(const std::vector<uint64_t>& keys);
  // What they, and of tables the rows of `keys`, were when they were read: common/wire/read_vector.h.
  std::string ReadOf(const std::vector<uint64_t>& keys) const;

 private:
  const std::vector<TensorSpec>& tensors_;
  const Geometry geometry_;
  const bool keeps_versions_;
  const bool has_tables_;
  GradientSum dense_;
  std::vector<uint64_t> keys_;
  std::vector<AlignedFloats> rows_;
  std::vector<AlignedFloats> gathered_;
  std::vector<PartVersion> versions_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_HELD_PARAMETERS_H_
