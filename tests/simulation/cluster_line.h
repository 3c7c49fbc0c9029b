// A connection of a worker to a server in the simulated cluster. Both ends hold it; it ends for both, though not at the
// same moment.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_LINE_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_LINE_H_

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/base/ids.h"
#include "common/wire/payload.h"
#include "tests/simulation/virtual_network.h"

namespace descent::simulation {

class ClusterSeat;

struct ClusterLine {
  uint64_t id = 0;
  ProcessId worker = 0, server = 0;
  uint64_t worker_life = 0;
  uint32_t server_id = 0;
  std::weak_ptr<ClusterSeat> seat;          // that it leads to
  bool at_server = true, at_worker = true;  // open, for this end
  // Of pushes delivered to the server, who truly held the rank then; never iterated.
  absl::flat_hash_map<uint64_t, Incarnation> pushes;
  absl::flat_hash_set<uint64_t> to_be_fenced;
};

// The bytes as they come out of a network: nobody else's.
inline Payload Copied(const Payload& from) {
  Payload to;
  if (from.empty()) return to;
  std::shared_ptr<std::byte[]> bytes(new std::byte[from.size()]);
  from.CopyTo(bytes.get());
  to.Append(bytes.get(), from.size(), bytes);
  return to;
}

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_LINE_H_
