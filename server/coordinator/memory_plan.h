// What servers will take of their memory at most, and whether they have it. Pure functions.
#ifndef DESCENT_SERVER_COORDINATOR_MEMORY_PLAN_H_
#define DESCENT_SERVER_COORDINATOR_MEMORY_PLAN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/job.pb.h"
#include "server/coordinator/member_table.h"

namespace descent {

// What a server will take at most.
struct MemoryPlan {
  uint64_t bytes = 0;
  std::string parts;  // "parameters 4.0 GiB, state 8.0 GiB, ...": for people
};

// Of dense tensors alone: two versions, the optimizer's state, and a held contribution for every second rank (under
// PUSH, one).
MemoryPlan EstimateMemory(const v1::JobSpec& job, bool apply_push, const Geometry& geometry, ServerId server,
                          const std::vector<TensorSpec>& specs, const PartitionMap& map);

struct MemoryFit {
  std::string line;                  // of the server that needs most: for people
  std::vector<std::string> refused;  // who has too little, a sentence each
};
// `needs`: of one server. With replicas a process also holds a copy of the server before its own.
MemoryFit FitMemory(const MemberTable& members, uint32_t servers, bool replicated,
                    const std::function<MemoryPlan(ServerId)>& needs);

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_MEMORY_PLAN_H_
