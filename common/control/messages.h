// Tensor specs, partition maps, leases and global scalars between their structs and the coordinator's messages. Pure;
// no gRPC.
#ifndef DESCENT_COMMON_CONTROL_MESSAGES_H_
#define DESCENT_COMMON_CONTROL_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/tensor/global_scalars.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "google/protobuf/repeated_field.h"

namespace descent {

v1::TensorSpec ToMessage(const TensorSpec& spec);
// INVALID_ARGUMENT: a role or an initializer that this build does not know. Shapes are ValidateSpecs' business.
absl::StatusOr<TensorSpec> FromMessage(const v1::TensorSpec& message);
absl::StatusOr<std::vector<TensorSpec>> SpecsFromMessage(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& messages);

// Addresses are not part of a PartitionMap; the caller adds them.
v1::PartitionMap ToMessage(const PartitionMap& map);
// INVALID_ARGUMENT: the map does not fit the specs (blocks missing or too many, a server without an address).
absl::StatusOr<PartitionMap> FromMessage(const v1::PartitionMap& message, const std::vector<TensorSpec>& specs,
                                         const Geometry& geometry);

v1::Lease ToMessage(Rank rank, Incarnation incarnation);

// Totals that are known. Whether they fit the model is the node's business.
v1::ScalarTotals ToMessage(const ScalarTotals& totals);
ScalarTotals FromMessage(const v1::ScalarTotals& message);

// "'w1' float32[784, 256] trainable, decayed, uniform(0.05)": for sentences about mismatches.
std::string Describe(const TensorSpec& spec);

}  // namespace descent

#endif  // DESCENT_COMMON_CONTROL_MESSAGES_H_
