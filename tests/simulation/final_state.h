// What the servers hold when all is over.
#ifndef DESCENT_TESTS_SIMULATION_FINAL_STATE_H_
#define DESCENT_TESTS_SIMULATION_FINAL_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/tensor/partition_map.h"
#include "server/node/server_node.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/scenario.h"

namespace descent::simulation {

// Every mark at the job's end, every push exactly once. "" or what is wrong. *hash: of all parameters, in the order of
// ReferenceHash.
std::string CheckServers(const Job& job, const PartitionMap& map, const Ledger& ledger,
                         const std::vector<ServerNode*>& servers, uint64_t* hash);

// Each contribution that the block's marks (ROUND: its version) say is in, is in it exactly once, as far as the tensors
// that count can show; with backup ranks, of each rank `least` of them. "" or what is wrong.
std::string CheckBlock(const Job& job, const Ledger& ledger, BlockId id, const std::vector<uint64_t>& least,
                       ServerNode& node);

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_FINAL_STATE_H_
