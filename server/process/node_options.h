// From the job to what a server's store and node are made with.
#ifndef DESCENT_SERVER_PROCESS_NODE_OPTIONS_H_
#define DESCENT_SERVER_PROCESS_NODE_OPTIONS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/job/shared_rate_changes.h"
#include "descent/v1/job.pb.h"
#include "server/node/server_node.h"

namespace descent {

// All that the job decides, and its clocks per epoch (which only rates may depend on); tensors, map and self are the
// caller's. INVALID_ARGUMENT: the update rule.
//
// Under PUSH a block's step is counted in pushes, of which each rank makes one a round: as many as there are ranks have
// the rate of one round of the schedule.
// `changes`, unless null: what is decided of the rate on the way.
absl::StatusOr<StoreOptions> StoreOptionsOf(const v1::JobSpec& job, uint64_t clocks_per_epoch,
                                            std::shared_ptr<const SharedRateChanges> changes = nullptr);
// The same for a node around such a store; the envelope is the caller's.
absl::StatusOr<ServerNodeOptions> NodeOptionsOf(const v1::JobSpec& job, uint64_t clocks_per_epoch,
                                                std::shared_ptr<const SharedRateChanges> changes = nullptr);

// How many pushes of a job of so many clocks are recorded in order: none, or all. For StoreOptions.
uint64_t RecordedPushes(const v1::JobSpec& job, uint64_t clocks);

// Which vector of a dense block's image is the model: 0, its parameters, or the last of its state, their averages.
uint32_t VectorOfModel(const v1::JobSpec& job, const TensorSpec& spec, uint32_t state_slots);

// "parameters 1.8 MiB, optimizer state ...": for people.
std::string BudgetText(const StoreBudget& budget);

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_NODE_OPTIONS_H_
