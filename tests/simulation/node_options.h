// How a job and a schedule set up one server.
#ifndef DESCENT_TESTS_SIMULATION_NODE_OPTIONS_H_
#define DESCENT_TESTS_SIMULATION_NODE_OPTIONS_H_

#include "common/tensor/partition_map.h"
#include "common/wire/frame.h"
#include "server/node/server_node.h"
#include "tests/simulation/scenario.h"

namespace descent::simulation {

ServerNodeOptions MakeNodeOptions(const Job& job, const Schedule& schedule, const PartitionMap& map,
                                  const Envelope& envelope, ServerId self);

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_NODE_OPTIONS_H_
