// Which server holds which block or slot. Addresses are separate: a server may come back elsewhere. Pure; a value.
#ifndef DESCENT_COMMON_TENSOR_PARTITION_MAP_H_
#define DESCENT_COMMON_TENSOR_PARTITION_MAP_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"

namespace descent {

struct PartitionMap {
  uint64_t epoch = 1;
  uint32_t servers = 0;
  std::vector<std::vector<ServerId>> placement;  // [tensor][block or slot]

  ServerId server(BlockId id) const { return placement[id.tensor.value][id.index]; }
  bool operator==(const PartitionMap&) const = default;
};

// Dense blocks: largest first, each to the server with the fewest bytes so far (Graham's LPT rule, 1969); slots in
// turn. A pure function of its arguments.
PartitionMap MakePartitionMap(absl::Span<const TensorSpec> specs, const Geometry& geometry, uint32_t servers);

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_PARTITION_MAP_H_
